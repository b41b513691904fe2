//! Which core gets a connection: the one on the CPU that its packets arrive on, unless it has far more than others.

/// A core may have so many times as many connections as the least loaded, and so many more.
const SKEW_FACTOR: usize = 2;
const SKEW_SLACK: usize = 4;

/// Index of the core for the next connection; `None` without cores. `loads`: connections of each. `near`: the core on the CPU
/// that the connection's packets arrive on. All may arrive on one CPU (a network card with one queue), and are spread then.
pub(super) fn choose(loads: impl Iterator<Item = usize> + Clone, near: Option<usize>) -> Option<usize> {
    let (least, load) = loads.clone().enumerate().min_by_key(|(_, load)| *load)?;
    let bound = load.saturating_mul(SKEW_FACTOR).saturating_add(SKEW_SLACK);
    let near = near.filter(|near| loads.clone().nth(*near).is_some_and(|load| load <= bound));
    Some(near.unwrap_or(least))
}

/// The CPU of each core. None has one unless there is a core for each CPU of the process: fewer cores are a bound the operator has
/// set, and several servers that are bound like this would all sit on the first CPUs; more would share CPUs that others leave idle.
pub(crate) fn homes(allowed: &[u32], cores: usize) -> Vec<Option<u32>> {
    match allowed.len() == cores {
        true => allowed.iter().map(|cpu| Some(*cpu)).collect(),
        false => vec![None; cores],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front;
    use flexfs_uring::cpu;
    use std::net::TcpStream;

    fn chosen(loads: &[usize], near: Option<usize>) -> Option<usize> {
        choose(loads.iter().copied(), near)
    }

    #[test]
    fn near_unless_it_has_far_more() {
        assert_eq!(chosen(&[3, 0], Some(0)), Some(0));
        assert_eq!(chosen(&[4, 0], Some(0)), Some(0));
        assert_eq!(chosen(&[5, 0], Some(0)), Some(1));
        assert_eq!(chosen(&[104, 50, 60], Some(0)), Some(0));
        assert_eq!(chosen(&[105, 50, 60], Some(0)), Some(1));
        assert_eq!(chosen(&[2, 1, 1], None), Some(1));
        assert_eq!(chosen(&[2, 1, 1], Some(7)), Some(1), "no core is there");
        assert_eq!(chosen(&[], Some(0)), None);
    }

    /// One queue for all packets: its core gets no more than twice what the others have, and a few.
    #[test]
    fn what_arrives_on_one_cpu_is_spread() {
        let mut loads = [0; 4];
        for _ in 0..400 {
            loads[chosen(&loads, Some(2)).unwrap()] += 1;
        }
        assert_eq!(loads.iter().sum::<usize>(), 400);
        assert!(loads[2] <= 2 * loads[0] + SKEW_SLACK + 1 && loads[0] >= 75, "{loads:?}");
    }

    #[test]
    fn homes_are_of_the_process() {
        assert_eq!(homes(&[2, 5], 2), [Some(2), Some(5)]);
        assert_eq!(homes(&[2, 5], 1), [None]);
        assert_eq!(homes(&[2], 2), [None, None]);
    }

    /// Clients on their CPUs, as the shards of a mount are: each meets the core of its own CPU.
    #[test]
    fn pinned_clients_land_as_told() {
        let all = cpu::allowed().unwrap();
        let listener = front::listen("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let addr = listener.local_addr().unwrap();
        let homes = homes(&all, all.len());
        for (index, &home) in all.iter().enumerate() {
            let client = std::thread::spawn(move || {
                cpu::pin(home).unwrap();
                TcpStream::connect(addr).unwrap()
            });
            let (served, _) = listener.accept().unwrap();
            let client = client.join().unwrap();
            let arrived = front::incoming_cpu(&served).expect("Linux tells");
            assert_eq!(arrived, home);
            let near = homes.iter().position(|cpu| *cpu == Some(arrived));
            assert_eq!(choose(all.iter().map(|_| 1), near), Some(index));
            drop(client);
        }
    }
}
