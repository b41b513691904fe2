//! Figures of the disk cache, for `mount.flexfs status`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// What was counted since the mount began, and what is held now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Where it is.
    pub folder: PathBuf,
    /// `scanning` what an earlier mount left, `on`, `full` (its file system has less to spare than the quota), or `off`
    /// (its disk failed; the log says how).
    pub state: &'static str,
    /// Most bytes of that file system that it takes.
    pub quota_bytes: u64,
    /// Bytes that it takes now.
    pub held_bytes: u64,
    /// Blocks of which something is held.
    pub blocks: u64,
    /// Segments that were read from it.
    pub hits: u64,
    /// Segments that were not there, and came from the server.
    pub misses: u64,
    /// Segments that were added.
    pub added: u64,
    /// Segments that were not added: its disk was too slow or too full.
    pub left_out: u64,
    /// Blocks that were evicted for others.
    pub evicted: u64,
    /// Segments that were damaged, cut short or of another place, and came from the server instead.
    pub damaged: u64,
    /// Reads that its disk did not answer in time, or failed.
    pub failed_reads: u64,
}

/// One count.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// So many more.
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The sum.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: Count,
    pub(super) misses: Count,
    pub(super) added: Count,
    pub(super) left_out: Count,
    pub(super) evicted: Count,
    pub(super) damaged: Count,
    pub(super) failed_reads: Count,
}
