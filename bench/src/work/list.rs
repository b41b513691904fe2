//! Listings.

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use flexfs_uring::clock;
use rustix::fs::FileType;

use super::meter::{Gate, whole};
use super::spec::{Outcome, Spec};

/// `readdir` of the whole folder; with `long` an `lstat` of each entry as it comes, which is what `ls -l` does. Counts
/// entries.
pub(crate) fn list(spec: &Spec, long: bool, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    gate()?;
    let (mut seen, mut cut) = (0, false);
    let mut outcome = whole(|| {
        let deadline = clock::now() + Duration::from_millis(spec.soft_millis);
        for entry in fs::read_dir(&spec.folder)? {
            let entry = entry?;
            if long {
                // `lstat(2)`, as `ls` does, and not std's, which asks for the time of birth as well.
                let attr = rustix::fs::lstat(entry.path())?;
                let is_file = FileType::from_raw_mode(attr.st_mode) == FileType::RegularFile;
                ensure!(is_file, "{} is no file", entry.path().display());
                if clock::now() >= deadline {
                    cut = true;
                    break;
                }
            }
            seen += 1;
        }
        Ok(())
    })?;
    ensure!(cut || seen == spec.count, "the listing has {seen} entries instead of {}", spec.count);
    outcome.done = seen;
    outcome.cut = cut;
    Ok(outcome)
}
