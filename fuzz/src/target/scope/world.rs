//! The volume's owner, its sessions, and what must hold of everything that is said to them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flexfs_meta::volume::stage::{Attached, Clocks, Sent, Stage};
use flexfs_uring::clock;
use flexfs_wire::attr::SetAttr;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Epoch, Ino, RequestId, SessionId};
use flexfs_wire::lease::Recall;
use flexfs_wire::message::{Answer, Call, Caller, Inline, Make, Notice, Reply, Request, Write};
use flexfs_wire::name::Name;
use flexfs_wire::seal::{Node, Sealer};
use flexfs_wire::time::Time;

use super::tree::Tree;
use crate::source::Source;

const SCOPES: [&str; 4] = ["/", "/a", "/a/b", "/c"];
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Inode numbers a session asks for at once.
const NUMBERS: u64 = 1_000;
/// Rounds after which a call that is not answered never will be.
const ROUNDS_MAX: usize = 20;

/// A session and what it was given.
struct Actor {
    session: SessionId,
    link: u32,
    root: Ino,
    sealer: Sealer,
    request: u64,
    /// Every handle it ever had.
    nodes: Vec<Node>,
    numbers: std::ops::Range<u64>,
    opens: BTreeMap<Ino, u32>,
    /// After a restart: what it has to say to others.
    wild: Option<Epoch>,
}

pub(super) struct World {
    stage: Option<Stage>,
    now: Clocks,
    tree: Tree,
    actors: Vec<Actor>,
    answers: BTreeMap<(u32, RequestId), Answer>,
}

fn name(source: &mut Source<'_>) -> Name {
    Name::new(source.pick(&NAMES).as_bytes()).expect("a name")
}

impl World {
    /// `/a/b` and `/c`, and a session for each scope.
    pub(super) fn new() -> Self {
        let now = Clocks { mono: clock::now(), wall: Time { secs: 1_000_000_000, nanos: 0 } };
        let stage = Some(Stage::new(1 << 20, now));
        let mut world = Self { stage, now, tree: Tree::new(), actors: Vec::new(), answers: BTreeMap::new() };
        world.join(0);
        let mut parent = world.actors[0].nodes[0];
        for path in ["a", "b", "c"] {
            if path == "c" {
                parent = world.actors[0].nodes[0];
            }
            let make = world.make(0, 0o040_755);
            let name = Some(Name::new(path.as_bytes()).expect("a name"));
            let made = world.call(0, Request::Make { parent, name, make });
            let Ok(Reply::Entry(entry)) = made else { panic!("{made:?}") };
            parent = entry.node;
        }
        (1..SCOPES.len()).for_each(|scope| world.join(scope));
        world
    }

    fn stage(&mut self) -> &mut Stage {
        self.stage.as_mut().expect("taken only while it restarts")
    }

    fn join(&mut self, scope: usize) {
        let link = u32::try_from(scope).expect("few");
        let now = self.now;
        let granted = self.stage().open_scope(link, "fuzz", SCOPES[scope], now).expect("it is open");
        let (root, session) = (granted.root.ino, granted.session);
        let sealer = Sealer::new([7; 16], root);
        assert_eq!(granted.root, sealer.seal(root));
        self.actors.push(Actor {
            session,
            link,
            root,
            nodes: vec![granted.root],
            sealer,
            request: 1,
            numbers: 0..0,
            opens: BTreeMap::new(),
            wild: None,
        });
    }

    fn make(&mut self, who: usize, mode: u32) -> Make {
        if self.actors[who].numbers.is_empty() {
            let granted = self.call(who, Request::GrantInodes { count: NUMBERS });
            let Ok(Reply::Inodes { range, .. }) = granted else { panic!("{granted:?}") };
            self.actors[who].numbers = range.start..range.start + range.count;
        }
        let ino = Ino(self.actors[who].numbers.next().expect("just granted"));
        let target = if mode >> 12 == 0o12 { b"/c".to_vec() } else { Vec::new() };
        Make { ino, mode, umask: 0, rdev: 0, target, open: false }
    }

    /// A session does something, or the server restarts.
    pub(super) fn step(&mut self, source: &mut Source<'_>) {
        self.pass(Duration::from_millis(1));
        let who = source.below(self.actors.len());
        let nodes = self.actors[who].nodes.clone();
        let (node, other) = (source.pick(&nodes), source.pick(&nodes));
        let request = match source.below(17) {
            0 | 1 => Request::Lookup { parent: node, name: name(source) },
            2 => Request::ReadDir {
                node,
                cookie: source.byte().into(),
                bytes_max: 2_000,
                plus: source.one_in(2),
            },
            3 => Request::GetAttr { node },
            4..=6 => {
                let mode = source.pick(&[0o040_755, 0o100_644, 0o100_644, 0o120_777]);
                let make = self.make(who, mode);
                Request::Make { parent: node, name: Some(name(source)), make }
            }
            7 => Request::Link { node, parent: other, name: name(source) },
            8 => Request::Remove { parent: node, name: name(source), dir: source.one_in(2) },
            9..=11 => {
                let (old, new) = (name(source), name(source));
                let flags = u32::from(source.byte() % 3);
                Request::Rename { parent: node, name: old, new_parent: other, new_name: new, flags }
            }
            12 => Request::Open { node, write: false, truncate: false, kill_privileges: false },
            13 => Request::Close { node, count: 1 },
            14 => {
                let inline = Some(Inline { offset: 0, bytes: vec![1; 4] });
                Request::Write { node, write: Write { inline, ..Write::default() } }
            }
            15 => {
                let first = source.one_in(2).then(|| name(source));
                let open = source.one_in(2);
                Request::ReadAhead {
                    node,
                    cookie: source.byte().into(),
                    first,
                    count: 1 + u32::from(source.byte() % 8),
                    open,
                }
            }
            _ if source.one_in(8) => return self.restart(source.one_in(2)),
            _ => Request::SetAttr { node, change: SetAttr { mode: Some(0o700), ..SetAttr::default() } },
        };
        self.checked(who, request);
    }

    /// A call of a session, and what must hold of its answer.
    fn checked(&mut self, who: usize, request: Request) {
        let named: Vec<Ino> = request.nodes().into_iter().flatten().map(|node| node.ino).collect();
        let (root, everything) = (self.actors[who].root, self.tree.below(Ino::ROOT));
        let before = self.tree.below(root);
        let result = self.call(who, request.clone());
        let gives_back = matches!(request, Request::Close { .. });
        let has_open = |ino: &Ino| self.actors[who].opens.contains_key(ino);
        let after = self.tree.below(root);
        match &result {
            Ok(reply) => {
                for ino in named.iter().filter(|ino| !gives_back && everything.contains(ino)) {
                    let is_kept = self.tree.had_several_names(*ino) && has_open(ino);
                    assert!(
                        before.contains(ino) || is_kept,
                        "{request:?} of scope {root} was done, but {ino} is outside"
                    );
                }
                for ino in shown(reply) {
                    let is_strange = !after.contains(&ino) && !named.contains(&ino);
                    assert!(!is_strange, "{request:?} of scope {root} is told of {ino}, which is outside");
                }
            }
            Err(Errno::ESTALE) => {
                let is_there = |ino: &Ino| {
                    everything.contains(&root) && before.contains(ino) && !self.tree.had_several_names(*ino)
                };
                assert!(!named.iter().all(is_there), "{request:?} of scope {root}, where all of that is");
            }
            Err(_) => {}
        }
        self.count_opens(who, &request, &result);
    }

    fn count_opens(&mut self, who: usize, request: &Request, result: &Result<Reply, Errno>) {
        let opens = &mut self.actors[who].opens;
        match (request, result) {
            (Request::Open { node, .. }, Ok(_)) => *opens.entry(node.ino).or_default() += 1,
            (Request::Close { node, .. }, Ok(_)) => {
                if let Some(count) = opens.get_mut(&node.ino) {
                    *count -= 1;
                    if *count == 0 {
                        opens.remove(&node.ino);
                    }
                }
            }
            _ => {}
        }
    }

    /// A call over the border and back; the truth follows it.
    fn call(&mut self, who: usize, request: Request) -> Result<Reply, Errno> {
        let sealed = request.nodes().into_iter().flatten().all(|node| self.actors[who].sealer.verify(node));
        assert!(sealed, "only what was given is named");
        let mut result = self.send(who, request.clone());
        if let Ok(reply) = &mut result {
            self.tree.follow(&request, reply);
            reply.seal(&self.actors[who].sealer);
            let nodes = given(reply);
            self.actors[who].nodes.extend(nodes);
            if let Request::Make { parent, make, .. } = &request {
                // Else it would be the only one to know what it made.
                self.send(who, Request::GiveBack { inos: vec![parent.ino, make.ino] }).expect("idempotent");
            }
        }
        result
    }

    fn send(&mut self, who: usize, request: Request) -> Result<Reply, Errno> {
        let actor = &mut self.actors[who];
        actor.request += 1;
        let (id, place) = (RequestId(actor.request), (actor.session, actor.link));
        let call = Call::new(Caller { uid: 0, gid: 0 }, request.clone());
        let now = self.now;
        self.stage().request(place, id, id, call, now);
        for round in 0..ROUNDS_MAX {
            self.run();
            if let Some(answer) = self.answers.remove(&(place.1, id)) {
                return answer.result;
            }
            if round == ROUNDS_MAX / 2 {
                // It may wait for those who came back and have not said what they dropped.
                (0..self.actors.len()).for_each(|who| self.tame(who));
            }
        }
        panic!("{request:?} is never answered");
    }

    /// What is due is done, and what is said is heard.
    fn run(&mut self) {
        self.pass(Duration::from_millis(1));
        let now = self.now;
        self.stage().sync(usize::MAX, now);
        self.stage().tick(now);
        for (link, sent) in self.stage().take_sent() {
            match sent {
                Sent::Answer { request, answer, .. } => drop(self.answers.insert((link, request), answer)),
                Sent::Notice(Notice::Recall { recalls }) => self.recalled(link, recalls),
                Sent::Notice(_) => {}
                Sent::Close => panic!("a session was ended"),
            }
        }
    }

    /// A session does at once as it is asked; it may be asked only for what it may know of.
    fn recalled(&mut self, link: u32, recalls: Vec<Recall>) {
        let actor = &mut self.actors[link as usize];
        for recall in &recalls {
            let is_known = actor.nodes.iter().any(|node| node.ino == recall.ino);
            assert!(actor.root == Ino::ROOT || is_known, "{recall:?} for scope {}", actor.root);
            // In a directory that was removed from the scope there are no names.
            let below = |root| self.tree.below(root).contains(&recall.ino);
            let is_named = recall.name.is_some() && actor.root != Ino::ROOT && below(Ino::ROOT);
            assert!(!is_named || below(actor.root), "{recall:?} tells scope {} a name", actor.root);
        }
        actor.request += 1;
        let (id, place) = (RequestId(actor.request), (actor.session, actor.link));
        let ids = recalls.iter().map(|recall| recall.id).collect();
        let call = Call::new(Caller { uid: 0, gid: 0 }, Request::Recalled { ids });
        let now = self.now;
        self.stage().request(place, id, RequestId(0), call, now);
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.wall.secs += 1;
        for index in 0..self.actors.len() {
            // Signs of life: time goes on for all.
            let (session, link) = (self.actors[index].session, self.actors[index].link);
            let call = Call::new(Caller { uid: 0, gid: 0 }, Request::Heartbeat);
            let now = self.now;
            self.stage().request((session, link), RequestId(0), RequestId(0), call, now);
        }
    }

    /// The server dies with everything durable; all come back.
    fn restart(&mut self, tame: bool) {
        let now = self.now;
        self.stage().sync(usize::MAX, now);
        let stage = self.stage.take().expect("it runs");
        self.stage = Some(stage.crash(0, now));
        self.answers.clear();
        for index in 0..self.actors.len() {
            let (session, link) = (self.actors[index].session, self.actors[index].link);
            let attached = self.stage().claim(session, link, true, now);
            let Attached::Recovering(epoch, _) = attached else { panic!("{attached:?}") };
            self.actors[index].wild = Some(epoch);
        }
        for index in 0..self.actors.len() {
            let actor = &mut self.actors[index];
            actor.request += 1;
            let (id, place) = (RequestId(actor.request), (actor.session, actor.link));
            let opens = actor.opens.iter().map(|(ino, count)| (*ino, *count)).collect();
            self.stage().end_replay(place, id, opens, Vec::new(), Vec::new(), now);
        }
        self.run();
        if tame {
            (0..self.actors.len()).for_each(|who| self.tame(who));
        }
    }

    fn tame(&mut self, who: usize) {
        let Some(epoch) = self.actors[who].wild.take() else { return };
        let actor = &mut self.actors[who];
        actor.request += 1;
        let (id, place) = (RequestId(actor.request), (actor.session, actor.link));
        let call = Call::new(Caller { uid: 0, gid: 0 }, Request::DropLeases { epoch });
        let now = self.now;
        self.stage().request(place, id, RequestId(0), call, now);
    }
}

/// Handles in an answer.
fn given(reply: &Reply) -> Vec<Node> {
    match reply {
        Reply::Entry(entry) => vec![entry.node],
        Reply::Entries { entries, .. } | Reply::Ahead { entries, .. } => {
            entries.iter().filter_map(|line| line.entry.as_ref()).map(|entry| entry.node).collect()
        }
        _ => Vec::new(),
    }
}

/// Inodes an answer tells of.
fn shown(reply: &Reply) -> BTreeSet<Ino> {
    match reply {
        Reply::Entry(entry) => BTreeSet::from([entry.node.ino, entry.attr.ino]),
        Reply::Entries { entries, .. } | Reply::Ahead { entries, .. } => {
            entries.iter().map(|line| line.ino).collect()
        }
        Reply::Attr(attr) | Reply::Opened { attr, .. } | Reply::Copied { attr, .. } => {
            BTreeSet::from([attr.ino])
        }
        _ => BTreeSet::new(),
    }
}
