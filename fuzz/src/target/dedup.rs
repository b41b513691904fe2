//! Calls that are done once (`meta::dedup`, through the machine): resends, marks, crashes and replays in any order,
//! against a small model. The calls toggle and count, so that one done twice or not at all shows.

use std::collections::BTreeMap;

use flexfs_meta::engine::memory::Memory;
use flexfs_meta::namespace::{Context, Limits, Namespace, Rights};
use flexfs_meta::verify::verify;
use flexfs_wire::attr::S_IFREG;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Ino, RequestId, SessionId};
use flexfs_wire::message::{Answer, Caller, Make, RENAME_EXCHANGE, Reply, Request};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use crate::source::Source;

/// A call as its mount remembers it.
#[derive(Clone)]
struct Call {
    context: Context,
    request: Request,
    /// None while the answer was lost on the way: the mount does not know whether it was done.
    answer: Option<Answer>,
}

#[derive(Default)]
struct Mount {
    calls: BTreeMap<u64, Call>,
    next: u64,
    mark: u64,
    opens: u32,
}

struct World {
    machine: Option<Namespace<Memory>>,
    mounts: BTreeMap<SessionId, Mount>,
    /// Whether the names are exchanged.
    is_toggled: bool,
    file: Ino,
    now: i64,
}

/// Steps of up to three sessions.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let mut world = World::new();
    for _ in 0..200 {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
        world.check();
    }
    world.crash(0);
    world.check();
    let machine = world.machine();
    while machine.background(Time::default(), 5).expect("the engine works") {}
    let report = verify(machine.store()).expect("the engine works");
    assert!(report.is_clean(), "{report}");
}

impl World {
    fn new() -> Self {
        let (now, limits) = (Time::default(), Limits::new(1 << 20, 0, 0));
        let mut machine = Namespace::open(Memory::lazy(), limits, now).expect("an empty store");
        machine.finish_recovery(now).expect("nothing to recover");
        let mut mounts = BTreeMap::new();
        for _ in 0..3 {
            let (session, _) = machine.open_session(|_| Vec::new()).expect("a session");
            mounts.insert(session, Mount { next: 1, ..Mount::default() });
        }
        let session = *mounts.keys().next().expect("three");
        let (inos, _) = machine.grant_inodes(session, 4).expect("numbers");
        let mut world =
            Self { machine: Some(machine), mounts, is_toggled: false, file: Ino(inos.start), now: 0 };
        for (index, text) in [(0, "a"), (1, "b")] {
            let make = Make {
                ino: Ino(inos.start + index),
                mode: S_IFREG | 0o644,
                umask: 0,
                rdev: 0,
                target: Vec::new(),
                open: false,
            };
            let request = Request::Make { parent: Node::unsealed(Ino::ROOT), name: Some(name(text)), make };
            world.call(session, request);
        }
        world.machine().store_mut().sync(usize::MAX);
        world
    }

    fn machine(&mut self) -> &mut Namespace<Memory> {
        self.machine.as_mut().expect("it runs")
    }

    fn step(&mut self, source: &mut Source<'_>) {
        let session = *self.mounts.keys().nth(source.below(self.mounts.len())).expect("three");
        match source.below(16) {
            0..=4 => {
                let (parent, new_parent) = (Node::unsealed(Ino::ROOT), Node::unsealed(Ino::ROOT));
                let flags = RENAME_EXCHANGE;
                let request =
                    Request::Rename { parent, name: name("a"), new_parent, new_name: name("b"), flags };
                self.call(session, request);
                self.is_toggled ^= true;
            }
            5 | 6 => {
                let node = Node::unsealed(self.file);
                self.call(
                    session,
                    Request::Open { node, write: false, truncate: false, kill_privileges: false },
                );
                self.mount(session).opens += 1;
            }
            7 => {
                let count = self.mount(session).opens.min(1);
                if count == 1 {
                    let node = Node::unsealed(self.file);
                    self.call(session, Request::Close { node, count });
                    self.mount(session).opens -= 1;
                }
            }
            8..=11 => self.resend(session, source),
            12 => {
                let mount = self.mount(session);
                let most = mount.next;
                mount.mark = mount.mark.max(most.saturating_sub(source.below(6) as u64));
                let mark = mount.mark;
                mount
                    .calls
                    .retain(|id, call| *id >= mark || call.answer.as_ref().is_some_and(|a| a.commit.0 > 0));
                self.machine().finished(session, RequestId(mark));
            }
            13 | 14 => {
                let count = source.below(20);
                self.machine().store_mut().sync(count);
            }
            _ => {
                let survive = source.below(20);
                self.crash(survive);
            }
        }
    }

    fn mount(&mut self, session: SessionId) -> &mut Mount {
        self.mounts.get_mut(&session).expect("it is there")
    }

    fn call(&mut self, session: SessionId, request: Request) {
        self.now += 1;
        let now = Time { secs: self.now, nanos: 0 };
        let mount = self.mount(session);
        let id = mount.next;
        mount.next += 1;
        let caller = Caller { uid: 0, gid: 0 };
        let context = Context {
            now,
            told: None,
            session,
            request: RequestId(id),
            caller,
            rights: Rights::Client,
            umask: 0,
        };
        let answer = self.machine().apply(&context, &request).answer.expect("no waits");
        assert!(answer.result.is_ok(), "{request:?}: {answer:?}");
        self.mount(session).calls.insert(id, Call { context, request, answer: Some(answer) });
    }

    /// A call once more, later than it was: by the mount's clock it is the same call.
    fn resend(&mut self, session: SessionId, source: &mut Source<'_>) {
        let mount = self.mount(session);
        let Some((id, call)) = mount.calls.iter().nth(source.below(mount.calls.len())) else { return };
        let (id, mut call, mark) = (*id, call.clone(), mount.mark);
        call.context.now.secs += i64::from(source.byte());
        let again = self.machine().apply(&call.context, &call.request).answer.expect("no waits");
        if id < mark {
            assert_eq!(again.result, Err(Errno::ECANCELED), "{:?} is done with", call.request);
        } else {
            assert_eq!(Some(again), call.answer, "{:?} again", call.request);
        }
    }

    /// A crash; every mount replays what it has and the server lost, in the order of commits, some twice.
    fn crash(&mut self, survive: usize) {
        let limits = Limits::new(1 << 20, 0, 0);
        let store = self.machine.take().expect("it runs").into_store().crash(survive);
        let mut machine =
            Namespace::open(store, limits, Time::default()).expect("what was durable can be read");
        let survived = machine.survived();
        let answered = |call: &&Call| call.answer.as_ref().is_some_and(|answer| answer.commit > survived);
        let calls = self.mounts.values().flat_map(|mount| mount.calls.values());
        let mut lost: Vec<Call> = calls.filter(answered).cloned().collect();
        lost.sort_by_key(|call| call.answer.as_ref().map(|answer| answer.commit));
        for (index, call) in lost.iter().enumerate() {
            for _ in 0..=index % 2 {
                let again = machine.apply_replay(&call.context, &call.request).answer.expect("no waits");
                let first = call.answer.as_ref().expect("it was answered");
                assert_eq!(
                    (&again.result, again.at),
                    (&first.result, first.at),
                    "{:?} replayed",
                    call.request
                );
            }
        }
        for (session, mount) in &self.mounts {
            machine.declare(*session, &[(self.file, mount.opens)], &[]);
        }
        machine.finish_recovery(Time::default()).expect("the engine works");
        machine.store_mut().sync(usize::MAX);
        self.machine = Some(machine);
        // What was durable has now other commits; what was not a mutation was forgotten with the server's memory.
        for (session, mount) in &mut self.mounts {
            mount.calls.clear();
            let mark = mount.mark.max(mount.next);
            mount.mark = mark;
            if let Some(machine) = &mut self.machine {
                machine.finished(*session, RequestId(mark));
            }
        }
    }

    fn check(&mut self) {
        let wanted = Ino(self.file.0 + u64::from(self.is_toggled));
        let now = Time { secs: self.now, nanos: 0 };
        let session = *self.mounts.keys().next().expect("three");
        let caller = Caller { uid: 0, gid: 0 };
        let context = Context {
            now,
            told: None,
            session,
            request: RequestId(u64::MAX),
            caller,
            rights: Rights::Client,
            umask: 0,
        };
        let request = Request::Lookup { parent: Node::unsealed(Ino::ROOT), name: name("a") };
        let answer = self.machine().apply(&context, &request).answer.expect("no waits");
        let Ok(Reply::Entry(entry)) = answer.result else { panic!("{answer:?}") };
        assert_eq!(entry.node.ino, wanted, "an exchange was done twice, or not at all");
        let opens: u32 = self.mounts.values().map(|mount| mount.opens).sum();
        assert_eq!(self.machine().figures().opens, u64::from(opens), "opens");
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a name")
}
