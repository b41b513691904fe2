//! The process itself: what it needs, what it gave up, and the one function that does it.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::privilege::{Keep, User};
use super::{calls, files, privilege};

/// What a program needs after its start.
#[derive(Debug)]
pub struct Needs {
    /// The user to become, when started as root.
    pub user: Option<User>,
    /// What stays with root, when it stays root.
    pub keep: Keep,
    /// Which files and ports; none: all of them. A process under such a limit can neither mount nor unmount.
    pub reach: Option<Reach>,
}

/// Files and TCP ports that stay in reach. The file descriptors that are open stay open.
#[derive(Debug, Default)]
pub struct Reach {
    /// Folders to read and write, with everything below. They must exist.
    pub folders: Vec<PathBuf>,
    /// Files to read again later, when somebody has replaced them: what else is in their folders can be read, too.
    pub files: Vec<PathBuf>,
    /// TCP ports to connect to; none is listened on anew.
    pub ports: Vec<u16>,
}

/// What was given up. Its text is for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The user it runs as, `uid:gid`.
    pub user: String,
    /// Capabilities it has left, by name; empty for none.
    pub capabilities: String,
    /// Neither set-uid programs nor file capabilities give it anything.
    pub no_new_privileges: bool,
    /// Other processes of its user cannot look into it, and it leaves no core.
    pub no_dump: bool,
    /// What landlock holds: `files, ports, signals`, fewer on older kernels, or why nothing.
    pub landlock: String,
    /// Whether the system calls that it never makes are refused.
    pub system_calls: String,
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |done: bool| if done { "yes" } else { "no" };
        let capabilities = if self.capabilities.is_empty() { "none" } else { &self.capabilities };
        write!(
            f,
            "user {}; capabilities {capabilities}; no new privileges {}; no dumps {}; landlock {}; system calls {}",
            self.user,
            yes(self.no_new_privileges),
            yes(self.no_dump),
            self.landlock,
            self.system_calls
        )
    }
}

/// Why a process goes on with too much. The text says what to do.
#[derive(Debug, Error)]
pub enum HardenError {
    /// There is no such user.
    #[error("there is no user {0:?}: make it with `useradd --system {0}`, or name another with --user")]
    NoUser(String),
    /// Only root can become somebody else.
    #[error("--user {0} needs root: start it as root, or as {0} without --user")]
    NotRoot(String),
    /// A file or folder of somebody else.
    #[error(
        "{} belongs to user {found}, and {user} would have no right to it: run `chown -R {user} {}`, or choose another user \
         with --user", path.display(), path.display()
    )]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Its owner's number.
        found: u32,
        /// The user of the server.
        user: String,
    },
    /// A folder cannot be made or looked at.
    #[error("{}: {error}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The system refused.
    #[error("cannot become user {name}: {error}")]
    Become {
        /// The user.
        name: String,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Gives up all but `needs`, for this thread and those it starts.
///
/// # Errors
/// [`HardenError`]: the user cannot be changed to. All else is done as far as the kernel can.
pub fn give_up(needs: &Needs) -> Result<InForce, HardenError> {
    let user = privilege::become_user(needs.user.as_ref(), &needs.keep)?;
    let no_dump = privilege::forbid_dumps();
    let no_new_privileges = rustix::thread::set_no_new_privs(true).is_ok();
    let landlock = match &needs.reach {
        Some(reach) => files::restrict(reach),
        None => "not used (it mounts)".to_owned(),
    };
    let system_calls = calls::forbid(needs.reach.is_none());
    Ok(InForce { user, capabilities: privilege::left(), no_new_privileges, no_dump, landlock, system_calls })
}

/// Keeps this process out of core files and out of the sight of others of its user. For programs that hold a secret for
/// a moment; [`give_up`] does it too.
pub fn forbid_dumps() {
    // Where the kernel refuses there is nothing else to try.
    let _ = privilege::forbid_dumps();
}
