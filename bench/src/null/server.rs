//! The null server's process: mounts, serves, ends when it is unmounted.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use flexfs_mount::fuse::{attach, device as handshake};
use flexfs_mount::shard::Shards;
use flexfs_wire::settings::Flags;

use super::answer::Null;
use super::{device, uring};

/// What it prints when it serves.
pub(crate) const READY: &str = "the null file system is mounted";
/// Threads that read `/dev/fuse`.
const DEVICE_THREADS: usize = 2;

/// How requests come from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// FUSE over io_uring.
    Uring,
    /// `/dev/fuse`.
    Dev,
}

impl Transport {
    /// As flags have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Dev => "dev",
        }
    }

    /// As reports have it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Dev => "/dev/fuse",
        }
    }

    fn parse(name: &str) -> anyhow::Result<Self> {
        match name {
            "uring" => Ok(Self::Uring),
            "dev" => Ok(Self::Dev),
            _ => bail!("no such transport: {name}"),
        }
    }
}

/// Mounts the null file system on `target` and serves it until it is unmounted.
///
/// # Errors
/// Why it cannot be mounted.
pub(crate) fn serve(transport: &str, target: &Path) -> anyhow::Result<()> {
    let null = Arc::new(Null::new());
    match Transport::parse(transport)? {
        Transport::Uring => over_uring(&null, target),
        Transport::Dev => over_device(&null, target),
    }
}

fn over_uring(null: &Arc<Null>, target: &Path) -> anyhow::Result<()> {
    let shards = Shards::start()?;
    let device = Arc::new(attach::open_device(false)?);
    attach::mount(&device, "null", target, Flags::default())?;
    let served = handshake::handshake(&device, false, false)
        .map_err(anyhow::Error::from)
        .and_then(|_| uring::serve(&device, null, &shards));
    if let Err(error) = served {
        attach::detach(target)?;
        return Err(error);
    }
    announce(target);
    shards.run(0, move || uring::drain_device(device))
}

fn over_device(null: &Arc<Null>, target: &Path) -> anyhow::Result<()> {
    let device = Arc::new(attach::open_device(true)?);
    attach::mount(&device, "null", target, Flags::default())?;
    let threads = match device::serve(&device, null, DEVICE_THREADS) {
        Ok(threads) => threads,
        Err(error) => {
            attach::detach(target)?;
            return Err(error);
        }
    };
    announce(target);
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a thread panicked")).context("serve")?;
    }
    Ok(())
}

/// Readahead as our own mount has it, and the word that all is ready.
fn announce(target: &Path) {
    if let Ok(Some(mounted)) = attach::find(target)
        && let Err(error) = mounted.raise_read_ahead()
    {
        eprintln!("the kernel's readahead stays small: {error}");
    }
    println!("{READY}");
}
