//! The metadata server as the rest of the client sees it: calls that are answered whatever happens to connections.
//!
//! A `Remote` is shared by all cores; a call goes out on the link of the shard it is made on and its answer comes back
//! there, so no thread is changed and no lock shared on the way. When the server is away calls wait, and can be interrupted; when
//! it is back they are sent again, and the server answers each once however often it came.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use flexfs_uring::timer::{sleep, timeout};
use flexfs_uring::{JoinHandle, spawn};
use flexfs_wire::cipher::Cipher;
use flexfs_wire::errno::Errno;
use flexfs_wire::hello::Granted;
use flexfs_wire::id::{BlockId, Commit, Ino, RequestId};
use flexfs_wire::lease::Leases;
use flexfs_wire::limits::REQUESTS_PER_LINK_MAX;
use flexfs_wire::message::{Call, Caller, Reply, Request};
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use super::behind::{Behind, Change, Serial};
use super::error::LinkError;
use super::figures::Figures;
use super::first;
use super::local::{Link, NOBODY};
use super::session::{Listener, Session, Target};
use super::task;
use super::veil;
use super::waiter::{Outcome, Waiter};
use crate::cancel::{Cancel, or_cancel};
use crate::disk::Disk;
use crate::lease::Recalls;

/// Calls of one link without an answer beyond which new ones wait: a little below what the server takes, so that
/// heartbeats and cancellations always get through.
const IN_FLIGHT_MAX: usize = REQUESTS_PER_LINK_MAX as usize - 32;

/// Bytes of a block from which on it is large: below a millisecond of a fast network, and more than a random read asks for.
const BULK_BYTES_MIN: usize = 256 << 10;

/// How long a withdrawn wait for a lock waits for the server's word on whether the lock was granted after all.
const WITHDRAW_MAX: Duration = Duration::from_millis(500);

/// How long the news that a change is durable, which the server was asked for along with it, is waited for before it is asked once more:
/// a good disk syncs within a few milliseconds.
const ANNOUNCED_MAX: Duration = Duration::from_millis(100);

/// Result of a wait for a lock that was only taken back to be asked for anew (the kernel's own ERESTARTSYS).
const RENEWED: Errno = Errno(512);

/// Tells the sessions of one process apart (tests open several).
static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The links of this shard, by the key of their `Remote`.
    static LINKS: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) };
}

struct Local {
    key: u64,
    link: Rc<Link>,
    task: JoinHandle<()>,
    /// For large blocks, from the first one on.
    bulk: Option<(Rc<Link>, JoinHandle<()>)>,
}

/// See the module.
#[derive(Debug)]
pub struct Remote {
    key: u64,
    session: Arc<Session>,
}

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server said no; its own words.
    #[error("{0}")]
    Refused(String),
    /// No server that answers, or not the right one.
    #[error("the metadata server at {addr} cannot be reached: {cause}")]
    Unreachable {
        /// Its address.
        addr: String,
        /// What happened.
        cause: String,
    },
}

impl Remote {
    /// Opens a session, with blocking calls, before there are shards.
    ///
    /// # Errors
    /// [`OpenError`], with a text for the person.
    pub fn open(target: Target) -> Result<Arc<Self>, OpenError> {
        let (granted, first) = first::open(&target).map_err(|error| match error {
            LinkError::Refused(refused) => OpenError::Refused(refused.text),
            error => OpenError::Unreachable { addr: target.meta_addr.clone(), cause: error.to_string() },
        })?;
        let session = Arc::new(Session::new(target, *granted, first));
        Ok(Arc::new(Self { key: NEXT_KEY.fetch_add(1, Ordering::Relaxed), session }))
    }

    /// Starts the link of this shard; calls may be made at once and wait until it stands.
    pub fn start(&self, shard: usize) {
        let link = Link::new(Arc::clone(&self.session), shard);
        let task = spawn(task::run(Rc::clone(&link)));
        LINKS.with_borrow_mut(|links| links.push(Local { key: self.key, link, task, bulk: None }));
    }

    /// Ends the link of this shard. Calls without an answer get EIO.
    pub async fn stop(&self) {
        self.session.end(Errno::EIO);
        let local = LINKS.with_borrow_mut(|links| {
            let index = links.iter().position(|local| local.key == self.key)?;
            Some(links.swap_remove(index))
        });
        if let Some(Local { task, bulk, .. }) = local {
            task.await;
            if let Some((_, task)) = bulk {
                task.await;
            }
        }
    }

    /// Tells the server that this client is done, at most for `within`. Calls get EIO from then on.
    ///
    /// # Errors
    /// The server did not answer in time.
    pub async fn leave(&self, within: Duration) -> Result<(), Errno> {
        self.session.begin_leaving();
        let left = timeout(within, self.call(NOBODY, Request::Leave, None)).await;
        self.session.end(Errno::EIO);
        left.unwrap_or(Err(Errno::ETIMEDOUT)).map(|_| ())
    }

    /// What the session was granted when it was first opened.
    #[must_use]
    pub fn granted(&self) -> &Granted {
        &self.session.granted
    }

    /// Whether calls can be made: work that would only fail later can be refused at once.
    ///
    /// # Errors
    /// `EACCES`: the token is no longer good. `ETIMEDOUT`: a soft mount's server is away. `EIO`: unmounted.
    pub fn check(&self) -> Result<(), Errno> {
        self.link()?.check()
    }

    /// How long no link has heard anything of the server. An idle link asks for a sign of life every few seconds, so
    /// it says something about a server only while a call waits for it.
    #[must_use]
    pub fn quiet_for(&self) -> Duration {
        self.session.quiet_for()
    }

    /// Counts for `status`.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures::of(&self.session)
    }

    /// Makes a call and waits for its answer.
    ///
    /// # Errors
    /// The server's errno. `EINTR`: `cancel` was raised (what was sent may still be done). `EACCES`: the token is no
    /// longer good. `ESTALE`: the session was lost, and whether a mutation was done is not known. `ETIMEDOUT`: a soft
    /// mount's server was away for too long. `EIO`: unmounted.
    pub async fn call(
        &self,
        caller: Caller,
        request: Request,
        cancel: Option<&Cancel>,
    ) -> Result<Reply, Errno> {
        if let Request::Lock { wait: true, .. } = request {
            let link = self.link()?;
            self.wait_behind(&request, cancel).await?;
            self.admit(&link, false, cancel).await?;
            return self.wait_for_lock(&link, caller, request, cancel).await;
        }
        self.ask_in_turn(caller, request, cancel).await?.result
    }

    /// As [`Remote::call`], and what the answer grants: an error may grant something too (the names of a directory).
    pub async fn call_leased(
        &self,
        caller: Caller,
        request: Request,
        cancel: Option<&Cancel>,
    ) -> (Result<Reply, Errno>, Leases) {
        match self.ask_in_turn(caller, request, cancel).await {
            Ok(outcome) => (outcome.result, outcome.leases),
            Err(errno) => (Err(errno), Leases::NONE),
        }
    }

    /// As [`Remote::call`], but behind no change of the inode that is on its way, only behind its making: by who sends them.
    pub(crate) async fn call_past(
        &self,
        caller: Caller,
        request: Request,
        cancel: Option<&Cancel>,
    ) -> Result<Reply, Errno> {
        let link = self.link()?;
        for node in request.nodes().into_iter().flatten() {
            self.wait_made(node, cancel).await?;
        }
        self.admit(&link, request.is_mutation(), cancel).await?;
        self.ask(&link, Call::new(caller, request), None, false, cancel).await?.result
    }

    /// Sends a change that its program was told of at `told`, when its turn has come.
    pub(crate) async fn call_told(
        &self,
        caller: Caller,
        request: Request,
        told: Time,
        change: &Change,
    ) -> Result<Reply, Errno> {
        change.turn().await;
        let link = self.link()?;
        self.admit(&link, true, None).await?;
        let call = Call { told: Some(told), ..Call::new(caller, request) };
        change.note_sent(link.row);
        self.ask(&link, call, None, false, None).await?.result
    }

    /// What the volume is encrypted with.
    pub(crate) fn cipher(&self) -> Option<&Arc<Cipher>> {
        self.session.target.cipher.as_ref()
    }

    /// Whether nothing in the volume changes as long as this session stands: the volume's own flags say so, and the server keeps
    /// its word.
    pub(crate) fn is_unchanging(&self) -> bool {
        self.session.is_unchanging()
    }

    /// The disk cache of this mount.
    pub(crate) fn disk(&self) -> Option<&Arc<Disk>> {
        self.session.target.disk.as_ref()
    }

    /// Whether calls fail when the server is away for long, instead of waiting.
    pub(crate) fn is_soft(&self) -> bool {
        self.session.target.soft.is_some()
    }

    /// The server's clock, as its last answer to a change told it; a little behind.
    pub(crate) fn server_now(&self) -> Option<Time> {
        self.session.server_now()
    }

    /// Changes on their way.
    pub(crate) fn behind(&self) -> &Arc<Behind> {
        &self.session.behind
    }

    /// Waits until all changes that began before are answered.
    ///
    /// # Errors
    /// `EINTR`.
    pub async fn settle(&self, cancel: Option<&Cancel>) -> Result<(), Errno> {
        match self.session.behind.last() {
            Some(last) => or_cancel(self.session.behind.wait(last), cancel).await,
            None => Ok(()),
        }
    }

    /// Makes a call when its turn has come.
    async fn ask_in_turn(
        &self,
        caller: Caller,
        request: Request,
        cancel: Option<&Cancel>,
    ) -> Result<Outcome, Errno> {
        let link = self.link()?;
        let made = match &request {
            // Others that change its attributes or content hold the file's order (`data`), and its names are no matter.
            Request::Write { node, .. } => self.wait_made_or_sent(&link, *node, cancel).await?,
            _ => {
                self.wait_behind(&request, cancel).await?;
                None
            }
        };
        self.admit(&link, request.is_mutation(), cancel).await?;
        let call = Call::new(caller, request);
        match made {
            Some(made) => self.ask_behind(&link, made, call, cancel).await,
            None => self.ask(&link, call, None, false, cancel).await,
        }
    }

    /// A call comes behind changes of what it names.
    pub(super) async fn wait_behind(&self, request: &Request, cancel: Option<&Cancel>) -> Result<(), Errno> {
        let behind = &self.session.behind;
        if behind.count() == 0 {
            return Ok(());
        }
        let before = match request {
            // Whether a directory may go or be replaced depends on what is in it, and it is named by name only; the figures of
            // the volume count all.
            Request::StatFs | Request::Remove { dir: true, .. } | Request::Rename { .. } => behind.last(),
            request => behind.before(request.nodes().into_iter().flatten().map(|node| node.ino)),
        };
        match before {
            Some(serial) => or_cancel(behind.wait(serial), cancel).await,
            None => Ok(()),
        }
    }

    /// As `wait_made`, but only until the making is sent on this link: that change, if there is no answer yet.
    async fn wait_made_or_sent(
        &self,
        link: &Link,
        node: Node,
        cancel: Option<&Cancel>,
    ) -> Result<Option<Serial>, Errno> {
        let behind = &self.session.behind;
        match behind.before_using(node.ino) {
            Some(made) if behind.is_sent(made, link.row) => Ok(Some(made)),
            Some(made) => or_cancel(behind.wait_for(made), cancel).await.map(|()| None),
            None => Ok(None),
        }
    }

    /// Makes a call behind a change that was sent on this link, without waiting for its answer. Once more after that if it is refused:
    /// the server may have put the change off.
    async fn ask_behind(
        &self,
        link: &Rc<Link>,
        change: Serial,
        call: Call,
        cancel: Option<&Cancel>,
    ) -> Result<Outcome, Errno> {
        let outcome = self.ask(link, call.clone(), None, false, cancel).await?;
        if outcome.result.is_ok() {
            return Ok(outcome);
        }
        or_cancel(self.session.behind.wait_for(change), cancel).await?;
        self.ask(link, call, None, false, cancel).await
    }

    async fn wait_made(&self, node: Node, cancel: Option<&Cancel>) -> Result<(), Errno> {
        let behind = &self.session.behind;
        match behind.before_using(node.ino) {
            Some(made) => or_cancel(behind.wait_for(made), cancel).await,
            None => Ok(()),
        }
    }

    /// The errno of all calls, once the session is over.
    #[must_use]
    pub fn ended(&self) -> Option<Errno> {
        self.session.ended()
    }

    /// What was recalled lately.
    #[must_use]
    pub fn recalls(&self) -> &Arc<Recalls> {
        &self.session.recalls
    }

    /// Tells, from now on, of recalls and of what becomes of the session. Called on shards; must not block. The first
    /// listener counts.
    pub fn listen(&self, listener: Box<dyn Listener>) {
        drop(self.session.listener.set(listener));
    }

    /// Waits for a lock, with a call after the other: one that is never answered would have the server keep the answers
    /// to all calls behind it.
    async fn wait_for_lock(
        &self,
        link: &Rc<Link>,
        caller: Caller,
        request: Request,
        cancel: Option<&Cancel>,
    ) -> Result<Reply, Errno> {
        loop {
            let outcome = self.ask(link, Call::new(caller, request.clone()), None, false, cancel).await?;
            if outcome.result != Err(RENEWED) {
                return outcome.result;
            }
        }
    }

    /// Makes a call whose answer nobody waits for. It goes out behind all calls this shard made before, and is sent
    /// again like any other.
    pub fn call_later(&self, caller: Caller, request: Request) {
        let inos = request.nodes().into_iter().flatten().map(|node| node.ino);
        if let Some(serial) = self.session.behind.before(inos) {
            let this = Self { key: self.key, session: Arc::clone(&self.session) };
            drop(spawn(async move {
                this.session.behind.wait(serial).await;
                this.begin_later(caller, request);
            }));
        } else {
            self.begin_later(caller, request);
        }
    }

    fn begin_later(&self, caller: Caller, mut request: Request) {
        if let Some(cipher) = self.cipher() {
            veil::seal(cipher, &mut request);
        }
        let begun = self
            .link()
            .and_then(|link| link.check().and_then(|()| link.begin(Call::new(caller, request), None, None)));
        if let Err(errno) = begun {
            tracing::debug!(%errno, "a call for later was not made");
        }
    }

    /// The handle of an inode that is to be made.
    ///
    /// # Errors
    /// As [`Remote::call`].
    pub async fn next_node(&self, cancel: Option<&Cancel>) -> Result<Node, Errno> {
        let (ino, seal) = or_cancel(self.next_number(true), cancel).await??;
        Ok(Node { ino: Ino(ino), seal })
    }

    /// An id for a new block.
    ///
    /// # Errors
    /// As [`Remote::call`].
    pub async fn next_block(&self) -> Result<BlockId, Errno> {
        self.next_number(false).await.map(|(id, _)| BlockId(id))
    }

    /// Stores an encoded block; it is on stable storage when this returns. The buffer is kept until then, and sealed
    /// from where it is.
    ///
    /// # Errors
    /// As [`Remote::call`]. `ESTALE`: the id was granted to a session that is gone; take a new one.
    pub async fn put_block(
        &self,
        block: BlockId,
        encoded: Vec<u8>,
        cancel: Option<&Cancel>,
    ) -> Result<(), Errno> {
        let link = self.link_for(encoded.len())?;
        self.admit(&link, false, cancel).await?;
        let request = Request::PutBlock { block };
        let outcome =
            self.ask(&link, Call::new(NOBODY, request), Some(Arc::new(encoded)), false, cancel).await?;
        outcome.result.map(|_| ())
    }

    /// Waits until everything answered so far is durable.
    ///
    /// # Errors
    /// As [`Remote::call`]; `EIO`: the server restarted and does not know the session, so something may be lost.
    pub async fn sync(&self) -> Result<(), Errno> {
        self.settle(None).await?;
        self.sync_to(self.last_commit(), None).await
    }

    /// Waits until every commit up to this one is durable.
    ///
    /// # Errors
    /// As [`Remote::sync`].
    pub async fn sync_to(&self, commit: Commit, cancel: Option<&Cancel>) -> Result<(), Errno> {
        // A commit beyond the last one was given by a server that is gone; all of its answers became durable in recovery.
        let up_to = commit.min(self.session.last_commit());
        let generation = self.session.generation();
        if let Some(announced) = self.session.announced(up_to) {
            // The news may be lost with a link, and a disk may be slow: then it is asked for.
            let _ = or_cancel(timeout(ANNOUNCED_MAX, announced), cancel).await?;
        }
        if self.session.is_settled(up_to) {
            return if self.session.is_lost(up_to, generation) { Err(Errno::EIO) } else { Ok(()) };
        }
        let link = self.link()?;
        self.ask(&link, Call::new(NOBODY, Request::Sync { up_to }), None, false, cancel)
            .await?
            .result
            .map(|_| ())
    }

    /// The highest commit answered to this session.
    #[must_use]
    pub fn last_commit(&self) -> Commit {
        self.session.last_commit()
    }

    /// How often the session was lost and opened anew. Numbers granted before are of no use after.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.session.generation()
    }

    /// Whether a commit that was answered in `generation` may be gone: the server restarted, and by then did not know the
    /// session any more. An fsync behind it must fail once.
    #[must_use]
    pub fn lost_after(&self, commit: Commit, generation: u64) -> bool {
        self.session.is_lost(commit, generation)
    }

    /// This shard's link.
    fn link(&self) -> Result<Rc<Link>, Errno> {
        let found = LINKS.with_borrow(|links| {
            links.iter().find(|local| local.key == self.key).map(|local| Rc::clone(&local.link))
        });
        found.ok_or(Errno::EIO)
    }

    /// The link for so many bytes of a block. Large ones go on a link of their own: what is small would wait behind them in the sockets, for
    /// longer than the server takes to answer it. It is made for the first of them, and while it does not stand the other one does.
    pub(super) fn link_for(&self, bytes: usize) -> Result<Rc<Link>, Errno> {
        let link = self.link()?;
        if bytes < BULK_BYTES_MIN || !self.session.has_bulk() {
            return Ok(link);
        }
        let bulk = LINKS.with_borrow(|links| {
            let local = links.iter().find(|local| local.key == self.key)?;
            local.bulk.as_ref().map(|(bulk, _)| Rc::clone(bulk))
        });
        if let Some(bulk) = bulk {
            return Ok(if bulk.is_up() { bulk } else { link });
        }
        link.check()?;
        let bulk = Link::bulk_of(&link);
        let task = spawn(task::run(Rc::clone(&bulk)));
        LINKS.with_borrow_mut(|links| {
            if let Some(local) = links.iter_mut().find(|local| local.key == self.key) {
                local.bulk = Some((bulk, task));
            }
        });
        Ok(link)
    }

    /// Waits for room: in the link, and for mutations in what is kept for replay.
    pub(super) async fn admit(
        &self,
        link: &Link,
        mutation: bool,
        cancel: Option<&Cancel>,
    ) -> Result<(), Errno> {
        link.check()?;
        while mutation && self.session.is_full() {
            self.sync_to(self.last_commit(), cancel).await?;
        }
        loop {
            let listener = link.room.listen();
            if link.ledger.borrow().count() < IN_FLIGHT_MAX {
                return link.check();
            }
            or_cancel(listener, cancel).await?;
        }
    }

    pub(super) async fn ask(
        &self,
        link: &Rc<Link>,
        mut call: Call,
        payload: Option<Arc<Vec<u8>>>,
        takes_payload: bool,
        cancel: Option<&Cancel>,
    ) -> Result<Outcome, Errno> {
        link.check()?;
        let lock_wait = matches!(call.request, Request::Lock { wait: true, .. });
        let veiled = self.cipher().map(|cipher| (cipher, veil::seal(cipher, &mut call.request)));
        let waiter = Waiter::new(takes_payload);
        let id = link.begin(call, payload, Some(Rc::clone(&waiter)))?;
        let mut ticket = Ticket { link, id, answered: false };
        // Whoever is cancelled reads no answer. Only a wait for a lock may have been granted at the same moment.
        let mut raised = pin!(async {
            let Some(cancel) = cancel else { return std::future::pending().await };
            cancel.raised().await;
            if lock_wait {
                link.withdraw(id);
                sleep(WITHDRAW_MAX).await;
            }
        });
        let mut renewal = pin!(async {
            sleep(self.session.target.lock_wait_max).await;
            link.withdraw(id);
        });
        let mut renewed = false;
        let mut outcome = poll_fn(|cx| {
            if let Poll::Ready(outcome) = waiter.poll(cx) {
                return Poll::Ready(Ok(outcome));
            }
            renewed = renewed || lock_wait && renewal.as_mut().poll(cx).is_ready();
            raised.as_mut().poll(cx).map(|()| Err(Errno::EINTR))
        })
        .await?;
        ticket.answered = true;
        if renewed && outcome.result == Err(Errno::EINTR) && !cancel.is_some_and(Cancel::is_raised) {
            outcome.result = Err(RENEWED);
        }
        if let (Some((cipher, opening)), Ok(reply)) = (&veiled, &mut outcome.result)
            && let Err(errno) = veil::open(cipher, opening, reply)
        {
            outcome.result = Err(errno);
        }
        Ok(outcome)
    }

    async fn next_number(&self, ino: bool) -> Result<(u64, u64), Errno> {
        let link = self.link()?;
        loop {
            link.check()?;
            link.renew_grants();
            let grant = if ino { &link.inos } else { &link.blocks };
            let number = grant.take();
            if grant.poll_ask() {
                spawn(refill(Rc::clone(&link), self.key, ino));
            }
            match number {
                Some(number) => return Ok(number),
                None => match grant.arrived().await {
                    // They were another session's; the one that stands now is asked.
                    Ok(()) | Err(Errno::ESTALE) => {}
                    Err(errno) => return Err(errno),
                },
            }
        }
    }
}

/// Asks for the next range.
async fn refill(link: Rc<Link>, key: u64, ino: bool) {
    let remote = Remote { key, session: Arc::clone(&link.session) };
    let grant = if ino { &link.inos } else { &link.blocks };
    let count = grant.count();
    let request = if ino { Request::GrantInodes { count } } else { Request::GrantBlocks { count } };
    let generation = link.session.generation();
    match remote
        .ask(&link, Call::new(NOBODY, request), None, false, None)
        .await
        .and_then(|outcome| outcome.result)
    {
        // Granted to a session that was lost meanwhile: of no use.
        Ok(_) if generation != link.session.generation() => grant.handle_failed(Errno::ESTALE),
        Ok(Reply::Inodes { range, seals }) if ino && range.count > 0 => {
            let (seals, rest) = seals.as_chunks();
            if rest.is_empty() && seals.len() as u64 == range.count {
                grant.handle_range(range, seals.iter().map(|seal| u64::from_le_bytes(*seal)));
            } else {
                grant.handle_failed(Errno::EPROTO);
            }
        }
        Ok(Reply::Granted(range)) if !ino && range.count > 0 => grant.handle_range(range, []),
        Ok(_) => grant.handle_failed(Errno::EPROTO),
        Err(errno) => {
            tracing::warn!(%errno, "no numbers were granted");
            grant.handle_failed(errno);
        }
    }
}

/// Withdraws a call when its caller goes away before the answer.
struct Ticket<'a> {
    link: &'a Link,
    id: RequestId,
    answered: bool,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.link.abandon(self.id);
        }
    }
}
