//! What may be in a directory that was made here: what is surely not in it need not be asked for.
//!
//! The server grants the names of a new directory together with the directory. From then on every name in it was either
//! made here, or is recalled before another client makes it: all are noted, none is ever taken out. So a name that was not
//! noted is not there. Most names that are looked up in a new directory are about to be made (`tar`, `git clone`).

use std::sync::{Mutex, MutexGuard, PoisonError};

use flexfs_wire::name::Name;

use super::known::Known;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Content {
    state: Mutex<State>,
    /// Names that may be there.
    names: Known,
}

#[derive(Debug, Default)]
struct State {
    /// The life of the leases in which it was made.
    since: Option<u64>,
    /// A name was made there before it was known to be new.
    late: bool,
}

impl Content {
    /// It was made in this life of the leases, and was empty then.
    pub(crate) fn begin(&self, life: u64) {
        let mut state = self.state();
        state.since = (!state.late).then_some(life);
    }

    /// Nothing is known of it any more.
    pub(crate) fn end(&self) {
        self.state().since = None;
    }

    /// A name is about to be made there, by whomever.
    pub(crate) fn add(&self, name: &Name) {
        let mut state = self.state();
        if state.since.is_some() {
            self.names.add(name);
        } else {
            state.late = true;
        }
    }

    /// Whether the name is surely not there. `life`: of the leases, now.
    pub(crate) fn lacks(&self, name: &Name, life: u64) -> bool {
        self.state().since == Some(life) && !self.names.has(name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_absent_until_somebody_is_about_to_make_it() {
        let name = |text: &[u8]| Name::new(text).unwrap();
        let content = Content::default();
        content.add(&name(b"early"));
        content.begin(3);
        assert!(!content.lacks(&name(b"a"), 3), "it is not empty any more");
        let content = Content::default();
        assert!(!content.lacks(&name(b"a"), 0), "nothing is known");
        content.begin(3);
        content.add(&name(b"a"));
        assert!(!content.lacks(&name(b"a"), 3) && content.lacks(&name(b"b"), 3));
        assert!(!content.lacks(&name(b"b"), 4), "the leases are void");
        content.end();
        assert!(!content.lacks(&name(b"b"), 3));
    }
}
