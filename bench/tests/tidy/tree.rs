//! The files of the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// Members of the workspace, each a folder of the repository.
pub(crate) const CRATES: &[&str] = &["wire", "uring", "mount", "meta", "admin", "bench", "fuzz"];

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A text file of the tree.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path from the repository's root.
    pub(crate) path: String,
    /// Content.
    pub(crate) text: String,
}

impl Source {
    /// The lines in front of the test module at the file's bottom, with their numbers from 1.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .take_while(|line| *line != "#[cfg(test)]")
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// Whether it is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Every text file below `folder` of the repository, build output and fuzzing inputs left out.
pub(crate) fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    assert!(!found.is_empty(), "nothing below {folder}");
    found
}

fn walk(folder: &Path, found: &mut Vec<Source>) {
    // A build's output carries this tag wherever CARGO_TARGET_DIR put it.
    if folder.join("CACHEDIR.TAG").exists() {
        return;
    }
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_symlink() || matches!(&*name, ".git" | "target" | "seeds" | "corpus-work" | "artifacts") {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push(Source { path, text });
        }
    }
}
