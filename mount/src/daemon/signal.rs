//! Signals that end a mount, taken by a thread that waits for them.

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};

/// Signals that are blocked in every thread, to be waited for.
#[derive(Debug)]
pub(crate) struct Signals {
    set: SigSet,
}

impl Signals {
    /// Blocks them for this thread and all it starts. Before the first other thread.
    pub(crate) fn block() -> anyhow::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().context("cannot block signals")?;
        Ok(Self { set })
    }

    /// Starts the thread. `asked` runs at the first signal, `forced` at each further one. A hang-up is no wish of
    /// anybody's: the mount outlives the terminal it was started from.
    pub(crate) fn watch(
        self,
        asked: impl Fn(&'static str) + Send + 'static,
        forced: impl Fn(&'static str) + Send + 'static,
    ) -> anyhow::Result<()> {
        let wait = move || {
            let mut first = true;
            loop {
                match self.set.wait() {
                    Ok(Signal::SIGHUP) => {}
                    Ok(signal) if first => {
                        first = false;
                        asked(signal.as_str());
                    }
                    Ok(signal) => forced(signal.as_str()),
                    Err(error) => {
                        tracing::error!(%error, "signals are no longer noticed");
                        return;
                    }
                }
            }
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(wait)
            .context("cannot start a thread")?;
        Ok(())
    }
}
