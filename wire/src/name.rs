//! File names, parsed once.

use serde::{Deserialize, Serialize};

use crate::errno::Errno;
use crate::limits::NAME_BYTES_MAX;

/// Name of a directory entry: 1 to 255 bytes, any but `/` and NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "serde_bytes::ByteBuf", into = "serde_bytes::ByteBuf")]
pub struct Name(Box<[u8]>);

impl Name {
    /// Parses a name as the kernel hands it over, without the NUL.
    ///
    /// # Errors
    /// `ENAMETOOLONG` past 255 bytes; `EINVAL` for an empty name, `.`, `..`, `/` or NUL.
    pub fn new(bytes: &[u8]) -> Result<Self, Errno> {
        if bytes.len() > NAME_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(|b| matches!(b, 0 | b'/'))
        {
            return Err(Errno::EINVAL);
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl TryFrom<serde_bytes::ByteBuf> for Name {
    type Error = Errno;
    fn try_from(bytes: serde_bytes::ByteBuf) -> Result<Self, Errno> {
        Self::new(&bytes)
    }
}

impl From<Name> for serde_bytes::ByteBuf {
    fn from(name: Name) -> Self {
        Self::from(name.0.into_vec())
    }
}
