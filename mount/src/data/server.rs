//! What file data needs of the server: `link::Remote`, or a few maps in tests.

use std::future::Future;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, Commit};
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Caller, Reply, Request};
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use crate::cancel::Cancel;
use crate::lease::Recalls;
use crate::store::{Piece, Place};

/// A session with the server. A server that is away makes calls wait; what they answer is final.
pub trait Server: Send + Sync + 'static {
    /// A change on its way of which a program was told already. It has arrived, or is lost, when this is dropped.
    type Change: 'static;

    /// A change of the inode is about to be made here, which the server hears of later. `None`: it must be asked first. With
    /// the server's time, as far as it is known here.
    fn begin_told(&self, _node: Node) -> Option<(Self::Change, Time)> {
        None
    }

    /// Sends it when its turn has come; its program was told at `told`.
    fn call_told(
        &self,
        _change: &Self::Change,
        _caller: Caller,
        _request: Request,
        _told: Time,
    ) -> impl Future<Output = Result<Reply, Errno>> {
        std::future::ready(Err(Errno::EPROTO))
    }

    /// The server's time, as far as it is known here.
    fn server_now(&self) -> Option<Time> {
        None
    }

    /// Makes a call. `EINTR` when `cancel` is raised; whether the server acts on it is then unknown.
    fn call(
        &self,
        caller: Caller,
        request: Request,
        cancel: Option<&Cancel>,
    ) -> impl Future<Output = Result<Reply, Errno>>;

    /// As `call`, and what the answer grants.
    fn call_leased(
        &self,
        caller: Caller,
        request: Request,
        cancel: Option<&Cancel>,
    ) -> impl Future<Output = (Result<Reply, Errno>, Leases)>;

    /// As `call`, but not behind changes of the inode that are on their way: by who sends them.
    fn call_past(
        &self,
        caller: Caller,
        request: Request,
        cancel: Option<&Cancel>,
    ) -> impl Future<Output = Result<Reply, Errno>> {
        self.call(caller, request, cancel)
    }

    /// What was recalled lately.
    fn recalls(&self) -> &Recalls;

    /// Whether calls can be made at all: a write that could never be stored is refused at once.
    fn check(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// Makes a call whose answer nobody waits for; sent behind the calls made before.
    fn call_later(&self, caller: Caller, request: Request);

    /// A number for a new block, granted to this session.
    fn next_block(&self) -> impl Future<Output = Result<BlockId, Errno>>;

    /// Stores an encoded block. `ESTALE`: the number belonged to a session that was lost.
    fn put_block(&self, block: BlockId, encoded: Vec<u8>) -> impl Future<Output = Result<(), Errno>>;

    /// Reads, checks and opens segments `first ..` of a block, one for each place. `ENOENT`: collected. `EIO`: damaged,
    /// with a log line that names the block; the places may then hold anything.
    fn read_block(
        &self,
        node: Node,
        block: BlockId,
        first: u32,
        places: &mut [Place<'_>],
        cancel: Option<&Cancel>,
    ) -> impl Future<Output = Result<(), Errno>>;

    /// Whether pages of a segment can come without the rest of it, which costs less when nobody wants the rest.
    fn gives_pages(&self) -> bool {
        false
    }

    /// Reads and verifies a piece of a segment: `true`. When it cannot come alone its segment is whole in [`Piece::whole`] behind it, and
    /// `out` may hold anything: `false`. Errors as of [`Server::read_block`].
    fn read_pages(
        &self,
        node: Node,
        piece: Piece<'_>,
        cancel: Option<&Cancel>,
    ) -> impl Future<Output = Result<bool, Errno>> {
        async move {
            let mut places = [Place::Buffer(piece.whole)];
            self.read_block(node, piece.block, piece.segment, &mut places, cancel).await.map(|()| false)
        }
    }

    /// The highest commit this session was answered.
    fn last_commit(&self) -> Commit;

    /// How often the session was lost and opened anew.
    fn generation(&self) -> u64;

    /// Whether a commit answered in that generation may be gone: the server died and did not know the session when
    /// it was back.
    fn is_lost(&self, commit: Commit, generation: u64) -> bool;

    /// Waits until `commit` is durable.
    fn sync_to(&self, commit: Commit, cancel: Option<&Cancel>) -> impl Future<Output = Result<(), Errno>>;
}
