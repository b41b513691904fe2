//! What every target can do.

use std::fmt::Debug;
use std::path::PathBuf;

/// What presets build upon.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The run's own folder, on the local disk.
    pub(crate) scratch: PathBuf,
    /// Folder of our release binaries.
    pub(crate) binaries: PathBuf,
    /// This program.
    pub(crate) program: PathBuf,
}

/// Processes of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pids {
    /// On the side of the mount.
    pub(crate) client: Vec<u32>,
    /// Servers.
    pub(crate) server: Vec<u32>,
}

/// A file system under measurement.
pub(crate) trait Target: Debug {
    /// Starts everything. Called again after [`Target::stop`] or [`Target::break_off`].
    ///
    /// # Errors
    /// Why it does not run, and what to do.
    fn start(&mut self) -> anyhow::Result<()>;

    /// Folder to work in; exists after `start`.
    fn root(&self) -> PathBuf;

    /// Makes the client forget: it is mounted anew with an empty cache. The kernel's caches are not its business. Returns
    /// how cold that is, for the report.
    ///
    /// # Errors
    /// When it does not come back.
    fn cool(&mut self) -> anyhow::Result<&'static str>;

    /// Processes to count.
    fn pids(&self) -> Pids;

    /// Software, versions and options, in one line.
    fn about(&self) -> String;

    /// It throws data away (see `work::Spec::discards`).
    fn discards(&self) -> bool {
        false
    }

    /// Ends everything in good order.
    ///
    /// # Errors
    /// What did not end; the caller then breaks it off.
    fn stop(&mut self) -> anyhow::Result<()>;

    /// Ends everything by force: whoever waits for the mount gets an error.
    fn break_off(&mut self);
}
