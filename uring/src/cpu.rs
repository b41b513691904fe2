//! CPUs: which may exist, which this process may use, and pinning a thread to one.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Where the kernel lists the CPUs that can ever come online (Documentation/admin-guide/cputopology.rst).
const POSSIBLE_PATH: &str = "/sys/devices/system/cpu/possible";

/// One shard's share of the FUSE queues: the CPU its thread is pinned to and the queues it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The CPU to pin to; one this process is allowed to run on.
    pub cpu: u32,
    /// Queue ids (= CPU numbers) the shard serves; its own CPU's queue comes first.
    pub qids: Vec<u16>,
}

/// Ids of the possible CPUs, ascending. FUSE wants one ready queue for each, online or not.
///
/// # Errors
/// When sysfs is not mounted or its text is not a CPU list.
pub fn possible() -> io::Result<Vec<u32>> {
    let text = std::fs::read_to_string(POSSIBLE_PATH)?;
    parse_list(text.trim()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{POSSIBLE_PATH} holds no CPU list: {text:?}"))
    })
}

/// Ids of the CPUs the calling thread may run on (online, in its cpuset and affinity), ascending.
///
/// # Errors
/// Those of `sched_getaffinity(2)`; EINVAL on machines with more CPUs than a `cpu_set_t` holds (1024).
pub fn allowed() -> io::Result<Vec<u32>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect())
}

/// Pins the calling thread to `cpu`.
///
/// # Errors
/// Those of [`allow`].
pub fn pin(cpu: u32) -> io::Result<()> {
    allow(&[cpu])
}

/// Lets the calling thread run on `cpus` and nowhere else. Threads that it makes from then on begin with the same.
///
/// # Errors
/// EINVAL when one is beyond what a `cpu_set_t` holds, or all are offline or outside the cpuset.
pub fn allow(cpus: &[u32]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        let index = usize::try_from(cpu).map_err(|_| rustix::io::Errno::INVAL)?;
        if index >= CpuSet::MAX_CPU {
            return Err(rustix::io::Errno::INVAL.into());
        }
        set.set(index);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// The CPU the calling thread runs on right now; stale at once unless the thread is pinned.
pub fn current() -> u32 {
    u32::try_from(sched_getcpu()).unwrap_or(u32::MAX)
}

/// Shares the queues of all `possible` CPUs among at most `shards_max` pinned threads on `allowed` CPUs.
///
/// A queue goes to the shard on its own CPU where there is one (no cross-core wake-up), else in turn to the shards.
/// Empty when `allowed` is empty or `shards_max` is 0.
pub fn shares(possible: &[u32], allowed: &[u32], shards_max: usize) -> Vec<Share> {
    let mut shares: Vec<Share> =
        allowed.iter().take(shards_max).map(|&cpu| Share { cpu, qids: Vec::new() }).collect();
    if shares.is_empty() {
        return shares;
    }
    let mut strays = Vec::new();
    for &cpu in possible {
        // FUSE numbers its queues with 16 bits (struct fuse_uring_cmd_req).
        let Ok(qid) = u16::try_from(cpu) else { continue };
        match shares.iter_mut().find(|share| share.cpu == cpu) {
            Some(share) => share.qids.insert(0, qid),
            None => strays.push(qid),
        }
    }
    let count = shares.len();
    for (index, qid) in strays.into_iter().enumerate() {
        shares[index % count].qids.push(qid);
    }
    shares
}

/// Parses the kernel's list format, e.g. `0-3,8,10-11`.
fn parse_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        // Bounds what a broken sysfs could make us allocate.
        if first > last || last > u32::from(u16::MAX) {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parsed_and_nonsense_is_refused() {
        assert_eq!(parse_list("0"), Some(vec![0]));
        assert_eq!(parse_list("0-3,8,10-11"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        for nonsense in ["", "a", "3-1", "0-", "0-4294967295", "1,,2"] {
            assert_eq!(parse_list(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn every_queue_has_one_shard_and_its_own_cpu_first() {
        let possible: Vec<u32> = (0..8).collect();
        let shares = shares(&possible, &[2, 5], 16);
        assert_eq!(shares.len(), 2);
        assert_eq!(shares[0], Share { cpu: 2, qids: vec![2, 0, 3, 6] });
        assert_eq!(shares[1], Share { cpu: 5, qids: vec![5, 1, 4, 7] });
        assert_eq!(super::shares(&possible, &[0, 1], 1), vec![Share { cpu: 0, qids: (0..8).collect() }]);
        assert!(super::shares(&possible, &[], 4).is_empty());
    }

    #[test]
    fn a_pinned_thread_runs_where_it_was_told() {
        std::thread::spawn(|| {
            let cpu = *allowed().unwrap().last().unwrap();
            pin(cpu).unwrap();
            assert_eq!(current(), cpu);
            assert!(possible().unwrap().contains(&cpu));
            assert!(pin(u32::MAX).is_err() && allow(&[]).is_err());
            assert_eq!(allowed().unwrap(), [cpu], "what failed changed nothing");
        })
        .join()
        .unwrap();
    }
}
