//! The file data of a mount, as the operations on files see it.

use std::sync::Arc;

use flexfs_wire::attr::{Attr, SetAttr};
use flexfs_wire::cipher::Cipher;
use flexfs_wire::errno::Errno;
use flexfs_wire::extent::Layout;
use flexfs_wire::id::{Commit, Ino};
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Caller, Reply, Request};
use flexfs_wire::seal::Node;
use flexfs_wire::settings::Compression;
use flexfs_wire::time::Time;

use super::budget::Budget;
use super::cache::AGE_EVERY;
use super::core::{Core, attr_of, unexpected};
use super::figures::Figures;
use super::file::{File, Recalling, State};
use super::layout::Map;
use super::memory;
use super::read::adopt;
use super::server::Server;
use crate::cancel::Cancel;
use crate::lease::Asked;
use crate::wait::to_the_end;

/// What file data needs to know of volume and command line.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most memory for dirty data and caches, in bytes; 0 for the default (an eighth of what there is, at most 4 GiB).
    pub mem_capacity: u64,
    /// Block size of the volume, in bytes.
    pub block_size: u32,
    /// Compression of the volume.
    pub compression: Compression,
    /// What an encrypted volume is encrypted with.
    pub cipher: Option<Arc<Cipher>>,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenMode {
    /// For writing.
    pub write: bool,
    /// Cut to nothing first.
    pub truncate: bool,
    /// The opener is not privileged: a truncation clears set-uid and set-gid.
    pub kill_privileges: bool,
}

/// How bytes come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteMode {
    /// The writer is not privileged: set-uid and set-gid are cleared.
    pub kill_privileges: bool,
    /// At the end of the file, wherever that is (`O_APPEND`).
    pub append: bool,
    /// Out of the kernel's pages, which it holds locked meanwhile, and by nobody's call.
    pub from_pages: bool,
    /// The kernel holds no pages for it (direct I/O): it may wait for a lease.
    pub direct: bool,
}

/// How bytes are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadMode {
    /// Maybe not to fill the kernel's pages (direct I/O): it may have pages of the same range.
    pub direct: bool,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Got {
    /// How many bytes.
    pub bytes: usize,
    /// No lease holds them: nobody will say when what the kernel got is old.
    pub is_unheld: bool,
}

/// A file that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenInfo {
    /// Its attributes as programs here see them.
    pub attr: Attr,
    /// The data is what it was when the kernel last read it: it may keep its pages.
    pub keep_cache: bool,
    /// Other sessions use the file: writes must not go through the kernel's pages.
    pub contended: bool,
    /// The kernel was given its bytes, all of them, which were true in this life of the leases.
    pub given: Option<u64>,
}

/// The bytes of all files of a mount. Any core may call; methods run on a shard.
///
/// A write's time is this machine's clock (but never before the server's last change of the file), is shown by
/// `stat` at once and stays what it was when the write reaches the server. The server refuses times in its own
/// future; so mtimes move at most by what the two clocks differ, when this one is ahead.
#[derive(Debug)]
pub struct Files<S = crate::link::Remote> {
    core: Arc<Core<S>>,
}

impl<S: Server> Files<S> {
    /// Nothing is known of any file.
    #[must_use]
    pub fn new(server: Arc<S>, config: Config) -> Self {
        let budget = Budget::new(config.mem_capacity, memory::available_bytes(), config.block_size);
        Self { core: Arc::new(Core::new(server, budget, &config)) }
    }

    /// On a shard, once: it takes its part of the work on large blocks.
    pub fn join_shard(&self) {
        self.core.spread.join();
    }

    /// Opens a file; one more open counted by the server.
    ///
    /// # Errors
    /// The server's; `EINTR`.
    pub async fn open(
        &self,
        caller: Caller,
        node: Node,
        mode: OpenMode,
        cancel: Option<&Cancel>,
    ) -> Result<OpenInfo, Errno> {
        if mode.truncate {
            return self.open_truncated(caller, node, mode.kill_privileges, cancel).await;
        }
        let known = self.core.find(node.ino);
        let before = known.and_then(|file| file.state().known.map(|known| known.version));
        let file = self.core.file(node);
        file.remember();
        let request =
            Request::Open { node, write: mode.write, truncate: false, kill_privileges: mode.kill_privileges };
        let (mut attr, layout) = match self.core.call(caller, request, &file, cancel).await? {
            Reply::Opened { attr, layout } => (attr, layout),
            other => return Err(unexpected(&other)),
        };
        let mut state = file.state();
        state.opens += 1;
        if before.is_some_and(|before| attr.version < before) {
            // The server lost what this client knew (see `read::adopt`).
            state.known = None;
            state.stale_kernel = true;
        }
        state.learn(&attr, self.core.server.recalls().life());
        // Another version is a change of ours under way, or one since: the next read asks.
        if let Some(layout) = layout.filter(|layout| layout.version == state.version())
            && adopt(&mut state, attr.version, layout).is_err()
        {
            // Not needed here; the next read asks for it and reports.
            state.map = None;
        }
        state.overlay(&mut attr, self.core.server.recalls().life());
        let stale = state.take_stale();
        // What the kernel has it got under the lease, or it was told to drop it.
        let keep_cache = !stale;
        let contended = mode.write && !state.lease.is_exclusive(self.core.server.recalls().life());
        drop(state);
        self.core.weigh_layout(&file);
        Ok(OpenInfo { attr, keep_cache, contended, given: None })
    }

    /// Opens a file for reading that is under a lease; the server hears nothing of it. `known` is what it told last, and when that
    /// was asked. The kernel is given the bytes of a small one, see [`State::give_ready`]. `None`: not under a lease any more.
    pub fn open_here(
        &self,
        node: Node,
        known: Option<(Attr, Asked)>,
        give: impl FnOnce(&[u8]) -> bool,
    ) -> Option<OpenInfo> {
        let file = self.core.file(node);
        file.remember();
        let (recalls, life) = (self.core.server.recalls(), self.core.server.recalls().life());
        let mut state = file.state();
        if let Some((attr, asked)) = &known
            && !(state.lease.holds(life) && state.known.is_some())
            && recalls.is_good(node.ino, *asked)
        {
            state.learn(attr, life);
            state.lease.grant(Leases::ATTR, (life, *asked), attr.version);
            state.know_whole(life);
        }
        let mut info = None;
        if state.lease.recall == Recalling::No
            && state.lease.holds(life)
            && let Some(mut attr) = state.known
        {
            state.opens += 1;
            state.overlay(&mut attr, life);
            let given = state.give_ready(life, give).then_some(life);
            info = Some(OpenInfo { attr, keep_cache: !state.take_stale(), contended: false, given });
        }
        drop(state);
        self.core.release(file);
        info
    }

    /// An open is over that the server does not know of. What was written goes out with the last one, and then it is `over`: until then
    /// the file must not go.
    pub fn close_here(&self, node: Node, over: impl FnOnce() + 'static) {
        self.end_open(node, |state| state.opens == 0, over);
    }

    /// Somebody who is about to open a file has found it, with its layout; `leases` came with that, of a call made then.
    pub fn bring(&self, node: Node, attr: &Attr, leases: Leases, asked: Asked, layout: Layout) {
        if !leases.has(Leases::ATTR) {
            return;
        }
        let file = self.core.file(node);
        file.remember();
        let (recalls, life) = (self.core.server.recalls(), self.core.server.recalls().life());
        let mut state = file.state();
        if recalls.is_good(node.ino, asked) {
            state.learn(attr, life);
            state.lease.grant(leases, (life, asked), attr.version);
            state.know_whole(life);
            if layout.version == state.version() && adopt(&mut state, attr.version, layout).is_err() {
                // Who reads asks for it and reports.
                state.map = None;
            }
        }
        drop(state);
        self.core.weigh_layout(&file);
    }

    async fn open_truncated(
        &self,
        caller: Caller,
        node: Node,
        kill_privileges: bool,
        cancel: Option<&Cancel>,
    ) -> Result<OpenInfo, Errno> {
        let file = self.core.file(node);
        file.remember();
        let core = Arc::clone(&self.core);
        let abandoned = Abandoned::default();
        let noticed = abandoned.clone();
        let work = async move {
            let result = core.open_truncated(caller, &file, kill_privileges).await;
            if result.is_ok() {
                if noticed.get() {
                    core.server.call_later(caller, Request::Close { node, count: 1 });
                } else {
                    file.state().opens += 1;
                }
            }
            result.map(|mut attr| {
                let (state, life) = (file.state(), core.server.recalls().life());
                state.overlay(&mut attr, life);
                let contended = !state.lease.is_exclusive(life);
                OpenInfo { attr, keep_cache: false, contended, given: None }
            })
        };
        let result = to_the_end(work, cancel).await;
        abandoned.set(result.is_err());
        result?
    }

    /// A file was made with one open counted by the server: it is empty. `leases` came with it, of a call made then.
    pub fn created(&self, node: Node, attr: &Attr, leases: Leases, asked: Asked) {
        let file = self.core.file(node);
        file.remember();
        let mut state = file.state();
        state.opens += 1;
        state.learn(attr, self.core.server.recalls().life());
        let recalls = self.core.server.recalls();
        if recalls.is_good(node.ino, asked) {
            state.lease.grant(leases, (recalls.life(), asked), attr.version);
            state.know_whole(recalls.life());
        }
        self.core.note_answer(&mut state);
        if attr.size == 0 {
            state.map = Some(Box::new(Map::empty(attr.version)));
        }
        drop(state);
        self.core.weigh_layout(&file);
    }

    /// The last descriptor of one open went: what is still dirty is flushed, then the open is given back. Comes back at
    /// once; the rest goes on here, on this shard.
    pub fn close(&self, caller: Caller, node: Node) {
        let core = Arc::clone(&self.core);
        self.end_open(
            node,
            |_| true,
            move || core.server.call_later(caller, Request::Close { node, count: 1 }),
        );
    }

    /// One open less. What is dirty goes out first where it is `flushed`, and then it is `over`.
    fn end_open(&self, node: Node, flushed: impl FnOnce(&State) -> bool, over: impl FnOnce() + 'static) {
        let Some(file) = self.core.find(node.ino) else { return over() };
        let is_unsent = {
            let mut state = file.state();
            state.end_open();
            !state.is_clean() && flushed(&state)
        };
        if !is_unsent {
            over();
            return self.core.release(file);
        }
        let core = Arc::clone(&self.core);
        drop(flexfs_uring::spawn(async move {
            // Whoever closed was answered by the flush before; what comes to light now was logged where it happened.
            let _ = core.clean(&file, None).await;
            over();
            core.release(file);
        }));
    }

    /// Fills `out` from `offset` on; short only at the end of the file.
    ///
    /// # Errors
    /// The server's; `EIO` for damaged or lost blocks, `EINTR`.
    pub async fn read(
        &self,
        _caller: Caller,
        node: Node,
        offset: u64,
        out: &mut [u8],
        how: ReadMode,
        cancel: Option<&Cancel>,
    ) -> Result<Got, Errno> {
        self.core.read(&self.core.file(node), offset, out, how, cancel).await
    }

    /// What makes the bytes of a file these and no others, and its size; see `identity`. `None`: it has bytes that are in no block.
    /// `fresh`: the server is asked, whatever is known.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn identity(&self, node: Node, fresh: bool) -> Result<Option<(u128, u64)>, Errno> {
        self.core.identity(&self.core.file(node), fresh).await
    }

    /// Takes all of `data`, or fails. True: the kernel may have pages of the range without these bytes.
    ///
    /// # Errors
    /// `EFBIG`; an earlier write's that could not be stored, once; `EINTR`.
    pub async fn write(
        &self,
        caller: Caller,
        node: Node,
        offset: u64,
        data: &[u8],
        how: WriteMode,
        cancel: Option<&Cancel>,
    ) -> Result<bool, Errno> {
        self.core.write(caller, &self.core.file(node), (offset, data), how, cancel).await
    }

    /// Everything written is at the server.
    ///
    /// # Errors
    /// The last that a writeback of this file met, once; `EINTR` (the work goes on).
    pub async fn flush(&self, node: Node, cancel: Option<&Cancel>) -> Result<(), Errno> {
        match self.core.find(node.ino) {
            Some(file) => self.core.flush(&file, cancel).await,
            None => Ok(()),
        }
    }

    /// As `flush`, for a program that closes the file and behind whose back bytes may be sent.
    ///
    /// # Errors
    /// As `flush`.
    pub async fn flush_closed(&self, node: Node, cancel: Option<&Cancel>) -> Result<(), Errno> {
        match self.core.find(node.ino) {
            Some(file) => self.core.flush_closed(&file, cancel).await,
            None => Ok(()),
        }
    }

    /// Everything written to the inode is at the server, before a name of it takes the place of another. `None`: which inode is not
    /// known, and it is done for all that were closed with bytes on their way.
    ///
    /// # Errors
    /// What a writeback met and nobody was told yet; `EINTR` (the work goes on).
    pub async fn settle(&self, ino: Option<Ino>, cancel: Option<&Cancel>) -> Result<(), Errno> {
        match ino.map(|ino| self.core.find(ino)) {
            Some(Some(file)) => self.core.settle(&file, cancel).await,
            Some(None) => Ok(()),
            None => {
                let core = Arc::clone(&self.core);
                to_the_end(async move { core.clean_closed().await }, cancel).await
            }
        }
    }

    /// Everything written and every change answered so far is durable.
    ///
    /// # Errors
    /// As `flush`, and the server's.
    pub async fn fsync(&self, node: Node, cancel: Option<&Cancel>) -> Result<(), Errno> {
        let Some(file) = self.core.find(node.ino) else {
            return self.core.server.sync_to(self.core.server.last_commit(), cancel).await;
        };
        let heard = file.state().losses;
        let awaiting = file.begin_awaiting();
        self.core.flush(&file, cancel).await?;
        drop(awaiting);
        self.core.server.sync_to(self.core.server.last_commit(), cancel).await?;
        let mut state = file.state();
        let is_lost =
            |(commit, generation): &mut (Commit, u64)| self.core.server.is_lost(*commit, *generation);
        if state.answered.take_if(is_lost).is_some() {
            tracing::error!(
                ino = node.ino.0,
                "the server restarted and did not know this session any more: changes of this file may be lost"
            );
            self.core.counters.count_error();
            state.count_loss();
        }
        state.lost_since(heard).map_or(Ok(()), Err)
    }

    /// Changes attributes of an inode of any kind.
    ///
    /// # Errors
    /// The server's; `EINTR` (the change goes on).
    pub async fn set_attr(
        &self,
        caller: Caller,
        node: Node,
        change: SetAttr,
        cancel: Option<&Cancel>,
    ) -> Result<(Attr, Leases), Errno> {
        let Some(file) = self.core.find(node.ino) else {
            let request = Request::SetAttr { node, change };
            let (result, leases) = self.core.server.call_leased(caller, request, cancel).await;
            return result.and_then(attr_of).map(|attr| (attr, leases));
        };
        let core = Arc::clone(&self.core);
        let work = async move {
            let attr = core.change_attr(caller, &file, change).await?;
            Ok((attr, Leases::ATTR.when(file.state().lease.holds(core.server.recalls().life()))))
        };
        to_the_end(work, cancel).await?
    }

    /// Changes attributes of a file here, and tells the server behind. `None`: it must be asked. What is lost then is told
    /// to `lost`.
    pub fn set_attr_here(
        &self,
        caller: Caller,
        node: Node,
        change: &SetAttr,
        lost: impl FnOnce(Errno) + 'static,
    ) -> Option<Attr> {
        let file = self.core.find(node.ino)?;
        let attr = self.core.change_here(caller, &file, change, lost);
        self.core.release(file);
        attr
    }

    /// Whether anything is known of the file here.
    #[must_use]
    pub fn knows(&self, ino: Ino) -> bool {
        self.core.find(ino).is_some()
    }

    /// Attributes of a file that nobody knows better: it is under a lease. `alone`: an exclusive one.
    #[must_use]
    pub fn attr_here(&self, ino: Ino, alone: bool) -> Option<Attr> {
        let file = self.core.find(ino)?;
        let (state, life) = (file.state(), self.core.server.recalls().life());
        let is_good = if alone { state.is_whole(life) } else { state.is_true(life) };
        if is_good && !state.is_decorated { state.shown(life) } else { None }
    }

    /// Attributes of a file under a lease that is no exclusive one, and when that was asked for; nothing of the file is on its way
    /// to the server.
    #[must_use]
    pub fn attr_shared(&self, ino: Ino) -> Option<(Attr, Asked)> {
        let file = self.core.find(ino)?;
        let (state, life) = (file.state(), self.core.server.recalls().life());
        let is_quiet = state.is_clean() && state.pending.is_none() && state.changing == 0;
        let is_good = is_quiet && state.is_true(life) && !state.lease.is_exclusive(life);
        state.known.filter(|_| is_good && !state.is_decorated).map(|attr| (attr, state.lease.asked))
    }

    /// They were changed here, where nobody else looks; the server will hear of it.
    pub fn change_shared(&self, ino: Ino, attr: Attr) {
        let Some(file) = self.core.find(ino) else { return };
        let (mut state, life) = (file.state(), self.core.server.recalls().life());
        if state.is_true(life) && state.version() == attr.version {
            state.known = Some(attr);
        } else {
            state.doubt();
        }
    }

    /// When the lease was asked for under which this file's attributes are known here: what is answered of them is no newer, and a
    /// recall that was heard since then ends it.
    #[must_use]
    pub fn asked(&self, ino: Ino) -> Option<Asked> {
        self.core.find(ino).map(|file| file.state().lease.asked)
    }

    /// The server changes attributes of the inode without telling them here: a name of it comes or goes.
    pub fn doubt(&self, ino: Ino) {
        if let Some(file) = self.core.find(ino) {
            file.state().doubt();
        }
    }

    /// It does so to an inode, and which one is not known.
    pub fn doubt_all(&self) {
        self.core.each_file(|file| file.state().doubt());
    }

    /// The server will be told that the file was read.
    pub fn note_atime(&self, ino: Ino, atime: Time) {
        if let Some(file) = self.core.find(ino)
            && let Some(known) = &mut file.state().known
        {
            known.atime = known.atime.max(atime);
        }
    }

    /// Whether nobody else has a lease of the file, nor asks for one.
    #[must_use]
    pub fn is_ours(&self, ino: Ino) -> bool {
        let life = self.core.server.recalls().life();
        self.core.find(ino).is_some_and(|file| file.state().lease.is_ours(life))
    }

    /// A recall of the inode came: no attributes are changed here from now on that the server hears of later.
    pub fn ask(&self, ino: Ino) {
        if let Some(file) = self.core.find(ino) {
            file.state().lease.is_asked = true;
        }
    }

    /// `fallocate(2)` with `FALLOC_*` of `wire::message`.
    ///
    /// # Errors
    /// The server's; `EINTR` (the change goes on).
    pub async fn fallocate(
        &self,
        caller: Caller,
        node: Node,
        mode: u32,
        offset: u64,
        length: u64,
        cancel: Option<&Cancel>,
    ) -> Result<(), Errno> {
        let (core, file) = (Arc::clone(&self.core), self.core.file(node));
        let work = async move { core.allocate(caller, &file, mode, (offset, length)).await };
        to_the_end(work, cancel).await?
    }

    /// `copy_file_range(2)` from (node, offset) to (node, offset); no data moves. The number of bytes copied.
    ///
    /// # Errors
    /// The server's; `EINTR` (the copy goes on).
    pub async fn copy_range(
        &self,
        caller: Caller,
        source: (Node, u64),
        target: (Node, u64),
        length: u64,
        cancel: Option<&Cancel>,
    ) -> Result<u64, Errno> {
        let core = Arc::clone(&self.core);
        let source = (core.file(source.0), source.1);
        let target = (core.file(target.0), target.1);
        to_the_end(async move { core.copy(caller, source, target, length).await }, cancel).await?
    }

    /// `lseek(2)`: the next data (or, with `hole`, hole) from `offset` on.
    ///
    /// # Errors
    /// `ENXIO` when `offset` is not within the file or no data follows; the server's; `EINTR`.
    pub async fn seek(
        &self,
        _caller: Caller,
        node: Node,
        offset: u64,
        hole: bool,
        cancel: Option<&Cancel>,
    ) -> Result<u64, Errno> {
        self.core.seek(&self.core.file(node), offset, hole, cancel).await
    }

    /// Attributes came from the server: they get what only this client knows. True: somebody else changed the data,
    /// and the kernel's pages must go.
    #[must_use]
    pub fn observe(&self, attr: &mut Attr) -> bool {
        let Some(file) = self.core.find(attr.ino) else { return false };
        let (foreign, stale) = {
            let mut state = file.state();
            let life = self.core.server.recalls().life();
            let foreign = state.learn(attr, life);
            state.overlay(attr, life);
            (foreign, state.take_stale())
        };
        if foreign {
            self.core.weigh_layout(&file);
        }
        stale
    }

    /// Whether attributes of the inode that came with `leases` may be kept.
    #[must_use]
    pub fn may_keep(&self, ino: Ino, leases: Leases) -> bool {
        self.core.may_keep(ino, leases)
    }

    /// The file, if anything is known of it, to process a recall of it.
    #[must_use]
    pub fn recalled(&self, ino: Ino) -> Option<Recalled<S>> {
        let file = self.core.find(ino)?;
        Some(Recalled { core: Arc::clone(&self.core), file })
    }

    /// Files with bytes that are not at the server, which alone stay exclusive: to be told to a server that restarted.
    #[must_use]
    pub fn declare_dirty(&self) -> Vec<Node> {
        self.core.declare_dirty()
    }

    /// Extended attributes of the inode are about to be set here.
    pub fn decorate(&self, ino: Ino) {
        if let Some(file) = self.core.find(ino) {
            let mut state = file.state();
            state.is_decorated = true;
            state.doubt();
        }
    }

    /// The kernel forgot the inode.
    pub fn forget(&self, ino: Ino) {
        self.core.forget(ino);
    }

    /// Everything written to any file, and every change answered so far, is durable.
    ///
    /// # Errors
    /// Of a file that lost data (its own flush reports it still), and the server's.
    pub async fn sync_all(&self) -> Result<(), Errno> {
        let written = self.core.clean_all().await;
        let server = &self.core.server;
        server.sync_to(server.last_commit(), None).await.and(written)
    }

    /// Sends data that is `WRITEBACK_MS` old to the server, for ever. One task of the mount runs it.
    pub async fn write_back(&self) {
        let core = Arc::clone(&self.core);
        core.write_back().await;
    }

    /// Lets go of data that nobody has asked for in a while, for ever. One task of the mount runs it.
    pub async fn grow_older(&self) {
        loop {
            flexfs_uring::timer::sleep(AGE_EVERY).await;
            self.core.grow_older();
        }
    }

    /// Figures.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let (hits, misses) = self.core.cache.counts();
        Figures {
            dirty_bytes: self.core.budget.written(),
            cache_bytes: self.core.budget.cached() + self.core.layouts_bytes(),
            cache_limit: self.core.budget.limit(),
            hits,
            misses,
            ..self.core.counters.figures()
        }
    }

    /// For tests of what is inside.
    #[cfg(test)]
    pub(crate) fn core(&self) -> &Arc<Core<S>> {
        &self.core
    }
}

/// A file of which a recall is processed, step by step (see `data::lease`).
#[derive(Debug)]
pub struct Recalled<S: Server = crate::link::Remote> {
    core: Arc<Core<S>>,
    file: Arc<File>,
}

impl<S: Server> Clone for Recalled<S> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), file: Arc::clone(&self.file) }
    }
}

impl<S: Server> Recalled<S> {
    /// A recall that leaves a shared lease.
    pub async fn share(self) {
        self.core.recall_shared(&self.file).await;
        self.core.release(self.file);
    }

    /// First step of one that leaves nothing: unwritten bytes go to the server.
    pub async fn begin(self) {
        self.core.recall_begin(&self.file).await;
    }

    /// Holds back reads. The ranges that the kernel may have got pages of since. Blocks for those under way.
    #[must_use]
    pub fn shut(&self, within: std::time::Duration) -> Vec<std::ops::Range<u64>> {
        Core::<S>::recall_shut(&self.file, within)
    }

    /// As `shut`, for who must not block: `None` while reads and writes are under way.
    #[must_use]
    pub fn try_shut(&self) -> Option<Vec<std::ops::Range<u64>>> {
        Core::<S>::recall_try_shut(&self.file)
    }

    /// Whether the kernel has nothing of these ranges any more: it is asking for them, and is held back.
    #[must_use]
    pub fn are_held(&self, ranges: &[std::ops::Range<u64>]) -> bool {
        Core::<S>::are_held(&self.file, ranges)
    }

    /// Lets reads go on.
    pub fn open(&self) {
        Core::<S>::recall_open(&self.file);
    }

    /// Last step: nothing is left of the lease.
    pub async fn end(self) {
        self.core.recall_end(&self.file).await;
        self.core.release(self.file);
    }
}

/// Told to work that goes on when its caller has left. Both run on one shard.
type Abandoned = std::rc::Rc<std::cell::Cell<bool>>;

// What one idle file costs, beside its layout (which has its part of the budget): 100 k open files are about 50 MB.
const _: () = assert!(size_of::<File>() <= 520);
