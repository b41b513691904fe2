//! What may be in a directory that was made here: what is surely not in it need not be asked for.
//!
//! The server grants the names of a new directory together with the directory. From then on every name in it was either
//! made here, or is recalled before another client makes it: all are noted, none is ever taken out. So a name that was not
//! noted is not there. Most names that are looked up in a new directory are about to be made (`tar`, `git clone`).

use std::sync::{Mutex, MutexGuard, PoisonError};

use flexfs_wire::attr::Attr;
use flexfs_wire::name::Name;

use super::known::Known;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Content {
    state: Mutex<State>,
    /// Names that may be there.
    names: Known,
}

#[derive(Debug, Default)]
struct State {
    /// The life of the leases in which it was made.
    since: Option<u64>,
    /// A name was made there before it was known to be new.
    late: bool,
    /// No other session looks into it before this one was asked.
    alone: bool,
    /// Its attributes, while it is alone and nothing else changes them; and the renames of the mount by then.
    attr: Option<(Attr, u64)>,
    /// How often they were doubted or changed.
    doubts: u64,
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
        (state.alone && state.since == Some(life) && by == renames).then_some(attr)
    }

    /// For [`Content::know_attr`], before the server is asked.
    pub(crate) fn doubts(&self) -> u64 {
        self.state().doubts
    }

    /// The server told its attributes; they count if nothing has changed them since it was asked.
    pub(crate) fn know_attr(&self, attr: Attr, life: u64, (doubts, renames): (u64, u64)) {
        let mut state = self.state();
        if state.alone && state.since == Some(life) && state.doubts == doubts {
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
        let state = self.state();
        state.alone && state.since == Some(life)
    }

    /// Makes a name here that the server hears of later, where that is allowed: it is not there, and nobody else looks.
    /// `begin` notes that it is on its way; what is shared afterwards waits for that.
    pub(crate) fn make<T>(
        &self,
        name: &Name,
        made: &Attr,
        life: u64,
        begin: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let mut state = self.state();
        if !state.alone || state.since != Some(life) || self.names.has(name) {
            return None;
        }
        let begun = begin()?;
        self.names.add(name);
        state.doubts += 1;
        if let Some((attr, _)) = &mut state.attr {
            // As the server does it (`namespace/create.rs`).
            attr.size += 1;
            attr.nlink += u32::from(made.is_dir());
            attr.mtime = attr.mtime.touched(made.mtime);
            attr.ctime = attr.ctime.touched(made.mtime);
            attr.version += 1;
        }
        Some(begun)
    }

    /// A name is about to be made there, by whomever.
    pub(crate) fn add(&self, name: &Name) {
        let mut state = self.state();
        if state.since.is_some() {
            self.names.add(name);
        } else {
            state.late = true;
        }
    }

    /// Whether the name is surely not there. `life`: of the leases, now.
    pub(crate) fn lacks(&self, name: &Name, life: u64) -> bool {
        self.state().since == Some(life) && !self.names.has(name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn share(&mut self) {
        self.alone = false;
        self.attr = None;
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
}
