//! Block requests without an answer of the volume.

use flexfs_wire::errno::Errno;

/// Why a block request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// The client's to hear.
    Refused(Errno),
    /// The volume's thread has ended, in order or not: nobody can say. The client brings its request to the next server.
    VolumeEnded,
}

impl From<Errno> for Unserved {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}
