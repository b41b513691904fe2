//! The figures of a mount, as JSON and as text.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{data, fuse, link, vfs};

/// All there is to say about a mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Volume.
    pub volume: String,
    /// Mount point.
    pub mount_point: PathBuf,
    /// Process.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// Transport in use: `uring` or `dev`.
    pub transport: String,
    /// Entries per FUSE queue; 0 for `dev`.
    pub queue_depth: u16,
    /// Threads that serve, one per core.
    pub shards: usize,
    /// Seconds since it was mounted.
    pub uptime_secs: u64,
    /// Read-only.
    pub read_only: bool,
    /// Session and links.
    pub link: link::Figures,
    /// Cached and unwritten data.
    pub data: data::Figures,
    /// Requests of the kernel.
    pub requests: fuse::seat::Figures,
    /// Inodes and open files.
    pub vfs: vfs::Figures,
    /// Of the last seconds.
    pub throughput: Throughput,
}

/// Rates of the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Throughput {
    /// Span they are taken over, seconds.
    pub seconds: f64,
    /// Requests per second.
    pub requests_per_sec: f64,
    /// Bytes per second given to readers.
    pub read_bytes_per_sec: f64,
    /// Bytes per second taken from writers.
    pub written_bytes_per_sec: f64,
}

impl Throughput {
    /// Between two looks.
    #[must_use]
    pub fn between(earlier: &fuse::seat::Figures, later: &fuse::seat::Figures, seconds: f64) -> Self {
        if seconds <= 0.0 {
            return Self::default();
        }
        let rate = |earlier: u64, later: u64| per_second(later.saturating_sub(earlier), seconds);
        Self {
            seconds,
            requests_per_sec: rate(earlier.requests, later.requests),
            read_bytes_per_sec: rate(earlier.bytes_read, later.bytes_read),
            written_bytes_per_sec: rate(earlier.bytes_written, later.bytes_written),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people; 52 bits are plenty")]
fn per_second(count: u64, seconds: f64) -> f64 {
    (count as f64 / seconds * 10.0).round() / 10.0
}

impl Report {
    /// For people. Parts that other modules bring are shown by their own names.
    ///
    /// # Errors
    /// When a part cannot be shown as JSON, which all can.
    pub fn text(&self) -> serde_json::Result<String> {
        let mut lines = vec![
            format!("{} on {}", self.volume, self.mount_point.display()),
            format!(
                "  transport    {}{}, {} shards{}",
                self.transport,
                if self.queue_depth > 0 { format!(" (depth {})", self.queue_depth) } else { String::new() },
                self.shards,
                if self.read_only { ", read-only" } else { "" },
            ),
            format!("  process      {} ({}), up {} s", self.pid, self.version, self.uptime_secs),
        ];
        let rates = &self.throughput;
        lines.push(format!(
            "  throughput   {} requests/s, read {}/s, written {}/s (last {:.0} s)",
            rates.requests_per_sec,
            bytes_text(rates.read_bytes_per_sec),
            bytes_text(rates.written_bytes_per_sec),
            rates.seconds,
        ));
        for (title, part) in [
            ("session", serde_json::to_value(&self.link)?),
            ("data", serde_json::to_value(&self.data)?),
            ("requests", serde_json::to_value(self.requests)?),
            ("kernel", serde_json::to_value(&self.vfs)?),
        ] {
            lines.push(format!("  {title}"));
            let fields = part.as_object().into_iter().flatten();
            lines.extend(fields.map(|(key, value)| format!("    {key:<22} {}", plain(value))));
        }
        Ok(lines.join("\n"))
    }
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn bytes_text(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let earlier = fuse::seat::Figures { requests: 100, bytes_read: 0, ..Default::default() };
        let later = fuse::seat::Figures { requests: 200, bytes_read: 4096, ..Default::default() };
        let rates = Throughput::between(&earlier, &later, 2.0);
        assert_eq!((rates.requests_per_sec, rates.read_bytes_per_sec), (50.0, 2048.0));
        assert_eq!(Throughput::between(&later, &earlier, 0.0), Throughput::default());
        assert_eq!(bytes_text(3.0 * 1024.0 * 1024.0), "3.0 MiB");
    }
}
