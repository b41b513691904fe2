//! What a local file system does.

use std::fs;
use std::path::{Path, PathBuf};

use super::command::Run;

/// An ext4 in a file, for comparison: not every machine's temporary folder is one.
pub(crate) struct Ext4 {
    folder: PathBuf,
}

impl Ext4 {
    pub(crate) fn mount(folder: &Path) -> Self {
        let image = folder.with_extension("img");
        fs::create_dir(folder).unwrap();
        Run::new("truncate").args(["-s", "256m"]).arg(&image).ok();
        Run::new("mkfs.ext4").arg("-q").arg(&image).ok();
        Run::new("mount").args(["-o", "loop"]).arg(&image).arg(folder).ok();
        Self { folder: folder.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        Run::new("umount").arg("-l").arg(&self.folder).run();
    }
}
