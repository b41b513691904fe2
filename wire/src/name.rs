//! File names, parsed once.

use serde::{Deserialize, Serialize};

use crate::errno::Errno;
use crate::limits::{NAME_BYTES_MAX, NAME_SEALED_BYTES_MAX};

/// Name of a directory entry: any bytes but `/` and NUL, neither `.` nor `..`. One that a program gives has 1 to 255 bytes;
/// what travels may be longer, for names of encrypted volumes are ([`Name::is_sealed`]), and the server asks for either.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "serde_bytes::ByteBuf", into = "serde_bytes::ByteBuf")]
pub struct Name(Box<[u8]>);

impl Name {
    /// Parses a name as the kernel hands it over, without the NUL.
    ///
    /// # Errors
    /// `ENAMETOOLONG` past 255 bytes; `EINVAL` for an empty name, `.`, `..`, `/` or NUL.
    pub fn new(bytes: &[u8]) -> Result<Self, Errno> {
        Self::parse(bytes, NAME_BYTES_MAX)
    }

    /// Parses a name as it travels: that of an encrypted volume may have up to 362 bytes.
    ///
    /// # Errors
    /// `ENAMETOOLONG` past that; else as [`Name::new`].
    pub fn sealed(bytes: &[u8]) -> Result<Self, Errno> {
        Self::parse(bytes, NAME_SEALED_BYTES_MAX)
    }

    fn parse(bytes: &[u8], bytes_max: usize) -> Result<Self, Errno> {
        if bytes.len() > bytes_max {
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

    /// Whether it can be an encrypted one: base64url of a tag and at least one byte. No proof, for the server has no key; it
    /// keeps a client that would send plain names to an encrypted volume from doing so.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        const FEWEST: usize = 23;
        self.0.len() >= FEWEST
            && self.0.len() % 4 != 1
            && self.0.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
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
        Self::sealed(&bytes)
    }
}

impl From<Name> for serde_bytes::ByteBuf {
    fn from(name: Name) -> Self {
        Self::from(name.0.into_vec())
    }
}
