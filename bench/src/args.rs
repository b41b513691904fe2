//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::target::{Choice, PRESETS};

/// Runs the same work on several file systems in turn and sets the figures side by side.
///
/// Needs root: it mounts, and drops the kernel's caches, which slows down everything else on the machine.
#[derive(Clone, Debug, Parser)]
#[command(name = "compare", after_help = after_help())]
pub(crate) struct Args {
    /// Directories to compare besides the targets; what is there stays untouched.
    #[arg(value_name = "PATH", value_parser = Choice::parse)]
    pub(crate) paths: Vec<Choice>,
    /// Targets: names or paths, separated by commas [default: ours,juicefs,ext4 with --quick, else all; none with paths].
    #[arg(long, value_delimiter = ',', value_parser = Choice::parse)]
    pub(crate) targets: Vec<Choice>,
    /// Only these rows or groups of them (see --list), separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "WORK")]
    pub(crate) only: Vec<String>,
    /// Few files and one round: two minutes for ours, juicefs and ext4 on two cores.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Hardly any files: whether everything works.
    #[arg(long, hide = true, conflicts_with = "quick")]
    pub(crate) tiny: bool,
    /// Rounds [default: 3; 1 with --quick].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: Option<u32>,
    /// Target that the others are set in relation to, besides ext4.
    #[arg(long, default_value = "juicefs", value_parser = Choice::parse)]
    pub(crate) base: Choice,
    /// Folder for the report and the plots [default: bench/results of this tree, else ./results].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Folder on the local disk for servers, caches and volumes [default: the folder for temporary files].
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// Folder of flexfs's binaries [default: this program's].
    #[arg(long = "binDir", value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// Lists rows and targets, and ends.
    #[arg(long)]
    pub(crate) list: bool,
    /// Measures nothing: writes tables and plots of a saved report, and the generated section of the README beside it.
    #[arg(long, value_name = "REPORT.json", conflicts_with_all = ["paths", "targets", "only", "quick"])]
    pub(crate) readme: Option<PathBuf>,
}

fn after_help() -> String {
    let lines: Vec<String> = PRESETS.iter().map(|(name, about)| format!("  {name:<11} {about}")).collect();
    format!("Targets:\n{}\n  PATH        any directory, with a slash in its name", lines.join("\n"))
}

impl Args {
    /// The targets in the order they take turns, each once.
    pub(crate) fn choices(&self) -> Vec<Choice> {
        let mut chosen = self.targets.clone();
        chosen.extend(self.paths.iter().cloned());
        if chosen.is_empty() {
            let quick = ["ours", "juicefs", "ext4"];
            let names = PRESETS.iter().map(|(name, _)| *name);
            chosen = names
                .filter(|name| !self.quick || quick.contains(name))
                .filter_map(|name| Choice::parse(name).ok())
                .collect();
        }
        let mut once: Vec<Choice> = Vec::new();
        for choice in chosen {
            if !once.contains(&choice) {
                once.push(choice);
            }
        }
        once
    }

    /// Rounds.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick || self.tiny { 1 } else { 3 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Vec<String> {
        let args = Args::try_parse_from([&["compare"], words].concat()).unwrap();
        args.choices().iter().map(|choice| choice.name().to_owned()).collect()
    }

    #[test]
    fn targets_and_paths() {
        assert_eq!(names(&["--quick"]), ["ours", "juicefs", "ext4"]);
        assert_eq!(names(&[]).len(), PRESETS.len());
        assert_eq!(names(&["/a", "/b", "/a"]), ["/a", "/b"]);
        assert_eq!(names(&["--targets", "ext4,./x", "/b"]), ["ext4", "./x", "/b"]);
        for wrong in [&["--targets", "nfs"][..], &["x"], &["--rounds", "0"], &["--quick", "--tiny"]] {
            assert!(Args::try_parse_from([&["compare"], wrong].concat()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn defaults() {
        let args = Args::try_parse_from(["compare"]).unwrap();
        assert_eq!((args.rounds(), args.base.name()), (3, "juicefs"));
        assert_eq!(Args::try_parse_from(["compare", "--quick"]).unwrap().rounds(), 1);
        assert_eq!(Args::try_parse_from(["compare", "--quick", "--rounds", "5"]).unwrap().rounds(), 5);
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }
}
