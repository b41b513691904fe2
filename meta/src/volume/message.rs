//! What cores and volume threads say to each other. Both directions travel in batches: one send, one wake.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::Sender;
use flexfs_wire::errno::Errno;
use flexfs_wire::hello::{Granted, Refused};
use flexfs_wire::id::{BlockId, Commit, Epoch, Ino, RequestId, SessionId};
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Answer, Call, Lock, Notice, Replay};
use flexfs_wire::settings::{TokenLimits, VolumeSettings};
use tokio::sync::oneshot;

use super::shared::Shared;
use crate::guard::Permit;
use crate::namespace::Rights;
use crate::session::handshake::Admitted;

/// A link: the core it lives on and its place there. The generation tells a link from a later one at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LinkKey {
    /// Index of the core.
    pub(crate) core: u32,
    /// Place in the core's table.
    pub(crate) slot: u32,
    /// Raised with every link of the core.
    pub(crate) generation: u64,
}

/// Travels with a request and back, for the figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// When it was dispatched.
    pub(crate) started: Instant,
    /// `metrics::kind_of`.
    pub(crate) kind: u8,
    /// Bytes it may take while it is on its way: its body and the longest answer there can be. Given back with the answer.
    pub(crate) cost: u32,
}

/// One request on its way to the volume thread; nodes checked, caller mapped.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) from: LinkKey,
    pub(crate) session: SessionId,
    pub(crate) request: RequestId,
    /// Requests below this are finished at the client.
    pub(crate) finished: RequestId,
    pub(crate) stamp: Stamp,
    /// Whose word it is that the caller may do this.
    pub(crate) rights: Rights,
    /// Mode bits taken off everything made.
    pub(crate) umask: u16,
    pub(crate) call: Call,
}

/// To a volume thread.
#[derive(Debug)]
pub(crate) enum ToVolume {
    /// Requests of one link, in order.
    Jobs(Vec<Job>),
    /// Make a session.
    Open(Box<OpenSession>),
    /// A link proved that it belongs to a session.
    Claim(Claim),
    /// A link is gone.
    LinkGone { session: SessionId, link: LinkKey },
    /// A call the server may have forgotten.
    Replay {
        session: SessionId,
        link: LinkKey,
        request: RequestId,
        rights: Rights,
        umask: u16,
        /// Bytes of its body.
        bytes: u32,
        replay: Box<Replay>,
    },
    /// The end of a session's replay.
    Recovery(Box<EndOfReplay>),
    /// More is durable than before, or the engine failed.
    Durable,
    /// May this session write that block, of so many bytes?
    PutRight {
        session: SessionId,
        block: BlockId,
        bytes: u64,
        answer: oneshot::Sender<Result<PutRight, Errno>>,
    },
    /// A block that was allowed is stored, or was not.
    PutDone { block: BlockId, stored: bool },
    /// May this session read that block through that inode, and where is it?
    ReadRight { session: SessionId, ino: Ino, block: BlockId, answer: oneshot::Sender<Result<Place, Errno>> },
    /// The bytes of a block that is a row, for who was told so.
    ReadRow { block: BlockId, answer: oneshot::Sender<Result<Option<Vec<u8>>, Errno>> },
    /// These tokens are valid; sessions of others end.
    Tokens(Arc<ValidTokens>),
    /// Limits of a token changed.
    Limits { token: String, limits: TokenLimits },
    /// A token ended.
    Revoked { token: String, cause: String },
    /// Settings changed.
    Settings(Box<VolumeSettings>),
    /// The volume was retired: all sessions end.
    Retired,
    /// Which blocks are garbage whose retention is over? At most so many.
    Garbage { count: usize, answer: Sender<Result<Vec<BlockId>, Errno>> },
    /// The files of these garbage blocks are gone.
    Collected(Vec<BlockId>),
    /// Which of these blocks can nobody refer to any more, though they have files?
    Strays { blocks: Vec<BlockId>, answer: Sender<Result<Vec<BlockId>, Errno>> },
    /// Say `Closing` on all links, end the engine in order, then drop the sender.
    Stop(Sender<()>),
}

/// Admin's list of tokens.
#[derive(Debug)]
pub(crate) struct ValidTokens {
    /// Ids, hex.
    pub(crate) ids: Vec<String>,
    /// Limits of those that have any.
    pub(crate) limits: BTreeMap<String, TokenLimits>,
}

/// A session has replayed all it had.
#[derive(Debug)]
pub(crate) struct EndOfReplay {
    pub(crate) session: SessionId,
    pub(crate) link: LinkKey,
    pub(crate) request: RequestId,
    pub(crate) stamp: Stamp,
    pub(crate) opens: Vec<(Ino, u32)>,
    pub(crate) locks: Vec<(Ino, Lock)>,
    pub(crate) exclusive: Vec<Ino>,
}

/// Where the outcome of an `Open` goes.
pub(crate) type OpenAnswer = oneshot::Sender<Opened>;
/// A session and what the client is told of it.
pub(crate) type Opened = Result<(Box<Granted>, Arc<Shared>), Refused>;

/// A session to make.
#[derive(Debug)]
pub(crate) struct OpenSession {
    pub(crate) admitted: Admitted,
    pub(crate) link: LinkKey,
    pub(crate) answer: OpenAnswer,
}

/// A link to add to a session.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) session: SessionId,
    pub(crate) link: LinkKey,
    pub(crate) resume: bool,
    pub(crate) answer: oneshot::Sender<Result<Claimed, Refused>>,
}

/// A link was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// To a running session.
    Attached { epoch: Epoch, durable: Commit },
    /// To one that is to replay.
    Recovering { epoch: Epoch, durable: Commit },
}

/// What to do with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutRight {
    /// Write it, and say so when it is done.
    Write,
    /// It is there.
    Stored,
}

/// Where a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a file.
    File,
    /// In a row of the engine, which begins with these bytes: header and index are in them.
    Row(Vec<u8>),
}

/// From a volume thread to a link.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) link: LinkKey,
    pub(crate) item: Item,
}

/// What a link is to send or do.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are answers; a box would be an allocation per request"
)]
#[derive(Debug)]
pub(crate) enum Item {
    /// The answer to a request.
    Answer { request: RequestId, stamp: Stamp, answer: Answer, leases: Leases },
    /// Something unasked.
    Notice(Notice),
    /// Close when everything before this was sent.
    Close,
}

/// To a core.
#[derive(Debug)]
pub(crate) enum ToCore {
    /// A connection to serve.
    Connection(std::net::TcpStream, std::net::SocketAddr, Permit),
    /// Things for links.
    Outs(Vec<Out>),
    /// Send what waits, then end.
    Stop,
}
