//! Errors of which a system may give any.

use std::collections::BTreeSet;

use flexfs_wire::errno::Errno;

/// The errors that apply to an operation. Those of `may` are allowed and not demanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    must: BTreeSet<i32>,
    may: BTreeSet<i32>,
}

impl From<Errno> for Faults {
    fn from(errno: Errno) -> Self {
        Self { must: BTreeSet::from([errno.0]), may: BTreeSet::new() }
    }
}

impl Faults {
    /// The operation must fail when `applies`, and may do so with this error.
    pub fn add_if(&mut self, applies: bool, errno: Errno) {
        if applies {
            self.must.insert(errno.0);
        }
    }

    /// The operation may fail with this error when `applies`.
    pub fn allow_if(&mut self, applies: bool, errno: Errno) {
        if applies {
            self.may.insert(errno.0);
        }
    }

    /// Takes over what another check has found.
    pub fn join(&mut self, other: Result<(), Self>) {
        if let Err(other) = other {
            self.must.extend(other.must);
            self.may.extend(other.may);
        }
    }

    /// Ends the gathering: fails when the operation must.
    ///
    /// # Errors
    /// The faults themselves.
    pub fn check(&self) -> Result<(), Self> {
        if self.must.is_empty() { Ok(()) } else { Err(self.clone()) }
    }

    /// Whether a system may give this error.
    #[must_use]
    pub fn has(&self, errno: Errno) -> bool {
        self.must.contains(&errno.0) || self.may.contains(&errno.0)
    }
}
