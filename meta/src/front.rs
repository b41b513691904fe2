//! All of tokio-uring that meta uses, in one place: it has had no maintainer for two years, and this is the module to
//! write anew when it must go. One current-thread runtime per core; sockets and files go through its ring.

use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio_uring::buf::BoundedBuf as _;

use crate::payload::Payload;

/// Submission entries of a core's ring.
const RING_ENTRIES: u32 = 1024;
/// Connections the kernel keeps until they are accepted.
const BACKLOG: i32 = 4096;
/// Seconds of silence before the kernel probes a link.
const KEEPALIVE_SECS: u64 = 20;
/// Milliseconds sent bytes may stay unacknowledged before the kernel drops the link.
const UNACKED_MS_MAX: u32 = 30_000;

/// Runs `future` on this thread's own runtime and ring.
///
/// # Errors
/// The kernel gives no ring.
pub(crate) fn run<F: Future>(future: F) -> io::Result<F::Output> {
    let mut builder = tokio_uring::builder();
    let mut ring = tokio_uring::uring_builder();
    // Every link has an operation in flight; the kernel keeps what does not fit, at a price.
    ring.setup_cqsize(8 * RING_ENTRIES);
    builder.entries(RING_ENTRIES).uring_builder(&ring);
    let runtime = tokio_uring::Runtime::new(&builder)?;
    Ok(runtime.block_on(future))
}

/// Runs `future` beside the others of this core.
pub(crate) fn spawn<F: Future<Output = ()> + 'static>(future: F) {
    drop(tokio_uring::spawn(future));
}

/// Makes one listener per core on `addr`; the kernel spreads connections over them.
///
/// # Errors
/// The address is in use or not ours.
pub(crate) fn listen(addr: SocketAddr, cores: usize) -> io::Result<Vec<StdListener>> {
    // With SO_REUSEPORT a second server of the same user would silently share the port; without it the
    // kernel says so. The first socket asks without, and is gone before the real ones come.
    let addr = {
        let probe = socket(addr)?;
        bind(&probe, addr)?;
        StdListener::from(probe).local_addr()?
    };
    (0..cores)
        .map(|_| {
            let socket = socket(addr)?;
            sockopt::set_socket_reuseport(&socket, true)?;
            bind(&socket, addr)?;
            rustix::net::listen(&socket, BACKLOG)?;
            Ok(StdListener::from(socket))
        })
        .collect()
}

fn socket(addr: SocketAddr) -> io::Result<rustix::fd::OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(socket)
}

fn bind(socket: &rustix::fd::OwnedFd, addr: SocketAddr) -> io::Result<()> {
    Ok(rustix::net::bind(socket, &addr)?)
}

/// A listener of one core.
#[derive(Debug)]
pub(crate) struct Listener(tokio::net::TcpListener);

impl Listener {
    /// Takes over a listener; in the runtime it will be used in.
    pub(crate) fn new(listener: StdListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(tokio::net::TcpListener::from_std(listener)?))
    }

    /// The next connection, tuned, and able to move to another core.
    pub(crate) async fn accept(&self) -> io::Result<(StdStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        let stream = stream.into_std()?;
        // The ring waits for blocking sockets; a non-blocking one would only answer EAGAIN.
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, std::time::Duration::from_secs(KEEPALIVE_SECS))?;
        sockopt::set_tcp_keepintvl(&stream, std::time::Duration::from_secs(5))?;
        sockopt::set_tcp_keepcnt(&stream, 3)?;
        sockopt::set_tcp_user_timeout(&stream, UNACKED_MS_MAX)?;
        Ok((stream, peer))
    }
}

/// The CPU that a connection's last packet came in on; on the loopback the peer's, else that of the network card's queue.
pub(crate) fn incoming_cpu(stream: &StdStream) -> Option<u32> {
    sockopt::socket_incoming_cpu(stream).ok()
}

/// A connection on this core's ring.
pub(crate) struct Socket(tokio_uring::net::TcpStream);

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Socket")
    }
}

impl Socket {
    /// Takes over an accepted connection.
    pub(crate) fn new(stream: StdStream) -> Self {
        Self(tokio_uring::net::TcpStream::from_std(stream))
    }

    /// Reads up to `room` bytes behind what is in `buffer`; 0 at the end.
    pub(crate) async fn read(&self, mut buffer: Vec<u8>, room: usize) -> (io::Result<usize>, Vec<u8>) {
        let start = buffer.len();
        buffer.reserve(room);
        let (result, slice) = self.0.read(buffer.slice(start..start + room)).await;
        (result, slice.into_inner())
    }

    /// Writes all of `buffer` and gives it back.
    pub(crate) async fn write_all(&self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        self.0.write_all(buffer).await
    }

    /// Ends both directions; operations in flight return.
    pub(crate) fn shutdown(&self) {
        // Fails only when the peer was faster.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A file on this core's ring.
pub(crate) struct File {
    ring: tokio_uring::fs::File,
    /// What is written goes past the page cache, in whole pages.
    direct: bool,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("File")
    }
}

impl File {
    /// Opens for reading; folders too, for [`File::sync`].
    pub(crate) async fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { ring: tokio_uring::fs::File::open(path).await?, direct: false })
    }

    /// Makes a file that was not there; with `direct`, what is written goes past the page cache (`O_DIRECT`).
    pub(crate) async fn create_new(path: &Path, direct: bool) -> io::Result<Self> {
        let mut options = tokio_uring::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        if direct {
            options.custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed());
        }
        Ok(Self { ring: options.open(path).await?, direct })
    }

    /// Exactly `bytes` bytes at `offset`.
    pub(crate) async fn read_exact(&self, bytes: usize, offset: u64) -> io::Result<Vec<u8>> {
        let buffer = Vec::with_capacity(bytes);
        let (result, slice) = self.ring.read_exact_at(buffer.slice(0..bytes), offset).await;
        result?;
        Ok(slice.into_inner())
    }

    /// Up to `bytes` bytes at the start.
    pub(crate) async fn read_head(&self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(bytes);
        loop {
            let start = buffer.len();
            if start == bytes {
                return Ok(buffer);
            }
            let (result, slice) = self.ring.read_at(buffer.slice(start..bytes), start as u64).await;
            buffer = slice.into_inner();
            if result? == 0 {
                return Ok(buffer);
            }
        }
    }

    /// Writes all of `payload` at the start; past the page cache with zeros up to the end of its last page.
    /// Gives the buffer back.
    pub(crate) async fn write_all(&self, payload: Payload) -> (io::Result<()>, Vec<u8>) {
        let length = payload.len();
        let (buffer, pages) = payload.into_pages();
        let end = if self.direct { pages.end } else { pages.start + length };
        let (written, slice) = self.ring.write_all_at(buffer.slice(pages.start..end), 0).await;
        (written, slice.into_inner())
    }

    /// Bytes to stable storage (`fdatasync`).
    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        self.ring.sync_data().await
    }

    /// Everything to stable storage (`fsync`); of a folder: its names.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        self.ring.sync_all().await
    }

    /// Closes, and says what a late write error would say.
    pub(crate) async fn close(self) -> io::Result<()> {
        self.ring.close().await
    }
}

/// Renames over whatever is there.
pub(crate) async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    tokio_uring::fs::rename(from, to).await
}

/// Removes a file.
pub(crate) async fn remove(path: &Path) -> io::Result<()> {
    tokio_uring::fs::remove_file(path).await
}

/// Makes a folder; one that is there is fine.
pub(crate) async fn make_folder(path: &Path) -> io::Result<()> {
    match tokio_uring::fs::create_dir(path).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Whether there is a file.
pub(crate) async fn exists(path: &Path) -> io::Result<bool> {
    match tokio_uring::fs::statx(path).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
