//! What is known of the content of a directory.
//!
//! *Names that may be there.* The server grants the names of a new directory together with the directory; those of another are
//! listed once, when this client is let alone with it (`gather`). From then on every name in it was either made here, or is
//! recalled before another client makes it: all are noted, and taken out only when they are removed here while nobody else
//! looks. So a name that was not noted is not there. Most names that are looked up in a new directory are about to be made
//! (`tar`, `git clone`).
//!
//! *Children*: the inodes that names were last found to be.
//!
//! *Entries that nobody has looked up yet*, brought ahead (`ahead`): whoever changes a name takes them away.
//!
//! *Attributes*, while this client is alone with the directory and changes it at once, and the server behind.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use flexfs_wire::attr::{Attr, SetAttr};
use flexfs_wire::id::Ino;
use flexfs_wire::name::Name;
use flexfs_wire::time::Time;

use super::ahead::{Ahead, Ask, Kept, Look, Page, Totals};
use super::known::{self, Known};
use crate::data;

/// Children remembered of one directory; with more, all are forgotten.
const CHILDREN_MAX: usize = 1 << 20;
/// Entries of a directory that is listed to be alone with it.
const ENTRIES_MAX: u64 = 16_384;
/// To list it must pay: one change for so many entries.
const ENTRIES_PER_CHANGE: u64 = 64;
/// Changes after which it is wanted for the first time, and at most: each time it takes four times as many.
const PATIENCE: (u32, u32) = (2, 512);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Content {
    state: Mutex<State>,
    /// Names that may be there.
    names: Known,
}

#[derive(Debug, Default)]
struct State {
    /// The life of the leases since when all names are noted.
    since: Option<u64>,
    /// A name was made there before it was known to be new.
    late: bool,
    /// No other session looks into it before this one was asked.
    alone: bool,
    /// Its attributes, while it is alone and nothing else changes them; and the renames of the mount by then.
    attr: Option<(Attr, u64)>,
    /// How often they were doubted or changed.
    doubts: u64,
    /// By hash of the name.
    children: HashMap<u64, Child>,
    /// Some were forgotten that the kernel knows.
    is_cut: bool,
    /// The life of the leases in which its names are being gathered, and those that changed since.
    gathering: Option<(u64, HashSet<u64>)>,
    /// Entries it had when its attributes were told last.
    entries: u64,
    /// Changes of names that the server was asked for, since this client last wanted to be alone with it; and how many make it
    /// want that again.
    changes: u32,
    patience: u32,
    /// What was brought before it was looked up.
    ahead: Option<Box<Ahead>>,
}

/// What a name was last found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) ino: Ino,
    /// The life of the leases in which it surely is that.
    sure: Option<u64>,
    /// Nobody else caches anything of it, as long as the directory is this client's alone.
    pub(crate) claim: Option<Claim>,
}

/// What a name was is not noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

/// Why nobody else caches anything of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It was made here: nobody has heard of it. Of a file this client has the exclusive lease.
    Made,
    /// The server says so. It asks for the directory before somebody else looks at it.
    Found,
}

/// How a change finds the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Present {
    /// The life of the leases.
    pub(crate) life: u64,
    /// Renames of this mount so far.
    pub(crate) renames: u64,
    /// When it is made, by the server's clock.
    pub(crate) now: Time,
}

impl Content {
    /// It was made in this life of the leases, and was empty then. With `attr`, which comes with the renames of this mount by
    /// now, nobody else looks into it.
    pub(crate) fn begin(&self, life: u64, attr: Option<(Attr, u64)>) {
        let mut state = self.state();
        state.since = (!state.late).then_some(life);
        state.alone = attr.is_some();
        state.attr = attr.filter(|_| !state.late);
        state.doubts += 1;
    }

    /// Nothing is known of it any more.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.since = None;
        state.share();
    }

    /// Others look into it from now on.
    pub(crate) fn share(&self) {
        self.state().share();
    }

    /// Its attributes, if they are known better here than at the server. `life`: of the leases, now; `renames`: those of this
    /// mount by now. A rename may have moved the directory itself, which changes it, and names only where it was.
    pub(crate) fn attr(&self, life: u64, renames: u64) -> Option<Attr> {
        let state = self.state();
        let (attr, by) = state.attr?;
        (state.is_alone(life) && by == renames).then_some(attr)
    }

    /// For [`Content::know_attr`], before the server is asked.
    pub(crate) fn doubts(&self) -> u64 {
        self.state().doubts
    }

    /// The server told its attributes; they count if nothing has changed them since it was asked.
    pub(crate) fn know_attr(&self, attr: Attr, life: u64, (doubts, renames): (u64, u64)) {
        let mut state = self.state();
        if state.is_alone(life) && state.doubts == doubts {
            state.attr = Some((attr, renames));
        }
    }

    /// The server is about to change it, or just did: only there is known what it is now.
    pub(crate) fn doubt_attr(&self) {
        let mut state = self.state();
        state.attr = None;
        state.doubts += 1;
    }

    /// Whether nobody else looks into it. `life`: of the leases, now.
    pub(crate) fn is_alone(&self, life: u64) -> bool {
        self.state().is_alone(life)
    }

    /// A name is about to be made there, by whomever.
    pub(crate) fn add(&self, name: &Name) {
        let mut state = self.state();
        state.drop_ahead(|| known::hash(name));
        if let Some((_, changed)) = &mut state.gathering {
            changed.insert(known::hash(name));
            self.names.add(name);
        } else if state.since.is_some() {
            self.names.add(name);
        } else {
            state.late = true;
        }
    }

    /// Whether the name is surely not there. `life`: of the leases, now.
    pub(crate) fn lacks(&self, name: &Name, life: u64) -> bool {
        self.state().since == Some(life) && !self.names.has(name)
    }

    // ---- being alone with what was there before

    /// Its attributes were told.
    pub(crate) fn note_entries(&self, entries: u64) {
        self.state().entries = entries;
    }

    /// The server was asked for a change of names. True when it is worth the while to be alone with the directory.
    pub(crate) fn is_wanted(&self, life: u64) -> bool {
        let mut state = self.state();
        if state.is_alone(life) || state.gathering.is_some() || state.entries > ENTRIES_MAX {
            return false;
        }
        state.changes += 1;
        state.patience = state.patience.max(PATIENCE.0);
        let wanted = state.changes >= state.patience
            && u64::from(state.changes) >= state.entries.saturating_add(1) / ENTRIES_PER_CHANGE;
        if wanted {
            state.changes = 0;
            state.patience = (4 * state.patience).min(PATIENCE.1);
        }
        wanted
    }

    /// Names are noted from now on, whatever was known before. For [`Content::gathered`]: how often its attributes were doubted.
    pub(crate) fn gather(&self, life: u64) -> u64 {
        let mut state = self.state();
        state.since = None;
        state.share();
        state.late = false;
        self.names.clear();
        state.gathering = Some((life, HashSet::new()));
        state.doubts
    }

    /// A line of its listing; `alone`: nobody else caches anything of the inode.
    pub(crate) fn list(&self, name: &Name, ino: Ino, alone: bool) {
        let (hash, mut state) = (known::hash(name), self.state());
        let Some((life, changed)) = &state.gathering else { return };
        let (sure, is_new) = (Some(*life), !changed.contains(&hash));
        self.names.add(name);
        if is_new {
            state.children.insert(hash, Child { ino, sure, claim: alone.then_some(Claim::Found) });
        }
    }

    /// All are listed: nobody else looks into it, if that is still so. `attr` was told after the `doubts` of then, with the
    /// renames of this mount.
    pub(crate) fn gathered(
        &self,
        life: u64,
        attr: (Attr, u64),
        doubts: u64,
        is_good: impl FnOnce() -> bool,
    ) -> bool {
        let mut state = self.state();
        let is_all = state.gathering.take().is_some_and(|(since, _)| since == life) && is_good();
        if is_all {
            state.since = Some(life);
            state.alone = true;
            state.attr = (state.doubts == doubts).then_some(attr);
        }
        is_all
    }

    /// It did not come to that.
    pub(crate) fn give_up(&self) {
        self.state().gathering = None;
    }

    /// All children, which are forgotten.
    pub(crate) fn take_children(&self) -> Vec<Ino> {
        std::mem::take(&mut self.state().children).into_values().map(|child| child.ino).collect()
    }

    // ---- what was brought before it was looked up

    /// See [`Ahead::look`].
    pub(crate) fn look_ahead(
        &self,
        name: (&Name, u64),
        now: Instant,
        waited: bool,
        is_true: impl FnOnce(&Kept) -> bool,
    ) -> (Look, Option<Ask>) {
        let mut state = self.state();
        let entries = state.entries;
        state.ahead.get_or_insert_default().look(name, entries, now, waited, is_true)
    }

    /// See [`Ahead::bring`].
    pub(crate) fn bring_ahead(
        &self,
        page: Page,
        now: Instant,
        is_good: impl FnOnce() -> bool,
        totals: &Arc<Totals>,
    ) -> Vec<Ino> {
        let mut state = self.state();
        // Under the lock: a recall that comes now finds what is kept here.
        let is_good = is_good();
        state.ahead.get_or_insert_default().bring(page, now, is_good, totals)
    }

    /// A page did not come.
    pub(crate) fn fail_ahead(&self) {
        if let Some(ahead) = &mut self.state().ahead {
            ahead.fail();
        }
    }

    /// All that was brought and not looked up, which is forgotten.
    pub(crate) fn take_ahead(&self) -> Vec<Ino> {
        let mut state = self.state();
        let taken = state.ahead.as_mut().map(|ahead| ahead.take()).unwrap_or_default();
        if !taken.is_empty() {
            // Whose lease is given back is nobody's child.
            let taken: HashSet<Ino> = taken.iter().copied().collect();
            state.children.retain(|_, child| child.claim.is_none() || !taken.contains(&child.ino));
        }
        taken
    }

    /// What a name is has changed: what was brought of it, or is on its way, is old.
    pub(crate) fn drop_found(&self, name: u64) {
        self.state().drop_ahead(|| name);
    }

    /// When anything of that was of use last.
    pub(crate) fn ahead_used(&self) -> Option<Instant> {
        self.state().ahead.as_ref().and_then(|ahead| ahead.used())
    }

    // ---- children

    /// The name was found to be this inode; in the life that `sure` tells it surely is. `alone`: nobody else caches anything of
    /// the inode.
    pub(crate) fn learn(&self, name: u64, ino: Ino, alone: bool, sure: impl FnOnce() -> Option<u64>) {
        let mut state = self.state();
        state.drop_ahead(|| name);
        if state.children.len() >= CHILDREN_MAX {
            state.children = HashMap::new();
            state.is_cut = true;
        }
        // Under the lock: a recall that comes now finds what is noted here.
        let sure = sure();
        let claim = (alone && sure.is_some()).then_some(Claim::Found);
        let before =
            state.children.get(&name).copied().filter(|child| child.ino == ino && child.claim.is_some());
        state.children.insert(name, before.unwrap_or(Child { ino, sure, claim }));
    }

    /// The kernel forgot the inode that was found under this name.
    pub(crate) fn forget(&self, name: u64, ino: Ino) {
        let mut state = self.state();
        if state.children.get(&name).is_some_and(|child| child.ino == ino) {
            state.children.remove(&name);
        }
    }

    /// The name changes at the server, or the inode gets another one. What it was, if that was noted; or whether it may not have
    /// been.
    pub(crate) fn doubt_name(&self, name: u64) -> Result<Option<Ino>, Unknown> {
        let mut state = self.state();
        state.drop_ahead(|| name);
        if let Some((_, changed)) = &mut state.gathering {
            changed.insert(name);
        }
        let is_cut = state.is_cut;
        match state.children.get_mut(&name) {
            Some(child) => {
                (child.sure, child.claim) = (None, None);
                Ok(Some(child.ino))
            }
            None if is_cut => Err(Unknown),
            None => Ok(None),
        }
    }

    /// What the name was last found to be.
    pub(crate) fn child(&self, name: u64) -> Option<Ino> {
        self.state().children.get(&name).map(|child| child.ino)
    }

    /// What the name surely is, while nobody else looks into the directory. `life`: of the leases, now.
    pub(crate) fn sure(&self, name: u64, life: u64) -> Option<Child> {
        self.state().sure(name, life)
    }

    /// The name is not there any more.
    pub(crate) fn drop_name(&self, name: u64) {
        let mut state = self.state();
        state.drop_ahead(|| name);
        state.children.remove(&name);
    }

    // ---- changes that the server hears of later. `begin` notes that one is on its way; what is shared afterwards waits for it.
    // That nobody else can tell is the caller's to know, but for what is looked at here.

    /// Makes a name, where that is allowed: it is not there, and nobody else looks.
    pub(crate) fn make<T>(
        &self,
        name: &Name,
        made: &Attr,
        life: u64,
        begin: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        self.enter(name, (made.ino, made.is_dir()), (life, made.mtime), begin)
    }

    /// Gives an inode, no directory, a name more.
    pub(crate) fn link<T>(
        &self,
        name: &Name,
        ino: Ino,
        at: Present,
        begin: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        self.enter(name, (ino, false), (at.life, at.now), begin)
    }

    fn enter<T>(
        &self,
        name: &Name,
        (ino, is_dir): (Ino, bool),
        (life, now): (u64, Time),
        begin: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let mut state = self.state();
        if !self.is_free(&state, name, None, life) {
            return None;
        }
        let begun = begin()?;
        self.names.add(name);
        state.drop_ahead(|| known::hash(name));
        let child = Child { ino, sure: Some(life), claim: Some(Claim::Made) };
        state.children.insert(known::hash(name), child);
        // As the server does it (`namespace/create.rs`).
        state.touch(now, |attr| {
            attr.size += 1;
            attr.nlink += u32::from(is_dir);
        });
        Some(begun)
    }

    /// Takes the name of this inode away; `is_dir`: it is a directory.
    pub(crate) fn remove<T>(
        &self,
        name: &Name,
        (ino, is_dir): (Ino, bool),
        at: Present,
        begin: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let hash = known::hash(name);
        let mut state = self.state();
        state.sure(hash, at.life).filter(|child| child.ino == ino)?;
        let begun = begin()?;
        self.names.remove(hash);
        state.drop_ahead(|| hash);
        state.children.remove(&hash);
        state.touch(at.now, |attr| {
            attr.size = attr.size.saturating_sub(1);
            attr.nlink = attr.nlink.saturating_sub(u32::from(is_dir));
        });
        Some(begun)
    }

    /// Moves a name within the directory, onto one that is not there, or onto that of the inode which it `replaces`; neither is
    /// a directory's.
    pub(crate) fn rename<T>(
        &self,
        (source, target): (&Name, &Name),
        replaces: Option<Ino>,
        at: Present,
        begin: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let (from, to) = (known::hash(source), known::hash(target));
        let mut state = self.state();
        let child = state.sure(from, at.life)?;
        if !self.is_free(&state, target, replaces, at.life) {
            return None;
        }
        let begun = begin()?;
        self.names.remove(from);
        self.names.add(target);
        state.drop_ahead(|| from);
        state.drop_ahead(|| to);
        state.children.remove(&from);
        state.children.insert(to, child);
        state.touch(at.now, |attr| attr.size = attr.size.saturating_sub(replaces.is_some().into()));
        Some(begun)
    }

    /// The same, into another directory. `first`: this one is locked before it.
    pub(crate) fn move_to<T>(
        &self,
        target_dir: &Self,
        first: bool,
        (source, target): (&Name, &Name),
        replaces: Option<Ino>,
        at: Present,
        begin: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let (from, to) = (known::hash(source), known::hash(target));
        let (mut here, mut there);
        if first {
            here = self.state();
            there = target_dir.state();
        } else {
            there = target_dir.state();
            here = self.state();
        }
        let child = here.sure(from, at.life)?;
        if !target_dir.is_free(&there, target, replaces, at.life) {
            return None;
        }
        let begun = begin()?;
        self.names.remove(from);
        target_dir.names.add(target);
        here.drop_ahead(|| from);
        there.drop_ahead(|| to);
        here.children.remove(&from);
        there.children.insert(to, child);
        here.touch(at.now, |attr| attr.size = attr.size.saturating_sub(1));
        there.touch(at.now, |attr| attr.size += u64::from(replaces.is_none()));
        Some(begun)
    }

    /// Changes its attributes. They are told, as they are then.
    pub(crate) fn set_attr<T>(
        &self,
        change: &SetAttr,
        at: Present,
        begin: impl FnOnce() -> Option<T>,
    ) -> Option<(Attr, T)> {
        let mut state = self.state();
        let alone = state.is_alone(at.life);
        let (attr, by) = state.attr.as_mut().filter(|_| alone)?;
        if *by != at.renames {
            return None;
        }
        let begun = begin()?;
        data::apply(attr, change, at.now);
        let attr = *attr;
        state.doubts += 1;
        Some((attr, begun))
    }

    /// Changes the inode that was found under this name, where nobody else caches anything of it.
    pub(crate) fn change_found<T>(
        &self,
        name: u64,
        ino: Ino,
        life: u64,
        begin: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let state = self.state();
        let is_found = |child: &Child| child.ino == ino && child.claim == Some(Claim::Found);
        state.sure(name, life).filter(is_found)?;
        begin()
    }

    fn is_free(&self, state: &State, name: &Name, replaces: Option<Ino>, life: u64) -> bool {
        match replaces {
            Some(ino) => state.sure(known::hash(name), life).is_some_and(|child| child.ino == ino),
            None => state.is_alone(life) && !self.names.has(name),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_alone(&self, life: u64) -> bool {
        self.alone && self.since == Some(life)
    }

    /// A name changes, or is found.
    fn drop_ahead(&mut self, name: impl FnOnce() -> u64) {
        if let Some(ahead) = &mut self.ahead {
            ahead.drop_name(name());
        }
    }

    fn share(&mut self) {
        self.alone = false;
        self.attr = None;
        self.gathering = None;
        self.children.values_mut().for_each(|child| child.claim = None);
    }

    fn sure(&self, name: u64, life: u64) -> Option<Child> {
        let child = *self.children.get(&name)?;
        (self.is_alone(life) && child.sure == Some(life)).then_some(child)
    }

    /// An entry came or went at `now`.
    fn touch(&mut self, now: Time, change: impl FnOnce(&mut Attr)) {
        self.doubts += 1;
        if let Some((attr, _)) = &mut self.attr {
            change(attr);
            attr.mtime = attr.mtime.touched(now);
            attr.ctime = attr.ctime.touched(now);
            attr.version += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::attr::{S_IFDIR, S_IFREG};
    use flexfs_wire::id::Ino;
    use flexfs_wire::time::Time;

    use super::*;

    fn attr(kind: u32, secs: i64) -> Attr {
        Attr::new(Ino(7), kind | 0o700, Time { secs, nanos: 0 })
    }

    #[test]
    fn a_name_is_absent_until_somebody_is_about_to_make_it() {
        let name = |text: &[u8]| Name::new(text).unwrap();
        let content = Content::default();
        content.add(&name(b"early"));
        content.begin(3, Some((attr(S_IFDIR, 1), 0)));
        assert!(!content.lacks(&name(b"a"), 3), "it is not empty any more");
        assert!(!content.is_alone(3) && content.attr(3, 0).is_none());
        let content = Content::default();
        assert!(!content.lacks(&name(b"a"), 0), "nothing is known");
        content.begin(3, None);
        content.add(&name(b"a"));
        assert!(!content.lacks(&name(b"a"), 3) && content.lacks(&name(b"b"), 3));
        assert!(!content.lacks(&name(b"b"), 4), "the leases are void");
        content.end();
        assert!(!content.lacks(&name(b"b"), 3));
    }

    #[test]
    fn names_are_made_here_while_nobody_else_looks() {
        let (a, b) = (Name::new(b"a").unwrap(), Name::new(b"b").unwrap());
        let (dir, file) = (attr(S_IFDIR, 5), attr(S_IFREG, 6));
        let content = Content::default();
        assert_eq!(content.make(&a, &file, 0, || Some(1)), None);
        content.begin(3, Some((dir, 0)));
        assert_eq!(content.make(&a, &file, 4, || Some(1)), None, "the leases are void");
        assert_eq!(content.make(&a, &file, 3, || None::<u8>), None);
        assert_eq!(content.make(&a, &file, 3, || Some(1)), Some(1), "it was not begun before");
        assert_eq!(content.make(&a, &file, 3, || Some(1)), None, "it is there");
        assert!(content.is_alone(3) && !content.lacks(&a, 3));
        content.share();
        assert_eq!(content.make(&b, &file, 3, || Some(1)), None);
        assert!(!content.is_alone(3) && content.lacks(&b, 3));
    }

    #[test]
    fn attributes_follow_what_is_made_and_are_doubted_when_the_server_changes_them() {
        let (a, b) = (Name::new(b"a").unwrap(), Name::new(b"b").unwrap());
        let content = Content::default();
        content.begin(3, Some((attr(S_IFDIR, 5), 7)));
        content.make(&a, &attr(S_IFDIR, 6), 3, || Some(())).unwrap();
        content.make(&b, &attr(S_IFREG, 4), 3, || Some(())).unwrap();
        let now = content.attr(3, 7).unwrap();
        assert_eq!((now.size, now.nlink, now.mtime.secs, now.ctime.secs), (2, 3, 6, 6));
        assert_eq!(
            (content.attr(4, 7), content.attr(3, 8)),
            (None, None),
            "another life, and it may have moved"
        );
        let asked = content.doubts();
        content.doubt_attr();
        content.know_attr(now, 3, (asked, 8));
        assert_eq!(content.attr(3, 8), None, "it may be from before");
        content.know_attr(now, 3, (content.doubts(), 8));
        assert_eq!(content.attr(3, 8), Some(now));
        content.share();
        assert_eq!(content.attr(3, 8), None);
    }

    fn present(secs: i64) -> Present {
        Present { life: 3, renames: 7, now: Time { secs, nanos: 0 } }
    }

    fn begun() -> Option<()> {
        Some(())
    }

    const MADE: Option<(Ino, Option<Claim>)> = Some((Ino(8), Some(Claim::Made)));

    fn found(content: &Content, name: &Name) -> Option<(Ino, Option<Claim>)> {
        content.sure(known::hash(name), 3).map(|child| (child.ino, child.claim))
    }

    #[test]
    fn what_was_there_before_is_gathered() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|name| Name::new(name).unwrap());
        let (content, dir) = (Content::default(), attr(S_IFDIR, 5));
        content.add(&a);
        let doubts = content.gather(3);
        content.add(&c);
        assert_eq!(content.doubt_name(known::hash(&b)), Ok(None));
        for (name, ino, alone) in [(&a, 8, true), (&b, 9, true), (&c, 10, false)] {
            content.list(name, Ino(ino), alone);
        }
        assert!(content.gathered(3, (dir, 7), doubts, || true));
        assert!(content.is_alone(3) && content.attr(3, 7) == Some(dir));
        assert_eq!(found(&content, &a), Some((Ino(8), Some(Claim::Found))));
        assert_eq!((found(&content, &b), content.child(known::hash(&c))), (None, None), "changed meanwhile");
        assert!(!content.lacks(&b, 3) && content.lacks(&Name::new(b"d").unwrap(), 3));
        let change =
            |name, ino, life| content.change_found(known::hash(name), Ino(ino), life, begun).is_some();
        assert!(change(&a, 8, 3));
        assert!(
            ![(&a, 9, 3), (&a, 8, 4), (&b, 9, 3)]
                .into_iter()
                .any(|(name, ino, life)| change(name, ino, life))
        );
        // Somebody else came in between.
        let doubts = content.gather(3);
        assert!(!content.is_alone(3) && found(&content, &a).is_none());
        content.share();
        assert!(!change(&a, 8, 3));
        content.list(&a, Ino(8), true);
        assert!(!content.gathered(3, (dir, 7), doubts, || true) && !content.is_alone(3));
        let doubts = content.gather(3);
        assert!(!content.gathered(3, (dir, 7), doubts, || false) && !content.is_alone(3));
        let doubts = content.gather(3);
        content.doubt_attr();
        assert!(content.gathered(3, (dir, 7), doubts, || true) && content.attr(3, 7).is_none());
    }

    #[test]
    fn it_is_wanted_where_that_pays_and_less_and_less() {
        let content = Content::default();
        let until_wanted = || (1..).find(|_| content.is_wanted(3)).unwrap();
        assert_eq!([until_wanted(), until_wanted(), until_wanted()], [2, 8, 32]);
        content.note_entries(ENTRIES_PER_CHANGE * 200);
        assert_eq!([until_wanted(), until_wanted(), until_wanted()], [200, 512, 512]);
        content.note_entries(ENTRIES_MAX + 1);
        assert!((0..1_000).all(|_| !content.is_wanted(3)));
        let (content, _) = own_dir();
        assert!((0..1_000).all(|_| !content.is_wanted(3)), "it is alone");
    }

    /// A directory of this mount's own with the files `a` (8) and `b` (9), changed at 6.
    fn own_dir() -> (Content, [Name; 3]) {
        let names = [b"a", b"b", b"c"].map(|name| Name::new(name).unwrap());
        let content = Content::default();
        content.begin(3, Some((attr(S_IFDIR, 5), 7)));
        for (name, ino) in names.iter().zip([8, 9]) {
            let made = Attr { ino: Ino(ino), ..attr(S_IFREG, 6) };
            content.make(name, &made, 3, begun).unwrap();
        }
        (content, names)
    }

    #[test]
    fn only_what_was_made_here_is_removed_and_moved_here() {
        let (content, [a, b, c]) = own_dir();
        let at = present(9);
        assert_eq!(content.remove(&c, (Ino(8), false), at, begun), None, "it is not there");
        assert_eq!(content.remove(&a, (Ino(8), false), Present { life: 4, ..at }, begun), None);
        assert_eq!(content.rename((&a, &b), None, at, begun), None, "something is there");
        assert_eq!(content.rename((&a, &c), Some(Ino(9)), at, begun), None, "nothing is there");
        content.rename((&a, &c), None, at, begun).unwrap();
        assert!(content.lacks(&a, 3) && !content.lacks(&c, 3));
        assert_eq!((found(&content, &c), content.attr(3, 7).unwrap().size), (MADE, 2));
        content.rename((&c, &b), Some(Ino(9)), at, begun).unwrap();
        let now = content.attr(3, 7).unwrap();
        assert_eq!((now.size, now.mtime.secs, found(&content, &b)), (1, 9, MADE));
        assert_eq!(content.remove(&b, (Ino(9), false), at, begun), None, "it was replaced");
        content.remove(&b, (Ino(8), false), at, begun).unwrap();
        assert!(content.lacks(&b, 3) && content.attr(3, 7).unwrap().size == 0);
        // Found by a lookup: others may know it by another way, unless the server says they do not.
        content.add(&a);
        content.learn(known::hash(&a), Ino(10), false, || Some(3));
        assert_eq!(found(&content, &a), Some((Ino(10), None)));
        content.learn(known::hash(&a), Ino(10), true, || Some(3));
        assert_eq!(found(&content, &a), Some((Ino(10), Some(Claim::Found))));
    }

    #[test]
    fn nothing_is_this_mounts_own_any_more_when_others_look() {
        let (content, [a, b, _]) = own_dir();
        content.learn(known::hash(&a), Ino(8), false, || None);
        assert_eq!(found(&content, &a), MADE, "found once more");
        assert_eq!((content.doubt_name(known::hash(&a)), found(&content, &a)), (Ok(Some(Ino(8))), None));
        content.share();
        assert_eq!((found(&content, &b), content.child(known::hash(&b))), (None, Some(Ino(9))));
        content.forget(known::hash(&b), Ino(7));
        assert_eq!(content.child(known::hash(&b)), Some(Ino(9)));
        content.drop_name(known::hash(&b));
        assert_eq!((content.child(known::hash(&b)), content.doubt_name(known::hash(&b))), (None, Ok(None)));
    }

    #[test]
    fn names_move_between_directories() {
        let (one, [a, b, c]) = own_dir();
        let (two, _) = own_dir();
        let at = present(9);
        assert_eq!(one.move_to(&two, true, (&a, &b), None, at, begun), None);
        one.move_to(&two, true, (&a, &c), None, at, begun).unwrap();
        two.move_to(&one, false, (&c, &b), Some(Ino(9)), at, begun).unwrap();
        let (here, there) = (one.attr(3, 7).unwrap(), two.attr(3, 7).unwrap());
        assert_eq!((here.size, there.size, here.mtime.secs, there.mtime.secs), (1, 2, 9, 9));
        assert_eq!(found(&one, &b), MADE);
        two.share();
        assert_eq!(one.move_to(&two, true, (&b, &c), None, at, begun), None, "others look there");
    }

    #[test]
    fn attributes_change_as_the_server_changes_them() {
        let (content, [a, _, c]) = own_dir();
        let change = SetAttr { mode: Some(0o2755), uid: Some(5), ..SetAttr::default() };
        assert_eq!(content.set_attr(&change, Present { renames: 8, ..present(9) }, begun), None);
        let (now, ()) = content.set_attr(&change, present(9), begun).unwrap();
        assert_eq!((now.mode, now.uid, now.ctime.secs, now.mtime.secs), (S_IFDIR | 0o2755, 5, 9, 6));
        content.link(&c, Ino(8), present(10), begun).unwrap();
        assert_eq!(content.link(&a, Ino(8), present(10), begun), None);
        let now = content.attr(3, 7).unwrap();
        assert_eq!((now.size, now.mtime.secs), (3, 10));
    }
}
