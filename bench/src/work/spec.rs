//! What a worker is told, and what it tells.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Create,
    Stat,
    Statx,
    List,
    ListLong,
    Open,
    Chmod,
    Rename,
    Unlink,
    Mkdir,
    Rmdir,
    SmallWrite,
    SmallRead,
    SequentialWrite,
    SequentialRead,
    RandomRead,
    RandomWrite,
    Append,
    Untar,
    Clone,
    Build,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    /// Operations per second.
    #[serde(rename = "ops/s")]
    OpsPerSecond,
    /// Mebibytes per second.
    #[serde(rename = "MiB/s")]
    MibPerSecond,
    /// Seconds for the whole; less is better.
    #[serde(rename = "s")]
    Seconds,
}

impl Unit {
    /// As shown.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::OpsPerSecond => "/s",
            Self::MibPerSecond => "MiB/s",
            Self::Seconds => "s",
        }
    }

    /// How many times better `value` is than `base`.
    pub(crate) fn ratio(self, value: f64, base: f64) -> Option<f64> {
        let (over, under) = if self == Self::Seconds { (base, value) } else { (value, base) };
        (under > 0.0).then(|| over / under)
    }
}

impl Kind {
    /// What the figure counts.
    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::SequentialWrite | Self::SequentialRead => Unit::MibPerSecond,
            Self::Untar | Self::Clone | Self::Build => Unit::Seconds,
            _ => Unit::OpsPerSecond,
        }
    }

    /// Work that only a file system with a memory can do.
    pub(crate) fn needs_storage(self) -> bool {
        self.unit() == Unit::Seconds
    }

    /// All workers share one folder (and one file) instead of having one each.
    pub(crate) fn is_shared(self) -> bool {
        matches!(
            self,
            Self::SequentialWrite
                | Self::SequentialRead
                | Self::RandomRead
                | Self::RandomWrite
                | Self::Append
        ) || self.needs_storage()
    }
}

/// The order to one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// What to do.
    pub(crate) kind: Kind,
    /// Where: the worker's own folder, or the one all share.
    pub(crate) folder: PathBuf,
    /// Number of the worker, from 0.
    pub(crate) index: u64,
    /// How often: files, entries, pages or mebibytes.
    pub(crate) count: u64,
    /// Pages of the file, for random work.
    pub(crate) pages: u64,
    /// No further operation is begun after this time; the figure is then of those that were.
    pub(crate) soft_millis: u64,
    /// Does everything once, unmeasured, before.
    pub(crate) warm: bool,
    /// The file system throws data away and gives the pattern of seed 0 for any read.
    pub(crate) discards: bool,
    /// Folder with what projects are made of.
    pub(crate) sources: PathBuf,
}

/// What one worker did, or all of a crew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Operations.
    pub(crate) done: u64,
    /// Bytes moved.
    pub(crate) bytes: u64,
    /// Time of it; of the slowest worker in a crew.
    pub(crate) nanos: u64,
    /// The soft limit ended it.
    pub(crate) cut: bool,
    /// Latencies of the operations as buckets of `stats::Histogram`.
    pub(crate) latencies: Vec<(usize, u64)>,
}

impl Outcome {
    /// The figure; none when nothing was done.
    pub(crate) fn value(&self, unit: Unit) -> Option<f64> {
        let seconds = self.nanos as f64 / 1e9;
        let rate = |count: f64| (seconds > 0.0 && count > 0.0).then(|| count / seconds);
        match unit {
            Unit::OpsPerSecond => rate(self.done as f64),
            Unit::MibPerSecond => rate(self.bytes as f64 / (1 << 20) as f64),
            Unit::Seconds => (seconds > 0.0).then_some(seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_ratios() {
        let outcome = Outcome { done: 10, bytes: 4 << 20, nanos: 2_000_000_000, ..Outcome::default() };
        assert_eq!(outcome.value(Unit::OpsPerSecond), Some(5.0));
        assert_eq!(outcome.value(Unit::MibPerSecond), Some(2.0));
        assert_eq!(outcome.value(Unit::Seconds), Some(2.0));
        assert_eq!(Outcome::default().value(Unit::Seconds), None);
        assert_eq!(Unit::OpsPerSecond.ratio(6.0, 2.0), Some(3.0));
        assert_eq!(Unit::Seconds.ratio(6.0, 2.0), Some(2.0 / 6.0));
        assert_eq!(Unit::OpsPerSecond.ratio(6.0, 0.0), None);
    }

    #[test]
    fn orders_survive_the_way_to_a_worker() {
        let spec = Spec {
            kind: Kind::SmallWrite,
            folder: "/a b".into(),
            index: 3,
            count: 4,
            pages: 5,
            soft_millis: 6,
            warm: true,
            discards: false,
            sources: "/s".into(),
        };
        let text = serde_json::to_string(&spec).unwrap();
        assert!(text.contains("\"small-write\""), "{text}");
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
    }
}
