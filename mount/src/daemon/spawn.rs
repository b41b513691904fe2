//! Going to the background: the program starts itself again, with the log as its standard error and a pipe as its
//! standard output, through which it says that the mount stands, or why it does not. No fork: a process is
//! either this one or a fresh one, and nothing has to be undone in between.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::config::MountArgs;

/// What the child writes when the mount stands.
const READY: &str = "ready\n";
/// Longest message of the child, bytes.
const MESSAGE_BYTES_MAX: u64 = 64 * 1024;

/// Whom to tell that the mount stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Nobody: it runs in the foreground.
    Nobody,
    /// The parent, at the other end of standard output.
    Parent,
}

impl Ready {
    /// The mount stands. From here on standard output goes nowhere.
    ///
    /// # Errors
    /// When the parent is gone, or `/dev/null`.
    pub fn tell(self) -> anyhow::Result<()> {
        match self {
            Self::Nobody => Ok(()),
            Self::Parent => self.say(READY),
        }
    }

    /// The mount does not stand. True when somebody was told.
    #[must_use]
    pub fn fail(self, error: &anyhow::Error) -> bool {
        self == Self::Parent && self.say(&format!("{error:#}")).is_ok()
    }

    fn say(self, text: &str) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .context("the process that started this is gone")?;
        let null = File::options().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        Ok(())
    }
}

/// Starts the daemon and waits until the mount stands.
///
/// # Errors
/// The child's own words, or where to look for them.
pub fn start(args: &MountArgs) -> anyhow::Result<()> {
    let log = args.log_path();
    if log.starts_with(&args.mount_point) {
        bail!("the log {} would lie on the mount itself; choose another with --logFile", log.display());
    }
    let stderr = open_log(&log).with_context(|| format!("cannot write the log {}", log.display()))?;
    // Not by name: the file may have been replaced since.
    let mut child = Command::new("/proc/self/exe")
        .arg0("mount.flexfs")
        .args(["start", "--foreground", "--tellParent"])
        .args(args.to_args())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .current_dir("/")
        .spawn()
        .context("cannot start the daemon")?;
    let mut message = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MESSAGE_BYTES_MAX).read_to_string(&mut message).context("the daemon says nonsense")?;
    }
    if message == READY {
        return Ok(());
    }
    let status = child.wait()?;
    if message.is_empty() {
        bail!("the daemon ended ({status}) before the mount stood; see {}", log.display());
    }
    bail!("{}", message.trim_end());
}

fn open_log(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}
