//! Files as the traced process made them, and as they were when each was last synced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::trace::Op;

/// A file's content: pieces in the order they were written, over zeros.
#[derive(Clone, Debug, Default)]
struct Content {
    size: u64,
    pieces: Vec<(u64, std::rc::Rc<Vec<u8>>)>,
}

#[derive(Debug, Default)]
struct OneFile {
    now: Content,
    /// What a power loss leaves at least.
    synced: Content,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    files: BTreeMap<PathBuf, OneFile>,
    dirs: BTreeSet<PathBuf>,
}

impl Disk {
    /// Does a change. Names change at once and in order, as a journalling file system does it; only data may be late.
    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { path, empty } => {
                let file = self.files.entry(path.clone()).or_default();
                if *empty {
                    file.now = Content::default();
                }
            }
            Op::Write { path, offset, bytes } => {
                let now = &mut self.file(path).now;
                let offset = offset.unwrap_or(now.size);
                now.size = now.size.max(offset + bytes.len() as u64);
                now.pieces.push((offset, std::rc::Rc::new(bytes.clone())));
            }
            Op::Resize { path, size } => {
                let now = &mut self.file(path).now;
                now.cut(*size);
                now.size = *size;
            }
            Op::Grow { path, size } => {
                let now = &mut self.file(path).now;
                now.size = now.size.max(*size);
            }
            Op::Sync { path } => {
                // A directory has nothing of its own.
                if let Some(file) = self.files.get_mut(path) {
                    file.synced = file.now.clone();
                }
            }
            Op::Rename { from, to } => {
                self.files.remove(to);
                // Of a folder, with all below it.
                let moved = |path: &PathBuf| match path.strip_prefix(from) {
                    Ok(rest) if rest.as_os_str().is_empty() => to.clone(),
                    Ok(rest) => to.join(rest),
                    Err(_) => path.clone(),
                };
                self.files = std::mem::take(&mut self.files)
                    .into_iter()
                    .map(|(path, file)| (moved(&path), file))
                    .collect();
                self.dirs = self.dirs.iter().map(moved).collect();
            }
            Op::Remove { path } => {
                let known = self.files.remove(path).is_some() || self.dirs.remove(path);
                assert!(known, "{op}");
            }
            Op::MakeDir { path } => {
                self.dirs.insert(path.clone());
            }
            Op::Said(_) => {}
        }
    }

    fn file(&mut self, path: &Path) -> &mut OneFile {
        self.files.get_mut(path).unwrap_or_else(|| panic!("{} was never made", path.display()))
    }

    /// Writes what is below `from` into a new folder `to`.
    pub(crate) fn write(&self, from: &Path, to: &Path, synced_only: bool) {
        fs::create_dir(to).unwrap();
        for dir in &self.dirs {
            fs::create_dir_all(to.join(dir.strip_prefix(from).unwrap())).unwrap();
        }
        for (path, file) in &self.files {
            let content = if synced_only { &file.synced } else { &file.now };
            let target = File::create(to.join(path.strip_prefix(from).unwrap())).unwrap();
            target.set_len(content.size).unwrap();
            for (offset, bytes) in &content.pieces {
                target.write_all_at(bytes, *offset).unwrap();
            }
        }
    }
}

impl Content {
    fn cut(&mut self, size: u64) {
        if size >= self.size {
            return;
        }
        self.pieces.retain_mut(|(offset, bytes)| {
            let left = usize::try_from(size.saturating_sub(*offset)).unwrap();
            if left < bytes.len() {
                *bytes = std::rc::Rc::new(bytes[..left].to_vec());
            }
            !bytes.is_empty()
        });
    }
}
