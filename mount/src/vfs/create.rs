//! Making inodes.

use std::sync::Arc;

use flexfs_wire::attr::{S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::message::{Entry, Make, Request};
use flexfs_wire::name::Name;

use super::answer::{Found, Looked, Opened};
use super::args::{MakeArgs, OpenFlags};
use super::handle::Handle;
use super::inode::Inode;
use super::state::{Ctx, Grant, Vfs};
use super::stream::Writer;

/// An inode that was made.
pub(super) struct Made {
    pub(super) entry: Entry,
    pub(super) grant: Grant,
    /// It is open, and the server was not told so.
    pub(super) quiet: bool,
}

impl Vfs {
    /// `mknod(2)`: regular files, FIFOs, sockets, device nodes.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn make_node(
        &self,
        ctx: Ctx<'_>,
        parent: u64,
        name: Name,
        args: MakeArgs,
    ) -> Result<Found, Errno> {
        let kind = if args.mode & S_IFMT == 0 { S_IFREG } else { args.mode & S_IFMT };
        let make = self.make(kind, args, false);
        self.make_named(ctx, parent, name, make).await
    }

    /// `mkdir(2)`.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn make_dir(
        &self,
        ctx: Ctx<'_>,
        parent: u64,
        name: Name,
        args: MakeArgs,
    ) -> Result<Found, Errno> {
        let make = self.make(S_IFDIR, args, false);
        self.make_named(ctx, parent, name, make).await
    }

    /// `symlink(2)`.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn make_symlink(
        &self,
        ctx: Ctx<'_>,
        parent: u64,
        name: Name,
        target: Vec<u8>,
    ) -> Result<Found, Errno> {
        // Links have all permissions, whatever the umask.
        let make = Make { mode: S_IFLNK | 0o777, target, ..self.make(S_IFLNK, MakeArgs::default(), false) };
        self.make_named(ctx, parent, name, make).await
    }

    /// Makes a regular file and opens it; opens the one that is there when it need not be new.
    ///
    /// # Errors
    /// Those of `open(2)` with `O_CREAT`.
    pub async fn create(
        &self,
        ctx: Ctx<'_>,
        parent: u64,
        name: Name,
        args: MakeArgs,
        flags: OpenFlags,
    ) -> Result<(Found, Opened), Errno> {
        let parent = self.inodes.get(parent)?;
        loop {
            let make = self.make(S_IFREG, args, true);
            match self.make_in(ctx, &parent, Some(name.clone()), make).await {
                Ok(made) => return self.open_made(ctx, Some((&parent, &name)), made, flags).await,
                // Another client made it since the kernel looked.
                Err(Errno::EEXIST) if !flags.exclusive => {}
                Err(errno) => return Err(errno),
            }
            match self.lookup(ctx, parent.nodeid, name.clone()).await {
                Ok(Looked::Absent(_)) => {}
                Ok(Looked::Found(found)) => match self.open(ctx, found.nodeid, flags).await {
                    Ok(opened) => return Ok((found, opened)),
                    Err(errno) => {
                        // The kernel will not hear of this lookup.
                        self.unlook(found.nodeid);
                        return Err(errno);
                    }
                },
                // And removed it again.
                Err(Errno::ENOENT) if !ctx.cancel.is_raised() => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Makes a file without a name (`O_TMPFILE`).
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub async fn make_tmpfile(
        &self,
        ctx: Ctx<'_>,
        parent: u64,
        args: MakeArgs,
        flags: OpenFlags,
    ) -> Result<(Found, Opened), Errno> {
        let parent = self.inodes.get(parent)?;
        let make = self.make(S_IFREG, args, true);
        let made = self.make_in(ctx, &parent, None, make).await?;
        self.open_made(ctx, None, made, flags).await
    }

    async fn make_named(&self, ctx: Ctx<'_>, parent: u64, name: Name, make: Make) -> Result<Found, Errno> {
        let parent = self.inodes.get(parent)?;
        let Made { entry, grant, .. } = self.make_in(ctx, &parent, Some(name.clone()), make).await?;
        self.found(Some((&parent, &name)), &entry, grant)
    }

    async fn make_in(
        &self,
        ctx: Ctx<'_>,
        parent: &Arc<Inode>,
        name: Option<Name>,
        mut make: Make,
    ) -> Result<Made, Errno> {
        let node = self.remote.next_node(Some(ctx.cancel)).await?;
        make.ino = node.ino;
        if let Some(name) = &name {
            if let Some(made) = self.make_behind(ctx, (parent, name), node, &make).await? {
                return Ok(made);
            }
            parent.content.add(name);
        }
        let is_named = name.is_some();
        let _changing = parent.begin_changing();
        let made = self.call_entry(ctx, Request::Make { parent: parent.node, name, make }).await;
        if made.is_ok() && is_named {
            self.want_alone(parent);
        }
        made.map(|(entry, grant)| Made { entry, grant, quiet: false })
    }

    /// A new, empty file is open.
    async fn open_made(
        &self,
        ctx: Ctx<'_>,
        place: Option<(&Inode, &Name)>,
        Made { entry, grant, quiet }: Made,
        flags: OpenFlags,
    ) -> Result<(Found, Opened), Errno> {
        self.files.created(entry.node, &entry.attr, grant.leases, grant.asked);
        let found = self.found(place, &entry, grant)?;
        let inode = self.inodes.get(found.nodeid)?;
        let is_small = place.is_some_and(|(dir, _)| self.expects_small(dir, flags));
        let direct = flags.append || is_small || self.expects_stream(&inode, flags);
        match self.handles.insert(Handle {
            inode,
            touches_atime: !flags.no_atime,
            direct,
            quiet,
            passed: None,
            writer: flags.blind.then(Writer::default),
        }) {
            Ok(fh) => Ok((found, Opened { fh, keep_cache: true, direct, passed: None })),
            Err(errno) => {
                // Neither the open nor the lookup reaches the kernel.
                self.close_open(ctx.caller, entry.node, quiet);
                self.unlook(found.nodeid);
                Err(errno)
            }
        }
    }

    fn make(&self, kind: u32, args: MakeArgs, open: bool) -> Make {
        let mask = u32::from(self.flags.umask);
        Make {
            ino: Ino(0),
            mode: kind | (args.mode & 0o7777 & !mask),
            umask: args.umask | mask,
            rdev: args.rdev,
            target: Vec::new(),
            open,
        }
    }
}
