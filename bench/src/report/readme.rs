//! The generated section of `bench/README.md`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::save::{draw, read};
use super::table::tables;

/// In front of the generated section.
const BEGIN: &str = "<!-- compare: begin of the generated section -->";
/// Behind it.
const END: &str = "<!-- compare: end of the generated section -->";

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
    fs::write(readme, replace(&text, &section)?).with_context(|| format!("write {}", readme.display()))
}

fn replace(text: &str, section: &str) -> anyhow::Result<String> {
    let found = text.split_once(BEGIN).and_then(|(front, rest)| Some((front, rest.split_once(END)?.1)));
    let Some((front, behind)) = found else { bail!("the README has no section between {BEGIN} and {END}") };
    Ok(format!("{front}{BEGIN}\n\n{}\n\n{END}{behind}", section.trim()))
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
        fs::write(&readme, format!("front\n{BEGIN}\nold\n{END}\nbehind\n")).unwrap();
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
        replace(&text, "x").unwrap();
    }
}
