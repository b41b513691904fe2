//! A database is made beside its place and moved there whole: a crash leaves a whole one or none.
//!
//! fjall takes a folder for a database once its `version` file is there, which it writes in the middle of making one; and a
//! folder without that file, but with others, it neither opens nor fills.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What fjall tells a database by.
const VERSION_FILE: &str = "version";

/// Where a database for `path` is made.
fn place_for(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".making");
    path.with_file_name(name)
}

/// Whether there is a database in the folder.
pub(super) fn is_there(path: &Path) -> io::Result<bool> {
    path.join(VERSION_FILE).try_exists()
}

/// Makes a database with `make`, which leaves it closed and synced, and moves it to `path`, where nothing but an empty folder
/// may be. What lies beside it was never finished, and is thrown away.
pub(super) fn create<E>(
    path: &Path,
    io: impl Fn(io::Error) -> E,
    make: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let place = place_for(path);
    for removed in [fs::remove_dir_all(&place), fs::remove_dir(path)] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
    }
    fs::create_dir_all(&place).map_err(&io)?;
    make(&place)?;
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    let moved = File::open(&place)
        .and_then(|folder| folder.sync_all())
        .and_then(|()| fs::rename(&place, path))
        .and_then(|()| File::open(parent))
        .and_then(|folder| folder.sync_all());
    moved.map_err(io)
}
