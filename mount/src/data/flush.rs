//! Everything dirty of a file goes to the server.

use std::sync::Arc;
use std::time::Instant;

use event_listener::EventListener;
use flexfs_uring::clock;
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::INLINE_BYTES_MAX;
use flexfs_wire::message::{Reply, Request};

use super::core::{Core, NOBODY};
use super::file::{File, Progress, Recalling, State};
use super::pack;
use super::promise::Promise;
use super::server::Server;
use crate::cancel::Cancel;
use crate::wait::to_the_end;

/// What a program that closes a file is told.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// All of it is at the server.
    Clean,
    /// It will be.
    Promised(Promise),
    /// It has to wait.
    No,
}

/// The server is asked for its room. One that ends in the middle (its shard ends) lets others ask.
struct Asking<S: Server> {
    core: Arc<Core<S>>,
    asked: Instant,
    bytes: Option<u64>,
}

impl<S: Server> Drop for Asking<S> {
    fn drop(&mut self) {
        self.core.promises.learn(self.asked, self.bytes);
    }
}

/// What is to be done for flights that are on their way.
enum Step {
    /// The first one is stored.
    Commit,
    /// It is not.
    Wait(EventListener),
    /// None is left.
    Done,
}

impl<S: Server> Core<S> {
    /// What was written before the call is at the server. An error that a writeback met, now or before, is reported
    /// once. A caller that leaves does not stop the work.
    pub(crate) async fn flush(
        self: &Arc<Self>,
        file: &Arc<File>,
        cancel: Option<&Cancel>,
    ) -> Result<(), Errno> {
        let heard = file.state().losses;
        self.clean(file, cancel).await?;
        file.state().report(heard)
    }

    /// As [`Core::flush`], for a program that closes the file. What nobody else looks at unasked is sent behind its back, where
    /// the server is certain to have room for it: others that look get it.
    pub(crate) async fn flush_closed(
        self: &Arc<Self>,
        file: &Arc<File>,
        cancel: Option<&Cancel>,
    ) -> Result<(), Errno> {
        let heard = file.state().losses;
        let promised = self.promise(file);
        match promised {
            Told::Clean => {}
            // Goes when it is closed by all: it may be removed, or written to, until then.
            Told::Promised(Promise::Small) => {}
            Told::Promised(Promise::Large(_)) => self.send_behind(file),
            Told::No => return self.flush(file, cancel).await,
        }
        file.state().report(heard)
    }

    /// Looks what a program that closes the file is told.
    fn promise(self: &Arc<Self>, file: &File) -> Told {
        let mut state = file.state();
        if state.is_clean() {
            return Told::Clean;
        }
        let alone = state.lease.recall == Recalling::No
            && state.lease.is_exclusive(self.server.recalls().life())
            && state.flush_error.is_none();
        if !alone {
            return Told::No;
        }
        let promise = if self.may_inline(&state) {
            self.promises.take_small(state.promised)
        } else {
            let now = clock::now();
            self.ask_room(now);
            self.promises.take_large(state.promised, state.unwritten(), now)
        };
        let Some(promise) = promise else { return Told::No };
        state.promised = Some(promise);
        Told::Promised(promise)
    }

    /// Asks the server for its room when that was long ago.
    fn ask_room(self: &Arc<Self>, now: Instant) {
        if !self.promises.begin_asking(now) {
            return;
        }
        let asking = Asking { core: Arc::clone(self), asked: now, bytes: None };
        drop(flexfs_uring::spawn(async move {
            let mut asking = asking;
            // Not behind changes of names: they are no matter, and may be many.
            let answer = asking.core.server.call_past(NOBODY, Request::StatFs, None).await;
            if let Ok(Reply::StatFs(figures)) = answer {
                asking.bytes = Some(figures.bytes_free);
            }
        }));
    }

    fn send_behind(self: &Arc<Self>, file: &Arc<File>) {
        let (core, file) = (Arc::clone(self), Arc::clone(file));
        drop(flexfs_uring::spawn(async move {
            // Errors are kept with the file.
            let _ = core.clean(&file, None).await;
            core.release(file);
        }));
    }

    /// Before a name of the file takes the place of another: what was written is at the server, so that nobody finds less under that
    /// name when this client or the server dies. An error that is not told yet is left for those it is meant for.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        file: &Arc<File>,
        cancel: Option<&Cancel>,
    ) -> Result<(), Errno> {
        self.clean(file, cancel).await?;
        file.state().flush_error.map_or(Ok(()), Err)
    }

    /// Nothing is unwritten any more, or it is lost: what was promised is done with.
    pub(crate) fn end_promise(&self, state: &mut State) {
        if state.is_clean()
            && let Some(promise) = state.promised.take()
        {
            self.promises.end(promise);
        }
    }

    /// As [`Core::flush`], but leaves errors for those they are meant for.
    pub(crate) async fn clean(
        self: &Arc<Self>,
        file: &Arc<File>,
        cancel: Option<&Cancel>,
    ) -> Result<(), Errno> {
        if file.state().is_clean() {
            return Ok(());
        }
        let (core, file) = (Arc::clone(self), Arc::clone(file));
        let work = async move {
            let order = file.order.lock().await;
            core.flush_ordered(&file, true).await;
            drop(order);
            core.release(file);
        };
        to_the_end(work, cancel).await
    }

    /// Brings to the server what is on its way and, with `dirty`, what is dirty. The caller holds the file's order.
    pub(crate) async fn flush_ordered(self: &Arc<Self>, file: &Arc<File>, dirty: bool) {
        self.prove(file).await;
        let last = if dirty { self.launch(file).await } else { file.state().last_flight };
        loop {
            self.prove(file).await;
            let (step, begin) = next_step(file, last);
            for number in begin {
                self.spawn_put(file, number);
            }
            match step {
                Step::Commit => {
                    self.commit_next(file).await;
                }
                Step::Wait(moved) => moved.await,
                Step::Done => return self.end_promise(&mut file.state()),
            }
        }
    }

    /// Whether what is dirty may go into the inline part, as far as is known here; the server has the last word. Of an
    /// encrypted volume there is none: the server could not put bytes together that it cannot read.
    pub(crate) fn may_inline(&self, state: &State) -> bool {
        let inline_max = INLINE_BYTES_MAX as u64;
        if self.cipher.is_some()
            || state.dirty.is_empty()
            || !state.flights.is_empty()
            || state.dirty.end() > inline_max
        {
            return false;
        }
        let has_extents = state.map().and_then(super::layout::Map::has_extents);
        !has_extents.unwrap_or_else(|| state.known.is_some_and(|known| known.size > inline_max))
    }

    /// Puts everything dirty on its way; small files inline, at once. The number of the last flight.
    async fn launch(self: &Arc<Self>, file: &Arc<File>) -> u64 {
        let mut puts = Vec::new();
        let mut inline = None;
        let last = {
            let mut state = file.state();
            if self.may_inline(&state) {
                let pieces = state.dirty.take();
                inline = Some(state.launch(pieces, Progress::Inline));
            } else {
                let pieces = state.dirty.take();
                for block in pack::split(pieces, self.block_bytes) {
                    puts.push(state.launch(block, Progress::Sending));
                }
            }
            state.settle();
            state.last_flight
        };
        for number in puts {
            self.spawn_put(file, number);
        }
        if let Some(number) = inline {
            self.launch_inline(file, number).await;
        }
        last
    }

    async fn launch_inline(&self, file: &Arc<File>, number: u64) {
        match self.commit_inline(file, number).await {
            Ok(()) => {}
            // EAGAIN: it has extents, or somebody made it large. ESTALE: the session was lost, and whether it was
            // written is unknown; written once more, the outcome is the same.
            Err(Errno::EAGAIN | Errno::ESTALE) => {
                let mut state = file.state();
                state.map = None;
                if let Some(flight) = state.flight(number) {
                    flight.again += 1;
                    flight.progress = Progress::Waiting;
                }
            }
            Err(errno) => self.lose(file, errno, |flight| flight.number == number),
        }
    }
}

/// Looks at the flights up to `last`: what to do next, and those nobody works on, which are the caller's now.
fn next_step(file: &File, last: u64) -> (Step, Vec<u64>) {
    let mut state = file.state();
    let mut begin = Vec::new();
    for flight in state.flights.iter_mut().filter(|flight| flight.number <= last) {
        // Inline bytes are sent under the file's order, which the caller holds: whoever began has gone.
        if matches!(flight.progress, Progress::Waiting | Progress::Inline) {
            flight.progress = Progress::Sending;
            begin.push(flight.number);
        }
    }
    let step = match state.flights.first() {
        Some(flight) if flight.number <= last => match flight.progress {
            Progress::Stored(_) => Step::Commit,
            // Listening begins under the lock that progress is made under: none is missed.
            Progress::Waiting | Progress::Sending | Progress::Inline => Step::Wait(file.moved.listen()),
        },
        _ => Step::Done,
    };
    (step, begin)
}
