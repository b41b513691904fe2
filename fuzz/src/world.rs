//! The metadata server's machine over the memory engine, the model beside it, and the mounts between them.
//!
//! A run is a row of steps made from bytes. Each answer is compared when it comes, everything at the end, and the
//! database is verified.

mod call;
mod compare;
mod crash;
mod locking;
mod names;
mod step;
mod writing;

use flexfs_meta::engine::memory::Memory;
use flexfs_meta::namespace::{Bounds, Context, Limits, Namespace, Wakeup};
use flexfs_meta::verify::verify;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, Ino, Range, SessionId};
use flexfs_wire::message::{Answer, Request};
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use crate::model::Model;
use crate::source::Source;

/// Low bounds, so that short runs reach the ways of large files.
const BOUNDS: Bounds = Bounds {
    cleared_at_once: 3,
    dead_ranges: 2,
    erased_at_once: 2,
    layout_extents: 4,
    copied_extents: 3,
    // The model knows no time.
    lingering: 0,
    idle_bytes: 1 << 20,
    cached: 4,
};
/// Raw bytes of every block.
const BLOCK_BYTES: u32 = 1 << 16;
/// Most steps of a run; longer inputs say nothing new.
const STEPS_MAX: usize = 400;

/// A session and what its mount remembers.
#[derive(Debug)]
struct Mount {
    session: SessionId,
    inos: Range,
    blocks: Range,
    request: u64,
    mark: u64,
}

/// A call that was answered with a commit, for a replay.
struct Kept {
    context: Context,
    request: Request,
    answer: Answer,
}

/// See the module.
pub struct World {
    machine: Option<Namespace<Memory>>,
    model: Model,
    mounts: Vec<Mount>,
    /// In the order of their commits; what is durable is dropped.
    kept: Vec<Kept>,
    /// Lock requests without an answer yet.
    waits: Vec<(Context, Request)>,
    limits: Limits,
    now: Time,
    /// Bytes of files by number and data version: one version never stands for two contents.
    versions: std::collections::BTreeMap<(u64, u64), Vec<u8>>,
    /// Blocks that came with their writes.
    carried: std::collections::BTreeSet<BlockId>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("model", &self.model)
            .field("mounts", &self.mounts)
            .finish_non_exhaustive()
    }
}

/// Runs the steps that bytes stand for. The first two choose the bounds of the volume.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let inodes_max = [0, 12, 6, 0][source.below(4)];
    let blocks_max = [0, 1, 2, 0][source.below(4)];
    let mut world = World::new(Limits::new(BLOCK_BYTES, blocks_max, inodes_max));
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
    }
    world.check();
    world.crash(0);
    world.check();
}

impl World {
    fn new(limits: Limits) -> Self {
        let now = Time { secs: 1_000, nanos: 0 };
        let mut machine = Namespace::open(Memory::lazy(), limits, now).expect("an empty store");
        machine.set_bounds(BOUNDS);
        machine.finish_recovery(now).expect("nothing to recover");
        let mut world = Self {
            machine: Some(machine),
            model: Model::new(now, limits.inodes_max),
            mounts: Vec::new(),
            kept: Vec::new(),
            waits: Vec::new(),
            limits,
            now,
            versions: std::collections::BTreeMap::new(),
            carried: std::collections::BTreeSet::new(),
        };
        world.join();
        world.join();
        world
    }

    fn machine(&mut self) -> &mut Namespace<Memory> {
        self.machine.as_mut().expect("taken out only while it crashes")
    }

    /// One more mount. Its numbers are durable when it gets them.
    fn join(&mut self) {
        let machine = self.machine();
        let (session, _) =
            machine.open_session(|session| session.0.to_le_bytes().to_vec()).expect("a session");
        let (inos, _) = machine.grant_inodes(session, 4_096).expect("numbers");
        let (blocks, _) = machine.grant_blocks(session, 4_096).expect("numbers");
        machine.store_mut().sync(usize::MAX);
        self.forget_durable();
        self.mounts.push(Mount { session, inos, blocks, request: 0, mark: 0 });
    }

    /// A mount goes away, with what it has open and locked.
    fn leave(&mut self, index: usize) {
        // What it did and nobody will replay must not be lost, or the model would not know.
        self.machine().store_mut().sync(usize::MAX);
        self.forget_durable();
        let gone = self.mounts.remove(index);
        self.waits.retain(|(context, _)| context.session != gone.session);
        self.model.end(gone.session.0);
        let now = self.tick();
        let wakeups = self.machine().end_session(now, gone.session).expect("the engine works");
        self.take_wakeups(&wakeups);
        self.model.locks.check();
        self.machine().store_mut().sync(usize::MAX);
    }

    fn tick(&mut self) -> Time {
        self.now.secs += 1;
        self.model.now = self.now;
        self.now
    }

    fn take_wakeups(&mut self, wakeups: &[Wakeup]) {
        for wakeup in wakeups {
            let key = (wakeup.session.0, wakeup.request.0);
            let claim = self.model.locks.waiting.remove(&key).expect("only who waits is woken");
            self.waits.retain(|(context, _)| (context.session.0, context.request.0) != key);
            assert!(wakeup.answer.result.is_ok(), "{wakeup:?}");
            self.model.locks.lay(&claim);
        }
    }

    fn forget_durable(&mut self) {
        let durable = self.machine().durable().current();
        self.kept.retain(|kept| kept.answer.commit > durable);
    }

    /// Does all background work, compares everything and verifies the database.
    fn check(&mut self) {
        let now = self.now;
        while self.machine().background(now, 7).expect("the engine works") {}
        self.compare();
        let report = verify(self.machine().store()).expect("the engine works");
        assert!(report.is_clean(), "{report}");
    }

    /// A commit that fails changes nothing.
    fn fail_once(&mut self, errno: Errno) {
        self.machine().store_mut().fail_after(0, errno);
    }
}

fn node(ino: u64) -> Node {
    Node::unsealed(Ino(ino))
}
