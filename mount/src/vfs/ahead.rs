//! Entries of a directory that were brought before anybody looked them up: what is kept, and when more is asked for. Without I/O and
//! without a clock.
//!
//! Look-ups that the server had to be asked for, several in a short time, begin it. What follows is asked for by pages, in the server's order, one page
//! at a time:
//!
//! * *A directory that is not large* is read from its beginning, with twice as many entries each time, whether a page was used or misses
//!   go on: in whatever order its names are looked up, it is here after a few dozen of them, for no more than a listing costs.
//! * *In a large one* a page begins at a name that was missed, and the next follows when half of it was passed: several processes may walk
//!   through several parts of it (*streams*). Pages that are not used make the next one wait for four times as many misses.
//!
//! An entry is given out once, for then the kernel has it, and only as long as it is true: the leases of the directory's names and of the inode it
//! came with still stand, and this client never knew the inode better since (`Recalls::note_left`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use event_listener::{Event, EventListener};
use flexfs_wire::extent::Layout;
use flexfs_wire::id::Ino;
use flexfs_wire::limits::AHEAD_ENTRIES_MAX;
use flexfs_wire::message::{DirEntry, Entry};
use flexfs_wire::name::Name;

use super::known;
use super::state::Grant;

/// Look-ups that the server is asked for before the first page, and at most.
const PATIENCE: (u32, u32) = (3, 512);
/// With a longer pause between two of them they have nothing to do with one another.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Entries of the first page.
const FIRST_PAGE: u32 = 64;
/// Entries of a directory that is read whole: some 100 ms of the server's work.
const WHOLE_MAX: u64 = 32 * 1024;
/// Parts of a large directory that are walked through at the same time.
const STREAMS_MAX: usize = 16;
/// Look-ups that may wait for a page in vain, one after the other; then none does.
const VAIN_MAX: u32 = 2;
/// What a kept entry takes beside its name and layout, bytes, about.
const ENTRY_COST: usize = 320;

/// What all directories of a mount keep.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    entries: AtomicUsize,
    bytes: AtomicUsize,
}

impl Totals {
    /// Entries and bytes.
    pub(crate) fn now(&self) -> (usize, usize) {
        (self.entries.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// One entry counted, until it is dropped.
#[derive(Debug)]
struct Weight {
    totals: Arc<Totals>,
    bytes: usize,
}

impl Weight {
    fn new(totals: &Arc<Totals>, bytes: usize) -> Self {
        totals.entries.fetch_add(1, Ordering::Relaxed);
        totals.bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { totals: Arc::clone(totals), bytes }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.totals.entries.fetch_sub(1, Ordering::Relaxed);
        self.totals.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// An entry that nobody has looked up yet.
#[derive(Debug)]
pub(crate) struct Kept {
    name: Name,
    pub(crate) entry: Entry,
    pub(crate) layout: Option<Layout>,
    pub(crate) grant: Grant,
    stream: u64,
    /// Number of its page in the stream, if it was in the second half of that.
    late_in: Option<u32>,
    _weight: Weight,
}

/// Which page is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Behind this position, or from this name on.
    pub(crate) cookie: u64,
    pub(crate) first: Option<Name>,
    /// Entries.
    pub(crate) count: u32,
    stream: u64,
}

/// A page that came.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<DirEntry>,
    /// Of these places, ascending.
    pub(crate) layouts: Vec<(u32, Layout)>,
    pub(crate) eof: bool,
    pub(crate) grant: Grant,
}

/// What is known of a name.
#[derive(Debug)]
pub(crate) enum Look {
    /// Its entry.
    Kept(Box<Kept>),
    /// It may be in the page that is on its way.
    Soon(EventListener),
    /// Nothing.
    Unknown,
}

/// A part of the directory that is read.
#[derive(Debug)]
struct Stream {
    id: u64,
    /// Where it goes on.
    cookie: u64,
    /// Entries of the last page asked for.
    size: u32,
    /// Pages it has had, and their entries; how many of them were used.
    pages: u32,
    brought: u64,
    used: u64,
    /// Entries of the last page.
    last: u64,
    /// Nothing follows.
    eof: bool,
}

#[derive(Debug)]
struct OnWay {
    ask: Ask,
    /// Names that changed since it was asked for, or were found.
    changed: HashSet<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    kept: HashMap<u64, Kept>,
    /// The one that was used last is the last.
    streams: Vec<Stream>,
    streams_made: u64,
    on_way: Option<OnWay>,
    arrived: Event,
    misses: u32,
    missed: Option<Instant>,
    patience: u32,
    /// Waits in vain, one after the other.
    vain: u32,
    /// When it was of use last.
    used: Option<Instant>,
}

impl Ahead {
    /// Looks a name up in a directory of so many entries. `waited`: a page was waited for. What is to be asked for now, too: its end is
    /// told with [`Ahead::bring`] or [`Ahead::fail`].
    pub(crate) fn look(
        &mut self,
        (name, hash): (&Name, u64),
        entries: u64,
        now: Instant,
        waited: bool,
        is_true: impl FnOnce(&Kept) -> bool,
    ) -> (Look, Option<Ask>) {
        let kept = self.kept.remove(&hash).filter(|kept| kept.name == *name && is_true(kept));
        if let Some(kept) = kept {
            self.used = Some(now);
            if waited {
                self.vain = 0;
            }
            let ask = self.note_use(kept.stream, kept.late_in);
            return (Look::Kept(Box::new(kept)), ask);
        }
        if waited {
            self.vain += 1;
        } else if self.on_way.is_some() && self.vain < VAIN_MAX {
            return (Look::Soon(self.arrived.listen()), None);
        }
        if self.missed.is_none_or(|missed| now.saturating_duration_since(missed) > PAUSE_MAX) {
            self.misses = 0;
        }
        self.missed = Some(now);
        self.misses += 1;
        self.patience = self.patience.max(PATIENCE.0);
        let begins = self.on_way.is_none() && self.misses >= self.patience;
        let ask = if begins { Some(self.miss(name, entries)) } else { None };
        (Look::Unknown, ask)
    }

    /// Another entry of a stream was used: the next page follows when half of the last was passed, and of those before some was used.
    fn note_use(&mut self, id: u64, late_in: Option<u32>) -> Option<Ask> {
        let place = self.streams.iter().position(|stream| stream.id == id)?;
        self.streams[place].used += 1;
        if place + 1 < self.streams.len() {
            let stream = self.streams.remove(place);
            self.streams.push(stream);
        }
        let stream = self.streams.last_mut()?;
        let is_passed = late_in == Some(stream.pages) && 4 * stream.used >= stream.brought - stream.last;
        if self.on_way.is_some() || stream.eof || !is_passed {
            return None;
        }
        stream.size = (2 * stream.size).min(AHEAD_ENTRIES_MAX);
        let ask = Ask { cookie: stream.cookie, first: None, count: stream.size, stream: stream.id };
        self.patience = PATIENCE.0;
        Some(self.begin(ask))
    }

    /// Enough look-ups were asked for.
    fn miss(&mut self, name: &Name, entries: u64) -> Ask {
        self.misses = 0;
        let brought = self.streams.iter().map(|stream| stream.brought).max().unwrap_or(0);
        let is_whole = entries.max(brought) <= WHOLE_MAX;
        let last = self.streams.last_mut();
        if is_whole && let Some(stream) = last {
            let size = stream.size;
            stream.size = (2 * size).min(AHEAD_ENTRIES_MAX);
            if stream.eof {
                // What is missed was there and is gone, or came since.
                self.impatience(false);
                return self.begin_stream(None, FIRST_PAGE);
            }
            let ask = Ask { cookie: stream.cookie, first: None, count: stream.size, stream: stream.id };
            return self.begin(ask);
        }
        if !is_whole {
            let (brought, used) = self.figures();
            self.impatience(4 * used >= brought);
        }
        self.begin_stream((!is_whole).then(|| name.clone()), FIRST_PAGE)
    }

    /// Entries brought in the streams, and used of them.
    fn figures(&self) -> (u64, u64) {
        let each = self.streams.iter().map(|stream| (stream.brought, stream.used));
        each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// What was brought was used, or was not.
    fn impatience(&mut self, is_used: bool) {
        self.patience = match is_used {
            true => PATIENCE.0,
            false => (4 * self.patience.max(PATIENCE.0)).min(PATIENCE.1),
        };
    }

    fn begin_stream(&mut self, first: Option<Name>, size: u32) -> Ask {
        match first {
            None => self.streams.clear(),
            Some(_) if self.streams.len() == STREAMS_MAX => drop(self.streams.remove(0)),
            Some(_) => {}
        }
        self.streams_made += 1;
        let id = self.streams_made;
        self.streams.push(Stream { id, cookie: 0, size, pages: 0, brought: 0, used: 0, last: 0, eof: false });
        self.begin(Ask { cookie: 0, first, count: size, stream: id })
    }

    fn begin(&mut self, ask: Ask) -> Ask {
        self.on_way = Some(OnWay { ask: ask.clone(), changed: HashSet::new() });
        ask
    }

    /// The page that was asked for came. `is_good`: the directory's names are still under the lease it came with. Numbers of inodes that are not
    /// kept, with their leases.
    pub(crate) fn bring(
        &mut self,
        page: Page,
        now: Instant,
        is_good: bool,
        totals: &Arc<Totals>,
    ) -> Vec<Ino> {
        let Some(OnWay { ask, changed }) = self.on_way.take() else { return Vec::new() };
        let count = page.entries.len() as u64;
        let cookie = page.entries.last().map_or(ask.cookie, |entry| entry.cookie);
        let mut number = 0;
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == ask.stream) {
            stream.cookie = cookie;
            stream.pages += 1;
            stream.last = count;
            stream.brought += count;
            stream.eof = page.eof || count == 0;
            number = stream.pages;
        }
        let mut left = Vec::new();
        let mut layouts = page.layouts.into_iter().peekable();
        for (place, line) in (0..).zip(page.entries) {
            let layout = layouts.next_if(|(at, _)| *at == place).map(|(_, layout)| layout);
            let Some(entry) = line.entry else { continue };
            let hash = known::hash(&line.name);
            if !is_good || entry.node.ino != entry.attr.ino || changed.contains(&hash) {
                left.push(entry.node.ino);
                continue;
            }
            let bytes = ENTRY_COST + line.name.as_bytes().len() + layout.as_ref().map_or(0, weight_of);
            let kept = Kept {
                name: line.name,
                entry,
                layout,
                grant: page.grant,
                stream: ask.stream,
                late_in: (2 * u64::from(place) >= count).then_some(number),
                _weight: Weight::new(totals, bytes),
            };
            self.kept.insert(hash, kept);
        }
        if !is_good {
            self.streams.retain(|stream| stream.id != ask.stream);
            self.impatience(false);
        }
        self.used = Some(now);
        self.arrived.notify(usize::MAX);
        left
    }

    /// It did not come.
    pub(crate) fn fail(&mut self) {
        let stream = self.on_way.take().map(|on_way| on_way.ask.stream);
        self.streams.retain(|one| Some(one.id) != stream);
        self.impatience(false);
        self.arrived.notify(usize::MAX);
    }

    /// The name changes, or was found otherwise.
    pub(crate) fn drop_name(&mut self, name: u64) {
        self.kept.remove(&name);
        if let Some(on_way) = &mut self.on_way {
            on_way.changed.insert(name);
        }
    }

    /// All that is kept, which is forgotten.
    pub(crate) fn take(&mut self) -> Vec<Ino> {
        let (brought, used) = self.figures();
        if 2 * used < brought {
            self.impatience(false);
        }
        let on_way = self.on_way.as_ref().map(|on_way| on_way.ask.stream);
        self.streams.retain(|stream| Some(stream.id) == on_way);
        std::mem::take(&mut self.kept).into_values().map(|kept| kept.entry.node.ino).collect()
    }

    /// When it was of use last.
    pub(crate) fn used(&self) -> Option<Instant> {
        self.used
    }
}

fn weight_of(layout: &Layout) -> usize {
    size_of::<Layout>() + layout.inline.len() + size_of_val(layout.extents.as_slice())
}

#[cfg(test)]
mod tests {
    use flexfs_wire::attr::{Attr, S_IFREG};
    use flexfs_wire::lease::Leases;
    use flexfs_wire::seal::Node;
    use flexfs_wire::time::Time;

    use super::*;
    use crate::lease::Recalls;

    /// A directory at the server, of names that are numbers, and its look-ups.
    struct Walk {
        ahead: Ahead,
        totals: Arc<Totals>,
        /// Names, in the order they were made in.
        names: Vec<u64>,
        now: Instant,
        asked: u32,
        pages: Vec<u32>,
        hits: u32,
    }

    fn name(number: u64) -> Name {
        Name::new(number.to_string().as_bytes()).unwrap()
    }

    fn line(number: u64, cookie: u64) -> DirEntry {
        let ino = Ino(number + 100);
        let entry =
            Entry { node: Node { ino, seal: 0 }, attr: Attr::new(ino, S_IFREG | 0o644, Time::default()) };
        DirEntry { name: name(number), ino, kind: S_IFREG, cookie, entry: Some(entry) }
    }

    fn grant() -> Grant {
        let leases = Leases::NAMES.and(Leases::ATTR);
        Grant { leases, asked: Recalls::default().asked(), own: 0 }
    }

    impl Walk {
        fn new(count: u64) -> Self {
            Self {
                ahead: Ahead::default(),
                totals: Arc::default(),
                names: (0..count).collect(),
                now: flexfs_uring::clock::now(),
                asked: 0,
                pages: Vec::new(),
                hits: 0,
            }
        }

        fn page(&self, ask: &Ask) -> Page {
            let from = match &ask.first {
                Some(first) => self.names.iter().position(|number| name(*number) == *first).unwrap(),
                None => usize::try_from(ask.cookie).unwrap(),
            };
            let rest = &self.names[from..];
            let count = rest.len().min(ask.count as usize);
            let lines = rest[..count].iter().zip(from as u64 + 1..);
            Page {
                entries: lines.map(|(number, cookie)| line(*number, cookie)).collect(),
                layouts: Vec::new(),
                eof: count == rest.len(),
                grant: grant(),
            }
        }

        fn bring(&mut self, ask: &Ask) -> Vec<Ino> {
            self.pages.push(ask.count);
            let page = self.page(ask);
            self.ahead.bring(page, self.now, true, &self.totals)
        }

        fn look(&mut self, number: u64, is_true: bool) -> (bool, Option<Ask>) {
            let (wanted, entries) = (name(number), self.names.len() as u64);
            let place = (&wanted, known::hash(&wanted));
            let (look, ask) = self.ahead.look(place, entries, self.now, true, |_| is_true);
            let is_kept = match look {
                Look::Kept(kept) => {
                    assert_eq!(kept.entry.node.ino, Ino(number + 100));
                    true
                }
                Look::Soon(_) | Look::Unknown => false,
            };
            self.hits += u32::from(is_kept);
            self.asked += u32::from(!is_kept);
            (is_kept, ask)
        }

        /// The page comes before the next look-up.
        fn stat(&mut self, number: u64) {
            if let (_, Some(ask)) = self.look(number, true) {
                self.bring(&ask);
            }
        }
    }

    #[test]
    fn a_walk_asks_for_larger_and_larger_pages() {
        for count in [5_000, 200_000] {
            let mut walk = Walk::new(count);
            (0..5_000).for_each(|number| walk.stat(number));
            assert_eq!(walk.asked, 3, "of {count}");
            assert!(walk.pages.len() <= 12 && walk.pages.starts_with(&[64, 128, 256, 512, 1024, 1024]));
            assert_eq!(walk.ahead.kept.len(), walk.totals.now().0);
        }
    }

    #[test]
    fn a_directory_that_is_not_large_is_read_whole_in_any_order() {
        let mut walk = Walk::new(5_000);
        (0..5_000).for_each(|step| walk.stat(step * 1_237 % 5_000));
        assert!(walk.asked < 60 && walk.pages.len() < 20, "{} {:?}", walk.asked, walk.pages);
        // What is missed then is not there any more, or is new: it is not read again and again.
        let pages = walk.pages.len();
        (0..500).for_each(|step| walk.stat(step * 1_237 % 5_000));
        assert!(walk.pages.len() - pages < 60);
        assert!(walk.ahead.streams.len() <= 1);
    }

    #[test]
    fn jumps_in_a_large_directory_bring_little() {
        let mut walk = Walk::new(1_000_000);
        (0..10_000).for_each(|step| walk.stat(step * 386_117 % 1_000_000));
        let brought: u32 = walk.pages.iter().sum();
        assert!(walk.pages.len() < 30 && brought < 10_000, "{:?}", walk.pages);
    }

    #[test]
    fn several_walk_through_parts_of_a_large_directory() {
        let mut walk = Walk::new(100_000);
        for step in 0..5_000 {
            for part in 0..8 {
                walk.stat(part * 12_500 + step);
            }
        }
        assert!(walk.asked < 400 && walk.pages.len() < 120, "{} {:?}", walk.asked, walk.pages);
    }

    #[test]
    fn look_ups_that_are_far_apart_begin_nothing() {
        let mut walk = Walk::new(5_000);
        for number in 0..50 {
            walk.stat(number);
            walk.now += PAUSE_MAX * 2;
        }
        assert!(walk.pages.is_empty());
    }

    #[test]
    fn what_changed_is_not_kept_and_what_is_not_true_not_given_out() {
        let mut walk = Walk::new(40);
        assert!(walk.look(0, true).1.is_none() && walk.look(1, true).1.is_none());
        let ask = walk.look(2, true).1.unwrap();
        assert!(walk.look(3, true).1.is_none(), "one page at a time");
        walk.ahead.drop_name(known::hash(&name(7)));
        let left = walk.bring(&ask);
        assert_eq!(left, [Ino(107)], "it changed meanwhile");
        assert_eq!(walk.totals.now().0, 39);
        walk.ahead.drop_name(known::hash(&name(8)));
        assert!(!walk.look(7, true).0 && !walk.look(8, true).0);
        assert!(!walk.look(9, false).0 && !walk.look(9, true).0, "what is not true is gone");
        assert!(walk.look(10, true).0 && !walk.look(10, true).0, "given out once");
        let mut left = walk.ahead.take();
        left.sort_unstable();
        assert_eq!((left.len(), left[0]), (36, Ino(100)));
        assert_eq!(walk.totals.now(), (0, 0));
        assert!(!walk.look(11, true).0);
    }

    #[test]
    fn a_page_that_lost_its_lease_is_not_kept() {
        let mut walk = Walk::new(40);
        let ask = (0..3).find_map(|number| walk.look(number, true).1).unwrap();
        let page = walk.page(&ask);
        assert_eq!(walk.ahead.bring(page, walk.now, false, &walk.totals).len(), 40);
        assert!(!walk.look(5, true).0 && walk.totals.now() == (0, 0));
        let begins = |walk: &mut Walk| (0..1_000).find(|_| walk.look(5, true).1.is_some()).unwrap();
        assert_eq!(begins(&mut walk), 10, "it takes four times as many, of which one was");
        walk.ahead.fail();
        assert_eq!(begins(&mut walk), 47);
    }

    #[test]
    fn who_waits_in_vain_waits_no_more() {
        let mut walk = Walk::new(40_000);
        let ask = (0..3).find_map(|number| walk.look(number * 1_000, true).1).unwrap();
        let wanted = name(9_000);
        let place = (&wanted, known::hash(&wanted));
        for _ in 0..VAIN_MAX {
            let (look, _) = walk.ahead.look(place, 40_000, walk.now, false, |_| true);
            // `stat` says that it waited.
            assert!(matches!(look, Look::Unknown | Look::Soon(_)));
            walk.look(9_000, true);
        }
        let (look, _) = walk.ahead.look(place, 40_000, walk.now, false, |_| true);
        assert!(matches!(look, Look::Unknown));
        walk.bring(&ask);
        assert!(walk.look(2_001, true).0);
        let (look, _) =
            walk.ahead.look((&name(2_002), known::hash(&name(2_002))), 40_000, walk.now, false, |_| true);
        assert!(matches!(look, Look::Kept(_)));
    }
}
