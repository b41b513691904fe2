//! A volume in memory for the tests of the operations: one line to make a file, one to look at it, and a clean
//! `verify` at the end of each test.

use flexfs_wire::attr::{Attr, S_IFDIR, S_IFREG, SetAttr};
use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, Layout, NewBlock};
use flexfs_wire::id::{BlockId, Ino, RequestId, SessionId};
use flexfs_wire::message::{Caller, Inline, Make, Reply, Request, Write};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use super::context::{Context, Limits, Outcome, Rights};
use super::machine::Namespace;
use crate::engine::Store;
use crate::engine::key::{self, Tag};
use crate::engine::memory::Memory;
use crate::verify::verify;

pub(crate) const ROOT: Ino = Ino::ROOT;
pub(crate) const BLOCK_BYTES: u32 = 1 << 20;

/// A volume, one session that acts, and a clock that ticks with each call.
pub(crate) struct Fixture {
    pub(crate) ns: Namespace<Memory>,
    pub(crate) context: Context,
    pub(crate) next_ino: u64,
    pub(crate) next_block: u64,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::on(Memory::eager())
    }

    /// On a store that is empty.
    pub(crate) fn on(store: Memory) -> Self {
        let now = Time { secs: 1_000, nanos: 0 };
        let mut ns = Namespace::open(store, Limits::new(BLOCK_BYTES, 0, 0), now).unwrap();
        ns.finish_recovery(now).unwrap();
        let (session, _) = ns.open_session(|_| b"test".to_vec()).unwrap();
        let (inos, _) = ns.grant_inodes(session, 65_536).unwrap();
        let (blocks, _) = ns.grant_blocks(session, 4_096).unwrap();
        let caller = Caller { uid: 0, gid: 0 };
        let request = RequestId(0);
        let context = Context { now, told: None, session, request, caller, rights: Rights::Client, umask: 0 };
        Self { ns, context, next_ino: inos.start, next_block: blocks.start }
    }

    /// Another session, to act by `self.context.session = ..`.
    pub(crate) fn join(&mut self) -> SessionId {
        self.ns.open_session(|_| Vec::new()).unwrap().0
    }

    pub(crate) fn outcome(&mut self, request: &Request) -> Outcome {
        self.context.request.0 += 1;
        self.context.now.secs += 1;
        self.ns.apply(&self.context, request)
    }

    pub(crate) fn call(&mut self, request: Request) -> Result<Reply, Errno> {
        self.outcome(&request).answer.expect("nothing waits here").result
    }

    pub(crate) fn fails(&mut self, request: Request) -> Errno {
        self.call(request).expect_err("it should have been refused")
    }

    pub(crate) fn node(ino: Ino) -> Node {
        Node::unsealed(ino)
    }

    pub(crate) fn number(&mut self) -> Ino {
        self.next_ino += 1;
        Ino(self.next_ino - 1)
    }

    pub(crate) fn request_make(&mut self, parent: Ino, name: Option<&str>, mode: u32) -> Request {
        let ino = self.number();
        let make = Make { ino, mode, umask: 0, rdev: 0, target: Vec::new(), open: false };
        Request::Make { parent: Self::node(parent), name: name.map(self::name), make }
    }

    pub(crate) fn make(&mut self, parent: Ino, name: &str, mode: u32) -> Ino {
        let request = self.request_make(parent, Some(name), mode);
        match self.call(request) {
            Ok(Reply::Entry(entry)) => entry.node.ino,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn file(&mut self, parent: Ino, name: &str) -> Ino {
        self.make(parent, name, S_IFREG | 0o644)
    }

    pub(crate) fn dir(&mut self, parent: Ino, name: &str) -> Ino {
        self.make(parent, name, S_IFDIR | 0o755)
    }

    pub(crate) fn symlink(&mut self, parent: Ino, name: &str, target: &[u8]) -> Result<Reply, Errno> {
        let mut request = self.request_make(parent, Some(name), flexfs_wire::attr::S_IFLNK | 0o777);
        if let Request::Make { make, .. } = &mut request {
            make.target = target.to_vec();
        }
        self.call(request)
    }

    pub(crate) fn attr(&mut self, ino: Ino) -> Attr {
        self.ns.attr(ino).unwrap()
    }

    pub(crate) fn lookup(&mut self, parent: Ino, name: &str) -> Result<Ino, Errno> {
        let request = Request::Lookup { parent: Self::node(parent), name: self::name(name) };
        match self.call(request)? {
            Reply::Entry(entry) => Ok(entry.node.ino),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn remove(&mut self, parent: Ino, name: &str, dir: bool) -> Result<(), Errno> {
        let request = Request::Remove { parent: Self::node(parent), name: self::name(name), dir };
        self.call(request).map(|_| ())
    }

    pub(crate) fn link(&mut self, ino: Ino, parent: Ino, name: &str) -> Result<Reply, Errno> {
        let (node, parent) = (Self::node(ino), Self::node(parent));
        self.call(Request::Link { node, parent, name: self::name(name) })
    }

    pub(crate) fn rename(&mut self, from: (Ino, &str), to: (Ino, &str), flags: u32) -> Result<(), Errno> {
        let (parent, new_parent) = (Self::node(from.0), Self::node(to.0));
        let (name, new_name) = (name(from.1), name(to.1));
        self.call(Request::Rename { parent, name, new_parent, new_name, flags }).map(|_| ())
    }

    pub(crate) fn open(&mut self, ino: Ino) -> Result<Reply, Errno> {
        let node = Self::node(ino);
        self.call(Request::Open { node, write: false, truncate: false, kill_privileges: false })
    }

    pub(crate) fn close(&mut self, ino: Ino) {
        self.call(Request::Close { node: Self::node(ino), count: 1 }).unwrap();
    }

    pub(crate) fn set(&mut self, ino: Ino, change: SetAttr) -> Result<Attr, Errno> {
        attr_of(self.call(Request::SetAttr { node: Self::node(ino), change }))
    }

    pub(crate) fn truncate(&mut self, ino: Ino, size: u64) -> Result<Attr, Errno> {
        self.set(ino, SetAttr { size: Some(size), ..SetAttr::default() })
    }

    pub(crate) fn write(&mut self, ino: Ino, write: Write) -> Result<Attr, Errno> {
        attr_of(self.call(Request::Write { node: Self::node(ino), write }))
    }

    pub(crate) fn write_inline(&mut self, ino: Ino, offset: u32, bytes: &[u8]) -> Result<Attr, Errno> {
        let inline = Some(Inline { offset, bytes: bytes.to_vec() });
        self.write(ino, Write { inline, ..Write::default() })
    }

    /// A new block number of the session.
    pub(crate) fn block(&mut self) -> NewBlock {
        self.next_block += 1;
        NewBlock { block: BlockId(self.next_block - 1), raw_bytes: BLOCK_BYTES, stored_bytes: 1000 }
    }

    /// Writes `ranges` of a file as extents of one new block.
    pub(crate) fn write_ranges(&mut self, ino: Ino, ranges: &[(u64, u32)]) -> BlockId {
        let new = self.block();
        let mut block_offset = 0;
        let mut extents = Vec::new();
        for (offset, length) in ranges {
            extents.push(Extent { offset: *offset, length: *length, block: new.block, block_offset });
            block_offset += length;
        }
        self.write(ino, Write { extents, blocks: vec![new], ..Write::default() }).unwrap();
        new.block
    }

    pub(crate) fn layout(&mut self, ino: Ino, start: u64, end: u64) -> Layout {
        match self.call(Request::ReadLayout { node: Self::node(ino), start, end }) {
            Ok(Reply::Layout(layout)) => layout,
            other => panic!("{other:?}"),
        }
    }

    /// Extents as (offset, length, block offset), all of them.
    pub(crate) fn extents(&mut self, ino: Ino) -> Vec<(u64, u32, u32)> {
        let (mut extents, mut start) = (Vec::new(), 0);
        while start != u64::MAX {
            let layout = self.layout(ino, start, u64::MAX);
            extents.extend(
                layout.extents.iter().map(|extent| (extent.offset, extent.length, extent.block_offset)),
            );
            start = layout.end;
        }
        extents
    }

    /// Time in which replaced files go.
    pub(crate) fn age(&mut self) {
        self.ns.age();
        self.ns.age();
        self.settle();
    }

    pub(crate) fn settle(&mut self) {
        while self.ns.background(self.context.now, 1_000).unwrap() {}
    }

    pub(crate) fn verify(&self) {
        let report = verify(self.ns.store()).unwrap();
        assert!(report.is_clean(), "{report}");
        let files = self.ns.maps.borrow().files();
        let txn = self.ns.begin(self.context.now);
        for ino in files {
            let kept = self.ns.committed_extents(&txn, ino, 1..u64::MAX, usize::MAX).unwrap();
            let (from, to) = key::rows(Tag::Extent, ino.0);
            let stored = self.ns.scan_extents((&from, &to), u64::MAX, usize::MAX, |_| true).unwrap();
            assert_eq!(kept, stored, "the map of a file is not what the store holds");
        }
    }

    /// The server dies with `kept` of what was not durable, and comes back.
    pub(crate) fn crash(self, kept: usize) -> Self {
        let store = self.ns.into_store().crash(kept);
        assert!(store.durable().current().0 > 0 || kept == 0);
        let ns = Namespace::open(store, Limits::new(BLOCK_BYTES, 0, 0), self.context.now).unwrap();
        Self { ns, ..self }
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn attr_of(result: Result<Reply, Errno>) -> Result<Attr, Errno> {
    match result? {
        Reply::Attr(attr) => Ok(attr),
        other => panic!("{other:?}"),
    }
}
