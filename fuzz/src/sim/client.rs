//! A client: what `vfs` does between the kernel and the data layer, in the same order.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flexfs_mount::data::{Config, Files, OpenMode, ReadMode, Server as _, WriteMode};
use flexfs_uring::{spawn, timer};
use flexfs_wire::attr::{Attr, S_IFREG};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Caller, Entry, Make, Reply, Request};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::settings::Compression;

use super::kernel::{Kernel, PAGE, Page, Patience};
use super::port::Port;
use super::recall::Heard;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
pub(crate) const ROOT: Ino = Ino(1);
/// How long a write waits for its pages to be dropped.
const FORGET_MAX: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) port: Arc<Port>,
    pub(crate) files: Files<Port>,
    pub(crate) kernel: Kernel,
    pub(crate) heard: Mutex<Heard>,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) node: Node,
    pub(crate) direct: bool,
}

impl Client {
    pub(crate) fn new(port: Arc<Port>, block_size: u32) -> Arc<Self> {
        let config =
            Config { mem_capacity: 16 << 20, block_size, compression: Compression::Lz4, cipher: None };
        let files = Files::new(Arc::clone(&port), config);
        let (kernel, heard) = (Kernel::default(), Mutex::default());
        let client = Arc::new(Self { number: port.number, port, files, kernel, heard });
        client.port.set_client(&client);
        client
    }

    /// Files with unwritten bytes.
    pub(crate) fn exclusive(&self) -> Vec<Ino> {
        self.files.declare_dirty().iter().map(|node| node.ino).collect()
    }

    /// Whether the kernel has heard of the inode.
    pub(crate) fn knows(&self, ino: Ino) -> bool {
        ino == ROOT || self.kernel.state().inodes.contains_key(&ino)
    }

    pub(crate) async fn create(&self, name: &str) -> Result<Handle, Errno> {
        let _dir = self.kernel.lock_dir(true).await;
        let epoch = self.kernel.state().epoch;
        let ino = self.port.next_ino().await?;
        let make = Make { ino, mode: S_IFREG | 0o644, umask: 0, rdev: 0, target: Vec::new(), open: true };
        let parent = Node::unsealed(ROOT);
        let asked = self.port.recalls.asked();
        let version = self.kernel.attr_clock();
        let request = Request::Make { parent, name: Some(as_name(name)), make };
        let (result, leases) = self.port.call_leased(CALLER, request, None).await;
        let Reply::Entry(Entry { node, mut attr }) = result? else { return Err(Errno::EPROTO) };
        self.files.created(node, &attr, leases, asked);
        self.kernel.state().inodes.entry(node.ino).or_default();
        self.settle(&mut attr);
        let keep = self.port.recalls.is_good(node.ino, asked) && self.files.may_keep(node.ino, leases);
        self.kernel.take_attr(&attr, version, keep);
        if leases.has(Leases::NAMES) && self.port.recalls.is_good(ROOT, asked) {
            self.kernel.take_name(name, Some(node.ino), epoch);
        } else {
            self.kernel.state().names.remove(name);
        }
        Ok(Handle { node, direct: false })
    }

    /// What a name stands for.
    pub(crate) async fn lookup(&self, name: &str) -> Result<Option<Ino>, Errno> {
        if let Some(found) = self.kernel.state().names.get(name) {
            return Ok(*found);
        }
        let _dir = self.kernel.lock_dir(false).await;
        let epoch = self.kernel.state().epoch;
        let asked = self.port.recalls.asked();
        let version = self.kernel.attr_clock();
        let request = Request::Lookup { parent: Node::unsealed(ROOT), name: as_name(name) };
        let (result, leases) = self.port.call_leased(CALLER, request, None).await;
        let found = match result {
            Ok(Reply::Entry(Entry { node, mut attr })) => {
                self.kernel.state().inodes.entry(node.ino).or_default();
                self.settle(&mut attr);
                let good = self.port.recalls.is_good(node.ino, asked);
                self.kernel.take_attr(&attr, version, good && self.files.may_keep(node.ino, leases));
                Some(node.ino)
            }
            Ok(_) => return Err(Errno::EPROTO),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        if leases.has(Leases::NAMES) && self.port.recalls.is_good(ROOT, asked) {
            self.kernel.take_name(name, found, epoch);
        }
        Ok(found)
    }

    pub(crate) async fn unlink(&self, name: &str) -> Result<(), Errno> {
        let _dir = self.kernel.lock_dir(true).await;
        let request = Request::Remove { parent: Node::unsealed(ROOT), name: as_name(name), dir: false };
        let result = self.port.call(CALLER, request, None).await;
        // The kernel takes the name out, or doubts it.
        self.kernel.state().names.remove(name);
        result.map(|_| ())
    }

    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        let parent = Node::unsealed(ROOT);
        let _dir = self.kernel.lock_dir(true).await;
        let (name, new_name) = (as_name(from), as_name(to));
        let request = Request::Rename { parent, name, new_parent: parent, new_name, flags: 0 };
        let result = self.port.call(CALLER, request, None).await;
        let mut state = self.kernel.state();
        state.names.remove(from);
        state.names.remove(to);
        result.map(|_| ())
    }

    pub(crate) async fn open(&self, ino: Ino, write: bool, append: bool) -> Result<Handle, Errno> {
        let node = Node::unsealed(ino);
        if !self.kernel.state().inodes.get(&ino).is_some_and(|inode| inode.is_known) {
            // The look-up of its name.
            self.stat(ino).await?;
        }
        let stale = self.has_stale_pages(ino);
        let mode = OpenMode { write, ..OpenMode::default() };
        let info = self.files.open(CALLER, node, mode, None).await?;
        let direct = append || info.contended;
        if !info.keep_cache || stale || self.has_stale_pages(ino) {
            self.kernel.forget_pages(ino, None).await;
        }
        Ok(Handle { node, direct })
    }

    pub(crate) async fn close(&self, handle: Handle) -> Result<(), Errno> {
        let flushed = self.files.flush(handle.node, None).await;
        self.files.close(CALLER, handle.node);
        flushed
    }

    pub(crate) async fn stat(&self, ino: Ino) -> Result<Attr, Errno> {
        if let Some(inode) = self.kernel.state().inodes.get(&ino)
            && let Some(mut attr) = inode.attr
        {
            attr.size = inode.size;
            return Ok(attr);
        }
        let version = self.kernel.attr_clock();
        let asked = self.port.recalls.asked();
        let request = Request::GetAttr { node: Node::unsealed(ino) };
        let (result, leases) = self.port.call_leased(CALLER, request, None).await;
        let Reply::Attr(mut attr) = result? else { return Err(Errno::EPROTO) };
        self.settle(&mut attr);
        let keep = self.port.recalls.is_good(ino, asked) && self.files.may_keep(ino, leases);
        self.kernel.take_attr(&attr, version, keep);
        Ok(attr)
    }

    /// `pread(2)`.
    pub(crate) async fn read(&self, handle: &Handle, range: Range<u64>) -> Result<Vec<u8>, Errno> {
        let ino = handle.node.ino;
        if handle.direct {
            let mut out = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
            let how = ReadMode { direct: true };
            let got = self.files.read(CALLER, handle.node, range.start, &mut out, how, None).await?;
            if got.is_unheld {
                self.drop_filled(ino, range);
            }
            out.truncate(got.bytes);
            return Ok(out);
        }
        let small = self.kernel.state().inodes.get(&ino).is_none_or(|inode| range.end > inode.size);
        if small {
            self.stat(ino).await?;
        }
        let mut out = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let page = self.page(handle.node, at / PAGE).await?;
            let size = self.kernel.state().inodes.get(&ino).map_or(0, |inode| inode.size);
            let end = range.end.min((at / PAGE + 1) * PAGE).min(size);
            if end <= at {
                break;
            }
            let from = usize::try_from(at % PAGE).unwrap_or(0);
            out.extend_from_slice(&page[from..from + usize::try_from(end - at).unwrap_or(0)]);
            at = end;
        }
        Ok(out)
    }

    /// The bytes of a page, read if it is not there.
    async fn page(&self, node: Node, index: u64) -> Result<Vec<u8>, Errno> {
        let mut patience = Patience::new();
        loop {
            let is_mine = {
                let mut state = self.kernel.state();
                let inode = state.inodes.entry(node.ino).or_default();
                match inode.pages.get_mut(&index) {
                    Some(page) if page.uptodate => return Ok(page.bytes.clone()),
                    Some(page) if page.locked => false,
                    Some(page) => {
                        page.locked = true;
                        true
                    }
                    None => {
                        let page = Page { bytes: vec![0; 4096], locked: true, ..Page::default() };
                        inode.pages.insert(index, page);
                        true
                    }
                }
            };
            if !is_mine {
                patience.wait().await;
                continue;
            }
            let mut bytes = vec![0; 4096];
            let how = ReadMode { direct: false };
            let read = self.files.read(CALLER, node, index * PAGE, &mut bytes, how, None).await;
            if read.is_ok_and(|got| got.is_unheld) {
                self.drop_filled(node.ino, index * PAGE..(index + 1) * PAGE);
            }
            let mut state = self.kernel.state();
            let page = state.inodes.get_mut(&node.ino).and_then(|inode| inode.pages.get_mut(&index));
            if let Some(page) = page {
                page.locked = false;
                page.uptodate = read.is_ok();
                page.bytes.clone_from(&bytes);
            }
            return read.map(|_| bytes);
        }
    }

    /// `pwrite(2)`, or a `write(2)` that appends. How often sessions were lost before its bytes were taken in: it may still wait
    /// for the kernel's pages then.
    pub(crate) async fn write(
        &self,
        handle: &Handle,
        offset: u64,
        data: &[u8],
        append: bool,
    ) -> Result<u64, Errno> {
        let (node, ino) = (handle.node, handle.node.ino);
        let _writing = self.kernel.lock_inode(ino).await;
        let end = offset + data.len() as u64;
        if handle.direct {
            let how = WriteMode { append, direct: true, ..WriteMode::default() };
            self.kernel.forget_pages(ino, Some(offset..end)).await;
            let result = self.files.write(CALLER, node, offset, data, how, None).await;
            let losses = self.losses();
            self.kernel.forget_pages(ino, Some(offset..end)).await;
            if !append {
                self.kernel.note_written(ino, end);
            }
            return result.map(|_| losses);
        }
        let mut losses = None;
        let mut at = offset;
        while at < end {
            let mut until = at;
            let mut locked = None;
            while until < end && locked.is_none() {
                let index = until / PAGE;
                let stop = end.min((index + 1) * PAGE);
                let part = &data[to(until - offset)..to(stop - offset)];
                if !self.fill(ino, until, part).await {
                    locked = Some(index);
                }
                until = stop;
            }
            let bytes = &data[to(at - offset)..to(until - offset)];
            let how = WriteMode::default();
            let written = self.files.write(CALLER, node, at, bytes, how, None).await;
            losses.get_or_insert_with(|| self.losses());
            if written == Ok(true) {
                let client = self.port.client();
                let task = spawn(async move {
                    if let Some(client) = client {
                        client.kernel.forget_pages(ino, Some(at..until)).await;
                    }
                });
                let _ = timer::timeout(FORGET_MAX, task).await;
            }
            if let Some(inode) = self.kernel.state().inodes.get_mut(&ino) {
                for (_, page) in inode.pages.range_mut(at / PAGE..until.div_ceil(PAGE)) {
                    // One that came in the place of an invalidated one has no holder.
                    page.held = page.held.saturating_sub(1);
                }
                if let Some(page) = locked.and_then(|index| inode.pages.get_mut(&index)) {
                    page.locked = false;
                }
                if written.is_err() {
                    inode
                        .pages
                        .range_mut(at / PAGE..until.div_ceil(PAGE))
                        .for_each(|(_, page)| page.uptodate = false);
                }
            }
            self.kernel.note_written(ino, until);
            written?;
            at = until;
        }
        Ok(losses.unwrap_or(0))
    }

    fn losses(&self) -> u64 {
        self.port.net.check.losses(self.number)
    }

    /// Copies bytes into a page. False: it is not whole, and stays locked until they are written.
    async fn fill(&self, ino: Ino, at: u64, part: &[u8]) -> bool {
        let index = at / PAGE;
        let mut patience = Patience::new();
        loop {
            {
                let mut state = self.kernel.state();
                let inode = state.inodes.entry(ino).or_default();
                let page = inode
                    .pages
                    .entry(index)
                    .or_insert_with(|| Page { bytes: vec![0; 4096], ..Page::default() });
                if !page.locked {
                    let from = to(at % PAGE);
                    page.bytes[from..from + part.len()].copy_from_slice(part);
                    page.uptodate |= part.len() == 4096;
                    page.locked = !page.uptodate;
                    page.held += 1;
                    return page.uptodate;
                }
            }
            patience.wait().await;
        }
    }

    /// `fallocate(2)` of a range that is there: another version with the same bytes.
    pub(crate) async fn allocate(&self, handle: &Handle, length: u64) -> Result<(), Errno> {
        let ino = handle.node.ino;
        let _writing = self.kernel.lock_inode(ino).await;
        let done = self.files.fallocate(CALLER, handle.node, 0, 0, length, None).await;
        self.kernel.forget_attr(ino);
        done
    }

    pub(crate) async fn fsync(&self, handle: &Handle) -> Result<(), Errno> {
        self.files.fsync(handle.node, None).await
    }

    /// Attributes came: what this client knows is laid over them, and pages go that are not the file's any more.
    fn settle(&self, attr: &mut Attr) {
        if self.files.observe(attr) {
            self.drop_pages(attr.ino);
        }
    }

    /// A read was answered without a lease: what it fills goes as soon as it is there.
    fn drop_filled(&self, ino: Ino, range: Range<u64>) {
        self.kernel.state().inodes.entry(ino).or_default().dropping += 1;
        let client = self.port.client();
        drop(spawn(async move {
            let Some(client) = client else { return };
            client.kernel.forget_pages(ino, Some(range)).await;
            if let Some(inode) = client.kernel.state().inodes.get_mut(&ino) {
                inode.dropping -= 1;
            }
        }));
    }

    fn drop_pages(&self, ino: Ino) {
        let change = {
            let mut state = self.kernel.state();
            let inode = state.inodes.entry(ino).or_default();
            inode.seen += 1;
            inode.seen
        };
        let client = self.port.client();
        drop(spawn(async move {
            let Some(client) = client else { return };
            client.kernel.forget_pages(ino, None).await;
            if let Some(inode) = client.kernel.state().inodes.get_mut(&ino) {
                inode.told = inode.told.max(change);
            }
        }));
    }

    fn has_stale_pages(&self, ino: Ino) -> bool {
        self.kernel
            .state()
            .inodes
            .get(&ino)
            .is_some_and(|inode| inode.told < inode.seen || inode.dropping > 0)
    }
}

fn as_name(name: &str) -> Name {
    Name::new(name.as_bytes()).expect("a name of the simulation")
}

fn to(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}
