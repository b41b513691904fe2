//! Names in a worker's folder.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// The file or folder with a number.
pub(crate) fn entry(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("f{number:06}"))
}

/// Where the one with a number is after it was renamed.
pub(crate) fn renamed(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("renamed-{number:06}"))
}

/// All entries there are.
pub(crate) fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listing = folder.read_dir().with_context(|| format!("list {}", folder.display()))?;
    Ok(listing.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?)
}

/// Fails unless a folder has so many entries.
pub(crate) fn expect_entries(folder: &Path, wanted: u64) -> anyhow::Result<()> {
    let found = entries(folder)?.len();
    ensure!(found as u64 == wanted, "{} has {found} entries instead of {wanted}", folder.display());
    Ok(())
}
