//! Figures of the file data, for `mount.flexfs status`.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// What was counted since the mount began, and what is held now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Bytes given to readers.
    pub bytes_read: u64,
    /// Bytes taken from writers.
    pub bytes_written: u64,
    /// Bytes of memory that hold data not yet at the server.
    pub dirty_bytes: u64,
    /// Bytes of memory in the caches of segments and layouts.
    pub cache_bytes: u64,
    /// Most bytes of memory that all of it may take.
    pub cache_limit: u64,
    /// Segments found in the cache.
    pub hits: u64,
    /// Segments not found there.
    pub misses: u64,
    /// Reads and writebacks that failed.
    pub errors: u64,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    read: AtomicU64,
    written: AtomicU64,
    errors: AtomicU64,
}

impl Counters {
    /// A reader got bytes.
    pub(crate) fn count_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A writer gave bytes.
    pub(crate) fn count_written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Something failed.
    pub(crate) fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters' part of the figures.
    pub(crate) fn figures(&self) -> Figures {
        Figures {
            bytes_read: self.read.load(Ordering::Relaxed),
            bytes_written: self.written.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            ..Figures::default()
        }
    }
}
