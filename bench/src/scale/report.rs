//! Studies on the disk, as tables, and in the README.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::chart;
use super::study::{Measure, Rule, Study};
use crate::report::{Section, short};

/// The section of the README that is generated.
pub(super) const SECTION: Section = Section {
    begin: "<!-- scale: begin of the generated section -->",
    end: "<!-- scale: end of the generated section -->",
};

/// Writes `ID.json`, `ID.md` and `ID.svg` into a folder; returns the JSON's path.
///
/// # Errors
/// Those of the disk.
pub(super) fn write(study: &Study, folder: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join(format!("{}.json", study.id));
    fs::write(&path, serde_json::to_string_pretty(study)? + "\n")
        .with_context(|| format!("write {}", path.display()))?;
    fs::write(path.with_extension("md"), table(study))?;
    fs::write(path.with_extension("svg"), chart::draw(study))?;
    Ok(path)
}

/// Puts the studies saved in a folder into the README's section, in the order of `ids`; draws them anew.
///
/// # Errors
/// No section; a study that cannot be read. One that was never saved is left out.
pub(super) fn rewrite(readme: &Path, folder: &Path, ids: &[&str]) -> anyhow::Result<()> {
    let beside = readme.parent().context("a README without a folder")?.canonicalize()?;
    let place = folder.canonicalize().with_context(|| format!("no folder {}", folder.display()))?;
    let place = place.strip_prefix(&beside).context("the results must lie below the README's folder")?;
    let mut section = String::new();
    for id in ids {
        let path = folder.join(format!("{id}.json"));
        if !path.exists() {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let study: Study =
            serde_json::from_str(&text).with_context(|| format!("{} is no study", path.display()))?;
        write(&study, folder)?;
        section.push_str(&format!("{}\n![{id}]({}/{id}.svg)\n\n", table(&study), place.display()));
    }
    let text = fs::read_to_string(readme).with_context(|| format!("read {}", readme.display()))?;
    fs::write(readme, SECTION.replace(&text, &section)?)
        .with_context(|| format!("write {}", readme.display()))
}

/// A study in markdown.
pub(super) fn table(study: &Study) -> String {
    let mut text = format!("### {}\n\n{}\n\n{}\n\n| cost |", study.title, study.about, study.run);
    study.steps.iter().for_each(|step| text.push_str(&format!(" {} |", step.label)));
    text.push_str(&format!(" growth (may) | verdict |\n|---|{}--:|---|\n", "--:|".repeat(study.steps.len())));
    for measure in &study.measures {
        text.push_str(&format!("| {}, {} |", measure.title, measure.unit));
        for index in 0..study.steps.len() {
            let value = measure.values.get(index).copied().flatten();
            text.push_str(&format!(" {} |", value.map_or_else(|| "-".to_owned(), short)));
        }
        let verdict = measure.verdict(&study.steps).text();
        text.push_str(&format!(" {} | {verdict} |\n", growth(measure, study)));
    }
    text
}

fn growth(measure: &Measure, study: &Study) -> String {
    if let Rule::AtMost(bound) = measure.rule {
        return format!("at most {bound}");
    }
    let steps = measure.growth(&study.steps);
    if steps.is_empty() {
        return "-".to_owned();
    }
    let texts: Vec<String> =
        steps.iter().map(|step| format!("{}x ({}x)", short(step.factor), short(step.allowed))).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::study::tests::sample;

    #[test]
    fn the_table_has_every_figure_its_growth_and_a_verdict() {
        let text = table(&sample());
        assert!(
            text.contains("| one of them, us | 10.0 | 11.0 | 12.0 | 1.10x (1.33x), 1.09x (1.25x) | pass |"),
            "{text}"
        );
        assert!(
            text.contains("| each looks at all, us | 1.00 | 10.0 | 100 |") && text.contains("**short**"),
            "{text}"
        );
        assert!(text.contains("| start, s | 1.00 | 2.00 | 3.00 | at most 5 | pass |"), "{text}");
    }

    #[test]
    fn studies_survive_the_disk_and_fill_the_section() {
        let dir = tempfile::tempdir().unwrap();
        let (readme, folder) = (dir.path().join("README.md"), dir.path().join("results"));
        let path = write(&sample(), &folder).unwrap();
        let back: Study = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(back, sample());
        fs::write(&readme, format!("a\n{}\nold\n{}\nb\n", SECTION.begin, SECTION.end)).unwrap();
        rewrite(&readme, &folder, &["absent", "many"]).unwrap();
        let text = fs::read_to_string(&readme).unwrap();
        assert!(
            text.contains("### Many <things>")
                && text.contains("(results/many.svg)")
                && !text.contains("old")
        );
        rewrite(&readme, &folder, &["many"]).unwrap();
        assert_eq!(fs::read_to_string(&readme).unwrap(), text);
    }

    #[test]
    fn this_crates_readme_has_the_section() {
        let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
        SECTION.replace(&text, "x").unwrap();
    }
}
