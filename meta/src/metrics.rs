//! Figures for Prometheus. Each core and each volume holds its own counters: no line is shared on the request path.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flexfs_wire::id::Commit;
use flexfs_wire::message::Request;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::clock;
use crate::limit::Limit;
use crate::namespace::Figures;

/// Latency buckets, seconds: a request that stays in memory takes some 20 us, a synced one milliseconds.
const BUCKETS: [f64; 12] =
    [0.000_02, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0];
/// Samples are folded into buckets this often; until then each takes 8 bytes.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// Gauges of a volume are set this often.
const VOLUME_EVERY: Duration = Duration::from_millis(500);
/// A scraper gets this long for its request and to take the answer.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// Names of the kinds of requests; a kind's number is its place here.
const KINDS: [&str; 39] = [
    "lookup",
    "getattr",
    "readlink",
    "readdir",
    "getxattr",
    "listxattr",
    "statfs",
    "readlayout",
    "readblock",
    "testlock",
    "heartbeat",
    "grantinodes",
    "grantblocks",
    "sync",
    "putblock",
    "cancelwait",
    "leave",
    "open",
    "close",
    "make",
    "link",
    "remove",
    "rename",
    "setattr",
    "setxattr",
    "removexattr",
    "write",
    "fallocate",
    "copyrange",
    "lock",
    "unlock",
    "acquire",
    "recalled",
    "giveback",
    "dropleases",
    "recovery",
    "lookuptoopen",
    "readahead",
    "readpages",
];
/// Number of the end of a replay, which is no `Request`.
pub(crate) const KIND_RECOVERY: u8 = 35;

/// Number of a request's kind.
pub(crate) fn kind_of(request: &Request) -> u8 {
    match request {
        Request::Lookup { .. } => 0,
        Request::GetAttr { .. } => 1,
        Request::ReadLink { .. } => 2,
        Request::ReadDir { .. } => 3,
        Request::GetXattr { .. } => 4,
        Request::ListXattr { .. } => 5,
        Request::StatFs => 6,
        Request::ReadLayout { .. } => 7,
        Request::ReadBlock { .. } => 8,
        Request::TestLock { .. } => 9,
        Request::Heartbeat => 10,
        Request::GrantInodes { .. } => 11,
        Request::GrantBlocks { .. } => 12,
        Request::Sync { .. } => 13,
        Request::PutBlock { .. } => 14,
        Request::CancelWait { .. } => 15,
        Request::Leave => 16,
        Request::Open { .. } => 17,
        Request::Close { .. } => 18,
        Request::Make { .. } => 19,
        Request::Link { .. } => 20,
        Request::Remove { .. } => 21,
        Request::Rename { .. } => 22,
        Request::SetAttr { .. } => 23,
        Request::SetXattr { .. } => 24,
        Request::RemoveXattr { .. } => 25,
        Request::Write { .. } => 26,
        Request::Fallocate { .. } => 27,
        Request::CopyRange { .. } => 28,
        Request::Lock { .. } => 29,
        Request::Unlock { .. } => 30,
        Request::Acquire { .. } => 31,
        Request::Recalled { .. } => 32,
        Request::GiveBack { .. } => 33,
        Request::DropLeases { .. } => 34,
        Request::LookupToOpen { .. } => 36,
        Request::ReadAhead { .. } => 37,
        Request::ReadPages { .. } => 38,
    }
}

/// One core's figures.
pub(crate) struct CoreMetrics {
    pub(crate) links: Gauge,
    pub(crate) handshakes: Counter,
    pub(crate) notices: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) block_bytes_in: Counter,
    pub(crate) block_bytes_out: Counter,
    delayed_ops: Counter,
    delayed_bytes: Counter,
    core: String,
    errors: Counter,
    requests: Vec<(Counter, Histogram)>,
}

impl std::fmt::Debug for CoreMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoreMetrics").field("core", &self.core).finish_non_exhaustive()
    }
}

impl CoreMetrics {
    /// Figures of a core; all zero.
    pub(crate) fn new(index: u32) -> Self {
        let core = index.to_string();
        let counter = |name: &'static str| counter!(name, "core" => core.clone());
        let delayed = |limit: &'static str| counter!("flexfs_meta_requests_delayed", "core" => core.clone(), "limit" => limit);
        let requests = KINDS.iter().map(|&kind| {
            (
                counter!("flexfs_meta_requests", "core" => core.clone(), "kind" => kind),
                histogram!("flexfs_meta_request_seconds", "core" => core.clone(), "kind" => kind),
            )
        });
        Self {
            links: gauge!("flexfs_meta_links", "core" => core.clone()),
            handshakes: counter("flexfs_meta_handshakes"),
            notices: counter("flexfs_meta_notices"),
            bytes_in: counter("flexfs_meta_bytes_in"),
            bytes_out: counter("flexfs_meta_bytes_out"),
            block_bytes_in: counter("flexfs_meta_block_bytes_in"),
            block_bytes_out: counter("flexfs_meta_block_bytes_out"),
            delayed_ops: delayed("ops"),
            delayed_bytes: delayed("bytes"),
            errors: counter("flexfs_meta_errors"),
            requests: requests.collect(),
            core,
        }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, kind: u8, started: Instant, failed: bool) {
        if failed {
            self.errors.increment(1);
        }
        if let Some((count, latency)) = self.requests.get(usize::from(kind)) {
            count.increment(1);
            latency.record(clock::now().saturating_duration_since(started).as_secs_f64());
        }
    }

    /// A request waits for its turn, as a limit of its token has it.
    pub(crate) fn delayed(&self, limit: Limit) {
        match limit {
            Limit::Ops => self.delayed_ops.increment(1),
            Limit::Bytes => self.delayed_bytes.increment(1),
        }
    }

    /// A handshake came to nothing.
    pub(crate) fn failed(&self, reason: &'static str) {
        counter!("flexfs_meta_handshake_failures", "core" => self.core.clone(), "reason" => reason)
            .increment(1);
    }
}

/// One volume's figures.
pub(crate) struct VolumeMetrics {
    sessions: Gauge,
    recovering: Gauge,
    commit: Gauge,
    durable_lag: Gauge,
    inodes: Gauge,
    bytes: Gauge,
    orphans: Gauge,
    idle_bytes: Gauge,
    opens: Gauge,
    locks: Gauge,
    lock_waits: Gauge,
    leases: Gauge,
    lease_waits: Gauge,
    dedup: Gauge,
    disk_free: Gauge,
    disk_reserve: Gauge,
    disk_full: Gauge,
    by_cores: Counter,
    by_thread: Counter,
    updated: std::cell::Cell<Option<Instant>>,
}

impl VolumeMetrics {
    /// Figures of a volume.
    pub(crate) fn new(id: &str) -> Self {
        let gauge = |name: &'static str| gauge!(name, "volume" => id.to_owned());
        Self {
            sessions: gauge("flexfs_meta_sessions"),
            recovering: gauge("flexfs_meta_recovering"),
            commit: gauge("flexfs_meta_commit"),
            durable_lag: gauge("flexfs_meta_durable_lag_commits"),
            inodes: gauge("flexfs_meta_inodes"),
            bytes: gauge("flexfs_meta_file_bytes"),
            orphans: gauge("flexfs_meta_orphans"),
            idle_bytes: gauge("flexfs_meta_idle_bytes"),
            opens: gauge("flexfs_meta_opens"),
            locks: gauge("flexfs_meta_locks"),
            lock_waits: gauge("flexfs_meta_lock_waits"),
            leases: gauge("flexfs_meta_leases"),
            lease_waits: gauge("flexfs_meta_lease_waits"),
            dedup: gauge("flexfs_meta_dedup_answers"),
            disk_free: gauge!("flexfs_meta_disk_free_bytes"),
            disk_reserve: gauge!("flexfs_meta_disk_reserve_bytes"),
            disk_full: gauge!("flexfs_meta_disk_full"),
            by_cores: counter!("flexfs_meta_messages", "volume" => id.to_owned(), "by" => "core"),
            by_thread: counter!("flexfs_meta_messages", "volume" => id.to_owned(), "by" => "thread"),
            updated: None.into(),
        }
    }

    /// Whether the gauges are to be set again: not more than twice a second.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let due = self.updated.get().is_none_or(|at| now.saturating_duration_since(at) >= VOLUME_EVERY);
        if due {
            self.updated.set(Some(now));
        }
        due
    }

    /// Sets the gauges. `lag`: commits that are not durable yet.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is exact enough for people")]
    pub(crate) fn update(&self, figures: &Figures, recovering: bool, last: Commit, lag: u64) {
        self.sessions.set(figures.sessions as f64);
        self.recovering.set(if recovering { 1.0 } else { 0.0 });
        self.commit.set(last.0 as f64);
        self.durable_lag.set(lag as f64);
        self.inodes.set(figures.inodes as f64);
        self.bytes.set(figures.bytes as f64);
        self.orphans.set(figures.orphans as f64);
        self.idle_bytes.set(figures.idle_bytes as f64);
        self.opens.set(figures.opens as f64);
        self.locks.set(figures.locks as f64);
        self.lock_waits.set(figures.lock_waits as f64);
        self.dedup.set(figures.dedup as f64);
    }

    /// Sets the gauges of leases: those granted, and calls that wait for others to give some back.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is exact enough for people")]
    pub(crate) fn update_leases(&self, granted: usize, waits: usize) {
        self.leases.set(granted as f64);
        self.lease_waits.set(waits as f64);
    }

    /// Sets the counters of messages to the volume: those that cores worked on themselves, and those of the volume's thread.
    pub(crate) fn update_worked(&self, by_cores: u64, by_thread: u64) {
        self.by_cores.absolute(by_cores);
        self.by_thread.absolute(by_thread);
    }

    /// Sets the gauges of the disk, which all volumes share. `full`: writes are refused.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is exact enough for people")]
    pub(crate) fn update_disk(&self, free_bytes: u64, reserve_bytes: u64, full: bool) {
        self.disk_free.set(free_bytes as f64);
        self.disk_reserve.set(reserve_bytes as f64);
        self.disk_full.set(if full { 1.0 } else { 0.0 });
    }
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetricsError {
    /// The address cannot be used.
    #[error("metrics on {addr}: {error}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Its threads cannot be started.
    #[error("metrics: {0}")]
    Thread(io::Error),
    /// The recorder cannot be set up.
    #[error("metrics: {0}")]
    Recorder(#[from] BuildError),
    /// Another recorder is in place.
    #[error("metrics were set up twice")]
    Twice,
}

/// Takes the port of `/metrics` and `/healthz`.
///
/// # Errors
/// [`MetricsError::Bind`].
pub(crate) fn listen(addr: SocketAddr) -> Result<TcpListener, MetricsError> {
    TcpListener::bind(addr).map_err(|error| MetricsError::Bind { addr, error })
}

/// Installs the recorder and serves `/metrics` and `/healthz`, as long as the process lives. Healthy is a server once `ready`
/// is set.
///
/// # Errors
/// [`MetricsError`].
pub(crate) fn serve(listener: TcpListener, ready: Arc<AtomicBool>) -> Result<SocketAddr, MetricsError> {
    let local = listener.local_addr().map_err(MetricsError::Thread)?;
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("flexfs_meta_request_seconds".to_owned()), &BUCKETS)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Twice)?;
    let upkeep = handle.clone();
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(MetricsError::Thread)
    };
    spawn(
        "upkeep",
        Box::new(move || {
            loop {
                std::thread::sleep(UPKEEP_EVERY);
                upkeep.run_upkeep();
            }
        }),
    )?;
    spawn(
        "metrics",
        Box::new(move || {
            for stream in listener.incoming() {
                // A scraper that went away is its own loss.
                let _ = stream.and_then(|stream| answer(stream, &handle, &ready));
            }
        }),
    )?;
    Ok(local)
}

/// One request, one answer, one connection: scrapers come every few seconds.
fn answer(mut stream: TcpStream, handle: &PrometheusHandle, ready: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(SCRAPE_TIMEOUT))?;
    stream.set_write_timeout(Some(SCRAPE_TIMEOUT))?;
    let mut request = [0; 2048];
    let mut filled = 0;
    while filled < request.len() && !request[..filled].windows(4).any(|end| end == b"\r\n\r\n") {
        let bytes = stream.read(&mut request[filled..])?;
        if bytes == 0 {
            break;
        }
        filled += bytes;
    }
    let line = request[..filled].split(|&byte| byte == b'\r').next().unwrap_or_default();
    let (status, body) = match line {
        b"GET /metrics HTTP/1.1" | b"GET /metrics HTTP/1.0" => ("200 OK", handle.render()),
        b"GET /healthz HTTP/1.1" | b"GET /healthz HTTP/1.0" if ready.load(Ordering::Acquire) => {
            ("200 OK", "ok\n".to_owned())
        }
        b"GET /healthz HTTP/1.1" | b"GET /healthz HTTP/1.0" => {
            ("503 Service Unavailable", "starting\n".to_owned())
        }
        _ => ("404 Not Found", "only GET /metrics and GET /healthz are here\n".to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexfs_wire::id::Ino;
    use flexfs_wire::seal::Node;

    #[test]
    fn kinds_have_their_names() {
        let node = Node::unsealed(Ino(1));
        assert_eq!(KINDS[usize::from(kind_of(&Request::StatFs))], "statfs");
        assert_eq!(KINDS[usize::from(kind_of(&Request::Leave))], "leave");
        assert_eq!(KINDS[usize::from(kind_of(&Request::GetAttr { node }))], "getattr");
        let unlock = Request::Unlock { node, family: flexfs_wire::message::LockFamily::Flock, owner: 0 };
        assert_eq!(KINDS[usize::from(kind_of(&unlock))], "unlock");
        assert_eq!(KINDS[usize::from(KIND_RECOVERY)], "recovery");
    }
}
