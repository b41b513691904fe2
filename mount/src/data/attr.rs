//! Attributes that are changed here, and that the server is told of later: `chmod(2)`, `chown(2)`, `utimensat(2)` of a file that
//! this client has exclusively.
//!
//! Who has the exclusive lease and knows all attributes (`State::is_whole`) knows what the server would answer. So the program
//! goes on at once, and the change is sent behind, after what was written before. It holds the file's order until then:
//! writes come after it, for they would undo its times. Changes that come while it waits for its turn join it (`tar` sets owner,
//! mode and times of each file, one after the other).

use std::sync::Arc;

use flexfs_wire::attr::{Attr, SetAttr};
use flexfs_wire::errno::Errno;
use flexfs_wire::message::{Caller, Request};

use super::core::{Core, attr_of};
use super::file::{File, State};
use super::pending::{Pending, Told, after};
use super::promise::LARGE_BYTES_MAX;
use super::server::Server;

impl<S: Server> Core<S> {
    /// Changes attributes here, if nobody else can know of it. `lost` is told when the server will not have it.
    pub(crate) fn change_here(
        self: &Arc<Self>,
        caller: Caller,
        file: &Arc<File>,
        change: &SetAttr,
        lost: impl FnOnce(Errno) + 'static,
    ) -> Option<Attr> {
        // A size is data, and a given change time is of one who only read.
        if change.size.is_some() || change.ctime.is_some() {
            return None;
        }
        let life = self.server.recalls().life();
        let mut state = file.state();
        if !is_ours(&state, life) {
            return None;
        }
        if let Some(pending) = &mut state.pending {
            let now = self.server.server_now().filter(|_| !pending.is_full())?;
            pending.join(caller, change, after(now, &pending.attr));
            return state.shown(life);
        }
        // Who writes next waits for all of it.
        let is_soon = state.unwritten() <= LARGE_BYTES_MAX;
        let order = file.order.try_lock_arc().filter(|_| is_soon)?;
        let (begun, now) = self.server.begin_told(file.node)?;
        let attr = state.shown(life)?;
        let mut pending = Pending::new(attr);
        pending.join(caller, change, after(now, &attr));
        state.pending = Some(Box::new(pending));
        let attr = state.shown(life)?;
        drop(state);
        let (core, file) = (Arc::clone(self), Arc::clone(file));
        drop(flexfs_uring::spawn(async move {
            // Also if the shard ends.
            let _order = order;
            let sent = core.send_told(&file, &begun).await;
            drop(begun);
            file.moved.notify(usize::MAX);
            core.release(file);
            if let Err(errno) = sent {
                lost(errno);
            }
        }));
        Some(attr)
    }

    /// Tells the server, all that joins meanwhile too. The caller holds the file's order.
    async fn send_told(self: &Arc<Self>, file: &Arc<File>, begun: &S::Change) -> Result<(), Errno> {
        self.flush_ordered(file, true).await;
        loop {
            let Some(told) = take_next(file) else { return Ok(()) };
            let request = Request::SetAttr { node: file.node, change: told.change };
            let sent = self.server.call_told(begun, told.caller, request, told.at).await.and_then(attr_of);
            let mut state = file.state();
            match sent {
                Ok(attr) => {
                    let shown = |attr: &Attr| (attr.mode, attr.uid, attr.gid, attr.ctime, attr.nlink);
                    if let Some(pending) = &state.pending
                        && pending.is_told()
                        && shown(&pending.attr) != shown(&attr)
                    {
                        tracing::warn!(told = ?pending.attr, is = ?attr, "the server made something else of it");
                    }
                    self.note_answer(&mut state);
                    state.learn_own(&attr, false);
                }
                Err(errno) => {
                    state.pending = None;
                    (state.known, state.map, state.whole_in) = (None, None, None);
                    state.note_loss(Errno::EIO);
                    return Err(errno);
                }
            }
        }
    }
}

/// What is to be sent next; without any, all is told.
fn take_next(file: &File) -> Option<Told> {
    let mut state = file.state();
    let next = state.pending.as_mut()?.take_next();
    if next.is_none() {
        state.pending = None;
    }
    next
}

/// Whether the file is this client's alone, and will be until it is asked for it.
fn is_ours(state: &State, life: u64) -> bool {
    state.is_whole(life)
        && state.lease.is_ours(life)
        && !state.is_decorated
        && !state.known.is_some_and(|known| known.has_xattrs)
        && state.flush_error.is_none()
}
