//! The machine, the model, and the sessions between them.

use flexfs_meta::engine::memory::Memory;
use flexfs_meta::namespace::{Bounds, Context, Limits, Namespace, Rights};
use flexfs_meta::verify::verify;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, Ino, Range, RequestId, SessionId};
use flexfs_wire::message::{Answer, Caller, Reply, Request};
use flexfs_wire::time::Time;

use crate::model::{Model, OWNER};

mod compare;
mod steps;

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
const BLOCK_BYTES: u32 = 1 << 20;

/// A session and what its client remembers.
struct Client {
    session: SessionId,
    inos: Range,
    blocks: Range,
    request: u64,
    mark: u64,
}

/// A call that was answered with a commit.
struct Kept {
    context: Context,
    request: Request,
    answer: Answer,
}

pub(crate) struct World {
    ns: Option<Namespace<Memory>>,
    model: Model,
    clients: Vec<Client>,
    /// Calls in the order of their commits; those that are durable are dropped.
    kept: Vec<Kept>,
    now: Time,
}

/// Runs steps and compares everything at the end.
pub(crate) fn check(steps: &[[u16; 7]]) {
    let mut world = World::new();
    for step in steps {
        world.step(step);
    }
    world.settle();
    world.compare();
    world.verify();
    world.crash(0);
    world.settle();
    world.compare();
    world.verify();
}

impl World {
    fn new() -> Self {
        let now = Time { secs: 1_000, nanos: 0 };
        let mut ns = Namespace::open(Memory::lazy(), limits(), now).unwrap();
        ns.set_bounds(BOUNDS);
        ns.finish_recovery(now).unwrap();
        let mut world =
            Self { ns: Some(ns), model: Model::new(now), clients: Vec::new(), kept: Vec::new(), now };
        world.join();
        world.join();
        world
    }

    fn ns(&mut self) -> &mut Namespace<Memory> {
        self.ns.as_mut().unwrap()
    }

    /// One more client. Its numbers are durable when it gets them.
    fn join(&mut self) {
        let ns = self.ns();
        let (session, _) = ns.open_session(|session| session.0.to_le_bytes().to_vec()).unwrap();
        let (inos, _) = ns.grant_inodes(session, 4_096).unwrap();
        let (blocks, _) = ns.grant_blocks(session, 4_096).unwrap();
        ns.store_mut().sync(usize::MAX);
        self.drop_durable();
        self.clients.push(Client { session, inos, blocks, request: 0, mark: 0 });
    }

    fn context(&mut self, client: usize) -> Context {
        self.now.secs += 1;
        self.model.now = self.now;
        let client = &mut self.clients[client];
        client.request += 1;
        Context {
            told: None,
            now: self.now,
            session: client.session,
            request: RequestId(client.request),
            caller: Caller { uid: OWNER.0, gid: OWNER.1 },
            rights: Rights::Client,
            umask: 0,
        }
    }

    /// Makes a call; what changed something is kept for a replay.
    fn call(&mut self, client: usize, request: Request) -> Result<Reply, Errno> {
        let context = self.context(client);
        self.call_as(context, request)
    }

    fn call_as(&mut self, context: Context, request: Request) -> Result<Reply, Errno> {
        let outcome = self.ns().apply(&context, &request);
        assert_eq!(outcome.wakeups, []);
        let answer = outcome.answer.expect("no call of this test waits");
        let result = answer.result.clone();
        assert_eq!(request.is_mutation() && result.is_ok(), answer.commit.0 > 0);
        if result.is_ok() && request.is_once() {
            if answer.commit.0 > 0 {
                self.kept.push(Kept { context, request: request.clone(), answer: answer.clone() });
            }
            // The same frame once more, as after a broken link.
            if context.request.0.is_multiple_of(3) {
                assert_eq!(self.ns().apply(&context, &request).answer, Some(answer), "{request:?}");
            }
        }
        result
    }

    /// Compares the outcome of a call with the model's.
    fn expect(
        &mut self,
        client: usize,
        request: Request,
        said: impl FnOnce(&mut Model) -> Result<(), Errno>,
    ) {
        let context = self.context(client);
        let expected = said(&mut self.model);
        let shown = format!("{request:?}");
        let got = self.call_as(context, request);
        assert_eq!(got.as_ref().map(|_| ()).map_err(|errno| *errno), expected, "{shown} -> {got:?}");
    }

    fn drop_durable(&mut self) {
        let durable = self.ns().durable().current();
        self.kept.retain(|kept| kept.answer.commit > durable);
    }

    /// The server dies with `kept` of its commits that were not durable, comes back, and is told what it lost.
    fn crash(&mut self, kept: usize) {
        let store = self.ns.take().unwrap().into_store().crash(kept);
        self.restart(store);
        let survived = self.ns().survived();
        let lost: Vec<Kept> = self.kept.drain(..).filter(|kept| kept.answer.commit > survived).collect();
        for (index, Kept { context, request, answer }) in lost.iter().enumerate() {
            let again = self.ns().apply_replay(context, request);
            let again = again.answer.expect("replays do not wait");
            assert_eq!((alike(&again.result), again.at), (alike(&answer.result), answer.at), "{request:?}");
            assert!(again.commit > answer.commit);
            // Another crash in the middle of it; the clients have only the old answers and begin again.
            if index % 7 == 6 {
                let store = self.ns.take().unwrap().into_store().crash(index % 5);
                self.restart(store);
                assert_eq!(self.ns().survived(), survived);
                for Kept { context, request, .. } in &lost[..=index] {
                    let again = self.ns().apply_replay(context, request).answer.unwrap();
                    assert!(again.result.is_ok(), "{request:?} -> {again:?}");
                }
            }
        }
        for client in 0..self.clients.len() {
            let session = self.clients[client].session;
            let opens: Vec<(Ino, u32)> = self
                .model
                .opens
                .iter()
                .filter(|((owner, _), _)| *owner == session.0)
                .map(|((_, ino), count)| (Ino(*ino), *count))
                .collect();
            assert_eq!(self.ns().declare(session, &opens, &[]), 0);
        }
        let now = self.now;
        self.ns().finish_recovery(now).unwrap();
        self.ns().store_mut().sync(usize::MAX);
    }

    fn restart(&mut self, store: Memory) {
        let mut ns = Namespace::open(store, limits(), self.now).unwrap();
        ns.set_bounds(BOUNDS);
        let sessions: Vec<SessionId> = ns.sessions().iter().map(|record| record.session).collect();
        for client in &self.clients {
            assert!(sessions.contains(&client.session), "sessions were durable when welcomed");
        }
        self.ns = Some(ns);
    }

    /// Does all background work.
    fn settle(&mut self) {
        let now = self.now;
        while self.ns().background(now, 7).unwrap() {}
    }

    fn verify(&mut self) {
        let report = verify(self.ns().store()).unwrap();
        assert!(report.is_clean(), "{report}");
    }
}

/// An outcome without what may differ in a replay: the space that the background has not freed yet.
fn alike(result: &Result<Reply, Errno>) -> Result<Reply, Errno> {
    let mut result = result.clone();
    match &mut result {
        Ok(Reply::Attr(attr) | Reply::Copied { attr, .. }) => attr.blocks = 0,
        Ok(Reply::Entry(entry)) => entry.attr.blocks = 0,
        Ok(Reply::Opened { attr, layout }) => {
            attr.blocks = 0;
            *layout = None;
        }
        _ => {}
    }
    result
}

fn limits() -> Limits {
    Limits::new(BLOCK_BYTES, 0, 0)
}

/// Bytes that a block holds: each block others, none of them zero.
fn block_bytes(block: BlockId, offset: u32, length: u32) -> Vec<u8> {
    let byte = |at: u32| u8::try_from((block.0 * 31 + u64::from(at) * 7) % 251 + 1).unwrap();
    (offset..offset + length).map(byte).collect()
}
