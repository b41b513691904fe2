//! Serving over io_uring: a queue per core on a pinned shard, forgets from `/dev/fuse` on the first.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use flexfs_mount::fuse::queue::depth;
use flexfs_mount::fuse::request::{self, Header};
use flexfs_mount::shard::Shards;
use flexfs_uring::file::File;
use flexfs_uring::fuse::{Entry, Fetched, Queue, QueueConfig, RegisterError};
use flexfs_wire::limits::FUSE_IO_BYTES_MAX;
use rustix::io::Errno as OsErrno;

use super::answer::Null;

/// Buffer for what comes over the device.
const READ_BYTES: usize = FUSE_IO_BYTES_MAX + 4096;

/// Registers all queues and serves them.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn serve(device: &Arc<OwnedFd>, null: &Arc<Null>, shards: &Shards) -> anyhow::Result<()> {
    let depth = depth(shards.possible_cpus());
    for index in 0..shards.count() {
        let qids = shards.qids(index).to_vec();
        let (device, null) = (Arc::clone(device), Arc::clone(null));
        shards.run(index, move || async move { register(&device, &qids, depth, &null) })??;
    }
    Ok(())
}

fn register(device: &Arc<OwnedFd>, qids: &[u16], depth: u16, null: &Arc<Null>) -> Result<(), RegisterError> {
    for &qid in qids {
        let config = QueueConfig { qid, depth, payload_bytes: FUSE_IO_BYTES_MAX };
        for entry in Queue::register(device, &config)? {
            drop(flexfs_uring::spawn(serve_entry(entry, Arc::clone(null))));
        }
    }
    Ok(())
}

async fn serve_entry(mut entry: Entry, null: Arc<Null>) {
    while let Ok(fetched) = entry.next().await {
        serve_one(fetched, &null);
    }
}

fn serve_one(mut fetched: Fetched<'_>, null: &Null) {
    let op = *fetched.header().op_in();
    let result = Header::parse(fetched.header().in_out()).and_then(|header| {
        let operation = request::parse(&header, &op, fetched.payload())?;
        null.answer(&header, operation, fetched.payload_mut())
    });
    match result {
        Ok(bytes) => fetched.reply(0, bytes),
        Err(errno) => fetched.reply(-errno.0, 0),
    }
}

/// Takes forgets and interrupts, which mean nothing here, until the file system is unmounted.
pub(super) async fn drain_device(device: Arc<OwnedFd>) {
    let file = File::from(device);
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        buffer.clear();
        let (read, back) = file.read(buffer).await;
        buffer = back;
        match read.map_err(|error| OsErrno::from_io_error(&error)) {
            Ok(_) | Err(Some(OsErrno::NOENT | OsErrno::INTR | OsErrno::AGAIN)) => {}
            Err(_) => return,
        }
    }
}
