//! How much memory this process may count on.

use std::path::Path;

/// Memory of the machine when nothing tells: small, so that nothing breaks.
const MEMORY_BYTES_UNKNOWN: u64 = 1 << 30;

/// Bytes of memory the machine has, or the control group of this process allows, whichever is less.
pub(crate) fn available_bytes() -> u64 {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text));
    let group = std::fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| group_limit(&text, Path::new("/sys/fs/cgroup")));
    total.unwrap_or(MEMORY_BYTES_UNKNOWN).min(group.unwrap_or(u64::MAX))
}

/// `MemTotal` of `proc_meminfo(5)`.
fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
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
    fn the_least_limit_counts() {
        assert_eq!(meminfo("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16_384));
        assert_eq!(meminfo("nothing"), None);
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
