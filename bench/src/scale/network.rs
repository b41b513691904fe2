//! Hosts of clients: network namespaces, each at the end of a cable of its own, and the address they find the servers at.
//!
//! Addresses are from 198.18.0.0/15, set aside for such tests (RFC 2544), four for each cable. Only the network is another
//! one: mounts made on a host are seen by all.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::cluster::run;

/// First address of the range: the servers'.
const RANGE: u32 = 198 << 24 | 19 << 16;
/// Names of namespaces and cables begin with it; a run removes what one that was killed has left.
const PREFIX: &str = "fxscale";
/// Time for the commands of one host.
const LIMIT: Duration = Duration::from_secs(60);

/// The hosts of a run; they go with it.
#[derive(Debug)]
pub(super) struct Network {
    folder: PathBuf,
    hosts: u32,
}

impl Network {
    /// No host yet. `folder` is for what the commands print.
    ///
    /// # Errors
    /// `ip` fails.
    pub(super) fn new(folder: PathBuf) -> anyhow::Result<Self> {
        let network = Self { folder, hosts: 0 };
        network.clear();
        network.shell(&format!("ip addr add {}/32 dev lo", Self::servers()))?;
        Ok(network)
    }

    /// Where hosts find the servers.
    pub(super) fn servers() -> Ipv4Addr {
        Ipv4Addr::from(RANGE)
    }

    /// One more host: the words before a command that run it there.
    ///
    /// # Errors
    /// `ip` fails.
    pub(super) fn host(&mut self) -> anyhow::Result<[String; 2]> {
        self.hosts += 1;
        let base = RANGE + self.hosts * 4;
        let [ours, theirs] = [1, 2].map(|end| Ipv4Addr::from(base + end));
        let name = format!("{PREFIX}{}", self.hosts);
        self.shell(&format!(
            "ip netns add {name}
             ip link add {name} type veth peer name eth0 netns {name}
             ip addr add {ours}/30 dev {name}
             ip link set {name} up
             ip -n {name} link set lo up
             ip -n {name} addr add {theirs}/30 dev eth0
             ip -n {name} link set eth0 up
             ip -n {name} route add default via {ours}"
        ))?;
        Ok(["nsenter".to_owned(), format!("--net=/run/netns/{name}")])
    }

    fn shell(&self, script: &str) -> anyhow::Result<()> {
        run(Command::new("sh").args(["-e", "-c", script]), &self.folder, LIMIT).map(drop)
    }

    /// A namespace that goes takes its cable along.
    fn clear(&self) {
        let script = format!(
            "for name in $(ip netns list | cut -d' ' -f1 | grep '^{PREFIX}[0-9]' || true); do ip netns del $name; done
             ip addr del {}/32 dev lo 2>/dev/null || true",
            Self::servers()
        );
        if let Err(error) = self.shell(&script) {
            eprintln!("scale: network namespaces {PREFIX}* are left behind: {error:#}");
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.clear();
    }
}
