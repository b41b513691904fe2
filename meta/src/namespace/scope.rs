//! Where an inode is, seen from a directory: what a session with a scope may name.
//!
//! A handle says that its inode was in the scope once. Another session may have moved it out since, itself or a directory above
//! it. Directories know their parent, and so does a file with one name; the walk up is a few looks into the cache.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Ino, SessionId};
use flexfs_wire::name::Name;
use flexfs_wire::time::Time;

use super::machine::Namespace;
use crate::engine::Store;

/// Where an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the directory, or below it; or there is no such inode.
    Within,
    /// It is not.
    Outside,
    /// It has, or had, several names, of which those below the directory are not known; or no name at all any more.
    Unknown,
}

impl<S: Store> Namespace<S> {
    /// Where `ino` is, seen from the directory `root`.
    ///
    /// # Errors
    /// `EIO`.
    pub fn place(&mut self, root: Ino, ino: Ino) -> Result<Place, Errno> {
        if root == Ino::ROOT || ino == root {
            return Ok(Place::Within);
        }
        let txn = self.begin(Time::default());
        let Some(inode) = self.any_inode(&txn, ino)? else { return Ok(Place::Within) };
        let mut at = inode.parent;
        while at != root {
            if at == Ino::ROOT || at == Ino(0) {
                let is_known = inode.parent != Ino(0) && (inode.is_dir() || inode.nlink <= 1);
                return Ok(if is_known || ino == Ino::ROOT { Place::Outside } else { Place::Unknown });
            }
            // Above a directory that was removed while it was open there may be nothing any more.
            let Some(dir) = self.any_inode(&txn, at)? else { return Ok(Place::Unknown) };
            at = dir.parent;
        }
        Ok(Place::Within)
    }

    /// Notes that a session with this scope was just shown an inode under a name in its scope, where `place` cannot tell.
    pub fn note_shown(&mut self, root: Ino, ino: Ino, dir: Ino, name: &Name) {
        if matches!(self.place(root, ino), Ok(Place::Unknown)) {
            self.shown.insert((root, ino), (dir, name.clone()));
        }
    }

    /// Whether an inode still has the name in the scope under which it was shown last.
    pub fn is_shown(&mut self, root: Ino, ino: Ino) -> bool {
        let Some((dir, name)) = self.shown.get(&(root, ino)) else { return false };
        self.child(dir, &name) == Some(ino) && matches!(self.place(root, dir), Ok(Place::Within))
    }

    /// Whether the session has it open.
    #[must_use]
    pub fn has_open(&self, session: SessionId, ino: Ino) -> bool {
        self.opens.has(session, ino)
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::message::{RENAME_EXCHANGE, Request};

    use super::super::fixture::{Fixture, ROOT};
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn moves(t: &mut Fixture, (from, old): (Ino, &str), (to, new): (Ino, &str), flags: u32) {
        let (parent, new_parent) = (Fixture::node(from), Fixture::node(to));
        t.call(Request::Rename { parent, name: name(old), new_parent, new_name: name(new), flags }).unwrap();
    }

    fn links(t: &mut Fixture, ino: Ino, dir: Ino, new: &str) {
        let (node, parent) = (Fixture::node(ino), Fixture::node(dir));
        t.call(Request::Link { node, parent, name: name(new) }).unwrap();
    }

    #[test]
    fn what_is_moved_is_where_it_is() {
        let mut t = Fixture::new();
        let (team, other) = (t.dir(ROOT, "team"), t.dir(ROOT, "other"));
        let sub = t.dir(team, "sub");
        let (file, deep) = (t.file(team, "file"), t.file(sub, "deep"));
        let places = |t: &mut Fixture| [sub, file, deep].map(|ino| t.ns.place(team, ino).unwrap());
        assert_eq!(places(&mut t), [Place::Within; 3]);
        for ino in [ROOT, other] {
            assert_eq!(t.ns.place(team, ino), Ok(Place::Outside));
        }
        assert_eq!(t.ns.place(ROOT, other), Ok(Place::Within));
        assert_eq!(t.ns.place(team, Ino(1 << 50)), Ok(Place::Within), "nothing there to be seen");
        moves(&mut t, (team, "sub"), (other, "sub"), 0);
        assert_eq!(places(&mut t), [Place::Outside, Place::Within, Place::Outside]);
        let mut t = t.crash(0);
        t.ns.finish_recovery(t.context.now).unwrap();
        assert_eq!(places(&mut t), [Place::Outside, Place::Within, Place::Outside]);
        moves(&mut t, (team, "file"), (other, "sub"), RENAME_EXCHANGE);
        assert_eq!(places(&mut t), [Place::Within, Place::Outside, Place::Within]);
        t.verify();
    }

    #[test]
    fn several_names_are_told_by_what_was_shown() {
        let mut t = Fixture::new();
        let (team, other) = (t.dir(ROOT, "team"), t.dir(ROOT, "other"));
        let file = t.file(other, "file");
        assert_eq!(t.ns.place(team, file), Ok(Place::Outside));
        links(&mut t, file, team, "link");
        assert_eq!((t.ns.place(team, file), t.ns.is_shown(team, file)), (Ok(Place::Unknown), false));
        t.ns.note_shown(team, file, team, &name("link"));
        assert!(t.ns.is_shown(team, file) && !t.ns.is_shown(other, file));
        moves(&mut t, (team, "link"), (team, "renamed"), 0);
        assert!(!t.ns.is_shown(team, file), "that name is no more");
        t.ns.note_shown(team, file, team, &name("renamed"));
        moves(&mut t, (team, "renamed"), (ROOT, "out"), 0);
        assert!(!t.ns.is_shown(team, file));
        t.remove(other, "file", false).unwrap();
        assert_eq!(t.ns.place(team, file), Ok(Place::Unknown));
        links(&mut t, file, team, "again");
        assert_eq!(t.ns.place(team, file), Ok(Place::Within));
        t.remove(ROOT, "out", false).unwrap();
        assert_eq!(t.ns.place(team, file), Ok(Place::Within));
        t.verify();
    }

    #[test]
    fn what_has_no_name_any_more_is_where_it_was() {
        let mut t = Fixture::new();
        let team = t.dir(ROOT, "team");
        let sub = t.dir(team, "sub");
        let file = t.file(sub, "file");
        for ino in [sub, file] {
            t.open(ino).unwrap();
        }
        t.remove(sub, "file", false).unwrap();
        t.remove(team, "sub", true).unwrap();
        assert_eq!([sub, file].map(|ino| t.ns.place(team, ino).unwrap()), [Place::Within; 2]);
        t.close(sub);
        assert_eq!(t.ns.place(team, file), Ok(Place::Unknown));
        assert!(t.ns.has_open(t.context.session, file));
        t.verify();
    }
}
