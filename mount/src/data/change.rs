//! Changes of a file that are not writes: truncation, attributes, allocation, copies.
//!
//! Each runs to its end under the file's order, whether or not its caller stays: the server and this client must
//! not come to differ.

use std::sync::Arc;

use flexfs_wire::attr::{Attr, SetAttr, SetTime};
use flexfs_wire::errno::Errno;
use flexfs_wire::message::{Caller, Reply, Request};

use super::core::{Core, attr_of, unexpected};
use super::file::File;
use super::server::Server;

impl<S: Server> Core<S> {
    /// `SetAttr` of a file. What was written before stays before it, what comes after comes after.
    pub(crate) async fn change_attr(
        self: &Arc<Self>,
        caller: Caller,
        file: &Arc<File>,
        change: SetAttr,
    ) -> Result<Attr, Errno> {
        let order = file.order.lock().await;
        self.flush_ordered(file, flushes_first(&change)).await;
        let changing = file.begin_change();
        let request = Request::SetAttr { node: file.node, change };
        let result = self.call(caller, request, file, None).await.and_then(attr_of);
        let result = match result {
            Ok(mut attr) => {
                self.follow(file, &attr, change.size);
                file.state().overlay(&mut attr, self.server.recalls().life());
                Ok(attr)
            }
            Err(errno) => {
                file.state().map = None;
                Err(errno)
            }
        };
        drop((changing, order));
        self.weigh_layout(file);
        result
    }

    /// `Open` that truncates. Dirty bytes go with the rest.
    pub(crate) async fn open_truncated(
        self: &Arc<Self>,
        caller: Caller,
        file: &Arc<File>,
        kill_privileges: bool,
    ) -> Result<Attr, Errno> {
        let order = file.order.lock().await;
        self.flush_ordered(file, false).await;
        let changing = file.begin_change();
        let request = Request::Open { node: file.node, write: true, truncate: true, kill_privileges };
        let result = match self.call(caller, request, file, None).await {
            Ok(Reply::Opened { attr, .. }) => {
                self.follow(file, &attr, Some(0));
                Ok(attr)
            }
            Ok(other) => Err(unexpected(&other)),
            Err(errno) => Err(errno),
        };
        drop((changing, order));
        self.weigh_layout(file);
        result
    }

    /// The server has done it: local state follows. Bytes written while it was done are younger than it, except
    /// those a truncation was there to cut off, which the kernel does not let in meanwhile.
    fn follow(&self, file: &File, attr: &Attr, size: Option<u64>) {
        let mut state = file.state();
        self.note_answer(&mut state);
        let same = state.learn_own(attr, size.is_some());
        let Some(size) = size else { return };
        if same && let Some(map) = &mut state.map {
            map.apply_size(attr.version, size);
        }
        let before = state.dirty.cost();
        state.dirty.cut(self.block_bytes, size);
        let freed = before - state.dirty.cost();
        // The rest was written before the truncation but is sent behind it: time must not go back.
        state.written = state.written.map(|written| written.max(attr.mtime));
        state.settle();
        self.end_promise(&mut state);
        drop(state);
        self.budget.give(freed);
    }

    /// `Fallocate` of a file.
    pub(crate) async fn allocate(
        self: &Arc<Self>,
        caller: Caller,
        file: &Arc<File>,
        mode: u32,
        (offset, length): (u64, u64),
    ) -> Result<(), Errno> {
        let order = file.order.lock().await;
        self.flush_ordered(file, true).await;
        let changing = file.begin_change();
        let request = Request::Fallocate { node: file.node, mode, offset, length };
        let result = self.call(caller, request, file, None).await.and_then(attr_of);
        let result = self.learn_change(file, result);
        drop((changing, order));
        self.weigh_layout(file);
        result
    }

    /// `CopyRange` between two files, or within one.
    pub(crate) async fn copy(
        self: &Arc<Self>,
        caller: Caller,
        (source, source_offset): (Arc<File>, u64),
        (target, target_offset): (Arc<File>, u64),
        length: u64,
    ) -> Result<u64, Errno> {
        let twins = source.node.ino == target.node.ino;
        // Always in the order of their numbers: two copies in opposite directions do not wait for each other.
        let (first, second) =
            if source.node.ino < target.node.ino { (&source, &target) } else { (&target, &source) };
        let first_order = first.order.lock().await;
        let second_order = if twins { None } else { Some(second.order.lock().await) };
        self.flush_ordered(first, true).await;
        self.flush_ordered(second, true).await;
        // What could not be stored cannot be copied.
        if let Some(errno) = source.state().flush_error {
            return Err(errno);
        }
        let changing = target.begin_change();
        let request = Request::CopyRange {
            source: source.node,
            source_offset,
            target: target.node,
            target_offset,
            length,
        };
        let result = match self.call(caller, request, &target, None).await {
            Ok(Reply::Copied { length, attr }) => self.learn_change(&target, Ok(attr)).map(|()| length),
            Ok(other) => Err(unexpected(&other)),
            Err(errno) => self.learn_change(&target, Err(errno)).map(|()| 0),
        };
        drop((changing, second_order, first_order));
        self.weigh_layout(&target);
        result
    }

    /// A change moved extents at the server: the map is read anew when it is wanted.
    fn learn_change(&self, file: &File, result: Result<Attr, Errno>) -> Result<(), Errno> {
        let mut state = file.state();
        state.map = None;
        let attr = result?;
        self.note_answer(&mut state);
        state.learn_own(&attr, true);
        Ok(())
    }
}

/// Whether dirty bytes must be at the server before the change. A mere truncation may overtake them: what is left of
/// them lies below it. Owner, mode and times would be undone by a write that comes behind.
fn flushes_first(change: &SetAttr) -> bool {
    let truncates = change.size.is_some();
    let stamps = match change.mtime {
        None => false,
        Some(SetTime::Now) => !truncates,
        Some(SetTime::At(_)) => true,
    };
    let owns = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
    stamps || owns || (change.kill_privileges && !truncates)
}
