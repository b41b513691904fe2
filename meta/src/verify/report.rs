//! The verdict, and the order of the checks.

use flexfs_wire::errno::Errno;

use super::facts::Facts;
use super::{names, sessions, space};
use crate::engine::Store;

/// Problems written out; more are counted only.
const PROBLEMS_SHOWN_MAX: usize = 1_000;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sentences, each on one thing that is wrong; the first ones.
    pub problems: Vec<String>,
    /// All of them.
    pub problem_count: u64,
    /// Inodes.
    pub inodes: u64,
    /// Directory entries.
    pub entries: u64,
    /// Extents.
    pub extents: u64,
    /// Blocks.
    pub blocks: u64,
    /// Of them garbage.
    pub garbage: u64,
    /// Orphans: inodes without a name.
    pub orphans: u64,
    /// Bytes allocated by files.
    pub bytes: u64,
    /// Sessions that have not ended.
    pub sessions: u64,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    pub(super) fn problem(&mut self, text: impl FnOnce() -> String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_SHOWN_MAX {
            self.problems.push(text());
        }
    }

    /// Notes a problem unless `holds`.
    pub(super) fn check(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.problem(text);
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        if self.problem_count > self.problems.len() as u64 {
            writeln!(f, "... and {} more", self.problem_count - self.problems.len() as u64)?;
        }
        writeln!(
            f,
            "{} inodes ({} orphans), {} entries, {} extents, {} blocks ({} garbage), {} bytes allocated, {} sessions",
            self.inodes,
            self.orphans,
            self.entries,
            self.extents,
            self.blocks,
            self.garbage,
            self.bytes,
            self.sessions
        )?;
        match self.problem_count {
            0 => write!(f, "clean"),
            count => write!(f, "{count} problems"),
        }
    }
}

/// Checks a volume that nobody writes to.
///
/// # Errors
/// `EIO` when the engine cannot read.
pub fn verify(store: &impl Store) -> Result<Report, Errno> {
    let mut report = Report::default();
    let Some(mut facts) = Facts::load(store, &mut report)? else { return Ok(report) };
    names::check_entries(store, &mut facts, &mut report)?;
    names::check_cookies(store, &facts, &mut report)?;
    names::check_links(store, &facts, &mut report)?;
    names::check_tree(&facts, &mut report);
    space::check_blocks(store, &mut facts, &mut report)?;
    space::check_extents(store, &mut facts, &mut report)?;
    space::check_parts(store, &mut facts, &mut report)?;
    space::check_live(store, &facts, &mut report)?;
    space::check_idle(store, &facts, &mut report)?;
    space::check_carried(store, &facts, &mut report)?;
    space::check_counters(&facts, &mut report);
    sessions::check(store, &facts, &mut report)?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use flexfs_wire::attr::S_IFREG;
    use flexfs_wire::id::Ino;
    use flexfs_wire::message::{FALLOC_KEEP_SIZE, Request, XattrMode};

    use super::*;
    use crate::engine::key::{self, Tag};
    use crate::engine::memory::Memory;
    use crate::namespace::fixture::{Fixture, ROOT};
    use crate::namespace::record::{Dentry, Inode, decode, encode};
    use crate::namespace::{Bounds, Namespace};

    /// A volume with a row in every table.
    fn volume() -> (Namespace<Memory>, Ino) {
        let mut t = Fixture::new();
        let dir = t.dir(ROOT, "dir");
        let sub = t.dir(dir, "sub");
        let file = t.file(sub, "file");
        t.write_inline(file, 0, b"inline").unwrap();
        t.symlink(dir, "link", b"target").unwrap();
        let (name, value) = (b"user.a".to_vec(), b"1".to_vec());
        let node = Fixture::node(file);
        t.call(Request::SetXattr { node, name, value, mode: XattrMode::Any }).unwrap();
        let scattered = t.file(dir, "scattered");
        let ranges: Vec<(u64, u32)> = (0..10u64).map(|index| (index * 100, 50)).collect();
        t.write_ranges(scattered, &ranges);
        t.write_ranges(scattered, &[(0, 100)]);
        t.write_ranges(scattered, &[(0, 100)]);
        let copy = t.file(dir, "copy");
        let (source, target) = (Fixture::node(scattered), Fixture::node(copy));
        let (source_offset, target_offset, length) = (500, 0, 400);
        t.call(Request::CopyRange { source, source_offset, target, target_offset, length }).unwrap();
        let mode = FALLOC_KEEP_SIZE;
        t.call(Request::Fallocate { node: target, mode, offset: 1000, length: 1000 }).unwrap();
        t.ns.set_bounds(Bounds { cleared_at_once: 1, ..Bounds::default() });
        t.truncate(scattered, 20).unwrap();
        let orphan = t.request_make(dir, None, S_IFREG);
        t.call(orphan).unwrap();
        t.verify();
        (t.ns, sub)
    }

    fn rows(store: &Memory, tag: Tag) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        let (from, to) = key::table(tag);
        store
            .scan(&from, &to, &mut |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
        found
    }

    #[test]
    fn any_row_that_is_missing_is_noticed() {
        let (mut ns, _) = volume();
        let tables = [
            Tag::State,
            Tag::Inode,
            Tag::Dentry,
            Tag::Cookie,
            Tag::Extent,
            Tag::Data,
            Tag::Xattr,
            Tag::Block,
            Tag::Share,
            Tag::Garbage,
            Tag::Orphan,
            Tag::Dead,
            Tag::Session,
        ];
        for tag in tables {
            let rows = rows(ns.store(), tag);
            assert!(!rows.is_empty(), "{tag:?}");
            for (key, value) in rows {
                ns.store_mut().damage(&key, None);
                let report = verify(ns.store()).unwrap();
                assert!(!report.is_clean() && !report.problems.is_empty(), "{tag:?} {key:?}");
                assert!(report.to_string().contains(&report.problems[0]));
                // A row cut short, or with something behind it.
                if !value.is_empty() && !matches!(tag, Tag::Xattr | Tag::Session) {
                    for damaged in [&value[..value.len() - 1], &[&value[..], b"\0"].concat()] {
                        ns.store_mut().damage(&key, Some(damaged));
                        assert!(!verify(ns.store()).unwrap().is_clean(), "{tag:?} {key:?}");
                    }
                }
                ns.store_mut().damage(&key, Some(&value));
            }
        }
        assert!(verify(ns.store()).unwrap().is_clean());
    }

    #[test]
    fn a_directory_below_itself_is_noticed() {
        let (mut ns, sub) = volume();
        let dir = ns.resolve(b"/dir").unwrap().ino;
        // "dir" moves from the root into "sub", which is in "dir".
        let from = key::dentry(ROOT, b"dir");
        let dentry: Dentry = decode(&ns.store().get(&from).unwrap().unwrap()).unwrap();
        let row = ns.store().get(&key::inode(dir)).unwrap().unwrap();
        let inode = Inode { parent: sub, ..Inode::decode(dir, &row).unwrap() };
        let store = ns.store_mut();
        store.damage(&from, None);
        store.damage(&key::dentry(sub, b"dir"), Some(&encode(&dentry)));
        store.damage(&key::inode(dir), Some(&encode(&inode)));
        let report = verify(ns.store()).unwrap();
        assert!(report.problems.iter().any(|text| text.contains("does not lead up")), "{report}");
    }

    #[test]
    fn an_empty_store_is_no_volume() {
        assert_eq!(verify(&Memory::eager()).unwrap().problem_count, 1);
    }
}
