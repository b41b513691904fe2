//! Making files, directories and links without waiting for the server, where this session has the directory to itself.
//!
//! The server lets a session alone with a directory that it makes (`Leases::ALONE`): before another one looks into it, the
//! session is asked, and answers when all it made there has arrived (`recall`). So the program goes on at once, and the call
//! is sent behind (`link::behind`). What is made so has a number and handle of a range granted before, the attributes the
//! server would give it, and is leased like what the server has answered: nobody else can know of it.
//!
//! Everything the server may refuse for is ruled out before, or makes the call wait as ever: access lists and set-gid of
//! the directory, squashed users, a bound on inodes. What is left (a full disk, a session that is lost or revoked) is told in
//! the log, to the next `fsync` of the file or directory, and to writes of the file.

use std::sync::Arc;

use crossbeam::channel::Sender;
use flexfs_uring::spawn;
use flexfs_wire::attr::{Attr, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use flexfs_wire::errno::Errno;
use flexfs_wire::lease::Leases;
use flexfs_wire::limits::SYMLINK_BYTES_MAX;
use flexfs_wire::message::{Caller, Entry, Make, Reply, Request};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use super::inode::Inode;
use super::recall::Task;
use super::state::{Ctx, Grant, Vfs};
use crate::cancel::or_cancel;
use crate::link::Remote;
use crate::link::behind::Serial;

/// One change on its way.
struct Change {
    remote: Arc<Remote>,
    tasks: Option<Sender<Task>>,
    serial: Serial,
    dir: Arc<Inode>,
    name: Name,
    attr: Attr,
}

impl Vfs {
    /// Makes it here and tells the server behind. `None`: the server is to be asked.
    ///
    /// # Errors
    /// `EINTR`; those of a session that has ended.
    pub(super) async fn make_behind(
        &self,
        ctx: Ctx<'_>,
        dir: &Arc<Inode>,
        (name, node): (&Name, Node),
        make: &Make,
    ) -> Result<Option<(Entry, Grant)>, Errno> {
        let recalls = self.remote.recalls();
        let life = recalls.life();
        if !self.makes_behind || !dir.content.is_alone(life) || !dir.is_plain(life) || dir.gives_group() {
            return Ok(None);
        }
        let Some(attr) = self.remote.server_now().and_then(|now| attr_of(make, ctx.caller, now)) else {
            return Ok(None);
        };
        or_cancel(self.remote.behind().room(), Some(ctx.cancel)).await?;
        self.remote.check()?;
        let asked = recalls.asked();
        let begin = || self.remote.behind().begin(dir.node, node);
        let Some(serial) = dir.content.make(name, &attr, life, begin) else { return Ok(None) };
        let change = Change {
            remote: Arc::clone(&self.remote),
            tasks: self.tasks.get().cloned(),
            serial,
            dir: Arc::clone(dir),
            name: name.clone(),
            attr,
        };
        let make = Make { time: Some(attr.mtime), ..make.clone() };
        let (caller, request) =
            (ctx.caller, Request::Make { parent: dir.node, name: Some(name.clone()), make });
        drop(spawn(async move { change.send(caller, request).await }));
        let leases = match attr.kind() {
            S_IFREG => Leases::EXCLUSIVE,
            S_IFDIR => Leases::BORN.and(Leases::ALONE),
            _ => Leases::NONE,
        };
        let leases = leases.and(Leases::NAMES).and(Leases::ATTR);
        Ok(Some((Entry { node, attr }, Grant { leases, asked })))
    }
}

impl Change {
    async fn send(self, caller: Caller, request: Request) {
        let behind = self.remote.behind();
        if let Some(made) = behind.before_making_in(self.dir.ino()) {
            behind.wait(made).await;
        }
        match self.remote.call_behind(caller, request).await.0 {
            Ok(Reply::Entry(entry)) => {
                if entry.attr != self.attr {
                    tracing::warn!(told = ?self.attr, is = ?entry.attr, "the server made something else of it");
                }
                self.dir.note_commit((self.remote.last_commit(), self.remote.generation()));
            }
            Ok(other) => self.lose(super::state::misfit(&other)),
            Err(errno) => self.lose(errno),
        }
        // The rest is in `drop`, also for a shard that ends.
    }

    fn lose(&self, errno: Errno) {
        let (dir, ino) = (self.dir.ino(), self.attr.ino);
        let lost = self.remote.behind().fail([dir, ino], errno);
        // A session that ends takes a thousand with it.
        if lost.is_power_of_two() {
            tracing::error!(
                dir = dir.0, ino = ino.0, name = ?self.name, error = %errno, lost,
                "something was made here, and the metadata server would not have it: it is lost (and others, as many as \
                 `lost` says). The next fsync of it or of its directory fails. Check the metadata server's disk and log"
            );
        }
        if let Some(tasks) = &self.tasks {
            // The receiver lives as long as the process.
            drop(tasks.send(Task::Lost { dir: self.dir.nodeid, name: self.name.clone() }));
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.remote.behind().end(self.serial);
    }
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
