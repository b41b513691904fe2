//! Users, capabilities, dumps.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use nix::unistd;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::process::HardenError;

/// Capabilities that root keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Enough for the files of a folder, whoever owns them.
    Files,
    /// Enough to mount, to unmount, and to see what a process of another user waits for.
    Mounts,
}

impl Keep {
    fn set(self) -> CapabilitySet {
        match self {
            Self::Files => CapabilitySet::DAC_OVERRIDE | CapabilitySet::CHOWN,
            // SYS_PTRACE: /proc/PID/syscall of other people's processes, to tell which lock they wait for. IPC_LOCK: without it the
            // buffers of all mounts of a machine count together against root's RLIMIT_MEMLOCK, 8 MiB by default.
            Self::Mounts => {
                CapabilitySet::SYS_ADMIN
                    | CapabilitySet::DAC_OVERRIDE
                    | CapabilitySet::SYS_PTRACE
                    | CapabilitySet::IPC_LOCK
            }
        }
    }
}

/// A user of this machine.
#[derive(Clone, Debug)]
pub struct User(unistd::User);

impl User {
    /// Looks a user up, as `id(1)` does.
    ///
    /// # Errors
    /// [`HardenError::NoUser`], [`HardenError::NotRoot`].
    pub fn find(name: &str) -> Result<Self, HardenError> {
        let found = unistd::User::from_name(name).ok().flatten();
        let user = found.ok_or_else(|| HardenError::NoUser(name.to_owned()))?;
        if !rustix::process::geteuid().is_root() && rustix::process::geteuid().as_raw() != user.uid.as_raw() {
            return Err(HardenError::NotRoot(name.to_owned()));
        }
        Ok(Self(user))
    }

    /// Gives a file or folder to this user, and to its group. A link itself, not what it leads to: in a folder of that user
    /// it may lead anywhere.
    ///
    /// # Errors
    /// What the system says.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::lchown(path, Some(self.0.uid.as_raw()), Some(self.0.gid.as_raw()))
    }

    /// Makes a folder that is missing, mode 0700, and gives it to this user; one that is there must be this user's.
    ///
    /// # Errors
    /// [`HardenError::Folder`], [`HardenError::Owner`].
    pub fn take(&self, folder: &Path) -> Result<(), HardenError> {
        let refused = |error| HardenError::Folder { path: folder.to_owned(), error };
        match folder.metadata() {
            Ok(found) if found.uid() == self.uid() => Ok(()),
            Ok(found) => {
                let (path, user) = (folder.to_owned(), self.name().to_owned());
                Err(HardenError::Owner { path, found: found.uid(), user })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
                made.and_then(|()| self.own(folder)).map_err(refused)
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its number.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.0.uid.as_raw()
    }
}

/// Becomes `user`, and drops the capabilities that are left; says who it is now, `uid:gid`.
pub(super) fn become_user(user: Option<&User>, keep: &Keep) -> Result<String, HardenError> {
    let is_root = rustix::process::geteuid().is_root();
    let becomes = user.filter(|user| is_root && user.uid() != 0);
    let kept = if is_root && becomes.is_none() { keep.set() } else { CapabilitySet::empty() };
    bound(kept);
    if let Some(User(user)) = becomes {
        let refused =
            |error: nix::Error| HardenError::Become { name: user.name.clone(), error: error.into() };
        let name = std::ffi::CString::new(user.name.as_bytes()).map_err(|_| refused(nix::Error::EINVAL))?;
        // Groups while it is still root; the user last, for that ends it.
        unistd::initgroups(&name, user.gid).map_err(refused)?;
        unistd::setresgid(user.gid, user.gid, user.gid).map_err(refused)?;
        unistd::setresuid(user.uid, user.uid, user.uid).map_err(refused)?;
    }
    // Nobody inherits any: nothing is executed.
    let _ = rustix::thread::clear_ambient_capability_set();
    let had = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted);
    let sets =
        CapabilitySets { effective: had & kept, permitted: had & kept, inheritable: CapabilitySet::empty() };
    // Taking away is always allowed; `left` tells what is there after all.
    let _ = rustix::thread::set_capabilities(None, sets);
    Ok(format!("{}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()))
}

/// Takes all others out of the bounding set; without the right to, it stays, and gives nothing to a process that
/// executes nothing.
fn bound(kept: CapabilitySet) {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        // Numbers that this kernel does not have are refused.
        if !kept.contains(one) && rustix::thread::capability_is_in_bounding_set(one).unwrap_or(false) {
            let _ = rustix::thread::remove_capability_from_bounding_set(one);
        }
    }
}

/// Names of the effective capabilities.
pub(super) fn left() -> String {
    let sets = rustix::thread::capabilities(None);
    let names = |set: CapabilitySet| {
        let names: Vec<String> = set.iter_names().map(|(name, _)| name.to_lowercase()).collect();
        names.join(",")
    };
    sets.map_or_else(|error| format!("unknown ({error})"), |sets| names(sets.effective))
}

/// No core, and no look into memory by others of the same user. True when both are in force.
pub(super) fn forbid_dumps() -> bool {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let core = rustix::process::setrlimit(Resource::Core, none).is_ok();
    // After a change of the user, which sets it anew.
    core & rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok()
}
