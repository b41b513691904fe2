//! Comparing everything: every attribute but the number of blocks, every byte, every name, every attribute value.

use std::collections::{BTreeMap, BTreeSet};

use flexfs_meta::namespace::{Context, Rights};
use flexfs_wire::attr::Attr;
use flexfs_wire::extent::ZERO_BLOCK;
use flexfs_wire::id::{Ino, RequestId};
use flexfs_wire::message::{Caller, Reply, Request};

use super::writing::{CARRIED_BYTES, block_bytes};
use super::{World, node};
use crate::model::{File, ROOT};

impl World {
    /// After the background's work: nothing may be left that the model does not have.
    pub(super) fn compare(&mut self) {
        let figures = self.machine().figures();
        assert_eq!(figures.inodes, self.model.files.len() as u64, "inodes");
        let opens: u32 = self.model.opens.values().sum();
        assert_eq!(figures.opens, u64::from(opens), "opens");
        assert_eq!(figures.lock_waits, self.model.locks.waiting.len() as u64, "waits for locks");
        let named = self.walk();
        for (ino, file) in self.model.files.clone() {
            let attr = self.machine().attr(Ino(ino)).expect("a file of the model");
            self.compare_attr(&attr);
            self.compare_content(ino, &file, &attr);
            assert_eq!(named.contains(&ino), file.nlink > 0, "inode {ino} and its names");
        }
    }

    /// Attributes as a call has shown them.
    pub(super) fn compare_attr(&self, attr: &Attr) {
        let ino = attr.ino.0;
        let file = &self.model.files[&ino];
        let found = (attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev, attr.size);
        let said = (file.mode, file.nlink, file.uid, file.gid, file.rdev, file.size());
        assert_eq!(
            found, said,
            "mode, nlink, uid, gid, rdev, size of inode {ino} (modes {:o}, {:o})",
            attr.mode, file.mode
        );
        assert_eq!(attr.has_xattrs, !file.xattrs.is_empty(), "attributes of inode {ino}");
        let times = (attr.atime, attr.mtime, attr.ctime, attr.btime);
        assert_eq!(times, (file.atime, file.mtime, file.ctime, file.btime), "times of inode {ino}");
    }

    /// What a call that made or linked something has shown.
    pub(super) fn compare_entry(&self, reply: Option<Reply>, ino: u64) {
        if let Some(Reply::Entry(entry)) = reply {
            assert_eq!(entry.node.ino.0, ino);
            self.compare_attr(&entry.attr);
        }
    }

    fn compare_content(&mut self, ino: u64, file: &File, attr: &Attr) {
        if file.is_regular() {
            let bytes = self.bytes(ino, attr.size);
            assert!(bytes == file.bytes, "bytes of inode {ino}");
            let known = self.versions.entry((ino, attr.version)).or_insert_with(|| bytes.clone());
            assert!(*known == bytes, "one version of inode {ino} stands for two contents");
        } else if !file.is_dir() && !file.bytes.is_empty() {
            let link = self.look(&Request::ReadLink { node: node(ino) });
            assert_eq!(link, Reply::Bytes(file.bytes.clone()));
        }
        let list: Vec<u8> = file.xattrs.keys().flat_map(|name| [name, &[0][..]].concat()).collect();
        assert_eq!(self.look(&Request::ListXattr { node: node(ino) }), Reply::Bytes(list));
        for (name, value) in &file.xattrs {
            let request = Request::GetXattr { node: node(ino), name: name.clone() };
            assert_eq!(self.look(&request), Reply::Bytes(value.clone()));
        }
    }

    /// Lists every directory from the root on; gives all inodes met.
    fn walk(&mut self) -> BTreeSet<u64> {
        let mut met = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(dir) = open.pop() {
            let (mut names, mut cookie, mut eof) = (BTreeMap::new(), 0, false);
            while !eof {
                let request = Request::ReadDir { node: node(dir), cookie, bytes_max: 300, plus: true };
                let Reply::Entries { entries, eof: is_last } = self.look(&request) else {
                    panic!("a listing")
                };
                eof = is_last;
                for entry in entries {
                    assert!(entry.cookie > cookie, "positions ascend");
                    cookie = entry.cookie;
                    let attr = entry.entry.expect("asked for").attr;
                    assert_eq!((attr.ino, attr.kind()), (entry.ino, entry.kind));
                    if attr.is_dir() {
                        open.push(entry.ino.0);
                    }
                    met.insert(entry.ino.0);
                    let twice = names.insert(entry.name.as_bytes().to_vec(), entry.ino.0);
                    assert_eq!(twice, None, "a name is listed once");
                }
            }
            assert_eq!(names, self.model.files[&dir].names, "directory {dir}");
        }
        met
    }

    /// The content of a file, put together as a mount does.
    fn bytes(&mut self, ino: u64, size: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(size).expect("small")];
        let (mut start, mut is_first) = (0, true);
        while start != u64::MAX {
            let request = Request::ReadLayout { node: node(ino), start, end: u64::MAX };
            let Reply::Layout(layout) = self.look(&request) else { panic!("a layout") };
            if is_first {
                assert!(layout.inline.len() <= bytes.len(), "inline bytes end with the file");
                bytes[..layout.inline.len()].copy_from_slice(&layout.inline);
                is_first = false;
            }
            for extent in layout.extents {
                if self.carried.contains(&extent.block) {
                    let said = block_bytes(extent.block, 0, CARRIED_BYTES);
                    let found = self.machine().carried_block(extent.block).expect("the engine works");
                    assert_eq!(found, Some(said), "what came with its write, block {}", extent.block);
                }
                let content = match extent.block {
                    ZERO_BLOCK => vec![0; extent.length as usize],
                    block => block_bytes(block, extent.block_offset, extent.length),
                };
                for (at, byte) in (extent.offset..).zip(content) {
                    if let Some(cell) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
                        *cell = byte;
                    }
                }
            }
            assert!(layout.end > start, "a layout gets on");
            start = layout.end;
        }
        bytes
    }

    fn look(&mut self, request: &Request) -> Reply {
        let context = Context {
            told: None,
            now: self.now,
            session: self.mounts[0].session,
            request: RequestId(u64::MAX),
            caller: Caller { uid: 0, gid: 0 },
            rights: Rights::Client,
            umask: 0,
        };
        let answer = self.machine().apply(&context, request).answer.expect("questions do not wait");
        answer.result.unwrap_or_else(|errno| panic!("{request:?}: {errno}"))
    }
}
