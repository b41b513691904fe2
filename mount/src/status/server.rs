//! A socket that answers every connection with the mount's report, as JSON, and closes it.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flexfs_uring::clock;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::place::{Place, remove_if_there};
use super::report::{CpuLatency, Report, Throughput};
use crate::data;
use crate::fuse::seat::{Figures, Seats};
use crate::link::Remote;
use crate::vfs::Vfs;

/// How often figures are noted for the throughput.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Samples kept: the span throughput is taken over.
const SAMPLES: usize = 10;
/// Time for a peer to take its answer, or to give one.
const PEER_TIME: Duration = Duration::from_secs(5);
/// Longest report read.
const REPORT_BYTES_MAX: u64 = 1 << 20;

/// Where the figures come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Volume.
    pub volume: String,
    /// Mount point.
    pub target: PathBuf,
    /// `uring` or `dev`.
    pub transport: &'static str,
    /// Entries per queue.
    pub queue_depth: u16,
    /// Threads.
    pub shards: usize,
    /// Read-only.
    pub read_only: bool,
    /// Links.
    pub remote: Arc<Remote>,
    /// Data.
    pub files: Arc<data::Files<Remote>>,
    /// Inodes.
    pub vfs: Arc<Vfs>,
    /// Requests.
    pub seats: Arc<Seats>,
}

/// Answers on `socket` from a thread of its own, until the process ends.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(socket: &Path, source: Source) -> io::Result<()> {
    remove_if_there(socket)?;
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let server = Server { source, started: clock::now(), samples: VecDeque::new() };
    std::thread::Builder::new().name("status".to_owned()).spawn(move || server.run(&listener))?;
    Ok(())
}

/// Asks the mount on `target`.
///
/// # Errors
/// When none answers; the text says what that means.
pub fn ask(folder: &Path, target: &Path) -> anyhow::Result<serde_json::Value> {
    let socket = Place::new(folder, target).socket();
    let stream = UnixStream::connect(&socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => anyhow::anyhow!(
            "no mount.flexfs serves {} (if it was started with --stateFolder, give the same here)",
            target.display()
        ),
        _ => anyhow::anyhow!(
            "cannot ask the mount on {} through {}: {error}",
            target.display(),
            socket.display()
        ),
    })?;
    stream.set_read_timeout(Some(PEER_TIME))?;
    let mut text = String::new();
    stream.take(REPORT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

struct Server {
    source: Source,
    started: Instant,
    samples: VecDeque<(Instant, Figures)>,
}

impl Server {
    fn run(mut self, listener: &UnixListener) {
        let pause = Timespec::try_from(SAMPLE_EVERY).unwrap_or_default();
        loop {
            self.sample();
            let mut fds = [PollFd::new(listener, PollFlags::IN)];
            // An error here (EINTR) is a shorter pause.
            let _ = rustix::event::poll(&mut fds, Some(&pause));
            while let Ok((stream, _)) = listener.accept() {
                if let Err(error) = self.answer(stream) {
                    tracing::debug!(%error, "somebody who asked for the status did not wait for it");
                }
            }
        }
    }

    fn sample(&mut self) {
        let now = clock::now();
        if self.samples.back().is_none_or(|(last, _)| now.duration_since(*last) >= SAMPLE_EVERY) {
            self.samples.push_back((now, self.source.seats.figures()));
        }
        while self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }

    fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PEER_TIME))?;
        stream.write_all(&serde_json::to_vec(&self.report())?)
    }

    fn report(&self) -> Report {
        let Source { volume, target, transport, queue_depth, shards, read_only, remote, files, vfs, seats } =
            &self.source;
        let now = clock::now();
        let requests = seats.figures();
        let throughput = self.samples.front().map_or_else(Throughput::default, |(then, earlier)| {
            Throughput::between(earlier, &requests, now.duration_since(*then).as_secs_f64())
        });
        Report {
            volume: volume.clone(),
            mount_point: target.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            transport: (*transport).to_owned(),
            queue_depth: *queue_depth,
            shards: *shards,
            uptime_secs: now.duration_since(self.started).as_secs(),
            read_only: *read_only,
            link: remote.figures(),
            data: files.figures(),
            disk: remote.disk().map(|disk| disk.figures()),
            passthrough: vfs.passing_figures(),
            cpu_latency: seats
                .wakeful()
                .map(|wakeful| CpuLatency { micros: wakeful.micros(), in_force: wakeful.is_held() }),
            requests,
            vfs: vfs.figures(),
            throughput,
        }
    }
}
