//! A volume as its thread has it: the namespace machine over an engine, one session that calls.

use flexfs_meta::engine::Store;
use flexfs_meta::namespace::{Context, Limits, Namespace, Rights};
use flexfs_wire::attr::{S_IFDIR, S_IFREG};
use flexfs_wire::extent::{Extent, NewBlock};
use flexfs_wire::id::{BlockId, Ino, RequestId};
use flexfs_wire::limits::BLOCK_BYTES_DEFAULT;
use flexfs_wire::message::{Caller, Make, Reply, Request, Write};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

/// Numbers granted at once.
const GRANT: u64 = 4_096;
/// Extents of a large write.
const EXTENTS: u32 = 16;
/// Calls the client has unfinished: its mark stays so far behind.
const UNFINISHED: u64 = 32;

/// See the module. Directories `dir-N`, each with as many files `file-N`.
pub(crate) struct Volume<S> {
    pub(crate) ns: Namespace<S>,
    pub(crate) context: Context,
    /// Its directories.
    pub(crate) dirs: Vec<Ino>,
    /// Its files, in the order of the directories.
    pub(crate) files: Vec<Ino>,
    inos: std::ops::Range<u64>,
    blocks: std::ops::Range<u64>,
}

impl<S: Store> Volume<S> {
    /// Fills an empty store through the machine, one call for each inode.
    pub(crate) fn fill(store: S, dirs: usize, files_per_dir: usize) -> Self {
        let now = Time { secs: 1_700_000_000, nanos: 5 };
        let mut ns = Namespace::open(store, Limits::new(BLOCK_BYTES_DEFAULT, 0, 0), now).unwrap();
        ns.finish_recovery(now).unwrap();
        let (session, _) = ns.open_session(|_| Vec::new()).unwrap();
        let caller = Caller { uid: 1000, gid: 100 };
        let context = Context {
            now,
            told: None,
            session,
            request: RequestId(0),
            caller,
            rights: Rights::Client,
            umask: 0,
        };
        let mut volume = Self { ns, context, dirs: Vec::new(), files: Vec::new(), inos: 0..0, blocks: 0..0 };
        for dir in 0..dirs {
            let dir = volume.make(Ino::ROOT, &format!("dir-{dir}"), S_IFDIR | 0o755);
            volume.dirs.push(dir);
            for file in 0..files_per_dir {
                let file = volume.make(dir, &format!("file-{file}"), S_IFREG | 0o644);
                volume.files.push(file);
            }
        }
        volume
    }

    /// A write of `EXTENTS` extents in one new block, with holes between them.
    pub(crate) fn write_extents(&mut self, node: Node) -> Request {
        let block = self.block();
        let extent = |index: u32| Extent {
            offset: u64::from(index) * 128 * 1024,
            length: 64 * 1024,
            block,
            block_offset: index * 64 * 1024,
        };
        let extents = (0..EXTENTS).map(extent).collect();
        let blocks = vec![NewBlock { block, raw_bytes: EXTENTS * 64 * 1024, stored_bytes: 400_000 }];
        Request::Write { node, write: Write { extents, blocks, ..Write::default() } }
    }

    /// A call that succeeds.
    pub(crate) fn call(&mut self, request: &Request) -> Reply {
        self.context.request.0 += 1;
        let id = self.context.request.0;
        if id.is_multiple_of(UNFINISHED) {
            self.ns.finished(self.context.session, RequestId(id.saturating_sub(UNFINISHED)));
        }
        let answer = self.ns.apply(&self.context, request).answer.expect("nothing here waits");
        answer.result.unwrap_or_else(|errno| panic!("{request:?}: {errno}"))
    }

    /// The number of an inode to be made.
    pub(crate) fn ino(&mut self) -> Ino {
        if self.inos.is_empty() {
            let (range, _) = self.ns.grant_inodes(self.context.session, GRANT).unwrap();
            self.inos = range.start..range.start + range.count;
        }
        Ino(self.inos.next().unwrap())
    }

    /// The number of a block to be written.
    pub(crate) fn block(&mut self) -> BlockId {
        if self.blocks.is_empty() {
            let (range, _) = self.ns.grant_blocks(self.context.session, GRANT).unwrap();
            self.blocks = range.start..range.start + range.count;
        }
        BlockId(self.blocks.next().unwrap())
    }

    /// Makes an inode.
    pub(crate) fn make(&mut self, parent: Ino, name: &str, mode: u32) -> Ino {
        let make = Make { ino: self.ino(), mode, umask: 0o022, rdev: 0, target: Vec::new(), open: false };
        let ino = make.ino;
        self.call(&Request::Make { parent: Node::unsealed(parent), name: Some(name_of(name)), make });
        ino
    }
}

pub(crate) fn name_of(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}
