//! What runs where, for people and in JSON.

use std::path::PathBuf;

use serde::Serialize;

/// One program of the cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Part {
    /// Its pid.
    pub(crate) pid: Option<i32>,
    /// Where it listens, or is mounted.
    pub(crate) address: String,
    /// Its log.
    pub(crate) log: PathBuf,
    /// Its credentials.
    pub(crate) creds: PathBuf,
}

/// A running cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Where it is mounted.
    pub(crate) mount_point: PathBuf,
    /// Name of the volume.
    pub(crate) volume: String,
    /// Folder of everything.
    pub(crate) state_dir: PathBuf,
    /// The admin server; its credentials are configure's.
    pub(crate) admin: Part,
    /// The metadata server.
    pub(crate) meta: Part,
    /// Address of meta's metrics.
    pub(crate) metrics: String,
    /// The mount.
    pub(crate) mount: Part,
}

impl Report {
    /// The sentences after a good `up`.
    pub(crate) fn text(&self, mount_program: &str, own_program: &str, default_state_dir: bool) -> String {
        let mnt = self.mount_point.display();
        let state = self.state_dir.display();
        let part = |name: &str, part: &Part| {
            let pid = part.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            format!("  {name:<6} {:<24} pid {pid:<8} log {}\n", part.address, part.log.display())
        };
        let flag = if default_state_dir { String::new() } else { format!(" --stateDir {state}") };
        format!(
            "flexfs is up: volume {} on {mnt}\n\n{}{}{}\n  \
             data   {state}\n  \
             creds  {} (mode 0600, as are those of meta and mount beside it)\n\n\
             Look:  {mount_program} status {mnt}\n       \
             {own_program} list volumes --credsFile {}\n       \
             curl -s http://{}/metrics\n\
             Stop:  {own_program} down {mnt}{flag}    (the data stays; `up` finds it again)\n",
            self.volume,
            part("admin", &self.admin),
            part("meta", &self.meta),
            part("mount", &self.mount),
            self.admin.creds.display(),
            self.admin.creds.display(),
            self.metrics,
        )
    }
}
