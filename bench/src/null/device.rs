//! Serving over `/dev/fuse`: threads that read the same descriptor.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context as _;
use flexfs_mount::fuse::init::Offer;
use flexfs_mount::fuse::request::{self, Header, Operation};
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::FUSE_IO_BYTES_MAX;
use rustix::io::Errno as OsErrno;
use zerocopy::IntoBytes as _;

use super::abi::{InitOut, OutHeader};
use super::answer::Null;

/// Buffer for one request: the kernel refuses reads with less room than the largest request.
const READ_BYTES: usize = FUSE_IO_BYTES_MAX + 4096;
/// Bytes of `fuse_in_header`.
const IN_HEADER_BYTES: usize = 40;

/// Reads requests until the file system is unmounted. The first is INIT.
///
/// # Errors
/// When the device fails.
pub(super) fn serve(
    device: &Arc<OwnedFd>,
    null: &Arc<Null>,
    threads: usize,
) -> anyhow::Result<Vec<std::thread::JoinHandle<()>>> {
    init(device)?;
    let mut joins = Vec::new();
    for number in 0..threads {
        let (device, null) = (Arc::clone(device), Arc::clone(null));
        let run = move || {
            if let Err(error) = serve_thread(&device, &null) {
                eprintln!("the null server's device failed: {error}");
            }
        };
        joins.push(std::thread::Builder::new().name(format!("null-{number}")).spawn(run)?);
    }
    Ok(joins)
}

fn init(device: &OwnedFd) -> anyhow::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let bytes = rustix::io::read(device, &mut buffer).context("read INIT")?;
    let header = Header::parse(&buffer[..bytes]).map_err(|errno| anyhow::anyhow!("INIT: {errno}"))?;
    let offer = Offer::parse(buffer.get(IN_HEADER_BYTES..bytes).unwrap_or_default())?;
    let flags = offer.answer(false, false, false)?.flags;
    let low = |flags: u64| u32::try_from(flags & u64::from(u32::MAX)).unwrap_or(0);
    // As flexfs's own answer has it (`flexfs_mount::fuse::init`).
    let out = InitOut {
        major: 7,
        minor: 45,
        max_readahead: offer.max_readahead,
        flags: low(flags),
        flags2: low(flags >> 32),
        max_background: 256,
        congestion_threshold: 192,
        max_write: u32::try_from(FUSE_IO_BYTES_MAX)?,
        time_gran: 1,
        max_pages: 256,
        ..InitOut::default()
    };
    let head = out_header(size_of::<InitOut>(), 0, header.unique);
    rustix::io::write(device, &[head.as_bytes(), out.as_bytes()].concat()).context("answer INIT")?;
    Ok(())
}

fn serve_thread(device: &OwnedFd, null: &Null) -> io::Result<()> {
    let mut request = vec![0; READ_BYTES];
    let mut answer = vec![0; size_of::<OutHeader>() + FUSE_IO_BYTES_MAX];
    loop {
        let bytes = match rustix::io::read(device, &mut request) {
            Ok(bytes) => bytes,
            Err(OsErrno::NODEV | OsErrno::NOTCONN | OsErrno::CONNABORTED) => return Ok(()),
            Err(OsErrno::INTR | OsErrno::AGAIN | OsErrno::NOENT) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let Some(length) = answer_one(null, &request[..bytes], &mut answer) else { continue };
        match rustix::io::write(device, &answer[..length]) {
            // NOENT: the request was given up.
            Ok(_) | Err(OsErrno::NOENT) => {}
            Err(OsErrno::NODEV | OsErrno::NOTCONN) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The length of the whole answer; none for what has no answer.
fn answer_one(null: &Null, bytes: &[u8], answer: &mut [u8]) -> Option<usize> {
    let (head, body) = answer.split_at_mut(size_of::<OutHeader>());
    let header = Header::parse(bytes).ok()?;
    let result = match request::parse_whole(bytes) {
        Ok((_, Operation::Forget { .. } | Operation::Interrupt { .. })) => return None,
        Ok((header, operation)) => null.answer(&header, operation, body),
        Err(errno) => Err(errno),
    };
    let (length, errno) = result.map_or_else(|errno: Errno| (0, errno.0), |length| (length, 0));
    head.copy_from_slice(out_header(length, -errno, header.unique).as_bytes());
    Some(head.len() + length)
}

fn out_header(body_bytes: usize, error: i32, unique: u64) -> OutHeader {
    let len = u32::try_from(size_of::<OutHeader>() + body_bytes).unwrap_or(0);
    OutHeader { len, error, unique }
}
