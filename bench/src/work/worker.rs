//! A worker process: takes its order, says that it stands ready, waits, works, tells.
//!
//! Protocol, a line each: `ready` out, `go` in, then out an object `{"done": Outcome}` or `{"failed": "text"}`.

use std::io::{BufRead as _, Write as _};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::meter::Gate;
use super::spec::{Kind, Outcome, Spec};
use super::{append, create, list, open, project, random, rename, sequential, small, stat, unlink};

/// What a worker says before it waits.
pub(crate) const READY: &str = "ready";
/// What it waits for.
pub(crate) const GO: &str = "go";

/// A worker's last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Done(Outcome),
    Failed(String),
}

/// Does the work of an order.
pub(crate) fn perform(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    match spec.kind {
        Kind::Create => create::files(spec, gate),
        Kind::Mkdir => create::folders(spec, gate),
        Kind::Stat => stat::stat(spec, gate),
        Kind::Statx => stat::statx(spec, gate),
        Kind::Chmod => stat::chmod(spec, gate),
        Kind::List => list::list(spec, false, gate),
        Kind::ListLong => list::list(spec, true, gate),
        Kind::Open => open::open(spec, gate),
        Kind::Rename => rename::rename(spec, gate),
        Kind::Unlink => unlink::files(spec, gate),
        Kind::Rmdir => unlink::folders(spec, gate),
        Kind::SmallWrite => small::write(spec, gate),
        Kind::SmallRead => small::read(spec, gate),
        Kind::SequentialWrite => sequential::write(spec, gate),
        Kind::SequentialRead => sequential::read(spec, gate),
        Kind::RandomRead => random::read(spec, gate),
        Kind::RandomWrite => random::write(spec, gate),
        Kind::Append => append::append(spec, gate),
        Kind::Untar => project::untar(spec, gate),
        Kind::Clone => project::clone(spec, gate),
        Kind::Build => project::build(spec, gate),
    }
}

/// The whole life of a worker process.
///
/// # Errors
/// When its parent is gone; failures of the work are told to the parent.
pub(crate) fn run_as_worker(order: &str) -> anyhow::Result<()> {
    let spec: Spec = serde_json::from_str(order).context("read the order")?;
    let mut gate = || -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        writeln!(out, "{READY}")?;
        out.flush()?;
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        anyhow::ensure!(line.trim_end() == GO, "told {line:?} instead of {GO}");
        Ok(())
    };
    let answer = match perform(&spec, &mut gate) {
        Ok(outcome) => Answer::Done(outcome),
        Err(error) => Answer::Failed(format!("{error:#}")),
    };
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn spec(kind: Kind, folder: &Path, count: u64) -> Spec {
        Spec {
            kind,
            folder: folder.to_owned(),
            index: 2,
            count,
            pages: 512,
            soft_millis: 60_000,
            warm: true,
            discards: false,
            sources: folder.to_owned(),
        }
    }

    fn run(spec: &Spec) -> anyhow::Result<Outcome> {
        let mut gates = 0;
        let outcome = perform(spec, &mut || {
            gates += 1;
            Ok(())
        })?;
        assert_eq!(gates, 1);
        assert!(outcome.nanos > 0 && !outcome.cut);
        Ok(outcome)
    }

    #[test]
    fn metadata_from_creation_to_the_empty_folder() {
        let dir = tempfile::tempdir().unwrap();
        let kinds = [
            Kind::Create,
            Kind::Stat,
            Kind::Statx,
            Kind::List,
            Kind::ListLong,
            Kind::Open,
            Kind::Chmod,
            Kind::Rename,
            Kind::Unlink,
            Kind::Mkdir,
            Kind::Rmdir,
        ];
        for kind in kinds {
            let outcome = run(&spec(kind, &dir.path().join("own"), 30)).unwrap();
            assert_eq!(outcome.done, 30, "{kind:?}");
        }
        assert_eq!(dir.path().join("own").read_dir().unwrap().count(), 0);
    }

    #[test]
    fn data_is_written_read_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        for (kind, count, bytes) in [
            (Kind::SequentialWrite, 2, 2 << 20),
            (Kind::SequentialRead, 2, 2 << 20),
            (Kind::RandomRead, 20, 20 * 4096),
            (Kind::RandomWrite, 20, 20 * 4096),
            (Kind::Append, 5, 5 * 4096),
            (Kind::SmallWrite, 7, 7 * 4096),
        ] {
            let outcome = run(&spec(kind, &dir.path().join(format!("{}", kind.is_shared())), count)).unwrap();
            assert_eq!((outcome.done, outcome.bytes), (count, bytes), "{kind:?}");
        }
        run(&spec(Kind::SmallRead, &dir.path().join("false"), 7)).unwrap();
    }

    #[test]
    fn wrong_data_wrong_counts_and_missing_files_are_failures() {
        let dir = tempfile::tempdir().unwrap();
        let text = |kind, count| run(&spec(kind, dir.path(), count)).unwrap_err();
        run(&spec(Kind::SmallWrite, dir.path(), 3)).unwrap();
        assert!(text(Kind::List, 4).to_string().contains("3 entries instead of 4"));
        assert!(text(Kind::Unlink, 4).to_string().contains("3 entries instead of 4"));
        assert!(format!("{:#}", text(Kind::SmallRead, 4)).contains("operation 3: No such file"));
        let path = super::super::folder::entry(dir.path(), 1);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4000] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(format!("{:#}", text(Kind::SmallRead, 3)).contains("operation 1: the file does not hold"));
        run(&spec(Kind::SequentialWrite, dir.path(), 2)).unwrap();
        assert!(text(Kind::SequentialRead, 1).to_string().contains("goes on"));
        std::fs::OpenOptions::new()
            .write(true)
            .open(dir.path().join("large"))
            .and_then(|file| file.set_len(1 << 20))
            .unwrap();
        assert!(format!("{:#}", text(Kind::SequentialRead, 2)).contains("operation 1"));
    }

    #[test]
    fn the_soft_limit_ends_the_work() {
        let dir = tempfile::tempdir().unwrap();
        let mut short = spec(Kind::Create, dir.path(), u64::MAX);
        short.soft_millis = 20;
        let outcome = perform(&short, &mut || Ok(())).unwrap();
        assert!(outcome.cut && outcome.done > 0 && outcome.nanos < 5_000_000_000);
    }
}
