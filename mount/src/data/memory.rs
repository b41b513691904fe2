//! How much memory this process may count on, and what it has without need.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory of the machine when nothing tells: small, so that nothing breaks.
const MEMORY_BYTES_UNKNOWN: u64 = 1 << 30;

/// Memory that was freed and is still this process's, from which on it is given back to the system: that takes the allocator's locks for a moment.
const SLACK_BYTES_MAX: u64 = 8 << 20;

/// Freed memory that the allocator keeps. It keeps what lies between things that are in use: after an untar of 10,000 files half of what the process has.
#[derive(Debug, Default)]
pub(super) struct Slack {
    /// What could not be given back the last time, stacks and rings among it.
    least: AtomicU64,
}

impl Slack {
    /// Gives back what has come together since the last time, if it is much.
    pub(super) fn give_back(&self) {
        let slack = || Some(anonymous_bytes()?.saturating_sub(flexfs_uring::memory::in_use()?));
        let is_much = |slack| slack >= self.least.load(Ordering::Relaxed) + SLACK_BYTES_MAX;
        if slack().is_some_and(is_much) {
            flexfs_uring::memory::give_back();
            self.least.store(slack().unwrap_or(0), Ordering::Relaxed);
        }
    }
}

/// Bytes of this process that are resident and of no file.
fn anonymous_bytes() -> Option<u64> {
    std::fs::read_to_string("/proc/self/status").ok().and_then(|text| kilobytes(&text, "RssAnon:"))
}

/// Bytes of memory the machine has, or the control group of this process allows, whichever is less.
pub(crate) fn available_bytes() -> u64 {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| kilobytes(&text, "MemTotal:"));
    let group = std::fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| group_limit(&text, Path::new("/sys/fs/cgroup")));
    total.unwrap_or(MEMORY_BYTES_UNKNOWN).min(group.unwrap_or(u64::MAX))
}

/// Bytes that a line of `proc_meminfo(5)` or `proc_pid_status(5)` tells.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit on the way from the process's group up to the root (`cgroups(7)`): `memory.max` of version 2,
/// `memory.limit_in_bytes` of version 1.
fn group_limit(cgroups: &str, root: &Path) -> Option<u64> {
    cgroups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let path = path.trim_start_matches('/');
            match controllers {
                "" => least(root, path, "memory.max"),
                "memory" => least(&root.join("memory"), path, "memory.limit_in_bytes"),
                _ => None,
            }
        })
        .min()
}

fn least(root: &Path, path: &str, file: &str) -> Option<u64> {
    let group = root.join(path);
    group
        .ancestors()
        .take_while(|dir| dir.starts_with(root))
        .filter_map(|dir| std::fs::read_to_string(dir.join(file)).ok())
        // "max" is no number: no limit.
        .filter_map(|text| text.trim().parse::<u64>().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_memory_is_given_back() {
        assert_eq!(
            kilobytes("VmRSS:\t  1200 kB\nRssAnon:\t   800 kB\nRssFile:\t   400 kB\n", "RssAnon:"),
            Some(200 * 4096)
        );
        assert_eq!(kilobytes("VmRSS:\t  1200 kB\n", "RssAnon:"), None);
        let anonymous = || anonymous_bytes().unwrap();
        let slack = Slack::default();
        slack.give_back();
        // Small pieces come from an arena, and one of a thousand stays: the allocator gives back nothing by itself.
        let mut pieces: Vec<_> = (0..64_000).map(|_| Some(vec![1u8; 1000])).collect();
        let full = anonymous();
        pieces.iter_mut().enumerate().filter(|(at, _)| at % 1000 > 0).for_each(|(_, piece)| *piece = None);
        slack.give_back();
        assert!(anonymous() + (32 << 20) < full, "{} of {full} are left", anonymous());
        drop(pieces);
    }

    #[test]
    fn the_least_limit_counts() {
        assert_eq!(kilobytes("MemTotal:       16 kB\nMemFree: 1 kB\n", "MemTotal:"), Some(16_384));
        assert_eq!(kilobytes("nothing", "MemTotal:"), None);
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("a/b");
        std::fs::create_dir_all(&group).unwrap();
        std::fs::write(root.path().join("a/memory.max"), "5000\n").unwrap();
        std::fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(group_limit("0::/a/b\n", root.path()), Some(5000));
        std::fs::write(group.join("memory.max"), "4000\n").unwrap();
        assert_eq!(group_limit("1:cpu:/x\n0::/a/b\n", root.path()), Some(4000));
        assert_eq!(group_limit("0::/other\n", root.path()), None);
        let old = root.path().join("memory/g");
        std::fs::create_dir_all(&old).unwrap();
        std::fs::write(old.join("memory.limit_in_bytes"), "300\n").unwrap();
        assert_eq!(group_limit("4:memory:/g\n", root.path()), Some(300));
        assert!(available_bytes() > 0);
    }
}
