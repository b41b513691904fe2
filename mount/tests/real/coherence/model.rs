//! What both mounts must show: a file system in memory, as small as the test needs it.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::step::{Flags, Step, Target};

/// An inode of the model.
pub(super) type Id = usize;
/// The folder the test works in.
pub(super) const ROOT: Id = 0;

/// A name, there or not, in a directory that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) dir: Id,
    pub(super) name: &'static str,
}

/// A time span, nanoseconds since 1970, in which a call ran.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: i128,
    pub(super) to: i128,
}

/// An inode.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Names of it; of a directory 1 until it is removed.
    pub(super) names: u64,
    pub(super) xattrs: BTreeMap<&'static str, Vec<u8>>,
    /// Where its mtime must lie.
    pub(super) mtime: Span,
    /// Its mtime was set by a program, and is `mtime.from` exactly.
    pub(super) exact: bool,
    /// Its ctime may not be older than this; raised to what was seen, for it may not go back either.
    pub(super) ctime: i128,
    /// Its number, as first seen. All mounts must agree on it.
    pub(super) ino: Option<u64>,
}

/// What kind of inode, with its content.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    File(Vec<u8>),
    Dir { names: BTreeMap<&'static str, Id>, parent: Id },
    Link(String),
}

/// The tree. Inodes that somebody may have open stay without a name until `sweep`.
#[derive(Debug)]
pub(super) struct Model {
    nodes: BTreeMap<Id, Node>,
    next: Id,
}

impl Model {
    /// An empty root with mode 0755, made within `span`.
    pub(super) fn new(span: Span) -> Self {
        let mut model = Self { nodes: BTreeMap::new(), next: ROOT };
        model.add(Kind::Dir { names: BTreeMap::new(), parent: ROOT }, 0o755, span);
        model
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[&id]
    }

    pub(super) fn node_mut(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    /// Whether an inode is there, with a name or without.
    pub(super) fn is_there(&self, id: Id) -> bool {
        self.nodes.contains_key(&id)
    }

    /// What a place names.
    pub(super) fn find(&self, place: &Place) -> Option<Id> {
        self.names(place.dir).get(place.name).copied()
    }

    /// Entries of a directory.
    pub(super) fn names(&self, dir: Id) -> &BTreeMap<&'static str, Id> {
        match &self.node(dir).kind {
            Kind::Dir { names, .. } => names,
            Kind::File(_) | Kind::Link(_) => panic!("{dir} is no directory"),
        }
    }

    fn names_mut(&mut self, dir: Id) -> &mut BTreeMap<&'static str, Id> {
        match &mut self.node_mut(dir).kind {
            Kind::Dir { names, .. } => names,
            Kind::File(_) | Kind::Link(_) => panic!("{dir} is no directory"),
        }
    }

    /// Bytes of a file.
    pub(super) fn bytes(&self, id: Id) -> &[u8] {
        match &self.node(id).kind {
            Kind::File(bytes) => bytes,
            Kind::Dir { .. } | Kind::Link(_) => panic!("{id} is no file"),
        }
    }

    fn bytes_mut(&mut self, id: Id) -> &mut Vec<u8> {
        match &mut self.node_mut(id).kind {
            Kind::File(bytes) => bytes,
            Kind::Dir { .. } | Kind::Link(_) => panic!("{id} is no file"),
        }
    }

    pub(super) fn is_dir(&self, id: Id) -> bool {
        matches!(self.node(id).kind, Kind::Dir { .. })
    }

    pub(super) fn is_file(&self, id: Id) -> bool {
        matches!(self.node(id).kind, Kind::File(_))
    }

    /// Directory a directory lies in.
    pub(super) fn parent(&self, dir: Id) -> Id {
        match &self.node(dir).kind {
            Kind::Dir { parent, .. } => *parent,
            Kind::File(_) | Kind::Link(_) => panic!("{dir} is no directory"),
        }
    }

    /// `st_nlink`.
    pub(super) fn nlink(&self, id: Id) -> u64 {
        match &self.node(id).kind {
            Kind::Dir { names, .. } => 2 + names.values().filter(|child| self.is_dir(**child)).count() as u64,
            Kind::File(_) | Kind::Link(_) => self.node(id).names,
        }
    }

    /// All directories with a name.
    pub(super) fn dirs(&self) -> Vec<Id> {
        let named = self.nodes.iter().filter(|(id, node)| node.names > 0 && self.is_dir(**id));
        named.map(|(id, _)| *id).collect()
    }

    /// All entries of all directories.
    pub(super) fn entries(&self) -> Vec<(Place, Id)> {
        let of = |dir: Id| self.names(dir).iter().map(move |(name, id)| (Place { dir, name }, *id));
        self.dirs().into_iter().flat_map(of).collect()
    }

    /// Path of a directory below the test's folder, empty for the folder itself.
    pub(super) fn path(&self, dir: Id) -> String {
        let mut parts = Vec::new();
        let mut at = dir;
        while at != ROOT {
            let up = self.parent(at);
            let (name, _) = self.names(up).iter().find(|(_, id)| **id == at).unwrap();
            parts.push(*name);
            at = up;
        }
        parts.reverse();
        parts.join("/")
    }

    /// Directories from the root to this one, itself included.
    pub(super) fn chain(&self, dir: Id) -> Vec<Id> {
        let mut chain = vec![dir];
        while *chain.last().unwrap() != ROOT {
            chain.push(self.parent(*chain.last().unwrap()));
        }
        chain
    }

    /// Whether `user` (of the group of the same number) has the permission bits `wanted` (4 read, 2 write, 1 search).
    pub(super) fn may(&self, id: Id, user: u32, wanted: u32) -> bool {
        let node = self.node(id);
        let shift = match () {
            () if node.uid == user => 6,
            () if node.gid == user => 3,
            () => 0,
        };
        (node.mode >> shift) & wanted == wanted
    }

    /// Forgets inodes without a name that `held` does not hold.
    pub(super) fn sweep(&mut self, held: impl Fn(Id) -> bool) {
        self.nodes.retain(|id, node| node.names > 0 || held(*id));
    }

    /// Makes a step, which took `span`; what `act` must have said.
    pub(super) fn apply(&mut self, step: &Step, span: Span) -> Result<(), Errno> {
        match step {
            Step::Create { at, excl, trunc, .. } => self.create(at, *excl, *trunc, span),
            Step::Write { file, offset, fill } => {
                let id = self.file(file)?;
                self.write(id, *offset, &fill.bytes(), span);
                Ok(())
            }
            Step::Append { file, fill } => {
                let id = self.file(file)?;
                let end = self.bytes(id).len();
                self.write(id, end, &fill.bytes(), span);
                Ok(())
            }
            Step::Map { file, offset, fill } => {
                let id = self.file(file)?;
                self.write(id, *offset, &fill.bytes(), span);
                Ok(())
            }
            Step::Truncate { file, size } => self.truncate(self.file(file)?, *size, span),
            Step::Space { file, mode, offset, length } => {
                self.space(self.file(file)?, *mode, *offset, *length, span)
            }
            Step::Copy { from, from_offset, to, to_offset, length } => {
                let (source, target) = (self.file(from)?, self.file(to)?);
                let bytes = self.bytes(source);
                let end = (*from_offset + *length).min(bytes.len());
                let part = bytes.get(*from_offset..end).unwrap_or_default().to_vec();
                self.write(target, *to_offset, &part, span);
                Ok(())
            }
            Step::Program { at, yes } => {
                let bytes = super::act::program(*yes).to_vec();
                self.replace(at, bytes, span);
                Ok(())
            }
            Step::Mkdir { at, mode } => {
                if self.find(at).is_some() {
                    return Err(Errno::EXIST);
                }
                let id = self.add(Kind::Dir { names: BTreeMap::new(), parent: at.dir }, *mode, span);
                self.insert(at, id, span);
                Ok(())
            }
            Step::Symlink { at, target } => {
                if self.find(at).is_some() {
                    return Err(Errno::EXIST);
                }
                let id = self.add(Kind::Link(target.clone()), 0o777, span);
                self.insert(at, id, span);
                Ok(())
            }
            Step::Link { from, to } => self.link(from, to, span),
            Step::Rename { from, to, flags } => self.rename(from, to, *flags, span),
            Step::Unlink { at } => self.unlink(at, span),
            Step::Rmdir { at } => self.rmdir(at, span),
            Step::Chmod { .. } | Step::Chown { .. } | Step::Times { .. } => self.change(step, span),
            Step::SetXattr { .. } | Step::RemoveXattr { .. } => self.xattr(step, span),
            Step::Lock { file, .. } => self.file(file).map(|_| ()),
            Step::Release { .. } => Ok(()),
        }
    }

    fn file(&self, target: &Target) -> Result<Id, Errno> {
        match target {
            Target::Hand { id, .. } => Ok(*id),
            Target::Path(place) => {
                let id = self.find(place).ok_or(Errno::NOENT)?;
                if self.is_dir(id) { Err(Errno::ISDIR) } else { Ok(id) }
            }
        }
    }

    fn add(&mut self, kind: Kind, mode: u32, span: Span) -> Id {
        let id = self.next;
        self.next += 1;
        let node = Node {
            kind,
            mode,
            uid: 0,
            gid: 0,
            names: u64::from(id == ROOT),
            xattrs: BTreeMap::new(),
            mtime: span,
            exact: false,
            ctime: span.from,
            ino: None,
        };
        self.nodes.insert(id, node);
        id
    }

    fn create(&mut self, at: &Place, excl: bool, trunc: bool, span: Span) -> Result<(), Errno> {
        let Some(id) = self.find(at) else {
            let id = self.add(Kind::File(Vec::new()), 0o644, span);
            self.insert(at, id, span);
            return Ok(());
        };
        if excl {
            return Err(Errno::EXIST);
        }
        if self.is_dir(id) {
            return Err(Errno::ISDIR);
        }
        if trunc {
            self.truncate(id, 0, span)?;
        }
        Ok(())
    }

    /// A new file in place of whatever the place named.
    fn replace(&mut self, at: &Place, bytes: Vec<u8>, span: Span) {
        if let Some(old) = self.find(at) {
            self.remove(at, span);
            self.drop_name(old, span);
        }
        let id = self.add(Kind::File(bytes), 0o755, span);
        self.insert(at, id, span);
    }

    fn write(&mut self, id: Id, offset: usize, bytes: &[u8], span: Span) {
        if bytes.is_empty() {
            return;
        }
        let content = self.bytes_mut(id);
        let end = offset + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset..end].copy_from_slice(bytes);
        self.modified(id, span);
    }

    fn truncate(&mut self, id: Id, size: usize, span: Span) -> Result<(), Errno> {
        let before = self.bytes(id).len();
        self.bytes_mut(id).resize(size, 0);
        if before == size {
            self.perhaps_modified(id, span);
        } else {
            self.modified(id, span);
        }
        Ok(())
    }

    fn space(&mut self, id: Id, mode: u32, offset: usize, length: usize, span: Span) -> Result<(), Errno> {
        let content = self.bytes_mut(id);
        let end = offset + length;
        if mode & (super::step::PUNCH | super::step::ZERO) != 0 {
            let (from, to) = (offset.min(content.len()), end.min(content.len()));
            content[from..to].fill(0);
        }
        if mode & super::step::KEEP_SIZE == 0 && content.len() < end {
            content.resize(end, 0);
        }
        // What moves the times is left to each mode; data and size are what this is about.
        self.perhaps_modified(id, span);
        Ok(())
    }

    fn modified(&mut self, id: Id, span: Span) {
        let node = self.node_mut(id);
        node.mtime = span;
        node.exact = false;
        node.ctime = node.ctime.max(span.from);
    }

    /// Its mtime is now any of the old and the new one.
    fn perhaps_modified(&mut self, id: Id, span: Span) {
        let node = self.node_mut(id);
        node.mtime.from = node.mtime.from.min(span.from);
        node.mtime.to = node.mtime.to.max(span.to);
        node.exact = false;
    }

    fn changed(&mut self, id: Id, span: Span) {
        let node = self.node_mut(id);
        node.ctime = node.ctime.max(span.from);
    }

    fn insert(&mut self, at: &Place, id: Id, span: Span) {
        self.names_mut(at.dir).insert(at.name, id);
        if let Kind::Dir { parent, .. } = &mut self.node_mut(id).kind {
            *parent = at.dir;
        }
        self.node_mut(id).names += 1;
        self.modified(at.dir, span);
    }

    /// Takes the entry away; the inode keeps its count.
    fn remove(&mut self, at: &Place, span: Span) {
        self.names_mut(at.dir).remove(at.name);
        self.modified(at.dir, span);
    }

    fn drop_name(&mut self, id: Id, span: Span) {
        self.node_mut(id).names -= 1;
        self.changed(id, span);
    }

    fn link(&mut self, from: &Place, to: &Place, span: Span) -> Result<(), Errno> {
        let id = self.find(from).ok_or(Errno::NOENT)?;
        if self.find(to).is_some() {
            return Err(Errno::EXIST);
        }
        if self.is_dir(id) {
            return Err(Errno::PERM);
        }
        self.insert(to, id, span);
        self.changed(id, span);
        Ok(())
    }

    fn unlink(&mut self, at: &Place, span: Span) -> Result<(), Errno> {
        let id = self.find(at).ok_or(Errno::NOENT)?;
        if self.is_dir(id) {
            return Err(Errno::ISDIR);
        }
        self.remove(at, span);
        self.drop_name(id, span);
        Ok(())
    }

    fn rmdir(&mut self, at: &Place, span: Span) -> Result<(), Errno> {
        let id = self.find(at).ok_or(Errno::NOENT)?;
        if !self.is_dir(id) {
            return Err(Errno::NOTDIR);
        }
        if !self.names(id).is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.remove(at, span);
        self.drop_name(id, span);
        Ok(())
    }

    /// The order of refusals is the kernel's (`do_renameat2`).
    fn rename(&mut self, from: &Place, to: &Place, flags: Flags, span: Span) -> Result<(), Errno> {
        let source = self.find(from).ok_or(Errno::NOENT)?;
        let target = self.find(to);
        let exchange = flags == Flags::Exchange;
        if flags == Flags::NoReplace && target.is_some() {
            return Err(Errno::EXIST);
        }
        if exchange && target.is_none() {
            return Err(Errno::NOENT);
        }
        if self.chain(to.dir).contains(&source) {
            return Err(Errno::INVAL);
        }
        let Some(target) = target else {
            self.move_name(from, to, source, span);
            return Ok(());
        };
        if self.chain(from.dir).contains(&target) {
            return Err(if exchange { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        if source == target {
            return Ok(());
        }
        if exchange {
            self.remove(from, span);
            self.remove(to, span);
            for (at, id) in [(to, source), (from, target)] {
                self.node_mut(id).names -= 1;
                self.insert(at, id, span);
            }
            return Ok(());
        }
        match (self.is_dir(source), self.is_dir(target)) {
            (true, false) => return Err(Errno::NOTDIR),
            (false, true) => return Err(Errno::ISDIR),
            (true, true) if !self.names(target).is_empty() => return Err(Errno::NOTEMPTY),
            (true, true) | (false, false) => {}
        }
        self.drop_name(target, span);
        self.move_name(from, to, source, span);
        Ok(())
    }

    fn move_name(&mut self, from: &Place, to: &Place, id: Id, span: Span) {
        self.remove(from, span);
        self.node_mut(id).names -= 1;
        self.insert(to, id, span);
    }

    fn change(&mut self, step: &Step, span: Span) -> Result<(), Errno> {
        let (Step::Chmod { at, .. } | Step::Chown { at, .. } | Step::Times { at, .. }) = step else {
            panic!("{step:?}")
        };
        let id = self.find(at).ok_or(Errno::NOENT)?;
        self.changed(id, span);
        let node = self.node_mut(id);
        match step {
            Step::Chmod { mode, .. } => node.mode = *mode,
            Step::Chown { uid, gid, .. } => (node.uid, node.gid) = (*uid, *gid),
            Step::Times { mtime, .. } => {
                node.mtime = Span { from: *mtime, to: *mtime };
                node.exact = true;
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    fn xattr(&mut self, step: &Step, span: Span) -> Result<(), Errno> {
        match step {
            Step::SetXattr { at, name, value, mode } => {
                let id = self.find(at).ok_or(Errno::NOENT)?;
                let there = self.node(id).xattrs.contains_key(name);
                match mode {
                    super::step::XattrMode::Create if there => return Err(Errno::EXIST),
                    super::step::XattrMode::Replace if !there => return Err(Errno::NODATA),
                    _ => {}
                }
                self.node_mut(id).xattrs.insert(name, value.bytes());
                self.changed(id, span);
            }
            Step::RemoveXattr { at, name } => {
                let id = self.find(at).ok_or(Errno::NOENT)?;
                self.node_mut(id).xattrs.remove(name).ok_or(Errno::NODATA)?;
                self.changed(id, span);
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    }
}
