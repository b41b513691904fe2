//! Changes that programs were told of and that are on their way to the server: which, in what order, who has to wait.
//!
//! A change is made at once in a directory that this session has to itself (`Leases::ALONE`), or to a file that it has
//! exclusively, and sent behind. Every change has a serial. It waits for those before it that are [about](About) the same: the
//! same name, the making of its directory, the same inode. Other calls that name its inode or its directory wait until all
//! changes up to it are answered. So the server sees the calls of each name and inode in the order they were made in. A serial
//! waits only for smaller ones: nothing waits for itself, and nobody is held up by changes that begin later.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::{Event, EventListener, Listener as _};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::seal::Node;

/// Changes on their way; with more, programs wait. Some 30 ms of the server's work.
const BEHIND_MAX: usize = 1_024;
/// Changes that one which takes long is overtaken by.
const OVERTAKEN_MAX: u64 = 4 * BEHIND_MAX as u64;
/// Places remembered beyond which those are dropped that nobody waits for any more, and as many names: some 1 MiB.
const PLACES_MAX: usize = 12 * BEHIND_MAX;
/// Inodes whose failed changes are remembered for their next `fsync`.
const FAILED_MAX: usize = 65_536;

/// Number of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial(u64);

/// What a change is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct About {
    /// Directories in which it changes names.
    pub dirs: [Option<Node>; 2],
    /// Those names: the directory, and a hash.
    pub names: [Option<(Ino, u64)>; 2],
    /// Inodes that it changes.
    pub nodes: [Option<Node>; 2],
    /// The first of `nodes` is made by it.
    pub makes: bool,
    /// `nodes` are directories: it comes behind all that was changed in them, and before all that will be.
    pub whole_dirs: bool,
}

/// A change on its way. It has arrived, or is lost, when this is dropped.
#[derive(Debug)]
pub struct Change {
    behind: Arc<Behind>,
    serial: u64,
    /// It comes behind these.
    after: Vec<u64>,
    /// And behind all up to this one.
    up_to: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Behind {
    state: Mutex<State>,
    /// Changes on their way: most calls look at nothing else.
    count: AtomicUsize,
    /// There is room for one more.
    freed: Event,
    /// Programs that wait for some of them, so that none is held back to go out with others.
    waited: AtomicUsize,
    /// One of those began to.
    hurry: Event,
}

/// Somebody waits; see [`Behind::hurry`].
#[derive(Debug)]
pub struct Hurry(Arc<Behind>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// On their way.
    open: BTreeMap<u64, Open>,
    places: HashMap<Ino, Place>,
    /// The last change of a name.
    names: HashMap<(Ino, u64), u64>,
    /// Who waits for all up to a serial.
    waiting: BTreeMap<u64, Arc<Event>>,
    /// A restarted server is being told what is on its way: nothing begins that it would not hear of.
    shut: bool,
    failed: HashMap<Ino, Errno>,
    failures: u64,
}

/// A change on its way.
#[derive(Debug, Default)]
struct Open {
    /// Who waits for this very one.
    waiting: Option<Arc<Event>>,
    /// The link it was sent on.
    row: Option<usize>,
}

/// An inode that changes are about.
#[derive(Clone, Copy, Debug)]
struct Place {
    node: Node,
    /// What is made in it comes behind this one.
    made: u64,
    /// The last one about it.
    last: u64,
}

impl Behind {
    /// A change is about to be made. `None`: not now; ask the server, or wait for `room`.
    pub fn begin(self: &Arc<Self>, about: &About) -> Option<Change> {
        let mut state = self.state();
        if state.shut || state.is_full() {
            return None;
        }
        state.last += 1;
        let serial = state.last;
        state.open.insert(serial, Open::default());
        let (mut after, mut up_to) = (Vec::new(), 0);
        for dir in about.dirs.into_iter().flatten() {
            let place = state.places.entry(dir.ino).or_insert(Place { node: dir, made: 0, last: 0 });
            after.push(place.made);
            place.last = serial;
        }
        for name in about.names.into_iter().flatten() {
            after.extend(state.names.insert(name, serial));
        }
        for (index, node) in about.nodes.into_iter().flatten().enumerate() {
            let makes = about.makes && index == 0;
            let place = state.places.entry(node.ino).or_insert(Place { node, made: 0, last: 0 });
            if about.whole_dirs {
                up_to = up_to.max(place.last);
            }
            after.extend([place.made, place.last]);
            if makes || about.whole_dirs {
                place.made = serial;
            }
            place.last = serial;
        }
        after.retain(|before| state.open.contains_key(before) && *before != serial);
        after.sort_unstable();
        after.dedup();
        if state.places.len().max(state.names.len()) > PLACES_MAX {
            let first = state.first();
            state.places.retain(|_, place| place.last >= first);
            state.names.retain(|_, last| *last >= first);
        }
        self.count.store(state.open.len(), Ordering::SeqCst);
        drop(state);
        Some(Change { behind: Arc::clone(self), serial, after, up_to })
    }

    fn end(&self, serial: u64) {
        let mut state = self.state();
        let was_full = state.is_full();
        let waiting = state.open.remove(&serial).and_then(|open| open.waiting);
        let passed = state.take_passed();
        if state.open.is_empty() {
            state.places.clear();
            state.names.clear();
        }
        self.count.store(state.open.len(), Ordering::SeqCst);
        let is_freed = was_full && !state.is_full();
        drop(state);
        for event in waiting.into_iter().chain(passed.into_values()) {
            event.notify(usize::MAX);
        }
        if is_freed {
            self.freed.notify(usize::MAX);
        }
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

    /// What a call waits for that only needs the inode to be there.
    pub fn before_using(&self, ino: Ino) -> Option<Serial> {
        if self.count() == 0 {
            return None;
        }
        let state = self.state();
        let made = state.places.get(&ino)?.made;
        state.open.contains_key(&made).then_some(Serial(made))
    }

    /// Whether it was sent on that link: what is sent there from now on reaches the server behind it.
    pub fn is_sent(&self, serial: Serial, row: usize) -> bool {
        self.state().open.get(&serial.0).is_some_and(|open| open.row == Some(row))
    }

    /// The last one on its way.
    pub fn last(&self) -> Option<Serial> {
        self.state().open.last_key_value().map(|(last, _)| Serial(*last))
    }

    /// Inodes that something on its way is about; nothing begins from now on until `reopen`.
    pub fn shut(&self) -> Vec<Node> {
        let mut state = self.state();
        state.shut = true;
        state.places.values().filter(|place| state.is_open_to(place.last)).map(|place| place.node).collect()
    }

    /// Leases are granted anew; those of before do not count.
    pub fn reopen(&self) {
        self.state().shut = false;
    }

    /// A program waits for changes on their way, as long as this is kept: they go out at once.
    pub fn hurry(self: &Arc<Self>) -> Hurry {
        self.waited.fetch_add(1, Ordering::SeqCst);
        self.hurry.notify(usize::MAX);
        Hurry(Arc::clone(self))
    }

    /// Does something that a program asked for: from when it cannot be answered at once, the program waits.
    pub async fn hurrying<F: Future>(self: &Arc<Self>, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        let mut hurry = None;
        std::future::poll_fn(|cx| {
            let polled = work.as_mut().poll(cx);
            if polled.is_pending() {
                hurry.get_or_insert_with(|| self.hurry());
            }
            polled
        })
        .await
    }

    /// Whether a program waits.
    pub fn is_waited(&self) -> bool {
        self.waited.load(Ordering::SeqCst) > 0
    }

    /// The next one that begins to.
    pub fn hurried(&self) -> EventListener {
        self.hurry.listen()
    }

    /// Waits until all changes up to this one are answered.
    pub async fn wait(&self, serial: Serial) {
        if let Some(passed) = self.passing(serial) {
            passed.await;
        }
    }

    /// The same, on a thread that serves nothing.
    pub fn wait_here(&self, serial: Serial) {
        if let Some(passed) = self.passing(serial) {
            passed.wait();
        }
    }

    /// Tells when all up to this one are answered; `None`: they are.
    fn passing(&self, serial: Serial) -> Option<EventListener> {
        let mut state = self.state();
        // Listening begins under the lock that the end is noted under: it is not missed.
        state.is_open_to(serial.0).then(|| state.waiting.entry(serial.0).or_default().listen())
    }

    /// Waits until this very one is answered.
    pub async fn wait_for(&self, serial: Serial) {
        let event = {
            let mut state = self.state();
            let Some(open) = state.open.get_mut(&serial.0) else { return };
            Arc::clone(open.waiting.get_or_insert_default())
        };
        // It is told once, and not before it is gone from the table.
        let told = event.listen();
        if self.state().open.contains_key(&serial.0) {
            told.await;
        }
    }

    /// Waits until there is room for one more.
    pub async fn room(&self) {
        while self.state().is_full() {
            let freed = self.freed.listen();
            if !self.state().is_full() {
                return;
            }
            freed.await;
        }
    }

    /// The server refused a change of these, or it is lost. How many are by now.
    pub fn fail(&self, inos: impl IntoIterator<Item = Ino>, errno: Errno) -> u64 {
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

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.waited.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Change {
    /// It goes out on that link now.
    pub fn note_sent(&self, row: usize) {
        if let Some(open) = self.behind.state().open.get_mut(&self.serial) {
            open.row = Some(row);
        }
    }

    /// Waits for those it comes behind.
    pub async fn turn(&self) {
        for before in &self.after {
            self.behind.wait_for(Serial(*before)).await;
        }
        if self.up_to > 0 {
            self.behind.wait(Serial(self.up_to)).await;
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.behind.end(self.serial);
    }
}

impl State {
    fn is_full(&self) -> bool {
        self.open.len() >= BEHIND_MAX || self.last.saturating_sub(self.first()) >= OVERTAKEN_MAX
    }

    /// The first one on its way.
    fn first(&self) -> u64 {
        self.open.first_key_value().map_or(u64::MAX, |(first, _)| *first)
    }

    /// Who waited for all up to a serial, and need not any more.
    fn take_passed(&mut self) -> BTreeMap<u64, Arc<Event>> {
        if self.waiting.is_empty() {
            return BTreeMap::new();
        }
        let left = self.waiting.split_off(&self.first());
        std::mem::replace(&mut self.waiting, left)
    }

    /// Whether a change up to this one is on its way.
    fn is_open_to(&self, serial: u64) -> bool {
        self.first() <= serial
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn node(ino: u64) -> Node {
        Node { ino: Ino(ino), seal: ino }
    }

    fn making(dir: u64, child: u64) -> About {
        About {
            dirs: [Some(node(dir)), None],
            names: [Some((Ino(dir), child)), None],
            nodes: [Some(node(child)), None],
            makes: true,
            ..About::default()
        }
    }

    fn removing(dir: u64, child: u64) -> About {
        About { makes: false, ..making(dir, child) }
    }

    fn is_its_turn(change: &Change) -> bool {
        let turn = pin!(change.turn());
        turn.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn what_names_an_inode_waits_for_the_changes_before() {
        let behind = Arc::new(Behind::default());
        assert_eq!((behind.before([Ino(1)]), behind.last(), behind.count()), (None, None, 0));
        let first = behind.begin(&making(1, 2)).unwrap();
        let second = behind.begin(&making(2, 3)).unwrap();
        assert_eq!(behind.before([Ino(1), Ino(9)]), Some(Serial(1)));
        assert_eq!(behind.before([Ino(2)]), Some(Serial(2)), "as a directory");
        assert_eq!(behind.before_using(Ino(2)), Some(Serial(1)), "it need only be there");
        assert_eq!(behind.before_using(Ino(1)), None, "it was there before");
        assert_eq!(behind.before([Ino(9)]), None);
        let mut nodes: Vec<u64> = behind.shut().iter().map(|node| node.seal).collect();
        nodes.sort_unstable();
        assert_eq!(nodes, [1, 2, 3]);
        assert!(behind.begin(&making(1, 4)).is_none(), "the server would not know");
        behind.reopen();
        assert!(is_its_turn(&first) && !is_its_turn(&second));
        drop(second);
        assert_eq!(behind.before([Ino(3)]), Some(Serial(2)), "all up to it");
        drop(first);
        assert_eq!((behind.before([Ino(1), Ino(2), Ino(3)]), behind.shut().len()), (None, 0));
    }

    #[test]
    fn who_waits_for_all_up_to_one_is_told_when_the_last_of_them_is_answered() {
        let behind = Arc::new(Behind::default());
        let [first, second, third] = [2, 3, 4].map(|child| behind.begin(&making(1, child)).unwrap());
        let mut waits = pin!(behind.wait(Serial(2)));
        let mut is_over = || waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!is_over());
        drop(second);
        assert!(!is_over(), "the first is on its way");
        drop(first);
        assert!(is_over() && behind.count() == 1);
        let mut passed = pin!(behind.wait(Serial(2)));
        assert!(passed.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        drop(third);
        assert!(behind.state().waiting.is_empty());
    }

    #[test]
    fn a_program_waits_from_when_it_is_not_answered_at_once() {
        let behind = Arc::new(Behind::default());
        let poll = |work: &mut std::pin::Pin<&mut dyn Future<Output = ()>>| {
            work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        let mut at_once: std::pin::Pin<&mut dyn Future<Output = ()>> = pin!(behind.hurrying(async {}));
        assert!(poll(&mut at_once) && !behind.is_waited());
        let begun = Event::new();
        let told = behind.hurried();
        let mut told: std::pin::Pin<&mut dyn Future<Output = ()>> = pin!(told);
        {
            let mut late: std::pin::Pin<&mut dyn Future<Output = ()>> = pin!(behind.hurrying(begun.listen()));
            assert!(!poll(&mut told) && !poll(&mut late));
            assert!(behind.is_waited() && poll(&mut told));
            begun.notify(1);
            assert!(poll(&mut late));
        }
        assert!(!behind.is_waited());
    }

    #[test]
    fn changes_of_one_name_and_of_one_inode_come_one_after_the_other() {
        let behind = Arc::new(Behind::default());
        let made = behind.begin(&making(1, 2)).unwrap();
        let other = behind.begin(&making(1, 3)).unwrap();
        let removed = behind.begin(&removing(1, 2)).unwrap();
        let mut again = making(1, 4);
        again.names[0] = Some((Ino(1), 2));
        let again = behind.begin(&again).unwrap();
        assert!(is_its_turn(&made) && is_its_turn(&other));
        assert!(!is_its_turn(&removed) && !is_its_turn(&again));
        drop(made);
        assert!(is_its_turn(&removed) && !is_its_turn(&again));
        drop(removed);
        assert!(is_its_turn(&again));
        drop((other, again));
        assert_eq!(behind.count(), 0);
    }

    #[test]
    fn a_change_of_a_directory_parts_what_is_changed_in_it() {
        let behind = Arc::new(Behind::default());
        let (one, two) = (behind.begin(&making(1, 2)).unwrap(), behind.begin(&making(1, 3)).unwrap());
        let dir = About { nodes: [Some(node(1)), None], whole_dirs: true, ..About::default() };
        let dir = behind.begin(&dir).unwrap();
        let later = behind.begin(&making(1, 4)).unwrap();
        drop(two);
        assert!(!is_its_turn(&dir) && !is_its_turn(&later));
        drop(one);
        assert!(is_its_turn(&dir) && !is_its_turn(&later));
        drop(dir);
        assert!(is_its_turn(&later));
    }

    #[test]
    fn there_is_an_end_to_it() {
        let behind = Arc::new(Behind::default());
        let mut changes: Vec<_> =
            (0..BEHIND_MAX as u64).map(|number| behind.begin(&making(1, 10 + number)).unwrap()).collect();
        assert!(behind.begin(&making(1, 2)).is_none());
        changes.remove(5);
        changes.push(behind.begin(&making(1, 2)).unwrap());
        changes.remove(6);
        // One that takes long is not overtaken for ever, and what is over is forgotten.
        let mut number = 0;
        while behind.begin(&making(1, 100_000 + number)).is_some() {
            number += 1;
            assert!(number <= OVERTAKEN_MAX);
        }
        drop(changes);
        for number in 0..2 * PLACES_MAX as u64 {
            let change = behind.begin(&making(1, 200_000 + number)).unwrap();
            let last = behind.begin(&making(1, 100 + number)).unwrap();
            drop((change, last));
        }
        let state = behind.state();
        assert!(state.places.len().max(state.names.len()) <= PLACES_MAX + 2);
    }

    #[test]
    fn a_failure_is_told_once() {
        let behind = Behind::default();
        assert_eq!(behind.fail([Ino(1), Ino(2)], Errno::ENOSPC), 1);
        assert_eq!(behind.take_failure(Ino(2)), Some(Errno::ENOSPC));
        assert_eq!((behind.take_failure(Ino(2)), behind.take_failure(Ino(3))), (None, None));
    }
}
