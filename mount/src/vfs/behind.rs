//! Changing names and attributes without waiting for the server, where this session has the directory to itself.
//!
//! The server lets a session alone with a directory that it makes, or that nobody else caches anything of (`Leases::ALONE`,
//! `gather`): before another one looks into it, the session is asked, and answers when all it changed there has arrived
//! (`recall`). So the program goes on at once, and the call is sent behind (`link::behind`). What is made so has a number and
//! handle of a range granted before, the attributes the server would give it, and is leased like what the server has answered:
//! nobody else can know of it. Removed and moved so is only what nobody else caches anything of (`content::Claim`): he would
//! look at it without asking here. Attributes of files are `data`'s (`data::attr`).
//!
//! Everything the server may refuse for is ruled out before, or makes the call wait as ever: access lists and set-gid of
//! the directory, squashed users, a bound on inodes (where one is set while mounts run, the server lets nobody alone any more). What is left (a full
//! disk, a volume that becomes read-only, a session that is lost or revoked) is told in
//! the log, to the next `fsync` of the file or directory, and to writes of the file.

use std::sync::Arc;

use crossbeam::channel::Sender;
use flexfs_uring::spawn;
use flexfs_wire::attr::{Attr, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, SetAttr};
use flexfs_wire::errno::Errno;
use flexfs_wire::lease::Leases;
use flexfs_wire::limits::SYMLINK_BYTES_MAX;
use flexfs_wire::message::{Caller, Entry, Make, RENAME_NOREPLACE, Reply, Request};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use super::content::{Claim, Present};
use super::create::Made;
use super::inode::Inode;
use super::known;
use super::recall::Task;
use super::state::{Ctx, Grant, Vfs};
use crate::cancel::or_cancel;
use crate::data;
use crate::link::Remote;
use crate::link::behind::{About, Change};

/// A directory and a name in it.
pub(super) type Place<'a> = (&'a Arc<Inode>, &'a Name);

/// An inode that nobody else caches anything of, and why.
type Own = (Arc<Inode>, Option<Claim>);

/// A change on its way.
struct Told {
    remote: Arc<Remote>,
    files: Arc<data::Files<Remote>>,
    tasks: Option<Sender<Task>>,
    change: Change,
    at: Time,
    /// Directories that change, and the names in them that do.
    places: Vec<(Arc<Inode>, Option<Name>)>,
    /// Inodes that it changes.
    nodes: Vec<Node>,
}

impl Vfs {
    /// Makes it here and tells the server behind. `None`: the server is to be asked.
    ///
    /// # Errors
    /// `EINTR`; those of a session that has ended.
    pub(super) async fn make_behind(
        &self,
        ctx: Ctx<'_>,
        place: Place<'_>,
        node: Node,
        make: &Make,
    ) -> Result<Option<Made>, Errno> {
        let (dir, name) = place;
        let Some(at) = self.present(ctx, &[dir]).await? else { return Ok(None) };
        if dir.gives_group() || !dir.is_plain(at.life) {
            return Ok(None);
        }
        let Some(attr) = attr_of(make, ctx.caller, at.now) else { return Ok(None) };
        let (asked, own) = (self.remote.recalls().asked(), self.own_changes());
        let about = About { makes: true, ..about(&[place], &[node]) };
        let begin = || self.remote.behind().begin(&about);
        let quiet = make.open && self.open_made_quietly(node);
        let Some(change) = dir.content.make(name, &attr, at.life, begin) else {
            if quiet {
                self.forget_made(node);
            }
            return Ok(None);
        };
        let make = Make { open: make.open && !quiet, ..make.clone() };
        let request = Request::Make { parent: dir.node, name: Some(name.clone()), make };
        self.tell(ctx.caller, request, change, at.now, (&[place], &[node]), Some(attr));
        let leases = match attr.kind() {
            S_IFREG => Leases::EXCLUSIVE,
            S_IFDIR => Leases::BORN.and(Leases::ALONE),
            _ => Leases::NONE,
        };
        let leases = leases.and(Leases::NAMES).and(Leases::ATTR);
        Ok(Some(Made { entry: Entry { node, attr }, grant: Grant { leases, asked, own }, quiet }))
    }

    /// Removes a name here. False: the server is to be asked.
    ///
    /// # Errors
    /// As `make_behind`.
    pub(super) async fn remove_behind(
        &self,
        ctx: Ctx<'_>,
        place: Place<'_>,
        is_dir: bool,
    ) -> Result<bool, Errno> {
        let (dir, name) = place;
        let Some(at) = self.present(ctx, &[dir]).await? else { return Ok(false) };
        self.tell_open_of(place, at.life).await;
        let own = self.own(place, at.life).filter(|(child, _)| child.is_dir() == is_dir);
        let Some(own) = own.filter(|(child, _)| !self.quiet.is_untold(child.ino())) else {
            return Ok(false);
        };
        let child = &own.0;
        // Whether a directory is empty is known of one that nobody else looks into, and the kernel makes nothing in it meanwhile.
        let is_empty = || child.content.attr(at.life, at.renames).is_some_and(|attr| attr.size == 0);
        if is_dir && !is_empty() {
            return Ok(false);
        }
        let about = About { whole_dirs: is_dir, ..about(&[place], &[child.node]) };
        let begin = self.begin_own(&about, at.life, [&own]);
        let Some(change) = dir.content.remove(name, (child.ino(), is_dir), at, || begin) else {
            return Ok(false);
        };
        self.files.doubt(child.ino());
        self.note_change([child]);
        if is_dir {
            child.content.end();
        }
        let request = Request::Remove { parent: dir.node, name: name.clone(), dir: is_dir };
        self.tell(ctx.caller, request, change, at.now, (&[place], &[child.node]), None);
        Ok(true)
    }

    /// Moves a name here: not a directory's, and onto one that is not there or that is such a one, too.
    /// False: the server is to be asked.
    ///
    /// # Errors
    /// As `make_behind`.
    pub(super) async fn rename_behind(
        &self,
        ctx: Ctx<'_>,
        source: Place<'_>,
        target: Place<'_>,
        flags: u32,
    ) -> Result<bool, Errno> {
        let Some(at) = self.present(ctx, &[source.0, target.0]).await? else { return Ok(false) };
        self.tell_open_of(target, at.life).await;
        let Some(own) = self.own(source, at.life).filter(|(child, _)| !child.is_dir()) else {
            return Ok(false);
        };
        let (moved, claim) = &own;
        let within = source.0.ino() == target.0.ino();
        // Who looks at what was found there has the directory asked for in which it was.
        if !within && *claim == Some(Claim::Found) {
            return Ok(false);
        }
        let other = self.own(target, at.life);
        let replaced = other.as_ref().map(|(child, _)| child);
        let fits = match replaced {
            // Two names of one inode both stay.
            Some(other) => {
                let is_told = !self.quiet.is_untold(other.ino());
                flags == 0 && is_told && !other.is_dir() && other.ino() != moved.ino()
            }
            None => flags & !RENAME_NOREPLACE == 0,
        };
        if !fits {
            return Ok(false);
        }
        let mut nodes = vec![moved.node];
        nodes.extend(replaced.map(|other| other.node));
        let places = [source, target];
        let about = about(&places, &nodes);
        let begin = self.begin_own(&about, at.life, std::iter::once(&own).chain(other.as_ref()));
        let (names, replaces) = ((source.1, target.1), replaced.map(|other| other.ino()));
        let (here, there) = (&source.0.content, &target.0.content);
        let change = if within {
            here.rename(names, replaces, at, || begin)
        } else {
            here.move_to(there, source.0.ino() < target.0.ino(), names, replaces, at, || begin)
        };
        let Some(change) = change else { return Ok(false) };
        moved.set_place(target.0.ino(), known::hash(target.1));
        nodes.iter().for_each(|node| self.files.doubt(node.ino));
        self.note_change(std::iter::once(moved).chain(replaced));
        let request = Request::Rename {
            parent: source.0.node,
            name: source.1.clone(),
            new_parent: target.0.node,
            new_name: target.1.clone(),
            flags,
        };
        self.tell(ctx.caller, request, change, at.now, (&places, &nodes), None);
        Ok(true)
    }

    /// The server knows that this name's file is open, if it is: it is about to lose the name.
    async fn tell_open_of(&self, place: Place<'_>, life: u64) {
        if let Some((child, _)) = self.own(place, life)
            && self.quiet.is_untold(child.ino())
        {
            self.tell_open(child.ino()).await;
        }
    }

    /// Gives a file that was made here another name. `None`: the server is to be asked.
    ///
    /// # Errors
    /// As `make_behind`.
    pub(super) async fn link_behind(
        &self,
        ctx: Ctx<'_>,
        inode: &Arc<Inode>,
        place: Place<'_>,
    ) -> Result<Option<(Entry, Grant)>, Errno> {
        let (dir, name) = place;
        let Some(home) = self.inodes.home(inode) else { return Ok(None) };
        let Some(at) = self.present(ctx, &[&home, dir]).await? else { return Ok(None) };
        let asked = self.remote.recalls().asked();
        let made = home.content.sure(inode.name(), at.life).filter(|child| child.claim == Some(Claim::Made));
        let is_own = made.is_some_and(|child| child.ino == inode.ino());
        let Some(mut attr) = self.files.attr_here(inode.ino(), true).filter(|attr| is_own && attr.nlink == 1)
        else {
            return Ok(None);
        };
        let about = about(&[place], &[inode.node]);
        let begin = self.begin_own(&about, at.life, [&(Arc::clone(inode), Some(Claim::Made))]);
        let Some(change) = dir.content.link(name, inode.ino(), at, || begin) else { return Ok(None) };
        self.files.doubt(inode.ino());
        let own = self.note_change([inode]);
        (attr.nlink, attr.ctime) = (2, at.now);
        let request = Request::Link { node: inode.node, parent: dir.node, name: name.clone() };
        self.tell(ctx.caller, request, change, at.now, (&[place], &[inode.node]), None);
        let leases = Leases::NAMES.and(Leases::ATTR);
        Ok(Some((Entry { node: inode.node, attr }, Grant { leases, asked, own })))
    }

    /// Changes attributes here: of a file that is this client's or that nobody else caches anything of, or of a directory that
    /// nobody else looks into. `None`: the server is to be asked.
    ///
    /// # Errors
    /// As `make_behind`.
    pub(super) async fn set_attr_behind(
        &self,
        ctx: Ctx<'_>,
        inode: &Arc<Inode>,
        change: SetAttr,
    ) -> Result<Option<(Attr, Grant)>, Errno> {
        if change.size.is_some() || change.ctime.is_some() || !(inode.is_dir() || inode.is_file()) {
            return Ok(None);
        }
        // Who looks at the name of a file that this client has exclusively asks for its lease.
        let is_ours = inode.is_file() && self.files.is_ours(inode.ino());
        let place = if inode.is_dir() { Some(Arc::clone(inode)) } else { self.inodes.home(inode) };
        let alone = match &place {
            _ if is_ours => &[][..],
            Some(dir) => &[dir],
            None => return Ok(None),
        };
        let Some(at) = self.present(ctx, alone).await? else { return Ok(None) };
        if !inode.is_plain(at.life) {
            return Ok(None);
        }
        Ok(if inode.is_dir() {
            self.set_attr_of_dir(ctx.caller, inode, change, at)
        } else {
            self.set_attr_of_own(ctx.caller, inode, change)
                .or_else(|| self.set_attr_of_found(ctx.caller, inode, place.as_ref()?, change, at))
        })
    }

    fn set_attr_of_dir(
        &self,
        caller: Caller,
        inode: &Arc<Inode>,
        change: SetAttr,
        at: Present,
    ) -> Option<(Attr, Grant)> {
        let (asked, own) = (self.remote.recalls().asked(), self.own_changes());
        let about = About { whole_dirs: true, ..about(&[], &[inode.node]) };
        let begin = || self.remote.behind().begin(&about);
        let (attr, begun) = inode.content.set_attr(&change, at, begin)?;
        self.tell_attr(caller, inode, change, begun, at.now);
        Some((attr, Grant { leases: Leases::ATTR, asked, own }))
    }

    /// Of a file that this client has exclusively.
    fn set_attr_of_own(&self, caller: Caller, inode: &Arc<Inode>, change: SetAttr) -> Option<(Attr, Grant)> {
        // First: the lease may be older than the call, and be recalled by now.
        let (asked, own) = (self.files.asked(inode.ino())?, self.own_changes());
        let (node, tasks) = (inode.node, self.tasks.get().cloned());
        let (remote, nodeid) = (Arc::clone(&self.remote), inode.nodeid);
        let lost = move |errno| {
            report(&remote, &[], &[node], errno);
            if let Some(tasks) = tasks {
                drop(tasks.send(Task::Lost { nodeid, name: None }));
            }
        };
        let attr = self.files.set_attr_here(caller, node, &change, lost)?;
        Some((attr, Grant { leases: Leases::ATTR, asked, own }))
    }

    /// Of a file that was only looked at or read (`chmod -R`, `cp -p` onto what is there), by its one name, in a directory that nobody
    /// else looks into.
    fn set_attr_of_found(
        &self,
        caller: Caller,
        inode: &Arc<Inode>,
        home: &Inode,
        change: SetAttr,
        at: Present,
    ) -> Option<(Attr, Grant)> {
        let told = self.files.attr_shared(inode.ino()).or_else(|| self.told(inode));
        let (mut attr, asked) = told.filter(|(attr, _)| attr.nlink == 1)?;
        let about = About { dirs: [Some(home.node), None], ..about(&[], &[inode.node]) };
        let begin = || self.remote.behind().begin(&about);
        let begun = home.content.change_found(inode.name(), inode.ino(), at.life, begin)?;
        let now = data::after(at.now, &attr);
        data::apply(&mut attr, &change, now);
        let own = self.note_change([inode]);
        self.files.change_shared(inode.ino(), attr);
        self.tell_attr(caller, inode, change, begun, now);
        Some((attr, Grant { leases: Leases::ATTR, asked, own }))
    }

    fn tell_attr(&self, caller: Caller, inode: &Arc<Inode>, change: SetAttr, begun: Change, at: Time) {
        let request = Request::SetAttr { node: inode.node, change };
        let mut told = self.told_of(begun, at, &[], &[inode.node]);
        told.places.push((Arc::clone(inode), None));
        drop(spawn(told.send(caller, request, None)));
    }

    /// How a change finds things, if it may be sent behind: nobody else looks into these directories. Waits for room.
    async fn present(&self, ctx: Ctx<'_>, dirs: &[&Arc<Inode>]) -> Result<Option<Present>, Errno> {
        let life = self.remote.recalls().life();
        if !self.makes_behind || dirs.iter().any(|dir| !dir.content.is_alone(life)) {
            return Ok(None);
        }
        or_cancel(self.remote.behind().room(), Some(ctx.cancel)).await?;
        self.remote.check()?;
        let renames = self.renames();
        Ok(self.remote.server_now().map(|now| Present { life, renames, now }))
    }

    /// The inode that a name surely is, if nobody else caches anything of it.
    fn own(&self, (dir, name): Place<'_>, life: u64) -> Option<Own> {
        let child = dir.content.sure(known::hash(name), life)?;
        let own = (self.inodes.known(child.ino)?, child.claim);
        self.is_own(&own, life).then_some(own)
    }

    fn is_own(&self, (inode, claim): &Own, life: u64) -> bool {
        match claim {
            _ if inode.is_dir() => inode.content.is_alone(life),
            // Others may have come by another name of it.
            Some(Claim::Made) => !inode.is_file() || self.files.is_ours(inode.ino()),
            Some(Claim::Found) => true,
            None => false,
        }
    }

    /// Begins a change of what is still this mount's own by then: whoever is heard to ask for it later waits for the change.
    fn begin_own<'a>(
        &self,
        about: &About,
        life: u64,
        own: impl IntoIterator<Item = &'a Own>,
    ) -> Option<Change> {
        let change = self.remote.behind().begin(about)?;
        own.into_iter().all(|own| self.is_own(own, life)).then_some(change)
    }

    fn tell(
        &self,
        caller: Caller,
        request: Request,
        change: Change,
        at: Time,
        (places, nodes): (&[Place<'_>], &[Node]),
        made: Option<Attr>,
    ) {
        drop(spawn(self.told_of(change, at, places, nodes).send(caller, request, made)));
    }

    fn told_of(&self, change: Change, at: Time, places: &[Place<'_>], nodes: &[Node]) -> Told {
        Told {
            remote: Arc::clone(&self.remote),
            files: Arc::clone(&self.files),
            tasks: self.tasks.get().cloned(),
            change,
            at,
            places: places.iter().map(|(dir, name)| (Arc::clone(dir), Some((*name).clone()))).collect(),
            nodes: nodes.to_vec(),
        }
    }
}

impl Told {
    async fn send(self, caller: Caller, request: Request, made: Option<Attr>) {
        let reply = match self.remote.call_told(caller, request, self.at, &self.change).await {
            Ok(reply) => reply,
            Err(errno) => return self.lose(errno),
        };
        match (&reply, made) {
            (Reply::Entry(entry), Some(told)) if entry.attr != told => {
                tracing::warn!(?told, is = ?entry.attr, "the server made something else of it");
            }
            (Reply::Entry(_) | Reply::Done | Reply::Attr(_), _) => {}
            (other, _) => return self.lose(super::state::misfit(other)),
        }
        for (dir, _) in &self.places {
            dir.note_commit((self.remote.last_commit(), self.remote.generation()));
        }
        // The rest is in `drop`, also for a shard that ends.
    }

    fn lose(&self, errno: Errno) {
        report(&self.remote, &self.places, &self.nodes, errno);
        self.nodes.iter().for_each(|node| self.files.doubt(node.ino));
        for (dir, name) in &self.places {
            // What is in it, and what it is, is asked for from now on.
            if dir.is_dir() {
                dir.content.end();
            }
            dir.set_told(None);
            if let Some(tasks) = &self.tasks {
                // The receiver lives as long as the process.
                drop(tasks.send(Task::Lost { nodeid: dir.nodeid, name: name.clone() }));
            }
        }
    }
}

fn report(remote: &Remote, places: &[(Arc<Inode>, Option<Name>)], nodes: &[Node], errno: Errno) {
    let inos = places.iter().map(|(dir, _)| dir.ino()).chain(nodes.iter().map(|node| node.ino));
    let lost = remote.behind().fail(inos, errno);
    // A session that ends takes a thousand with it.
    if lost.is_power_of_two() {
        tracing::error!(
            dir = places.first().map(|(dir, _)| dir.ino().0), name = ?places.first().and_then(|(_, name)| name.as_ref()),
            ino = nodes.first().map(|node| node.ino.0), error = %errno, lost,
            "something was changed here, and the metadata server would not have it: the change is lost (and others, as many \
             as `lost` says). The next fsync of the file or of its directory fails. Check the metadata server's disk and log"
        );
    }
}

/// What a change of names is about.
fn about(places: &[Place<'_>], nodes: &[Node]) -> About {
    let mut about = About::default();
    for (index, (dir, name)) in places.iter().enumerate().take(2) {
        about.dirs[index] = Some(dir.node);
        about.names[index] = Some((dir.ino(), known::hash(name)));
    }
    for (place, node) in about.nodes.iter_mut().zip(nodes) {
        *place = Some(*node);
    }
    about
}

/// Attributes the server will give it, in a directory without access lists and set-gid (`namespace/create.rs`). `None`: that
/// is not known, or it would be refused.
fn attr_of(make: &Make, caller: Caller, now: Time) -> Option<Attr> {
    let kind = make.mode & S_IFMT;
    let is_good = match kind {
        S_IFREG | S_IFDIR => make.target.is_empty(),
        S_IFLNK => !make.target.is_empty() && make.target.len() <= SYMLINK_BYTES_MAX,
        _ => false,
    };
    let mask = if kind == S_IFLNK { 0 } else { make.umask & 0o777 };
    is_good.then(|| Attr {
        uid: caller.uid,
        gid: caller.gid,
        size: make.target.len() as u64,
        ..Attr::new(make.ino, make.mode & !mask, now)
    })
}
