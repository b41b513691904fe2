//! A file of the volume becomes a plain file, or the one of an earlier mount is verified. In the background, on a shard.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flexfs_uring::file::{self, File};
use flexfs_uring::timer::sleep;
use flexfs_uring::yield_now;
use flexfs_wire::message::Caller;
use flexfs_wire::seal::Node;
use rustix::fs::OFlags;
use xxhash_rust::xxh3::Xxh3;

use super::passing::{Passing, Plain};
use super::place::{Name, SUM_BYTES};
use crate::data::ReadMode;

/// Bytes read and written at once.
const CHUNK: usize = 1 << 20;
/// How long the disk cache may take to give its room to a plain file.
const ROOM_MAX: Duration = Duration::from_secs(10);
/// How often that is looked at.
const ROOM_LOOK: Duration = Duration::from_millis(10);
/// Files are opened with these beside the way of access.
const FLAGS: OFlags = OFlags::NOFOLLOW;
/// Reads for itself, by handle.
const NOBODY: Caller = Caller { uid: 0, gid: 0 };

impl Passing {
    /// Puts a plain file of `size` bytes together, so that later opens pass through. Whatever goes wrong, opens go on as they do.
    pub(super) async fn assemble(self: Arc<Self>, node: Node, size: u64) {
        // Beyond so many at once it is tried again with a later first open.
        let Some(_permit) = self.permits.try_acquire() else {
            self.state().table.take_ready(node.ino);
            return;
        };
        if !self.state().busy.insert(node.ino) {
            return;
        }
        let made = self.make(node, size).await;
        self.state().busy.remove(&node.ino);
        if let Err(error) = made {
            tracing::info!(ino = node.ino.0, %error, folder = %self.folder().display(), "a file is not kept in plain form");
        }
    }

    async fn make(&self, node: Node, size: u64) -> io::Result<()> {
        let generation = self.remote.generation();
        let identity =
            self.files.identity(node, false).await.map_err(|errno| io::Error::other(errno.text()))?;
        let Some((identity, known_size)) = identity else { return Ok(()) };
        if known_size != size || self.is_off() || self.state().table.is_ready(node.ino) {
            return Ok(());
        }
        let name = Name { ino: node.ino, identity };
        if self.state().kept.contains(&name) {
            match self.verify(&name, size).await {
                Ok(Some(file)) => {
                    self.counters.verified.fetch_add(1, Ordering::Relaxed);
                    let bytes = allocated(&file)?;
                    self.set_ready(node, Plain { name, file }, bytes, generation);
                    return Ok(());
                }
                damaged => {
                    self.counters.damaged.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(
                        ino = node.ino.0,
                        ?damaged,
                        "a plain file is not what was written; dropped"
                    );
                    self.discard(&name).await;
                }
            }
        }
        if !self.make_room(size).await {
            return Ok(());
        }
        let made = if self.wait_for_room().await { self.copy(node, &name, size).await } else { Ok(None) };
        let done = made.and_then(|file| {
            let Some(file) = file else { return Ok(()) };
            self.counters.assembled.fetch_add(1, Ordering::Relaxed);
            let bytes = allocated(&file)?;
            self.set_ready(node, Plain { name, file }, bytes, generation);
            Ok(())
        });
        if done.is_err() {
            // It may not be there.
            drop(file::unlink(&self.place.unfinished(&self.place.file(&name))).await);
            self.discard(&name).await;
        }
        self.settle(size);
        done
    }

    /// Segments were evicted for it.
    async fn wait_for_room(&self) -> bool {
        let looks = ROOM_MAX.as_millis() / ROOM_LOOK.as_millis();
        for _ in 0..looks {
            if self.disk.is_within() {
                return true;
            }
            sleep(ROOM_LOOK).await;
        }
        false
    }

    /// The plain file of an earlier mount, if it holds what its sum says.
    async fn verify(&self, name: &Name, size: u64) -> io::Result<Option<File>> {
        let sum = File::open(&self.place.sum(name), OFlags::RDONLY | FLAGS, 0).await?;
        let (read, bytes) = sum.read_exact_at(Vec::new(), SUM_BYTES, 0).await;
        read?;
        let Some(expected) = self.place.read_sum(name, size, &bytes) else { return Ok(None) };
        let file = File::open(&self.place.file(name), OFlags::RDWR | FLAGS, 0).await?;
        if rustix::fs::fstat(&file)?.st_size.unsigned_abs() != size {
            return Ok(None);
        }
        let mut hash = Xxh3::new();
        let mut buffer = Vec::with_capacity(CHUNK);
        let mut at = 0;
        while at < size {
            buffer.clear();
            let count = chunk(size - at);
            let (read, back) = file.read_exact_at(buffer, count, at).await;
            read?;
            hash.update(&back);
            buffer = back;
            at += count as u64;
            yield_now().await;
        }
        Ok((hash.digest128() == expected).then_some(file))
    }

    /// Reads all of the file as programs do, verified, and writes it down. `None`: it was given up meanwhile.
    async fn copy(&self, node: Node, name: &Name, size: u64) -> io::Result<Option<File>> {
        let path = self.place.file(name);
        let unfinished = self.place.unfinished(&path);
        let file = create(&unfinished).await?;
        rustix::fs::ftruncate(&file, size)?;
        let mut hash = Xxh3::new();
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < size {
            if self.is_off() {
                file::unlink(&unfinished).await?;
                return Ok(None);
            }
            let count = chunk(size - at);
            buffer.resize(count, 0);
            let read = self.files.read(NOBODY, node, at, &mut buffer, ReadMode::default(), None).await;
            if read.map_err(|errno| io::Error::other(errno.text()))?.bytes != count {
                return Err(io::Error::other("the file has another size than its attributes say"));
            }
            hash.update(&buffer);
            // Holes stay holes.
            if buffer.iter().any(|byte| *byte != 0) {
                let (written, back) = file.write_all_at(buffer, at).await;
                written?;
                buffer = back;
            }
            at += count as u64;
        }
        file::rename(&unfinished, &path).await?;
        // Last: a file without a sum is none.
        let sum = self.place.sum(name);
        let (written, _) = create(&unfinished)
            .await?
            .write_all_at(self.place.make_sum(name, size, hash.digest128()), 0)
            .await;
        written?;
        file::rename(&unfinished, &sum).await?;
        Ok(Some(file))
    }
}

async fn create(path: &Path) -> io::Result<File> {
    File::open(path, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | FLAGS, 0o600).await
}

/// Bytes of the disk that a file takes.
fn allocated(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::fstat(file)?.st_blocks.unsigned_abs() * 512)
}

fn chunk(left: u64) -> usize {
    usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)
}
