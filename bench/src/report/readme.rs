//! The generated section of `bench/README.md`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::save::{draw, read};
use super::table::tables;

/// The section of `compare`.
const SECTION: Section = Section {
    begin: "<!-- compare: begin of the generated section -->",
    end: "<!-- compare: end of the generated section -->",
};

/// A part of a README that a program writes, between two lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    /// In front of it.
    pub(crate) begin: &'static str,
    /// Behind it.
    pub(crate) end: &'static str,
}

/// Draws the plots of a saved report and puts them, with its tables, into the generated section of a README.
///
/// # Errors
/// No report; no section.
pub(crate) fn rewrite(readme: &Path, report: &Path) -> anyhow::Result<()> {
    let loaded = read(report)?;
    let names = draw(&loaded, report)?;
    let folder = readme.parent().context("a README without a folder")?.canonicalize()?;
    let plots = report.canonicalize()?.with_extension("");
    let plots = plots.strip_prefix(&folder).with_context(|| {
        format!("the report must lie below {}, for its plots to be shown", folder.display())
    })?;
    let mut section = tables(&loaded);
    for name in names {
        section.push_str(&format!("\n![{}]({}/{name})\n", name.trim_end_matches(".svg"), plots.display()));
    }
    let text = fs::read_to_string(readme).with_context(|| format!("read {}", readme.display()))?;
    fs::write(readme, SECTION.replace(&text, &section)?)
        .with_context(|| format!("write {}", readme.display()))
}

impl Section {
    /// A README's text with a new section.
    ///
    /// # Errors
    /// It has no section.
    pub(crate) fn replace(self, text: &str, section: &str) -> anyhow::Result<String> {
        let Self { begin, end } = self;
        let found = text.split_once(begin).and_then(|(front, rest)| Some((front, rest.split_once(end)?.1)));
        let Some((front, behind)) = found else {
            bail!("the README has no section between {begin} and {end}")
        };
        Ok(format!("{front}{begin}\n\n{}\n\n{end}{behind}", section.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::save::write;
    use crate::report::summary::tests::sample;

    #[test]
    fn only_the_section_is_written_and_again_gives_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let readme = dir.path().join("README.md");
        let report = write(&sample(), &dir.path().join("results")).unwrap();
        fs::write(&readme, format!("front\n{}\nold\n{}\nbehind\n", SECTION.begin, SECTION.end)).unwrap();
        rewrite(&readme, &report).unwrap();
        let text = fs::read_to_string(&readme).unwrap();
        assert!(text.starts_with("front\n") && text.ends_with("\nbehind\n") && !text.contains("old"));
        assert!(text.contains("title of untar") && text.contains("(results/2026-11-26T010203/metadata.svg)"));
        rewrite(&readme, &report).unwrap();
        assert_eq!(fs::read_to_string(&readme).unwrap(), text);
        fs::write(&readme, "no section").unwrap();
        assert!(rewrite(&readme, &report).unwrap_err().to_string().contains("no section between"));
    }

    #[test]
    fn this_crates_readme_has_the_section() {
        let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
        SECTION.replace(&text, "x").unwrap();
    }
}
