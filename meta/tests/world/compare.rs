//! Comparing the machine with the model: every attribute but the number of blocks, every byte, every name.

use std::collections::{BTreeMap, BTreeSet};

use flexfs_wire::extent::ZERO_BLOCK;
use flexfs_wire::id::Ino;
use flexfs_wire::message::{Reply, Request};
use flexfs_wire::seal::Node;

use super::{World, block_bytes};
use crate::model::{File, ROOT};

impl World {
    /// After `settle`: nothing may be left that the model does not have.
    pub(super) fn compare(&mut self) {
        assert_eq!(self.ns().figures().inodes, self.model.files.len() as u64, "inodes");
        let opens: u32 = self.model.opens.values().sum();
        assert_eq!(self.ns().figures().opens, u64::from(opens), "opens");
        let named = self.walk();
        for (ino, file) in self.model.files.clone() {
            self.compare_inode(ino, &file);
            assert_eq!(named.contains(&ino), file.nlink > 0, "inode {ino}");
        }
    }

    pub(super) fn compare_inode(&mut self, ino: u64, file: &File) {
        let attr = self.ns().attr(Ino(ino)).unwrap();
        let machine = (attr.mode, attr.nlink, attr.uid, attr.gid, attr.size);
        assert_eq!(machine, (file.mode, file.nlink, file.uid, file.gid, file.size()), "inode {ino}");
        assert_eq!(attr.has_xattrs, !file.xattrs.is_empty(), "attributes of inode {ino}");
        let times = (attr.atime, attr.mtime, attr.ctime, attr.btime);
        assert_eq!(times, (file.atime, file.mtime, file.ctime, file.btime), "times of inode {ino}");
        if file.is_regular() {
            let bytes = self.bytes(ino, attr.size);
            assert!(bytes == file.bytes, "bytes of inode {ino}");
        } else if !file.is_dir() && !file.bytes.is_empty() {
            let link = self.look(Request::ReadLink { node: node(ino) });
            assert_eq!(link, Reply::Bytes(file.bytes.clone()));
        }
        let list: Vec<u8> = file.xattrs.keys().flat_map(|name| [name.as_bytes(), &[0]].concat()).collect();
        assert_eq!(self.look(Request::ListXattr { node: node(ino) }), Reply::Bytes(list));
        for (name, value) in &file.xattrs {
            let request = Request::GetXattr { node: node(ino), name: name.as_bytes().to_vec() };
            assert_eq!(self.look(request), Reply::Bytes(value.clone()));
        }
    }

    /// Lists every directory from the root on; gives all inodes met.
    fn walk(&mut self) -> BTreeSet<u64> {
        let mut met = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(dir) = open.pop() {
            let mut entries = BTreeMap::new();
            let (mut cookie, mut eof) = (0, false);
            while !eof {
                let request = Request::ReadDir { node: node(dir), cookie, bytes_max: 300, plus: true };
                let Reply::Entries { entries: page, eof: last } = self.look(request) else { panic!() };
                eof = last;
                for entry in page {
                    assert!(entry.cookie > cookie);
                    cookie = entry.cookie;
                    let attr = entry.entry.unwrap().attr;
                    assert_eq!((attr.ino, attr.kind()), (entry.ino, entry.kind));
                    if attr.is_dir() {
                        open.push(entry.ino.0);
                    }
                    met.insert(entry.ino.0);
                    let name = String::from_utf8(entry.name.as_bytes().to_vec()).unwrap();
                    assert_eq!(entries.insert(name, entry.ino.0), None);
                }
            }
            assert_eq!(entries, self.model.files[&dir].entries, "directory {dir}");
        }
        met
    }

    /// The content of a file, put together as a client does.
    pub(super) fn bytes(&mut self, ino: u64, size: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        let mut start = 0;
        let mut first = true;
        while start != u64::MAX {
            let Reply::Layout(layout) =
                self.look(Request::ReadLayout { node: node(ino), start, end: u64::MAX })
            else {
                panic!()
            };
            if first {
                bytes[..layout.inline.len()].copy_from_slice(&layout.inline);
                first = false;
            }
            for extent in layout.extents {
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
            start = layout.end;
        }
        bytes
    }

    fn look(&mut self, request: Request) -> Reply {
        let context = self.context(0);
        self.clients[0].request -= 1;
        let now = self.now.secs - 1;
        self.now.secs = now;
        self.ns().apply(&context, &request).answer.unwrap().result.unwrap()
    }
}

pub(super) fn node(ino: u64) -> Node {
    Node::unsealed(Ino(ino))
}
