//! Changes that programs were told of and that are on their way to the server: which, in what order, who has to wait.
//!
//! A change is made at once in a directory that this session has to itself (`Leases::ALONE`), and sent behind. Every change
//! has a serial. Whatever else names its inode or its directory waits until all changes up to that one are answered, so the
//! server sees each inode's calls in the order they were made in. A serial waits only for smaller ones: nothing waits for
//! itself, and nobody is held up by changes that begin later.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use event_listener::{Event, Listener as _};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::seal::Node;

/// Changes on their way; with more, programs wait. Some 30 ms of the server's work.
const BEHIND_MAX: usize = 1_024;
/// Changes that one which takes long is overtaken by.
const OVERTAKEN_MAX: u64 = 4 * BEHIND_MAX as u64;
/// Places remembered beyond which those are dropped that nobody waits for any more: some 500 KiB.
const PLACES_MAX: usize = 12 * BEHIND_MAX;
/// Inodes whose failed changes are remembered for their next `fsync`.
const FAILED_MAX: usize = 65_536;

/// Number of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial(u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Behind {
    state: Mutex<State>,
    /// Changes on their way: most calls look at nothing else.
    count: AtomicUsize,
    /// One was answered.
    moved: Event,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    open: BTreeSet<u64>,
    places: HashMap<Ino, Place>,
    /// A restarted server is being told what is on its way: nothing begins that it would not hear of.
    shut: bool,
    failed: HashMap<Ino, Errno>,
    failures: u64,
}

/// An inode that changes are about.
#[derive(Clone, Copy, Debug)]
struct Place {
    node: Node,
    /// The change that makes it.
    made: u64,
    /// The last one about it.
    last: u64,
}

impl Behind {
    /// `child` is about to be made in `dir`. `None`: not now; ask the server, or wait for `room`.
    pub fn begin(&self, dir: Node, child: Node) -> Option<Serial> {
        let mut state = self.state();
        if state.shut || state.is_full() {
            return None;
        }
        state.last += 1;
        let serial = state.last;
        state.open.insert(serial);
        let place = Place { node: dir, made: 0, last: serial };
        state.places.entry(dir.ino).or_insert(place).last = serial;
        state.places.insert(child.ino, Place { node: child, made: serial, last: serial });
        if state.places.len() > PLACES_MAX {
            let first = state.open.first().copied().unwrap_or(u64::MAX);
            state.places.retain(|_, place| place.last >= first);
        }
        self.count.store(state.open.len(), Ordering::SeqCst);
        Some(Serial(serial))
    }

    /// It was answered.
    pub fn end(&self, serial: Serial) {
        let mut state = self.state();
        state.open.remove(&serial.0);
        if state.open.is_empty() {
            state.places.clear();
        }
        self.count.store(state.open.len(), Ordering::SeqCst);
        drop(state);
        self.moved.notify(usize::MAX);
    }

    /// Changes on their way.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// What a call about these inodes waits for.
    pub fn before(&self, inos: impl IntoIterator<Item = Ino>) -> Option<Serial> {
        if self.count() == 0 {
            return None;
        }
        let state = self.state();
        let last = inos.into_iter().filter_map(|ino| state.places.get(&ino)).map(|place| place.last).max()?;
        state.is_open_to(last).then_some(Serial(last))
    }

    /// What the call that makes something in `dir` waits for: that `dir` is made.
    pub fn before_making_in(&self, dir: Ino) -> Option<Serial> {
        let state = self.state();
        let made = state.places.get(&dir)?.made;
        state.is_open_to(made).then_some(Serial(made))
    }

    /// The last one on its way.
    pub fn last(&self) -> Option<Serial> {
        self.state().open.last().copied().map(Serial)
    }

    /// Directories in which something is on its way, and what is; nothing begins from now on until `reopen`.
    pub fn shut(&self) -> Vec<Node> {
        let mut state = self.state();
        state.shut = true;
        state.places.values().filter(|place| state.is_open_to(place.last)).map(|place| place.node).collect()
    }

    /// Leases are granted anew; those of before do not count.
    pub fn reopen(&self) {
        self.state().shut = false;
    }

    /// Waits until all changes up to this one are answered.
    pub async fn wait(&self, serial: Serial) {
        loop {
            let moved = self.moved.listen();
            if !self.state().is_open_to(serial.0) {
                return;
            }
            moved.await;
        }
    }

    /// The same, on a thread that serves nothing.
    pub fn wait_here(&self, serial: Serial) {
        loop {
            let moved = self.moved.listen();
            if !self.state().is_open_to(serial.0) {
                return;
            }
            moved.wait();
        }
    }

    /// Waits until there is room for one more.
    pub async fn room(&self) {
        loop {
            let moved = self.moved.listen();
            if !self.state().is_full() {
                return;
            }
            moved.await;
        }
    }

    /// The server refused a change of these, or it is lost. How many are by now.
    pub fn fail(&self, inos: [Ino; 2], errno: Errno) -> u64 {
        let mut state = self.state();
        state.failures += 1;
        for ino in inos {
            if state.failed.len() < FAILED_MAX {
                state.failed.insert(ino, errno);
            }
        }
        state.failures
    }

    /// Why a change of the inode was lost; told once.
    pub fn take_failure(&self, ino: Ino) -> Option<Errno> {
        self.state().failed.remove(&ino)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_full(&self) -> bool {
        self.open.len() >= BEHIND_MAX
            || self.open.first().is_some_and(|first| self.last - first >= OVERTAKEN_MAX)
    }

    /// Whether a change up to this one is on its way.
    fn is_open_to(&self, serial: u64) -> bool {
        self.open.first().is_some_and(|first| *first <= serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ino: u64) -> Node {
        Node { ino: Ino(ino), seal: ino }
    }

    #[test]
    fn what_names_an_inode_waits_for_the_changes_before() {
        let behind = Behind::default();
        assert_eq!((behind.before([Ino(1)]), behind.last(), behind.count()), (None, None, 0));
        let first = behind.begin(node(1), node(2)).unwrap();
        let second = behind.begin(node(2), node(3)).unwrap();
        assert_eq!(behind.before([Ino(1), Ino(9)]), Some(first));
        assert_eq!(behind.before([Ino(2)]), Some(second), "as a directory");
        assert_eq!(behind.before_making_in(Ino(2)), Some(first), "it need only be there");
        assert_eq!(behind.before_making_in(Ino(1)), None, "it was there before");
        assert_eq!(behind.before([Ino(9)]), None);
        let mut nodes: Vec<u64> = behind.shut().iter().map(|node| node.seal).collect();
        nodes.sort_unstable();
        assert_eq!(nodes, [1, 2, 3]);
        assert!(behind.begin(node(1), node(4)).is_none(), "the server would not know");
        behind.reopen();
        behind.end(second);
        assert_eq!(behind.before([Ino(3)]), Some(second), "all up to it");
        behind.end(first);
        assert_eq!((behind.before([Ino(1), Ino(2), Ino(3)]), behind.shut().len()), (None, 0));
    }

    #[test]
    fn there_is_an_end_to_it() {
        let behind = Behind::default();
        let serials: Vec<_> =
            (0..BEHIND_MAX as u64).map(|number| behind.begin(node(1), node(10 + number)).unwrap()).collect();
        assert!(behind.begin(node(1), node(2)).is_none());
        behind.end(serials[5]);
        let more = behind.begin(node(1), node(2)).unwrap();
        // One that takes long is not overtaken for ever, and what is over is forgotten.
        let mut number = 0;
        while let Some(serial) = behind.begin(node(1), node(100_000 + number)) {
            behind.end(serial);
            number += 1;
            assert!(number <= OVERTAKEN_MAX);
        }
        for serial in serials.into_iter().chain([more]) {
            behind.end(serial);
        }
        for number in 0..2 * PLACES_MAX as u64 {
            let serial = behind.begin(node(1), node(200_000 + number)).unwrap();
            let last = behind.begin(node(1), node(100 + number)).unwrap();
            behind.end(serial);
            behind.end(last);
        }
        assert!(behind.state().places.len() <= PLACES_MAX + 2);
    }

    #[test]
    fn a_failure_is_told_once() {
        let behind = Behind::default();
        assert_eq!(behind.fail([Ino(1), Ino(2)], Errno::ENOSPC), 1);
        assert_eq!(behind.take_failure(Ino(2)), Some(Errno::ENOSPC));
        assert_eq!((behind.take_failure(Ino(2)), behind.take_failure(Ino(3))), (None, None));
    }
}
