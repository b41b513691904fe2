//! Why a link ended, and why one could not be made.

use flexfs_wire::frame::FrameError;
use flexfs_wire::hello::{Reason, Refused};
use flexfs_wire::record::RecordError;

/// Why a link is of no use any more. All of them lead to a new link; the text is for the log.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The stream ended.
    #[error("the server closed the connection")]
    Closed,
    /// The socket broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Bytes that are no records, or not from the server.
    #[error("{0}")]
    Record(#[from] RecordError),
    /// Records that hold no frames.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// A frame that has no place here.
    #[error("the server sent something unexpected: {0}")]
    Unexpected(&'static str),
    /// No answer for too long.
    #[error("no answer from the server for {0} ms")]
    Silent(u64),
    /// The server said no.
    #[error("{}", .0.text)]
    Refused(Refused),
    /// This side gave it up: another link found the server restarted, its keys are used up, or the mount ends.
    #[error("{0}")]
    Dropped(&'static str),
}

impl LinkError {
    /// Whether a new attempt cannot end any other way, so that the session is over.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(refused) => match refused.reason {
                Reason::Version
                | Reason::TokenMalformed
                | Reason::TokenKind
                | Reason::TokenUnknown
                | Reason::TokenExpired
                | Reason::Volume
                | Reason::Scope
                | Reason::Network => true,
                Reason::AdminUnreachable
                | Reason::SessionUnknown
                | Reason::MustRecover
                | Reason::Busy
                | Reason::Server
                | Reason::Protocol => false,
            },
            _ => false,
        }
    }
}
