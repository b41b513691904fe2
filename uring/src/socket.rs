//! TCP: connect, accept, send with owned buffers, receive by multishot into the shard's buffers or plainly into an
//! owned one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use io_uring::cqueue;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use crate::buffer::Lease;
use crate::call::{self, Drain, Fill, Plain};
use crate::op::{Op, SharedFd};
use crate::shard::{Core, current};
use crate::slot::Completion;
use crate::sys;

/// `ioprio` bit of receives: poll first instead of trying to read at once. A large answer is never there already, so
/// the attempt would be wasted (measured: 1.4 times the throughput at 1 MiB).
const RECV_POLL_FIRST: u16 = 1;

/// A connected TCP socket. It may move between shards; an operation belongs to the shard that awaits it.
#[derive(Debug)]
pub struct TcpStream {
    fd: SharedFd,
}

impl TcpStream {
    /// Connects, with TCP_NODELAY set. Bound the wait with [`crate::timer::timeout`].
    ///
    /// # Errors
    /// Those of `socket(2)` and `connect(2)`.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd =
            rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
        rustix::net::sockopt::set_tcp_nodelay(&fd, true)?;
        let fd = Arc::new(fd);
        sys::outcome(call::connect(&fd, RawAddress::new(address)).await.0)?;
        Ok(Self { fd })
    }

    /// Takes over a connected socket of the standard library.
    ///
    /// # Errors
    /// Those of `fcntl(2)`: the socket is made blocking, for only then does the ring wait on it.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        Ok(Self { fd: Arc::new(OwnedFd::from(stream)) })
    }

    /// Sends all of `buffer` and gives it back. After an error an unknown part was sent: close the connection.
    pub async fn send_all(&self, mut buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        // WAITALL lets the kernel retry short sends itself; the loop is for what even then comes back short.
        let flags = SendFlags::NOSIGNAL.bits().cast_signed() | RecvFlags::WAITALL.bits().cast_signed();
        let mut done = 0;
        while done < buffer.len() {
            let (sent, back) = Drain::Send { flags }.run(&self.fd, buffer, done).await;
            buffer = back;
            match sent {
                Ok(sent) => done += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }

    /// Receives what is there, waiting for at least a byte, into the spare capacity of `buffer`; 0 is the end.
    /// Not while a [`RecvStream`] of this socket is armed: the two would tear the stream apart.
    pub async fn recv(&self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        Fill::Recv { flags: 0, ioprio: 0 }.run(&self.fd, buffer, usize::MAX).await
    }

    /// Appends exactly `count` bytes to `buffer`. UnexpectedEof when the stream ends before; what came until then is
    /// in the buffer. As [`TcpStream::recv`], only while no [`RecvStream`] is armed.
    pub async fn recv_exact(&self, mut buffer: Vec<u8>, count: usize) -> (io::Result<()>, Vec<u8>) {
        buffer.reserve(count);
        let flags = RecvFlags::WAITALL.bits().cast_signed();
        let mut done = 0;
        while done < count {
            let (received, back) =
                Fill::Recv { flags, ioprio: RECV_POLL_FIRST }.run(&self.fd, buffer, count - done).await;
            buffer = back;
            match received {
                Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), buffer),
                Ok(received) => done += received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }

    /// The receiving half by multishot into the shard's buffers. One per socket at a time; it is armed by the first
    /// [`RecvStream::next`] and belongs to this shard from now on.
    pub fn recv_stream(&self) -> RecvStream {
        RecvStream {
            core: current(),
            fd: Arc::clone(&self.fd),
            op: None,
            arrived: VecDeque::new(),
            ended: false,
            failed: None,
            stopping: false,
        }
    }

    /// Shuts down one or both directions; operations in flight end accordingly.
    ///
    /// # Errors
    /// ENOTCONN when the peer was first.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(&self.fd, how)?)
    }

    /// The other end's address.
    ///
    /// # Errors
    /// ENOTCONN when the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let any = rustix::net::getpeername(&self.fd)?.ok_or(Errno::NOTCONN)?;
        Ok(any.try_into()?)
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Received bytes as they come, in leases of the shard's buffers.
///
/// One submission serves any number of receives. When the shard's buffers run out the kernel ends it; it is armed
/// again when a lease comes back, and until then the peer's window closes.
#[derive(Debug)]
pub struct RecvStream {
    core: Rc<Core>,
    fd: SharedFd,
    op: Option<Op>,
    /// Taken from the kernel by `stop` and not yet by `next`.
    arrived: VecDeque<Lease>,
    ended: bool,
    failed: Option<io::Error>,
    stopping: bool,
}

impl RecvStream {
    /// The next bytes; `None` at the end of the stream. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Those of `recv(2)`, after everything that came before them.
    pub async fn next(&mut self) -> io::Result<Option<Lease>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Like [`RecvStream::next`], for hand-written futures.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        loop {
            if let Some(lease) = self.arrived.pop_front() {
                return Poll::Ready(Ok(Some(lease)));
            }
            if let Some(error) = self.failed.take() {
                return Poll::Ready(Err(error));
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            if self.op.is_none() {
                ready!(self.arm(cx))?;
            }
            ready!(self.poll_file(cx));
        }
    }

    /// Bytes that have already come, without waiting and without arming; the way to empty a stopped stream.
    pub fn try_next(&mut self) -> Option<Lease> {
        while let Some((completion, hold)) = self.op.as_mut().and_then(Op::try_next) {
            self.file(completion, hold.is_some());
        }
        self.arrived.pop_front()
    }

    /// Ends the multishot receive and waits until the kernel has let go of the socket. What had already come is
    /// kept for [`RecvStream::try_next`] and [`RecvStream::next`]; after emptying it, plain receives continue at the
    /// right byte. The next [`RecvStream::next`] that finds nothing arms it again.
    pub async fn stop(&mut self) {
        if let Some(op) = &self.op
            && !self.stopping
        {
            op.cancel();
            self.stopping = true;
        }
        poll_fn(|cx| {
            while self.op.is_some() {
                ready!(self.poll_file(cx));
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Starts the multishot receive as soon as the kernel has a buffer for it.
    fn arm(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let Some(pool) = &self.core.pool else {
            return Poll::Ready(Err(io::Error::other("this shard was made without receive buffers")));
        };
        ready!(pool.poll_available(cx));
        self.op = Some(Plain::RecvMulti.start(&self.core, &self.fd));
        Poll::Ready(Ok(()))
    }

    /// Waits for one completion and files it.
    fn poll_file(&mut self, cx: &Context<'_>) -> Poll<()> {
        if let Some(op) = self.op.as_mut() {
            let (completion, hold) = ready!(op.poll_next(cx));
            self.file(completion, hold.is_some());
        }
        Poll::Ready(())
    }

    fn file(&mut self, completion: Completion, last: bool) {
        if last {
            self.op = None;
        }
        let buffer = cqueue::buffer_select(completion.flags);
        let lease = match (buffer, &self.core.pool) {
            (Some(id), Some(pool)) => Some(pool.lease(id, usize::try_from(completion.res).unwrap_or(0))),
            _ => None,
        };
        match sys::outcome(completion.res) {
            Ok(0) => self.ended = true,
            Ok(_) => self.arrived.extend(lease),
            Err(error) => match Errno::from_io_error(&error) {
                // Out of buffers: `arm` waits for one. EINTR, EAGAIN: simply again.
                Some(Errno::NOBUFS | Errno::INTR | Errno::AGAIN) => {}
                Some(Errno::CANCELED) if self.stopping => {}
                _ => self.failed = Some(error),
            },
        }
        if last {
            self.stopping = false;
        }
    }
}

/// A listening TCP socket.
#[derive(Debug)]
pub struct TcpListener {
    fd: SharedFd,
}

impl TcpListener {
    /// Binds and listens, with SO_REUSEADDR; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// Those of `bind(2)` and `listen(2)`.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { fd: Arc::new(OwnedFd::from(std::net::TcpListener::bind(address)?)) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// None in practice.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(rustix::net::getsockname(&self.fd)?.try_into()?)
    }

    /// Waits for the next connection, with TCP_NODELAY set.
    ///
    /// # Errors
    /// Those of `accept(2)`; ECONNABORTED, EMFILE and the like do not end the listener.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        let flags = SocketFlags::CLOEXEC.bits().cast_signed();
        let fd = Plain::Accept { flags }.start(&current(), &self.fd).into_descriptor().await?;
        rustix::net::sockopt::set_tcp_nodelay(&fd, true)?;
        Ok(TcpStream { fd: Arc::new(fd) })
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A socket address as the kernel reads it.
///
/// ```text
/// sockaddr_in   family u16 | port u16 be | address 4 | zero 8                              = 16 bytes, ip(7)
/// sockaddr_in6  family u16 | port u16 be | flow u32 be | address 16 | scope u32            = 28 bytes, ipv6(7)
/// ```
#[derive(Debug)]
pub(crate) struct RawAddress {
    bytes: [u8; 28],
    length: u32,
}

impl RawAddress {
    fn new(address: SocketAddr) -> Self {
        let mut bytes = [0; 28];
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, length) = match address {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                (AddressFamily::INET, 16)
            }
            SocketAddr::V6(v6) => {
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (AddressFamily::INET6, 28)
            }
        };
        bytes[..2].copy_from_slice(&family.as_raw().to_ne_bytes());
        Self { bytes, length }
    }

    pub(crate) fn bytes(&self) -> &[u8; 28] {
        &self.bytes
    }

    pub(crate) fn length(&self) -> u32 {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_layout_of_the_man_pages() {
        let v4 = RawAddress::new("1.2.3.4:258".parse().unwrap());
        assert_eq!(v4.length, 16);
        assert_eq!(v4.bytes[2..8], [1, 2, 1, 2, 3, 4]);
        assert_eq!(u16::from_ne_bytes([v4.bytes[0], v4.bytes[1]]), AddressFamily::INET.as_raw());
        let v6 = RawAddress::new("[::1]:7441".parse().unwrap());
        assert_eq!(v6.length, 28);
        assert_eq!(v6.bytes[23], 1);
        assert_eq!(u16::from_ne_bytes([v6.bytes[0], v6.bytes[1]]), AddressFamily::INET6.as_raw());
    }
}
