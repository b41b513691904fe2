//! Answers on their way to cores: gathered per core while a batch of requests is worked on, sent once at its end.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::mpsc::UnboundedSender;

use super::message::{Item, LinkKey, Out, ToCore};

/// A core as others see it.
#[derive(Debug)]
pub(crate) struct CoreHandle {
    /// Its inbox. Unbounded, but what is in it is bounded by the requests links may have in flight.
    pub(crate) inbox: UnboundedSender<ToCore>,
    /// Connections it serves.
    pub(crate) load: AtomicUsize,
    /// The CPU its thread stays on while it mostly waits.
    pub(crate) home: Option<u32>,
}

/// All cores.
pub(crate) type Cores = Arc<[CoreHandle]>;

/// Gathered answers.
#[derive(Debug)]
pub(super) struct Outs {
    cores: Cores,
    waiting: Vec<Vec<Out>>,
}

impl Outs {
    pub(super) fn new(cores: Cores) -> Self {
        let waiting = cores.iter().map(|_| Vec::new()).collect();
        Self { cores, waiting }
    }

    /// Adds one for a link.
    pub(super) fn push(&mut self, link: LinkKey, item: Item) {
        if let Some(waiting) = self.waiting.get_mut(link.core as usize) {
            waiting.push(Out { link, item });
        }
    }

    /// Sends what was gathered: one message, and so one wake at most, per core.
    pub(super) fn flush(&mut self) {
        for (core, waiting) in self.cores.iter().zip(&mut self.waiting) {
            if !waiting.is_empty() {
                let capacity = waiting.len();
                let batch = std::mem::replace(waiting, Vec::with_capacity(capacity));
                // A core that ended has no links any more.
                let _ = core.inbox.send(ToCore::Outs(batch));
            }
        }
    }
}
