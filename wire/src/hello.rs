//! The connection setup path: what is said before a session stands (design: authentication happens here and nowhere else).

use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use crate::attr::Attr;
use crate::id::{Commit, Epoch, SessionId};
use crate::seal::Node;
use crate::settings::{Flags, VolumeSettings};

/// HMAC-SHA-256 by the resume key over `"flexfs attach" ‖ session id (u64 LE) ‖ TLS exporter (32 bytes)`.
pub type Proof = [u8; 32];

/// Label of the TLS exporter (RFC 8446 7.5) that binds a proof to its link; no context.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-flexfs-attach";

/// The proof that a link's client has the resume key of `session`. `exporter`: `record::Secured::exporter`.
#[must_use]
pub fn prove(resume_key: &[u8; 32], session: SessionId, exporter: &[u8; 32]) -> Proof {
    let mut message = b"flexfs attach".to_vec();
    message.extend_from_slice(&session.0.to_le_bytes());
    message.extend_from_slice(exporter);
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, resume_key);
    let tag = aws_lc_rs::hmac::sign(&key, &message);
    message.zeroize();
    *tag.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

/// First frame of a link, client to server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hello {
    /// A new session.
    Open(Open),
    /// One more link of a running session, or the same after it broke. Needs no admin.
    Attach {
        /// Versions the client speaks.
        versions: (u16, u16),
        /// The session.
        session: SessionId,
        /// Shows that the client has the resume key.
        proof: Proof,
    },
    /// As `Attach`, to a server that answered `MustRecover`: the client will replay.
    Resume {
        /// Versions the client speaks.
        versions: (u16, u16),
        /// The session.
        session: SessionId,
        /// Shows that the client has the resume key.
        proof: Proof,
    },
}

/// Asks for a session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Oldest and newest protocol version the client speaks.
    pub versions: (u16, u16),
    /// The volume token's text. Never logged; `Debug` hides it.
    pub token: String,
    /// Name of the volume the client means, so that a mixed-up credentials file is noticed.
    pub volume: String,
    /// Host name and mount point, for the operator's eyes.
    pub client: String,
    /// Flags of the command line; the strictest of volume, token and these holds.
    pub flags: Flags,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(open) => open.fmt(f),
            Self::Attach { session, .. } => {
                f.debug_struct("Attach").field("session", session).finish_non_exhaustive()
            }
            Self::Resume { session, .. } => {
                f.debug_struct("Resume").field("session", session).finish_non_exhaustive()
            }
        }
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open")
            .field("versions", &self.versions)
            .field("volume", &self.volume)
            .field("client", &self.client)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

/// First frame of a link, server to client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// A new session stands.
    Granted(Box<Granted>),
    /// The link belongs to the running session.
    Attached {
        /// Epoch of the server: another one than before means it restarted in between.
        epoch: Epoch,
        /// Commits up to here are durable.
        durable: Commit,
    },
    /// The server restarted; it waits for this session's replay, then for `Recovery`. Answer to `Resume`.
    Recovering {
        /// The server's new epoch.
        epoch: Epoch,
        /// Commits up to here survived; the client replays the rest.
        durable: Commit,
    },
    /// No.
    Refused(Refused),
}

/// A session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Protocol version of this session.
    pub version: u16,
    /// Its number.
    pub session: SessionId,
    /// Secret for `Attach` and `Resume`.
    pub resume_key: [u8; 32],
    /// The server's epoch.
    pub epoch: Epoch,
    /// Root of the scope.
    pub root: Node,
    /// Its attributes.
    pub attr: Attr,
    /// The volume.
    pub settings: VolumeSettings,
    /// Flags in force.
    pub flags: Flags,
    /// Life without a heartbeat, milliseconds.
    pub lease_ms: u64,
    /// Commits up to here are durable.
    pub durable: Commit,
}

impl std::fmt::Debug for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Granted")
            .field("session", &self.session)
            .field("epoch", &self.epoch)
            .field("root", &self.root.ino)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

/// A refusal with its cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Class of the cause.
    pub reason: Reason,
    /// What to tell the person, and what he can do.
    pub text: String,
}

/// Why a link was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// No common protocol version.
    Version,
    /// Not a token, or damaged.
    TokenMalformed,
    /// A token of another kind.
    TokenKind,
    /// Unknown at admin: wrong, revoked, or of another cluster.
    TokenUnknown,
    /// Expired.
    TokenExpired,
    /// The token opens another volume.
    Volume,
    /// The scope directory is missing or no directory.
    Scope,
    /// Admin cannot be reached; new sessions wait for it.
    AdminUnreachable,
    /// `Attach` or `Resume`: no such session, or a wrong proof. Open a new one.
    SessionUnknown,
    /// `Attach` after a restart of the server: come with `Resume`.
    MustRecover,
    /// Too much at once; come back later.
    Busy,
    /// The server has a fault of its own.
    Server,
    /// Not a hello.
    Protocol,
    /// The token is not for the network that the link comes from.
    Network,
}
