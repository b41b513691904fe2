//! `/dev/fuse` beside the rings: INIT, and what always comes this way (FORGET, INTERRUPT), and notices.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use flexfs_uring::clock;
use flexfs_uring::file::File;
use flexfs_wire::limits::FUSE_IO_BYTES_MAX;
use flexfs_wire::name::Name;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use zerocopy::IntoBytes as _;

use super::abi::{
    FUSE_NOTIFY_INC_EPOCH, FUSE_NOTIFY_INVAL_ENTRY, FUSE_NOTIFY_INVAL_INODE, FUSE_NOTIFY_STORE,
    fuse_in_header, fuse_notify_inval_entry_out, fuse_notify_inval_inode_out, fuse_notify_store_out,
    fuse_out_header, opcode,
};
use super::init::{Agreement, InitError, Offer};
use super::queue::Service;
use super::request::{self, Header, Operation};
use crate::vfs::{Kernel, Notice, Told};

/// Buffer for one request: the kernel refuses reads with less room than the largest request.
const READ_BYTES: usize = FUSE_IO_BYTES_MAX + 4096;
/// How long the kernel may take to send INIT after `mount(2)`; it sends it before `mount(2)` returns.
const INIT_TIME: Duration = Duration::from_secs(10);

/// Why the kernel and this program did not come to terms.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The device.
    #[error("the FUSE device failed during INIT: {0}")]
    Device(#[from] io::Error),
    /// Silence.
    #[error("the kernel sent no INIT within {INIT_TIME:?}")]
    Silence,
    /// Another request first.
    #[error("the kernel's first request was {0} and not INIT")]
    NotInit(u32),
    /// No common ground.
    #[error(transparent)]
    Init(#[from] InitError),
    /// io_uring was wanted and not offered.
    #[error(
        "this kernel does not offer FUSE over io_uring; switch it on with: \
         echo Y > /sys/module/fuse/parameters/enable_uring (Linux 6.14 or newer)"
    )]
    NoIoUring,
}

/// Reads the kernel's INIT from a freshly mounted device and answers it, over io_uring or not at all: every queue
/// must stand ready to be registered. `acls`: access control lists are served; `passing`: whole files may be read past this program. When the kernel does not offer io_uring, the offer is left unanswered.
///
/// # Errors
/// [`HandshakeError`]; the mount is then to be taken off.
pub fn handshake(device: &OwnedFd, acls: bool, passing: bool) -> Result<Agreement, HandshakeError> {
    let (header, body) = read_init(device)?;
    let offer = Offer::parse(&body)?;
    tracing::debug!(?offer, "the kernel's INIT");
    if !offer.has_io_uring() {
        return Err(HandshakeError::NoIoUring);
    }
    let agreement = offer.answer(true, acls, passing)?;
    let body = agreement.body();
    let head = out_header(body.len(), 0, header.unique);
    // The kernel has taken the answer in when this returns: queues may be registered.
    rustix::io::write(device, &[head.as_bytes(), body].concat()).map_err(io::Error::from)?;
    Ok(agreement)
}

fn read_init(device: &OwnedFd) -> Result<(Header, Vec<u8>), HandshakeError> {
    let deadline = clock::now() + INIT_TIME;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        wait_readable(device, deadline)?;
        let bytes = match rustix::io::read(device, &mut buffer) {
            Ok(bytes) => bytes,
            Err(Errno::AGAIN | Errno::INTR | Errno::NOENT) => continue,
            Err(errno) => return Err(io::Error::from(errno).into()),
        };
        let header = Header::parse(&buffer[..bytes]).map_err(|_| InitError::Short(bytes))?;
        if header.opcode != opcode::INIT {
            return Err(HandshakeError::NotInit(header.opcode));
        }
        let body = buffer[size_of::<fuse_in_header>()..bytes].to_vec();
        return Ok((header, body));
    }
}

fn wait_readable(device: &OwnedFd, deadline: Instant) -> Result<(), HandshakeError> {
    let left = clock::until(deadline);
    if left.is_zero() {
        return Err(HandshakeError::Silence);
    }
    let mut fds = [PollFd::new(device, PollFlags::IN)];
    let timeout = Timespec::try_from(left).map_err(|_| HandshakeError::Silence)?;
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(0) => Err(HandshakeError::Silence),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(io::Error::from(errno).into()),
    }
}

/// Reads forgets and interrupts until the file system is unmounted or its connection aborted. Runs on one shard.
pub async fn serve_device(device: Arc<OwnedFd>, service: Service) {
    let file = File::from(Arc::clone(&device));
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        buffer.clear();
        let (read, back) = file.read(buffer).await;
        buffer = back;
        match read {
            Ok(_) => take_news(&device, &buffer, &service),
            Err(error) => match Errno::from_io_error(&error) {
                // NOENT: the request was given up while it was read.
                Some(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                Some(Errno::NODEV | Errno::NOTCONN | Errno::CONNABORTED | Errno::CANCELED) => return,
                _ => {
                    tracing::error!(%error, "the FUSE device failed; taking the mount for gone");
                    return;
                }
            },
        }
    }
}

fn take_news(device: &OwnedFd, bytes: &[u8], service: &Service) {
    match request::parse_whole(bytes) {
        Ok((_, Operation::Forget { forgotten })) => service.vfs.forget(&forgotten),
        Ok((_, Operation::Interrupt { unique })) => service.seats.interrupt(unique),
        Ok((header, operation)) => refuse(device, &header, &format!("{operation:?}")),
        Err(errno) => match Header::parse(bytes) {
            Ok(header) => refuse(device, &header, &errno.to_string()),
            Err(_) => tracing::error!(bytes = bytes.len(), "the FUSE device gave less than a header"),
        },
    }
}

/// Requests come through the rings; one that does not must still be answered, or its caller waits for ever.
fn refuse(device: &OwnedFd, header: &Header, what: &str) {
    tracing::error!(
        opcode = header.opcode,
        what,
        "a request came over /dev/fuse and not its ring; it gets EIO"
    );
    let answer = out_header(0, -Errno::IO.raw_os_error(), header.unique);
    if let Err(error) = rustix::io::write(device, answer.as_bytes()) {
        tracing::debug!(%error, "and its caller is gone");
    }
}

/// Writes notices until nobody can post any. Blocks in the kernel; runs on a thread of its own.
pub fn write_notices(device: &OwnedFd, notices: &Receiver<Notice>) {
    for notice in notices {
        let bytes = encode_notice(&notice);
        match rustix::io::write(device, &bytes) {
            // NOENT: the kernel has forgotten it by itself.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(Errno::NODEV | Errno::NOTCONN | Errno::PERM) => {
                tracing::debug!("a notice came after the end of the mount")
            }
            Err(error) => tracing::warn!(%error, ?notice, "the kernel did not take a notice"),
        }
        let Notice::Pages { inode, change } = &notice;
        inode.pages_dropped(*change);
    }
}

/// Tells the kernel what to drop from its caches.
#[derive(Debug)]
pub struct Notifier(pub OwnedFd);

impl Notifier {
    fn tell(&self, code: i32, parts: &[&[u8]]) -> Told {
        let body: usize = parts.iter().map(|part| part.len()).sum();
        let head = out_header(body, code, 0);
        let bytes = [&[head.as_bytes()], parts].concat().concat();
        told(code, rustix::io::write(&self.0, &bytes))
    }

    fn inode(&self, ino: u64, off: i64, len: i64) -> Told {
        self.tell(FUSE_NOTIFY_INVAL_INODE, &[fuse_notify_inval_inode_out { ino, off, len }.as_bytes()])
    }
}

impl Kernel for Notifier {
    fn forget_attr(&self, nodeid: u64) -> Told {
        // A negative offset: no pages.
        self.inode(nodeid, -1, 0)
    }

    fn forget_pages(&self, nodeid: u64, range: Option<Range<u64>>) -> Told {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        match range {
            // Length 0: to the end.
            None => self.inode(nodeid, 0, 0),
            Some(range) if range.is_empty() => Told::Yes,
            Some(range) => self.inode(nodeid, number(range.start), number(range.end - range.start)),
        }
    }

    fn fill_pages(&self, nodeid: u64, bytes: &[u8]) -> Told {
        let Ok(size) = u32::try_from(bytes.len()) else { return Told::Not };
        let store = fuse_notify_store_out { nodeid, offset: 0, size, padding: 0 };
        let head = out_header(size_of_val(&store) + bytes.len(), FUSE_NOTIFY_STORE, 0);
        let parts = [head.as_bytes(), store.as_bytes(), bytes].map(IoSlice::new);
        told(FUSE_NOTIFY_STORE, rustix::io::writev(&self.0, &parts))
    }

    fn forget_name(&self, dir: u64, name: &Name) -> Told {
        let bytes = name.as_bytes();
        let namelen = u32::try_from(bytes.len()).unwrap_or(0);
        let head = fuse_notify_inval_entry_out { parent: dir, namelen, flags: 0 };
        self.tell(FUSE_NOTIFY_INVAL_ENTRY, &[head.as_bytes(), bytes, &[0]])
    }

    fn forget_names(&self) -> Told {
        self.tell(FUSE_NOTIFY_INC_EPOCH, &[])
    }
}

/// What the kernel made of a notice.
fn told(code: i32, written: rustix::io::Result<usize>) -> Told {
    match written {
        Ok(_) => Told::Yes,
        Err(Errno::NOENT) => Told::Unknown,
        Err(error) => {
            tracing::debug!(%error, code, "the kernel did not take a notice");
            Told::Not
        }
    }
}

fn encode_notice(notice: &Notice) -> Vec<u8> {
    match notice {
        Notice::Pages { inode, .. } => {
            // Length 0: to the end, attributes too.
            let body = fuse_notify_inval_inode_out { ino: inode.nodeid, off: 0, len: 0 };
            let head = out_header(size_of_val(&body), FUSE_NOTIFY_INVAL_INODE, 0);
            [head.as_bytes(), body.as_bytes()].concat()
        }
    }
}

fn out_header(body_bytes: usize, error: i32, unique: u64) -> fuse_out_header {
    let len = u32::try_from(size_of::<fuse_out_header>() + body_bytes).unwrap_or(0);
    fuse_out_header { len, error, unique }
}
