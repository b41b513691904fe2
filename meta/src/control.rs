//! How any thread ends the server.

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// Why the server ends.
#[derive(Debug)]
pub(crate) enum Ending {
    /// It was asked to.
    Signal(&'static str),
    /// It cannot go on.
    Failed(String),
}

/// Ends the server from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Control(UnboundedSender<Ending>);

/// The first word of any thread.
#[derive(Debug)]
pub(crate) struct Endings(UnboundedReceiver<Ending>);

/// A control and what comes of it.
pub(crate) fn control() -> (Control, Endings) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Control(sender), Endings(receiver))
}

impl Control {
    /// The server cannot go on.
    pub(crate) fn fail(&self, cause: String) {
        // Nobody listens any more when it is ending already.
        let _ = self.0.send(Ending::Failed(cause));
    }

    /// The server is asked to end.
    pub(crate) fn stop(&self, signal: &'static str) {
        let _ = self.0.send(Ending::Signal(signal));
    }
}

impl Endings {
    /// Waits for the first word. Not within a runtime.
    pub(crate) fn wait(mut self) -> Ending {
        self.0.blocking_recv().unwrap_or(Ending::Signal("nobody"))
    }
}
