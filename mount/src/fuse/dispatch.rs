//! One request: which operation of `vfs` it is, and its answer into the request's own memory.

use std::time::Duration;

use flexfs_uring::timer;
use flexfs_wire::errno::Errno;
use flexfs_wire::message::Lock;

use super::reply;
use super::request::{Header, Operation};
use super::seat::Seat;
use crate::cancel::or_cancel;
use crate::vfs::{Ctx, Looked, MakeArgs, OpenFlags, Vfs, WriteArgs};

/// Pause before a lock that would be a deadlock, were it a record lock, is asked for again.
const DEADLOCK_PAUSE: Duration = Duration::from_millis(100);

/// Runs an operation. `payload` held the request's payload and takes the answer's; the bytes written are returned.
///
/// # Errors
/// The errno to answer.
pub(crate) async fn run(
    vfs: &Vfs,
    ctx: Ctx<'_>,
    seat: &Seat,
    nodeid: u64,
    operation: Operation,
    payload: &mut [u8],
) -> Result<usize, Errno> {
    // What is answered from what is known here must end with the session, too.
    match (vfs.ended(), &operation) {
        (None, _) | (_, Operation::Release { .. } | Operation::ReleaseDir | Operation::Destroy) => {
            serve(vfs, ctx, seat, nodeid, operation, payload).await
        }
        // They tell of what was lost.
        (Some(errno), Operation::Flush { .. } | Operation::Fsync { .. }) => {
            serve(vfs, ctx, seat, nodeid, operation, payload).await.and(Err(errno))
        }
        (Some(errno), _) => Err(errno),
    }
}

async fn serve(
    vfs: &Vfs,
    ctx: Ctx<'_>,
    seat: &Seat,
    nodeid: u64,
    operation: Operation,
    payload: &mut [u8],
) -> Result<usize, Errno> {
    match operation {
        Operation::Read { args, size } => {
            let out = payload.get_mut(..size).ok_or(Errno::EIO)?;
            let bytes = vfs.read(ctx, args, out).await?;
            seat.count_read(bytes);
            Ok(bytes)
        }
        Operation::Write { args, size } => write(vfs, ctx, seat, args, size, payload).await,
        Operation::GetAttr => {
            let (attr, valid) = vfs.get_attr(ctx, nodeid).await?;
            reply::attr(payload, &attr, valid)
        }
        Operation::Statx => {
            let (attr, valid) = vfs.get_attr(ctx, nodeid).await?;
            reply::statx(payload, &attr, valid)
        }
        Operation::SetAttr { change } => {
            let (attr, valid) = vfs.set_attr(ctx, nodeid, change).await?;
            reply::attr(payload, &attr, valid)
        }
        Operation::StatFs => reply::statfs(payload, &vfs.stat_fs(ctx).await?),
        // With default_permissions the kernel decides by the mode and never asks.
        Operation::Access => Ok(0),
        Operation::ReadDir { offset, size, plus } => {
            list(vfs, ctx, nodeid, offset, plus, payload.get_mut(..size).ok_or(Errno::EIO)?).await
        }
        Operation::OpenDir => {
            vfs.open_dir(nodeid)?;
            reply::opened_dir(payload)
        }
        Operation::ReleaseDir | Operation::Destroy => Ok(0),
        Operation::GetLock { lock } => reply::lock(payload, &vfs.get_lock(ctx, nodeid, lock).await?),
        Operation::SetLock { fh, lock, wait } => {
            set_lock(vfs, ctx, seat, nodeid, (fh, lock, wait)).await.map(|()| 0)
        }
        Operation::Flush { fh, owner } => {
            seat.note_closing();
            vfs.flush(ctx, fh, owner).await.map(|()| 0)
        }
        // These come over /dev/fuse and have no answer; the kernel stops asking for what it gets ENOSYS for.
        Operation::Init
        | Operation::Interrupt { .. }
        | Operation::Forget { .. }
        | Operation::Unserved { .. } => Err(Errno::ENOSYS),
        operation => run_names(vfs, ctx, nodeid, operation, payload).await,
    }
}

/// Takes a lock. A deadlock is a matter of record locks only: locks of open file descriptions (`F_OFD_SETLKW`) have no process
/// that could be told, so they wait (`fcntl(2)`). FUSE does not say which of the two it is; the caller's system call does.
pub(crate) async fn set_lock(
    vfs: &Vfs,
    ctx: Ctx<'_>,
    seat: &Seat,
    nodeid: u64,
    (fh, lock, wait): (u64, Lock, bool),
) -> Result<(), Errno> {
    if wait {
        seat.accept_any_signal();
    }
    loop {
        match vfs.set_lock(ctx, nodeid, fh, lock, wait).await {
            Err(Errno::EDEADLK) if seat.wants_description_lock() => {
                or_cancel(timer::sleep(DEADLOCK_PAUSE), Some(ctx.cancel)).await?;
            }
            other => return other,
        }
    }
}

/// Operations on names.
async fn run_names(
    vfs: &Vfs,
    ctx: Ctx<'_>,
    nodeid: u64,
    operation: Operation,
    payload: &mut [u8],
) -> Result<usize, Errno> {
    let found = match operation {
        Operation::Lookup { name } => match vfs.lookup(ctx, nodeid, name).await? {
            Looked::Found(found) => found,
            Looked::Absent(valid) => return reply::absent(payload, valid),
        },
        Operation::LookupSelf => vfs.find_again(ctx, nodeid).await?,
        Operation::LookupParent => vfs.find_parent(ctx, nodeid).await?,
        Operation::Mknod { name, make } => vfs.make_node(ctx, nodeid, name, make).await?,
        Operation::Mkdir { name, make } => vfs.make_dir(ctx, nodeid, name, make).await?,
        Operation::Symlink { name, target } => vfs.make_symlink(ctx, nodeid, name, target).await?,
        Operation::Link { nodeid: inode, name } => vfs.link(ctx, inode, nodeid, name).await?,
        Operation::Create { name, make, flags } => {
            let (found, opened) = vfs.create(ctx, nodeid, name, make, flags).await?;
            return reply::created(payload, &found, &opened);
        }
        Operation::TmpFile { make, flags } => return tmpfile(vfs, ctx, nodeid, make, flags, payload).await,
        Operation::Unlink { name } => return vfs.remove(ctx, nodeid, name, false).await.map(|()| 0),
        Operation::Rmdir { name } => return vfs.remove(ctx, nodeid, name, true).await.map(|()| 0),
        Operation::Rename { name, new_parent, new_name, flags } => {
            let renamed = vfs.rename(ctx, (nodeid, name), (new_parent, new_name), flags).await;
            return renamed.map(|()| 0);
        }
        Operation::ReadLink => return reply::bytes(payload, &vfs.read_link(ctx, nodeid).await?),
        operation => return run_files(vfs, ctx, nodeid, operation, payload).await,
    };
    reply::entry(payload, &found)
}

/// Operations on open files, and extended attributes.
async fn run_files(
    vfs: &Vfs,
    ctx: Ctx<'_>,
    nodeid: u64,
    operation: Operation,
    payload: &mut [u8],
) -> Result<usize, Errno> {
    let done = match operation {
        Operation::Open { flags } => return reply::opened(payload, &vfs.open(ctx, nodeid, flags).await?),
        Operation::Seek { fh, offset, whence } => {
            return reply::position(payload, vfs.seek(ctx, fh, offset, whence).await?);
        }
        Operation::CopyRange { args } => {
            let wide = args.wide;
            let bytes = vfs.copy_range(ctx, args).await?;
            if wide {
                return reply::copied(payload, bytes);
            }
            return reply::written(payload, usize::try_from(bytes).map_err(|_| Errno::EIO)?);
        }
        Operation::GetXattr { name, size } => {
            return reply::xattr(payload, &vfs.get_xattr(ctx, nodeid, name).await?, size);
        }
        Operation::ListXattr { size } => {
            return reply::xattr(payload, &vfs.list_xattr(ctx, nodeid).await?, size);
        }
        Operation::SetXattr { name, value, mode } => vfs.set_xattr(ctx, nodeid, name, value, mode).await,
        Operation::RemoveXattr { name } => vfs.remove_xattr(ctx, nodeid, name).await,
        Operation::Release { fh } => vfs.release(ctx, fh).await,
        Operation::Fsync { fh, .. } => vfs.fsync(ctx, fh).await,
        Operation::FsyncDir => vfs.fsync_dir(ctx, nodeid).await,
        Operation::Fallocate { fh, mode, offset, length } => {
            vfs.fallocate(ctx, fh, mode, offset, length).await
        }
        other => {
            tracing::error!(?other, "a request was parsed and is not served: a fault of this program");
            Err(Errno::ENOSYS)
        }
    };
    done.map(|()| 0)
}

async fn write(
    vfs: &Vfs,
    ctx: Ctx<'_>,
    seat: &Seat,
    args: WriteArgs,
    size: usize,
    payload: &mut [u8],
) -> Result<usize, Errno> {
    let data = payload.get(..size).ok_or(Errno::EIO)?;
    let bytes = vfs.write(ctx, args, data).await?;
    seat.count_written(bytes);
    reply::written(payload, bytes)
}

async fn tmpfile(
    vfs: &Vfs,
    ctx: Ctx<'_>,
    parent: u64,
    make: MakeArgs,
    flags: OpenFlags,
    payload: &mut [u8],
) -> Result<usize, Errno> {
    let (found, opened) = vfs.make_tmpfile(ctx, parent, make, flags).await?;
    reply::created(payload, &found, &opened)
}

/// READDIR and READDIRPLUS: as many lines as fit.
async fn list(
    vfs: &Vfs,
    ctx: Ctx<'_>,
    nodeid: u64,
    offset: u64,
    plus: bool,
    out: &mut [u8],
) -> Result<usize, Errno> {
    let mut items = vfs.read_dir(ctx, nodeid, offset, out.len(), plus).await?;
    let mut filled = 0;
    for item in &mut items {
        if plus {
            vfs.accept(nodeid, item);
        }
        let Some(more) = reply::dir_item(out, filled, item, plus) else {
            if plus {
                vfs.refuse(item);
            }
            break;
        };
        filled = more;
    }
    if filled == 0 && !items.is_empty() {
        // Not even one fits; an empty answer would be the end of the listing.
        return Err(Errno::EINVAL);
    }
    Ok(filled)
}

/// Logs an errno where it is answered: what is everyday quietly, what should not happen aloud.
pub(crate) fn log_errno(header: &Header, errno: Errno) {
    let Header { unique, nodeid, opcode, uid, pid, .. } = *header;
    match errno {
        Errno::EIO | Errno::EPROTO => {
            tracing::warn!(%errno, unique, nodeid, opcode, uid, pid, "an operation failed");
        }
        _ => tracing::debug!(%errno, unique, nodeid, opcode, uid, pid, "an operation was refused"),
    }
}
