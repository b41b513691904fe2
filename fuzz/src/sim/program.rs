//! What programs on a client do: they write their own places and look at all.

use std::sync::Arc;
use std::time::Duration;

use flexfs_uring::timer;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;

use super::check::{Before, Check};
use super::client::{Client, Handle};

/// No operation takes longer, whatever goes wrong.
const OPERATION_MAX: Duration = Duration::from_secs(200);
/// Bytes of one place: its value, twice.
pub(crate) const PLACE: u64 = 16;

/// Files and names of a run.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) clients: usize,
    pub(crate) files: Vec<(Ino, u64)>,
    pub(crate) log: Ino,
}

/// Where client's places are in a file: some share pages, some cross them.
pub(crate) fn offset(stride: u64, client: usize, slot: u64) -> u64 {
    slot * stride + client as u64 * PLACE + 4096 - 24
}

pub(crate) const SLOTS: u64 = 3;

pub(crate) fn place(file: usize, client: usize, slot: u64) -> String {
    format!("file {file}, place {slot} of {client}")
}

pub(crate) fn log_of(client: usize) -> String {
    format!("log, records of {client}")
}

pub(crate) fn name_of(client: usize) -> String {
    format!("name of {client}")
}

/// A program.
pub(crate) struct Program {
    pub(crate) client: Arc<Client>,
    pub(crate) check: Arc<Check>,
    pub(crate) world: World,
    /// It writes; others only read.
    pub(crate) writes: bool,
    pub(crate) handle: Option<(usize, Handle)>,
    /// The name's value; even: it is absent.
    pub(crate) think: Duration,
}

impl Program {
    pub(crate) async fn run(mut self, operations: u32) {
        for _ in 0..operations {
            if self.check.has_failed() || self.client.port.state().dead {
                return;
            }
            let pause = self.client.port.net.draw(|random| random.time(self.think));
            timer::sleep(pause).await;
            let kind = self.client.port.net.draw(|random| random.below(100));
            let done = timer::timeout(OPERATION_MAX, self.step(kind)).await;
            let number = self.client.number;
            match done {
                Err(_) => {
                    if !self.client.port.state().dead {
                        self.client.port.net.describe();
                        self.check.fail(format!("client {number}: operation {kind} has not ended"));
                    }
                    return;
                }
                Ok(Ok(())) => {}
                // Sessions were lost: said to programs, and allowed.
                Ok(Err(errno @ (Errno::EIO | Errno::ESTALE))) if self.client.port.net.weather.loses() => {
                    self.check.note(|| format!("client {number}: operation {kind} failed: {errno:?}"));
                }
                Ok(Err(errno)) => {
                    self.check.fail(format!("client {number}: operation {kind} failed with {errno:?}"));
                }
            }
        }
        if let Some((_, handle)) = self.handle.take() {
            let _ = timer::timeout(OPERATION_MAX, self.client.close(handle)).await;
        }
    }

    async fn step(&mut self, kind: u64) -> Result<(), Errno> {
        if !self.writes {
            return match kind {
                0..60 => self.read_places().await,
                60..80 => self.read_log().await,
                _ => self.look().await,
            };
        }
        match kind {
            0..30 => self.write_place().await,
            30..35 => self.allocate().await,
            35..65 => self.read_places().await,
            65..72 => self.append().await,
            72..80 => self.read_log().await,
            80..87 => self.change_name().await,
            87..95 => self.look().await,
            _ => self.fsync().await,
        }
    }

    async fn file(&mut self) -> Result<(usize, u64), Errno> {
        let count = self.world.files.len();
        let net = &self.client.port.net;
        let (permille, drops) = (net.weather.direct, net.weather.drops);
        let (anew, next, direct, drop) = net.draw(|random| {
            (random.chance(250), random.index(count), random.chance(permille), random.chance(drops))
        });
        if anew && let Some((_, handle)) = self.handle.take() {
            self.client.close(handle).await?;
        }
        let at = match &self.handle {
            Some((at, _)) => *at,
            None => {
                let mut handle = self.client.open(self.world.files[next].0, self.writes, false).await?;
                handle.direct |= direct;
                self.handle = Some((next, handle));
                next
            }
        };
        if drop {
            self.client.kernel.drop_pages(self.world.files[at].0);
        }
        Ok((at, self.world.files[at].1))
    }

    fn handle(&self) -> Result<&Handle, Errno> {
        self.handle.as_ref().map(|(_, handle)| handle).ok_or(Errno::EBADF)
    }

    async fn write_place(&mut self) -> Result<(), Errno> {
        let (at, stride) = self.file().await?;
        let syncs = self.client.port.net.weather.syncs;
        let (slot, sync) = self.client.port.net.draw(|random| (random.below(SLOTS), random.chance(syncs)));
        let number = self.client.number;
        let place = place(at, number, slot);
        let value = self.check.begin_write(&place);
        let offset = offset(stride, number, slot);
        self.check.note(|| format!("client {number} writes {value} in {place}"));
        let bytes = [value.to_le_bytes(), value.to_le_bytes()].concat();
        let losses = self.client.write(self.handle()?, offset, &bytes, false).await?;
        let is_there = self.check.end_write(&place, value, losses);
        self.check.note(|| format!("client {number} wrote {value} in {place}"));
        if sync {
            self.client.fsync(self.handle()?).await?;
            if is_there {
                self.check.keep(&place, value);
            }
        }
        Ok(())
    }

    async fn fsync(&mut self) -> Result<(), Errno> {
        let (at, _) = self.file().await?;
        let number = self.client.number;
        let values: Vec<(String, u64)> = (0..SLOTS)
            .map(|slot| place(at, number, slot))
            .map(|place| (place.clone(), self.check.completed(&place)))
            .collect();
        self.client.fsync(self.handle()?).await?;
        for (place, value) in values {
            self.check.keep(&place, value);
        }
        Ok(())
    }

    async fn allocate(&mut self) -> Result<(), Errno> {
        let (at, _) = self.file().await?;
        let number = self.client.number;
        self.check.note(|| format!("client {number} allocates in file {at}"));
        self.client.allocate(self.handle()?, 4096).await?;
        self.check.note(|| format!("client {number} has allocated in file {at}"));
        Ok(())
    }

    pub(crate) async fn read_places(&mut self) -> Result<(), Errno> {
        let (at, stride) = self.file().await?;
        let (slot, owner) =
            self.client.port.net.draw(|random| (random.below(SLOTS), random.index(self.world.clients)));
        self.read_place(at, stride, slot, owner).await
    }

    pub(crate) async fn read_place(
        &self,
        at: usize,
        stride: u64,
        slot: u64,
        owner: usize,
    ) -> Result<(), Errno> {
        let number = self.client.number;
        let place = place(at, owner, slot);
        let before = self.check.before(number, &place);
        let offset = offset(stride, owner, slot);
        let bytes = self.client.read(self.handle()?, offset..offset + PLACE).await?;
        let value = word(&bytes, 0);
        self.check.note(|| format!("client {number} read {value} in {place}"));
        self.check.end_read(number, &place, before, value);
        Ok(())
    }

    async fn append(&mut self) -> Result<(), Errno> {
        let number = self.client.number;
        let place = log_of(number);
        let handle = self.client.open(self.world.log, true, true).await?;
        let value = self.check.begin_write(&place);
        self.check.note(|| format!("client {number} appends {value}"));
        let bytes = [(number as u64 + 1).to_le_bytes(), value.to_le_bytes()].concat();
        let size = self.client.kernel.state().inodes.get(&self.world.log).map_or(0, |inode| inode.size);
        let result = self.client.write(&handle, size, &bytes, true).await;
        if let Ok(losses) = result {
            self.check.end_write(&place, value, losses);
            self.check.note(|| format!("client {number} appended {value}"));
        }
        let closed = self.client.close(handle).await;
        result.map(|_| ()).and(closed)
    }

    pub(crate) async fn read_log(&mut self) -> Result<(), Errno> {
        let number = self.client.number;
        let clients = self.world.clients;
        let before: Vec<Before> =
            (0..clients).map(|client| self.check.before(number, &log_of(client))).collect();
        let handle = self.client.open(self.world.log, false, false).await?;
        let bytes = match self.client.stat(self.world.log).await {
            Ok(attr) => self.client.read(&handle, 0..attr.size).await,
            Err(errno) => Err(errno),
        };
        self.client.close(handle).await?;
        let bytes = bytes?;
        let mut last = vec![0; clients];
        for record in bytes.chunks(16) {
            let (client, value) = (word(record, 0), word(record, 8));
            // What was lost with a session, before one that another client replayed.
            if (client, value) == (0, 0) && self.client.port.net.weather.loses() {
                continue;
            }
            let Some(seen) =
                usize::try_from(client).ok().and_then(|client| last.get_mut(client.wrapping_sub(1)))
            else {
                self.check.fail(format!("client {number} found a torn record in the log: {record:?}"));
                return Ok(());
            };
            // What failed leaves a gap, at most.
            if value <= *seen || value != *seen + 1 && !self.client.port.net.weather.loses() {
                self.check.fail(format!("client {number} found record {value} of {client} after {seen}"));
            }
            *seen = value;
        }
        self.check.note(|| format!("client {number} read the log: {last:?}"));
        for (client, (value, before)) in last.into_iter().zip(before).enumerate() {
            self.check.end_read(number, &log_of(client), before, value);
        }
        Ok(())
    }

    /// The client's name comes and goes: its value is odd while it is there.
    async fn change_name(&mut self) -> Result<(), Errno> {
        let number = self.client.number;
        let place = name_of(number);
        let name = format!("n{number}");
        if self.client.port.net.weather.loses() {
            return self.look().await;
        }
        let value = self.check.begin_write(&place);
        self.check.note(|| format!("client {number} makes its name {value}"));
        if value % 2 == 1 {
            let rename = self.client.port.net.draw(|random| random.chance(500));
            let handle = self
                .client
                .create(if rename { "t".to_owned() + &name } else { name.clone() }.as_str())
                .await?;
            if rename {
                self.client.rename(&format!("t{name}"), &name).await?;
            }
            self.check.end_write(&place, value, self.check.losses(number));
            self.client.close(handle).await?;
        } else {
            self.client.unlink(&name).await?;
            self.check.end_write(&place, value, self.check.losses(number));
        }
        self.check.note(|| format!("client {number} made its name {value}"));
        Ok(())
    }

    pub(crate) async fn look(&mut self) -> Result<(), Errno> {
        let number = self.client.number;
        let owner = self.client.port.net.draw(|random| random.index(self.world.clients));
        let place = name_of(owner);
        let before = self.check.before(number, &place);
        let found = self.client.lookup(&format!("n{owner}")).await?;
        self.check.note(|| format!("client {number} looked at name {owner}: {found:?}"));
        self.check.end_look(number, &place, before, found.is_some());
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(u64::MAX, u64::from_le_bytes)
}
