//! The figures of a mount, as JSON and as text.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::{data, disk, fuse, link, plain, vfs};

/// Parts of a report: their titles for people, their names.
const PARTS: [(&str, &str); 7] = [
    ("session", "link"),
    ("data", "data"),
    ("disk cache", "disk"),
    ("passthrough", "passthrough"),
    ("requests", "requests"),
    ("kernel", "vfs"),
    ("latency of idle CPUs", "cpuLatency"),
];

/// All there is to say about a mount.
#[derive(Clone, Debug, Serialize)]
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
    /// The disk cache, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<disk::Figures>,
    /// Files that the kernel reads by itself, where that may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passthrough: Option<plain::Figures>,
    /// Requests of the kernel.
    pub requests: fuse::seat::Figures,
    /// Inodes and open files.
    pub vfs: vfs::Figures,
    /// What CPUs that wake quickly are asked for, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_latency: Option<CpuLatency>,
    /// Of the last seconds.
    pub throughput: Throughput,
}

/// How long CPUs may take to wake up while requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuLatency {
    /// Microseconds; 0: they do not sleep.
    pub micros: u32,
    /// Asked for now: requests come.
    pub in_force: bool,
}

/// Rates of the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
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

/// A report for people. It comes as JSON from another process, perhaps of another version: what it has is shown, by its
/// own names.
#[must_use]
pub fn text(report: &Value) -> String {
    let field = |name: &str| report.get(name).map(plain).unwrap_or_default();
    let depth = match field("queueDepth").as_str() {
        "" | "0" => String::new(),
        depth => format!(" (depth {depth})"),
    };
    let access = if report.get("readOnly") == Some(&Value::Bool(true)) { ", read-only" } else { "" };
    let rate =
        |name: &str| report.pointer(&format!("/throughput/{name}")).and_then(Value::as_f64).unwrap_or(0.0);
    let mut lines = vec![
        format!("{} on {}", field("volume"), field("mountPoint")),
        format!("  transport    {}{depth}, {} shards{access}", field("transport"), field("shards")),
        format!("  process      {} ({}), up {} s", field("pid"), field("version"), field("uptimeSecs")),
        format!(
            "  throughput   {} requests/s, read {}/s, written {}/s (last {:.0} s)",
            rate("requestsPerSec"),
            bytes_text(rate("readBytesPerSec")),
            bytes_text(rate("writtenBytesPerSec")),
            rate("seconds"),
        ),
    ];
    for (title, name) in PARTS {
        let fields = report.get(name).and_then(Value::as_object);
        // Only some mounts have a disk cache, fewer pass files through; not all may ask for latencies.
        if matches!(name, "disk" | "passthrough" | "cpuLatency") && fields.is_none() {
            continue;
        }
        lines.push(format!("  {title}"));
        lines.extend(
            fields.into_iter().flatten().map(|(key, value)| format!("    {key:<22} {}", plain(value))),
        );
    }
    lines.join("\n")
}

fn plain(value: &Value) -> String {
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

    #[test]
    fn reports_of_other_versions_are_shown_as_far_as_they_go() {
        let report = serde_json::json!({ "volume": "v", "pid": 7, "link": { "state": "up", "new": [1] } });
        let text = text(&report);
        assert!(
            text.starts_with("v on ") && text.contains("process      7") && text.contains("[1]"),
            "{text}"
        );
        assert!(!super::text(&Value::Null).is_empty());
    }
}
