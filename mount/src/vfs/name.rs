//! Names: looking up, removing, moving, linking.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use flexfs_wire::errno::Errno;
use flexfs_wire::extent::Layout;
use flexfs_wire::id::Ino;
use flexfs_wire::message::{Entry, RENAME_EXCHANGE, RENAME_NOREPLACE, Reply, Request};
use flexfs_wire::name::Name;

use super::answer::{Found, Looked, ValidFor};
use super::behind::Place;
use super::content::Unknown;
use super::inode::Inode;
use super::known;
use super::state::{Ctx, Grant, Vfs, misfit};

impl Vfs {
    /// Finds `name` in a directory.
    ///
    /// # Errors
    /// `ENOENT` when nobody can say for how long, `ENOTDIR`, `ESTALE`.
    pub async fn lookup(&self, ctx: Ctx<'_>, parent: u64, name: Name) -> Result<Looked, Errno> {
        let parent = self.inodes.get(parent)?;
        if self.is_absent(&parent, &name) {
            if !self.keeps_names.load(Ordering::Relaxed) {
                return Err(Errno::ENOENT);
            }
            // In this order: a recall that comes now finds the name, one that came is seen here.
            parent.names.add(&name);
            if self.is_absent(&parent, &name) {
                return Ok(Looked::Absent(ValidFor::LEASE));
            }
        }
        if let Some(found) = self.look_ahead(ctx, &parent, &name).await? {
            return Ok(Looked::Found(found));
        }
        let request = match parent.appetite.has_some() {
            true => Request::LookupToOpen { parent: parent.node, name: name.clone() },
            false => Request::Lookup { parent: parent.node, name: name.clone() },
        };
        let (result, grant) = self.call_granted(ctx, request).await;
        match result {
            Ok(Reply::Entry(entry)) => self.found(Some((&parent, &name)), &entry, grant).map(Looked::Found),
            Ok(Reply::Found { entry, layout }) => {
                let layout = layout.map(|layout| *layout);
                self.found_whole((&parent, &name), &entry, grant, layout).map(Looked::Found)
            }
            Ok(other) => Err(misfit(&other)),
            Err(Errno::ENOENT) => match self.name_valid(&parent, &name, grant) {
                ValidFor::NOTHING => Err(Errno::ENOENT),
                valid => Ok(Looked::Absent(valid)),
            },
            Err(errno) => Err(errno),
        }
    }

    /// Something was found, and what it contains, if that came with it.
    pub(super) fn found_whole(
        &self,
        place: (&Inode, &Name),
        entry: &Entry,
        grant: Grant,
        layout: Option<Layout>,
    ) -> Result<Found, Errno> {
        let found = self.found(Some(place), entry, grant)?;
        if let Some(layout) = layout {
            place.0.appetite.take();
            self.files.bring(entry.node, &entry.attr, grant.leases, grant.asked, layout);
        }
        Ok(found)
    }

    /// A file is opened for reading: others of its directory may be, too.
    pub(super) fn note_reader(&self, inode: &Inode) {
        if let Some(dir) = self.inodes.home(inode) {
            dir.appetite.add();
        }
    }

    /// Whether a name is known to be in nobody's hands: the directory was made here, and whoever makes a name in it asks first.
    fn is_absent(&self, parent: &Inode, name: &Name) -> bool {
        parent.content.lacks(name, self.remote.recalls().life())
    }

    /// `unlink(2)`, or with `dir` `rmdir(2)`.
    ///
    /// # Errors
    /// Those of the system calls.
    pub async fn remove(&self, ctx: Ctx<'_>, parent: u64, name: Name, dir: bool) -> Result<(), Errno> {
        let parent = self.inodes.get(parent)?;
        let removing = (!dir).then(|| self.begin_removal());
        if self.remove_behind(ctx, (&parent, &name), dir).await? {
            return Ok(());
        }
        if let Some(removing) = &removing {
            self.tell_opens(removing).await;
        }
        let _changing = parent.begin_changing();
        self.doubt_child(&parent, &name);
        let removed =
            self.call_done(ctx, Request::Remove { parent: parent.node, name: name.clone(), dir }).await;
        self.doubt_child(&parent, &name);
        removed?;
        parent.content.drop_name(known::hash(&name));
        self.want_alone(&parent);
        Ok(())
    }

    /// The server is about to change what this name is, and the inode that it was.
    fn doubt_child(&self, dir: &Inode, name: &Name) {
        match dir.content.doubt_name(known::hash(name)) {
            Ok(Some(ino)) => {
                self.files.doubt(ino);
                self.note_change(self.inodes.known(ino));
            }
            Ok(None) => {}
            Err(Unknown) => {
                self.files.doubt_all();
                self.note_change(self.inodes.all());
            }
        }
    }

    /// `renameat2(2)`. Whiteouts are not served.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn rename(
        &self,
        ctx: Ctx<'_>,
        source: (u64, Name),
        target: (u64, Name),
        flags: u32,
    ) -> Result<(), Errno> {
        if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE) != 0 {
            return Err(Errno::EINVAL);
        }
        let parent = self.inodes.get(source.0)?;
        let new_parent = self.inodes.get(target.0)?;
        self.settle_moved(ctx, (&parent, &source.1), (&new_parent, &target.1), flags).await?;
        let removing = (flags == 0).then(|| self.begin_removal());
        if self.rename_behind(ctx, (&parent, &source.1), (&new_parent, &target.1), flags).await? {
            return Ok(());
        }
        if let Some(removing) = &removing {
            self.tell_opens(removing).await;
        }
        let _changing = [parent.begin_changing(), new_parent.begin_changing()];
        new_parent.content.add(&target.1);
        self.doubt_child(&parent, &source.1);
        self.doubt_child(&new_parent, &target.1);
        let ends = [(&parent, known::hash(&source.1)), (&new_parent, known::hash(&target.1))];
        let [moved, other] = ends.map(|(dir, name)| dir.content.child(name));
        let request = Request::Rename {
            parent: parent.node,
            name: source.1,
            new_parent: new_parent.node,
            new_name: target.1,
            flags,
        };
        self.renames.fetch_add(1, Ordering::SeqCst);
        let renamed = self.call_done(ctx, request).await;
        self.renames.fetch_add(1, Ordering::SeqCst);
        ends.iter().for_each(|(dir, name)| dir.content.drop_found(*name));
        self.note_change([moved, other].into_iter().flatten().filter_map(|ino| self.inodes.known(ino)));
        if renamed.is_ok() {
            let [from, to] = ends;
            from.0.content.drop_name(from.1);
            self.find_moved(moved, to);
            if flags & RENAME_EXCHANGE != 0 {
                self.find_moved(other, from);
            }
            self.want_alone(&parent);
            if new_parent.nodeid != parent.nodeid {
                self.want_alone(&new_parent);
            }
        }
        renamed
    }

    /// What takes the place of another name has its bytes at the server before: a program that writes a new version of a file, closes
    /// it and moves it over the old one must not be left with neither when this machine dies (`auto_da_alloc` of ext4).
    async fn settle_moved(
        &self,
        ctx: Ctx<'_>,
        (dir, name): Place<'_>,
        (new_dir, new_name): Place<'_>,
        flags: u32,
    ) -> Result<(), Errno> {
        if flags & RENAME_NOREPLACE != 0 || self.is_absent(new_dir, new_name) {
            return Ok(());
        }
        self.files.settle(dir.content.child(known::hash(name)), Some(ctx.cancel)).await?;
        if flags & RENAME_EXCHANGE != 0 {
            self.files.settle(new_dir.content.child(known::hash(new_name)), Some(ctx.cancel)).await?;
        }
        Ok(())
    }

    /// The inode is to be found there now.
    fn find_moved(&self, moved: Option<Ino>, (dir, name): (&Arc<Inode>, u64)) {
        if let Some(moved) = moved.and_then(|ino| self.inodes.known(ino)) {
            moved.set_place(dir.ino(), name);
            dir.content.learn(name, moved.ino(), false, || None);
        }
    }

    /// `link(2)`.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn link(&self, ctx: Ctx<'_>, nodeid: u64, parent: u64, name: Name) -> Result<Found, Errno> {
        let inode = self.inodes.get(nodeid)?;
        let parent = self.inodes.get(parent)?;
        if let Some((entry, grant)) = self.link_behind(ctx, &inode, (&parent, &name)).await? {
            return self.found(Some((&parent, &name)), &entry, grant);
        }
        let _changing = parent.begin_changing();
        parent.content.add(&name);
        self.files.doubt(inode.ino());
        if let Some(home) = self.inodes.home(&inode) {
            // Others may come to know it by the new name.
            let _ = home.content.doubt_name(inode.name());
        }
        let request = Request::Link { node: inode.node, parent: parent.node, name: name.clone() };
        let (entry, grant) = self.call_entry(ctx, request).await?;
        self.want_alone(&parent);
        self.found(Some((&parent, &name)), &entry, grant)
    }

    /// `readlink(2)`.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn read_link(&self, ctx: Ctx<'_>, nodeid: u64) -> Result<Vec<u8>, Errno> {
        let inode = self.inodes.get(nodeid)?;
        let target = self.call_bytes(ctx, Request::ReadLink { node: inode.node }).await?;
        self.touch_atime(&inode);
        Ok(target)
    }
}
