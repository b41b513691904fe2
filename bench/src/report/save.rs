//! Saving and loading a report.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::model::{FORMAT, Report};
use super::plot::plots;
use super::table::tables;

/// Writes `NAME.json`, `NAME.md` and `NAME/*.svg` into a folder; NAME is the date. Returns the JSON's path.
///
/// # Errors
/// Those of the disk.
pub(crate) fn write(report: &Report, folder: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let name = report.date.replace(':', "").trim_end_matches('Z').to_owned();
    let path = folder.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(report)? + "\n";
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    fs::write(path.with_extension("md"), tables(report))?;
    draw(report, &path)?;
    Ok(path)
}

/// Writes the plots of a saved report, beside it; returns their file names.
///
/// # Errors
/// Those of the disk.
pub(crate) fn draw(report: &Report, path: &Path) -> anyhow::Result<Vec<String>> {
    let folder = path.with_extension("");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let mut names = Vec::new();
    for (name, text) in plots(report) {
        fs::write(folder.join(&name), text).with_context(|| format!("write {name}"))?;
        names.push(name);
    }
    Ok(names)
}

/// Loads a saved report.
///
/// # Errors
/// When it is none, or of another version.
pub(crate) fn read(path: &Path) -> anyhow::Result<Report> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let report: Report =
        serde_json::from_str(&text).with_context(|| format!("{} is no saved report", path.display()))?;
    ensure!(
        report.format == FORMAT,
        "{} has format {}, this program reads {FORMAT}",
        path.display(),
        report.format
    );
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::tests::sample;

    #[test]
    fn a_report_survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let report = sample();
        let path = write(&report, &dir.path().join("new")).unwrap();
        assert_eq!(path.file_name().unwrap(), "2026-11-26T010203.json");
        assert_eq!(read(&path).unwrap(), report);
        assert!(path.with_extension("md").exists() && path.with_extension("").join("metadata.svg").exists());
        let other = fs::read_to_string(&path).unwrap().replace("\"format\": 1", "\"format\": 9");
        fs::write(&path, other).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("format 9"));
        fs::write(&path, "{}").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("no saved report"));
    }
}
