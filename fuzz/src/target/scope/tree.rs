//! The truth: directories and the names in them.

use std::collections::{BTreeMap, BTreeSet};

use flexfs_wire::id::Ino;
use flexfs_wire::message::{RENAME_EXCHANGE, Reply, Request};
use flexfs_wire::name::Name;

/// Directories by number, with what is in each.
#[derive(Debug)]
pub(super) struct Tree {
    dirs: BTreeMap<Ino, BTreeMap<Name, Ino>>,
    /// What has, or once had, more than one name.
    several: BTreeSet<Ino>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { dirs: BTreeMap::from([(Ino::ROOT, BTreeMap::new())]), several: BTreeSet::new() }
    }

    /// What is in a directory, itself counted, and below it.
    pub(super) fn below(&self, root: Ino) -> BTreeSet<Ino> {
        let mut found = BTreeSet::from([root]);
        let mut left = vec![root];
        while let Some(dir) = left.pop() {
            for child in self.dirs.get(&dir).into_iter().flat_map(BTreeMap::values) {
                if found.insert(*child) {
                    left.push(*child);
                }
            }
        }
        found
    }

    /// Whether it is told apart only by where it was seen.
    pub(super) fn had_several_names(&self, ino: Ino) -> bool {
        self.several.contains(&ino)
    }

    /// A request that was done.
    pub(super) fn follow(&mut self, request: &Request, reply: &Reply) {
        match (request, reply) {
            (Request::Make { parent, name, make }, Reply::Entry(entry)) => {
                if entry.attr.is_dir() {
                    self.dirs.insert(make.ino, BTreeMap::new());
                }
                if let Some(name) = name {
                    self.enter(parent.ino, name, make.ino);
                }
            }
            (Request::Link { node, parent, name }, _) => {
                self.several.insert(node.ino);
                self.enter(parent.ino, name, node.ino);
            }
            (Request::Remove { parent, name, dir }, _) => {
                let gone = self.dirs.get_mut(&parent.ino).and_then(|names| names.remove(name));
                if let (Some(gone), true) = (gone, dir) {
                    self.dirs.remove(&gone);
                }
            }
            (Request::Rename { parent, name, new_parent, new_name, flags }, _) => {
                let (from, to) = ((parent.ino, name), (new_parent.ino, new_name));
                let (moved, other) = (self.child(from), self.child(to));
                if moved == other {
                    return; // Two names of one file.
                }
                let Some(moved) = moved else { panic!("{request:?} moved what is not there") };
                self.dirs.entry(from.0).or_default().remove(from.1);
                match other {
                    Some(other) if flags & RENAME_EXCHANGE != 0 => self.enter(from.0, from.1, other),
                    Some(other) => drop(self.dirs.remove(&other)),
                    None => {}
                }
                self.enter(to.0, to.1, moved);
            }
            _ => {}
        }
    }

    fn child(&self, (dir, name): (Ino, &Name)) -> Option<Ino> {
        self.dirs.get(&dir)?.get(name).copied()
    }

    fn enter(&mut self, dir: Ino, name: &Name, ino: Ino) {
        self.dirs.entry(dir).or_default().insert(name.clone(), ino);
    }
}
