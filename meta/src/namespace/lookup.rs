//! Names: looking one up, listing a directory, walking a path.

use std::ops::ControlFlow;

use flexfs_wire::attr::Attr;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::limits::BODY_BYTES_MAX;
use flexfs_wire::message::{DirEntry, Entry, Reply};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use super::access::{READ, SEARCH};
use super::context::Context;
use super::machine::Namespace;
use super::record::{Cookie, Inode, damaged, decode};
use crate::engine::{Store, key};

/// Bytes of an entry beside its name: numbers, cookie, kind.
const ENTRY_BYTES: usize = 24;
/// Bytes that attributes add to it.
const PLUS_BYTES: usize = 136;
/// Most bytes of entries in one answer: half a body, for the estimate is one.
const ENTRIES_BYTES_MAX: usize = BODY_BYTES_MAX / 2;

impl<S: Store> Namespace<S> {
    pub(super) fn lookup(&mut self, context: &Context, parent: Ino, name: &Name) -> Result<Reply, Errno> {
        let txn = self.begin(context.now);
        let dir = self.dir(&txn, parent)?;
        context.check(&dir, SEARCH)?;
        let dentry = self.dentry(&txn, parent, name)?.ok_or(Errno::ENOENT)?;
        let inode = self.named_inode(&txn, dentry.ino)?;
        Ok(Reply::Entry(entry(&inode)))
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
        context.check(&dir, if plus { READ | SEARCH } else { READ })?;
        let (found, eof) = self.entries_behind(ino, cookie, bytes_max as usize, plus)?;
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

    fn entries_behind(
        &self,
        ino: Ino,
        cookie: u64,
        bytes_max: usize,
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
            if bytes > bytes_max && !found.is_empty() {
                eof = false;
                return ControlFlow::Break(());
            }
            found.push((cookie, row));
            ControlFlow::Continue(())
        })?;
        result.map(|()| (found, eof))
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
            let dentry = self.dentry(&txn, inode.ino, &Name::new(step)?)?.ok_or(Errno::ENOENT)?;
            inode = self.named_inode(&txn, dentry.ino)?;
        }
        Ok(inode.attr())
    }
}

pub(super) fn entry(inode: &Inode) -> Entry {
    Entry { node: Node::unsealed(inode.ino), attr: inode.attr() }
}
