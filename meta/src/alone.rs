//! Sessions that have a directory to themselves, and with it files in it that nobody else caches anything of.
//!
//! Such a file can be reached without its directory: by a handle kept from before. Who does so asks for the directory, which is
//! one question for all files in it.

use std::collections::HashMap;

use flexfs_wire::id::{Ino, SessionId};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Alone {
    dirs: HashMap<Ino, Dir>,
    /// Files, and their directories.
    files: HashMap<Ino, Ino>,
}

#[derive(Debug)]
struct Dir {
    session: SessionId,
    files: Vec<Ino>,
}

impl Alone {
    /// Who is alone with the directory.
    pub(crate) fn holder(&self, dir: Ino) -> Option<SessionId> {
        self.dirs.get(&dir).map(|dir| dir.session)
    }

    /// Who is alone with the file's directory and counts on the file; and the directory.
    pub(crate) fn keeper(&self, file: Ino) -> Option<(SessionId, Ino)> {
        let dir = *self.files.get(&file)?;
        self.holder(dir).map(|session| (session, dir))
    }

    /// All directories that somebody is alone with, and who.
    pub(crate) fn all(&self) -> Vec<(Ino, SessionId)> {
        let mut all: Vec<_> = self.dirs.iter().map(|(dir, found)| (*dir, found.session)).collect();
        // The order in which recalls go out is a function of what happened.
        all.sort_unstable();
        all
    }

    /// The session is alone with the directory.
    pub(crate) fn begin(&mut self, session: SessionId, dir: Ino) {
        self.end(dir);
        self.dirs.insert(dir, Dir { session, files: Vec::new() });
    }

    /// It counts on the file too.
    pub(crate) fn add(&mut self, dir: Ino, file: Ino) {
        if let Some(found) = self.dirs.get_mut(&dir)
            && self.files.insert(file, dir) != Some(dir)
        {
            found.files.push(file);
        }
    }

    /// Nobody is alone with it any more.
    pub(crate) fn end(&mut self, dir: Ino) {
        let Some(ended) = self.dirs.remove(&dir) else { return };
        for file in ended.files {
            if self.files.get(&file) == Some(&dir) {
                self.files.remove(&file);
            }
        }
    }

    /// Nor with any that the session had.
    pub(crate) fn end_session(&mut self, session: SessionId) {
        let dirs = self.dirs.iter().filter(|(_, dir)| dir.session == session);
        let dirs: Vec<Ino> = dirs.map(|(ino, _)| *ino).collect();
        for dir in dirs {
            self.end(dir);
        }
    }

    /// Whether nobody is alone anywhere.
    pub(crate) fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }

    /// Directories and files, for the bound on leases.
    pub(crate) fn count(&self) -> usize {
        self.dirs.len() + self.files.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_with_their_directory() {
        let (a, b) = (SessionId(1), SessionId(2));
        let (x, y) = (Ino(10), Ino(11));
        let mut alone = Alone::default();
        alone.add(x, Ino(20));
        assert!(alone.is_empty() && alone.keeper(Ino(20)).is_none(), "nobody is alone there");
        alone.begin(a, x);
        alone.begin(b, y);
        for file in [20, 20, 21] {
            alone.add(x, Ino(file));
        }
        // It was moved.
        alone.add(y, Ino(21));
        assert_eq!((alone.keeper(Ino(20)), alone.keeper(Ino(21))), (Some((a, x)), Some((b, y))));
        assert_eq!((alone.holder(x), alone.count()), (Some(a), 4));
        alone.end(x);
        assert_eq!((alone.keeper(Ino(20)), alone.keeper(Ino(21)), alone.count()), (None, Some((b, y)), 2));
        alone.end_session(b);
        assert!(alone.is_empty() && alone.count() == 0);
    }
}
