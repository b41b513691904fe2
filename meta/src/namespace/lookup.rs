//! Names: looking one up, listing a directory, walking a path.

use std::ops::ControlFlow;

use flexfs_wire::attr::Attr;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::limits::{AHEAD_DATA_BYTES_MAX, AHEAD_ENTRIES_MAX, BODY_BYTES_MAX};
use flexfs_wire::message::{DirEntry, Entry, Reply};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use super::access::{READ, SEARCH};
use super::context::Context;
use super::machine::Namespace;
use super::open::OPEN_EXTENTS_MAX;
use super::record::{Cookie, Dentry, Inode, damaged, decode};
use super::txn::Txn;
use crate::engine::{Store, key};

/// Bytes of an entry beside its name: numbers, cookie, kind.
const ENTRY_BYTES: usize = 24;
/// Bytes that attributes add to it.
const PLUS_BYTES: usize = 136;
/// Most bytes of an extent of a layout.
const EXTENT_BYTES: usize = 30;
/// Most bytes of entries in one answer: half a body, for the estimate is one.
const ENTRIES_BYTES_MAX: usize = BODY_BYTES_MAX / 2;

impl<S: Store> Namespace<S> {
    pub(super) fn lookup(&mut self, context: &Context, parent: Ino, name: &Name) -> Result<Reply, Errno> {
        let txn = self.begin(context.now);
        let dentry = self.find(context, &txn, parent, name)?;
        let inode = self.named_inode(&txn, dentry.ino)?;
        Ok(Reply::Entry(entry(&inode)))
    }

    /// The same, with the layout of a file that the caller may open for reading, if it is short. No open is counted.
    pub(super) fn lookup_to_open(
        &mut self,
        context: &Context,
        parent: Ino,
        name: &Name,
    ) -> Result<Reply, Errno> {
        let txn = self.begin(context.now);
        let dentry = self.find(context, &txn, parent, name)?;
        let inode = self.named_inode(&txn, dentry.ino)?;
        let layout = if self.may_open(context, &inode) { self.short_layout(&txn, &inode)? } else { None };
        Ok(Reply::Found { entry: entry(&inode), layout: layout.map(Box::new) })
    }

    /// What a name stands for.
    fn find(&mut self, context: &Context, txn: &Txn, parent: Ino, name: &Name) -> Result<Dentry, Errno> {
        let dir = self.dir(txn, parent)?;
        context.check(&dir, SEARCH)?;
        self.dentry(txn, parent, name)?.ok_or(Errno::ENOENT)
    }

    /// Entries behind a cookie, in the order they were made. Cookies only ascend, so a reader meets no entry twice and
    /// misses none that was there all the time; an entry renamed within its directory keeps its place, so that a loop
    /// over a directory that renames what it finds comes to an end.
    pub(super) fn read_dir(
        &mut self,
        context: &Context,
        ino: Ino,
        cookie: u64,
        bytes_max: u32,
        plus: bool,
    ) -> Result<Reply, Errno> {
        let txn = self.begin(context.now);
        let dir = self.dir(&txn, ino)?;
        context.check(&dir, READ)?;
        // Who may not search it sees names, but not what they stand for.
        let plus = plus
            && context.check(&dir, SEARCH).is_ok()
            && (!context.is_guarded() || self.guard_found(&dir, SEARCH).is_ok());
        let (found, eof) = self.entries_behind(ino, cookie, (usize::MAX, bytes_max as usize), plus)?;
        let mut entries = Vec::with_capacity(found.len());
        for (cookie, row) in found {
            let entry = match plus {
                true => Some(entry(&self.named_inode(&txn, row.ino)?)),
                false => None,
            };
            entries.push(DirEntry { name: row.name, ino: row.ino, kind: row.kind, cookie, entry });
        }
        Ok(Reply::Entries { entries, eof })
    }

    /// Entries that will be looked up, with attributes: from a name on, or behind a cookie. `open`: with the layouts of files that the
    /// caller may open for reading, as far as they are short.
    pub(super) fn read_ahead(
        &mut self,
        context: &Context,
        ino: Ino,
        from: Result<&Name, u64>,
        count: u32,
        open: bool,
    ) -> Result<Reply, Errno> {
        let txn = self.begin(context.now);
        let dir = self.dir(&txn, ino)?;
        context.check(&dir, READ | SEARCH)?;
        if context.is_guarded() {
            self.guard_found(&dir, READ | SEARCH)?;
        }
        let cookie = match from {
            Ok(first) => self.dentry(&txn, ino, first)?.ok_or(Errno::ENOENT)?.cookie.saturating_sub(1),
            Err(cookie) => cookie,
        };
        let count = count.clamp(1, AHEAD_ENTRIES_MAX) as usize;
        let (found, mut eof) = self.entries_behind(ino, cookie, (count, ENTRIES_BYTES_MAX), true)?;
        let (mut entries, mut layouts, mut bytes) = (Vec::with_capacity(found.len()), Vec::new(), 0);
        for (place, (cookie, row)) in (0..).zip(found) {
            let inode = self.named_inode(&txn, row.ino)?;
            if open && self.may_open(context, &inode) {
                let extents = usize::try_from(inode.extents.min(OPEN_EXTENTS_MAX)).unwrap_or(0);
                bytes += inode.inline_bytes as usize + EXTENT_BYTES * extents;
                // One always, so that the reader gets on.
                if bytes > AHEAD_DATA_BYTES_MAX && !entries.is_empty() {
                    eof = false;
                    break;
                }
                layouts.extend(self.short_layout(&txn, &inode)?.map(|layout| (place, layout)));
            }
            let entry = Some(entry(&inode));
            entries.push(DirEntry { name: row.name, ino: row.ino, kind: row.kind, cookie, entry });
        }
        Ok(Reply::Ahead { entries, layouts, eof })
    }

    /// Whether the caller may open an inode for reading, as far as the server has a say in it.
    fn may_open(&mut self, context: &Context, inode: &Inode) -> bool {
        context.check(inode, READ).is_ok()
            && (!context.is_guarded() || self.guard_read(context.session, inode.ino).is_ok())
    }

    fn entries_behind(
        &self,
        ino: Ino,
        cookie: u64,
        (count, bytes_max): (usize, usize),
        plus: bool,
    ) -> Result<(Vec<(u64, Cookie)>, bool), Errno> {
        let Some(next) = cookie.checked_add(1) else { return Ok((Vec::new(), true)) };
        let bytes_max = bytes_max.min(ENTRIES_BYTES_MAX);
        let (from, to) = (key::cookie(ino, next), key::rows(key::Tag::Cookie, ino.0).1);
        let mut found: Vec<(u64, Cookie)> = Vec::new();
        let mut bytes = 0;
        let mut eof = true;
        let mut result = Ok(());
        self.store.scan(&from, &to, &mut |key, value| {
            let (Some(cookie), Ok(row)) = (key::number(key, 9), decode::<Cookie>(value)) else {
                result = Err(damaged("cookie"));
                return ControlFlow::Break(());
            };
            bytes += ENTRY_BYTES + row.name.as_bytes().len() + if plus { PLUS_BYTES } else { 0 };
            // One entry always, so that a reader with a small buffer gets on.
            if found.len() == count || bytes > bytes_max && !found.is_empty() {
                eof = false;
                return ControlFlow::Break(());
            }
            found.push((cookie, row));
            ControlFlow::Continue(())
        })?;
        result.map(|()| (found, eof))
    }

    /// The inode a name stands for now, for the server itself. `None` too when that cannot be read.
    pub fn child(&mut self, dir: Ino, name: &Name) -> Option<Ino> {
        let txn = self.begin(Time::default());
        self.dentry(&txn, dir, name).ok().flatten().map(|dentry| dentry.ino)
    }

    /// Attributes of an inode, for the server itself.
    ///
    /// # Errors
    /// `ESTALE`, `EIO`.
    pub fn attr(&mut self, ino: Ino) -> Result<Attr, Errno> {
        let txn = self.begin(Time::default());
        Ok(self.inode(&txn, ino)?.attr())
    }

    /// Walks an absolute path from the volume's root: the scope of a session. Symlinks are not followed.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EINVAL` for a path that is not absolute and normal, `EIO`.
    pub fn resolve(&mut self, path: &[u8]) -> Result<Attr, Errno> {
        let txn = self.begin(Time::default());
        let steps = path.strip_prefix(b"/").ok_or(Errno::EINVAL)?;
        let mut inode = self.inode(&txn, Ino::ROOT)?;
        for step in steps.split(|byte| *byte == b'/').filter(|step| !step.is_empty()) {
            if !inode.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            let dentry = self.dentry(&txn, inode.ino, &Name::sealed(step)?)?.ok_or(Errno::ENOENT)?;
            inode = self.named_inode(&txn, dentry.ino)?;
        }
        Ok(inode.attr())
    }
}

pub(super) fn entry(inode: &Inode) -> Entry {
    Entry { node: Node::unsealed(inode.ino), attr: inode.attr() }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::message::Request;

    use super::super::fixture::{Fixture, ROOT, name};
    use super::*;

    fn page(t: &mut Fixture, cookie: u64, bytes_max: u32, plus: bool) -> (Vec<DirEntry>, bool) {
        let request = Request::ReadDir { node: Fixture::node(ROOT), cookie, bytes_max, plus };
        match t.call(request) {
            Ok(Reply::Entries { entries, eof }) => (entries, eof),
            other => panic!("{other:?}"),
        }
    }

    /// All names, by pages of about `bytes` bytes, with something done between two pages.
    fn list(t: &mut Fixture, bytes: u32, mut between: impl FnMut(&mut Fixture, &DirEntry)) -> Vec<String> {
        let (mut names, mut cookie) = (Vec::new(), 0);
        loop {
            let (entries, eof) = page(t, cookie, bytes, false);
            for entry in &entries {
                assert!(entry.cookie > cookie && entry.cookie > 2);
                cookie = entry.cookie;
                names.push(String::from_utf8(entry.name.as_bytes().to_vec()).unwrap());
                between(t, entry);
            }
            if eof {
                return names;
            }
        }
    }

    #[test]
    fn lists_everything_in_pages() {
        let mut t = Fixture::new();
        assert_eq!(page(&mut t, 0, 4096, true), (vec![], true));
        let wanted: Vec<String> = (0..100).map(|number| format!("file{number:03}")).collect();
        for name in &wanted {
            t.file(ROOT, name);
        }
        assert_eq!(list(&mut t, 100, |_, _| ()), wanted);
        assert_eq!(list(&mut t, 0, |_, _| ()), wanted, "one by one");
        let (entries, _) = page(&mut t, 0, 1 << 20, true);
        assert_eq!(entries.len(), 100);
        assert!(entries.iter().all(|entry| entry.entry.is_some_and(|full| full.attr.ino == entry.ino)));
        assert_eq!(page(&mut t, u64::MAX, 100, false), (vec![], true));
    }

    #[test]
    fn pages_ahead_begin_at_a_name_and_bring_small_files() {
        let mut t = Fixture::new();
        let ahead = |t: &mut Fixture, cookie, first: Option<&str>, count, open| {
            let first = first.map(name);
            let request = Request::ReadAhead { node: Fixture::node(ROOT), cookie, first, count, open };
            t.call(request).map(|reply| match reply {
                Reply::Ahead { entries, layouts, eof } => (entries, layouts, eof),
                other => panic!("{other:?}"),
            })
        };
        let count = AHEAD_DATA_BYTES_MAX / 16_384 + 10;
        for number in 0..count {
            let file = t.file(ROOT, &format!("f{number}"));
            t.write_inline(file, 0, &vec![7; 16_384]).unwrap();
        }
        let sub = t.dir(ROOT, "sub");
        assert_eq!(ahead(&mut t, 0, Some("none"), 5, false), Err(Errno::ENOENT));
        let (entries, layouts, eof) = ahead(&mut t, 0, Some("f3"), 2, false).unwrap();
        assert_eq!((entries[0].name.clone(), entries.len(), layouts.len(), eof), (name("f3"), 2, 0, false));
        let (next, ..) = ahead(&mut t, entries[1].cookie, None, 0, false).unwrap();
        assert_eq!((next[0].name.clone(), next.len()), (name("f5"), 1), "one at least");
        let (entries, layouts, eof) = ahead(&mut t, 0, None, u32::MAX, true).unwrap();
        assert!(!eof && entries.len() == AHEAD_DATA_BYTES_MAX / 16_384 && layouts.len() == entries.len());
        assert!(layouts.iter().all(|(_, layout)| layout.inline.len() == 16_384));
        let cookie = entries.last().unwrap().cookie;
        let (rest, layouts, eof) = ahead(&mut t, cookie, None, u32::MAX, true).unwrap();
        assert!(eof && rest.len() == 11 && layouts.len() == 10, "a directory has no layout");
        assert_eq!(rest[10].entry.map(|entry| entry.node.ino), Some(sub));
    }

    #[test]
    fn removing_and_renaming_while_listing() {
        let mut t = Fixture::new();
        for number in 0..50 {
            t.file(ROOT, &format!("f{number}"));
        }
        // Renamed within the directory: each once, and it ends.
        let names = list(&mut t, 200, |t, entry| {
            let old = String::from_utf8(entry.name.as_bytes().to_vec()).unwrap();
            t.rename((ROOT, &old), (ROOT, &format!("{old}-renamed")), 0).unwrap();
        });
        assert_eq!(names.len(), 50);
        let names = list(&mut t, 200, |t, entry| {
            let name = String::from_utf8(entry.name.as_bytes().to_vec()).unwrap();
            t.remove(ROOT, &name, false).unwrap();
        });
        assert_eq!(names.len(), 50);
        assert_eq!(t.attr(ROOT).size, 0);
        t.verify();
    }

    #[test]
    fn a_name_replaced_while_listing_is_met_once() {
        for first in ["new", "old"] {
            let mut t = Fixture::new();
            for name in [first, if first == "new" { "old" } else { "new" }, "last"] {
                t.file(ROOT, name);
            }
            let dir = t.dir(ROOT, "dir");
            t.file(dir, "other");
            let names = list(&mut t, 0, |t, entry| {
                if entry.name.as_bytes() == first.as_bytes() {
                    t.rename((ROOT, "new"), (ROOT, "old"), 0).unwrap();
                    t.rename((dir, "other"), (ROOT, "last"), 0).unwrap();
                }
            });
            let met = |name: &str| names.iter().filter(|met| *met == name).count();
            assert_eq!((met("old"), met("last")), (1, 1), "{names:?}");
            assert_eq!(t.attr(ROOT).size, 3);
            t.verify();
        }
    }

    #[test]
    fn paths_are_walked_and_names_found() {
        let mut t = Fixture::new();
        let dir = t.dir(ROOT, "a");
        let sub = t.dir(dir, "b");
        let file = t.file(sub, "file");
        assert_eq!(t.ns.resolve(b"/").map(|attr| attr.ino), Ok(ROOT));
        assert_eq!(t.ns.resolve(b"/a/b").map(|attr| attr.ino), Ok(sub));
        assert_eq!(t.ns.resolve(b"/a/c").map(|attr| attr.ino), Err(Errno::ENOENT));
        assert_eq!(t.ns.resolve(b"/a/b/file/x"), Err(Errno::ENOTDIR));
        assert_eq!(t.ns.resolve(b"a"), Err(Errno::EINVAL));
        assert_eq!(t.ns.resolve(b"/a/../a"), Err(Errno::EINVAL));
        assert_eq!(t.lookup(file, "x"), Err(Errno::ENOTDIR));
        let all_bytes: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').chain([7]).collect();
        let odd = Name::new(&all_bytes[..255]).unwrap();
        assert_ne!(odd, name("x"));
        let mut make = t.request_make(sub, Some("x"), flexfs_wire::attr::S_IFREG);
        if let Request::Make { name, .. } = &mut make {
            *name = Some(odd.clone());
        }
        t.call(make).unwrap();
        t.call(Request::Lookup { parent: Fixture::node(sub), name: odd }).unwrap();
        t.verify();
    }
}
