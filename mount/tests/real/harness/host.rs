//! Hosts of a test: network namespaces, each at the end of a cable that can be pulled.
//!
//! A namespace lives as long as a shell in it, and that as long as the pipe to it: nothing stays behind a test that is killed.
//! Addresses are from 198.18.0.0/15, set aside for such tests (RFC 2544), four for each cable. Only the network is another
//! one: mounts made on a host are seen by all.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::clock::soon;
use super::command::{Run, Running};

/// First address of the range.
const RANGE: u32 = 198 << 24 | 18 << 16;
/// Cables that fit into it, for all tests that run at once.
const CABLES: u32 = 1 << 15;
/// Cables of one test.
const CABLES_PER_TEST: u32 = 8;

/// What the servers' side of the cables has in common: an address that does not go when a cable is pulled.
pub(crate) struct Network {
    servers: Host,
    used: AtomicU32,
}

/// A host of clients.
pub(crate) struct Host {
    holder: Running,
    /// Name of our end of its cable.
    cable: String,
    /// Address of our end; the host's is the next one.
    address: Ipv4Addr,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self { servers: Host::new(0, None), used: AtomicU32::new(1) }
    }

    /// Where hosts find the servers.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.servers.address
    }

    /// One more host.
    pub(crate) fn host(&self) -> Host {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        assert!(number < CABLES_PER_TEST, "too many hosts");
        Host::new(number, Some(&self.servers.cable))
    }
}

impl Host {
    /// What is sent to it while its cable is pulled goes to `nowhere`, and not to the world outside.
    fn new(number: u32, nowhere: Option<&str>) -> Self {
        let test = std::process::id() % (CABLES / CABLES_PER_TEST);
        let base = RANGE + (test * CABLES_PER_TEST + number) * 4;
        let [address, theirs] = [1, 2].map(|end| Ipv4Addr::from(base + end));
        let cable = format!("fx{test}-{number}");
        let holder = Run::new("unshare").args(["--net", "bash", "-c", "read"]).spawn_piped();
        let pid = holder.child.id();
        let inside = |pid: &str| fs::read_link(Path::new("/proc").join(pid).join("ns/net")).ok();
        let own = inside("self");
        let moved = || inside(&pid.to_string()).is_some_and(|there| Some(there) != own);
        assert!(soon(Duration::from_secs(5), moved), "no network namespace");
        let script = format!(
            "ip link add {cable} type veth peer name eth0 netns {pid}
             ip addr add {address}/30 dev {cable}
             ip link set {cable} up"
        );
        Run::shell(&script, &[]).ok();
        if let Some(nowhere) = nowhere {
            let addresses = format!("{}/30", Ipv4Addr::from(base));
            Run::new("ip").args(["route", "add", &addresses, "dev", nowhere, "metric", "4000"]).ok();
        }
        let host = Self { holder, cable, address };
        let script = format!(
            "ip link set lo up
             ip addr add {theirs}/30 dev eth0
             ip link set eth0 up
             ip route add default via {address}"
        );
        Run::shell(&script, &[]).behind(&host.enter()).ok();
        host
    }

    /// The words before a command that run it on this host.
    pub(crate) fn enter(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.holder.child.id())]
    }

    /// Pulls the cable: what is sent is lost, and nobody is told.
    pub(crate) fn cut(&self) {
        self.set("down");
    }

    /// Plugs it in again.
    pub(crate) fn heal(&self) {
        self.set("up");
    }

    fn set(&self, state: &str) {
        Run::new("ip").args(["link", "set", &self.cable, state]).ok();
    }
}
