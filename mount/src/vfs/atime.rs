//! Access times, which the kernel leaves to the file system here.
//!
//! Relatime, as local file systems do it: a read changes the access time when it is not younger than the last change,
//! or a day old. The new time shows on this machine at once and goes to the server later, in the background: nobody
//! waits for it. Reads that the kernel answers from its pages are not seen.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flexfs_uring::clock;
use flexfs_wire::attr::{SetAttr, SetTime};
use flexfs_wire::message::Request;
use flexfs_wire::time::Time;

use super::inode::{Inode, Times};
use super::state::Vfs;

/// Age at which an access time is renewed in any case, seconds.
const DAY_SECS: i64 = 24 * 3600;
/// Access times that may wait to be sent; beyond it they are not kept (a hint, not data).
const WAITING_MAX: usize = 16_384;
/// How long they wait.
const SEND_EVERY: Duration = Duration::from_secs(5);

/// Access times to be sent.
#[derive(Debug)]
pub(crate) struct Atimes {
    enabled: bool,
    waiting: Mutex<Vec<Arc<Inode>>>,
}

impl Atimes {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, waiting: Mutex::default() }
    }

    fn push(&self, inode: &Arc<Inode>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            waiting.push(Arc::clone(inode));
        } else {
            inode.settle_atime(None);
        }
    }

    fn take(&self) -> Vec<Arc<Inode>> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Vfs {
    /// The inode was read.
    pub(crate) fn touch_atime(&self, inode: &Arc<Inode>) {
        if !self.atimes.enabled {
            return;
        }
        let (secs, nanos) = clock::wall_parts();
        if inode.touch(Time { secs, nanos }, is_due) {
            self.atimes.push(inode);
        }
    }

    /// Sends access times from time to time, for ever. Runs on one shard.
    pub async fn run_atimes(&self) {
        loop {
            flexfs_uring::timer::sleep(SEND_EVERY).await;
            self.send_atimes();
        }
    }

    /// Sends what waits.
    pub fn send_atimes(&self) {
        for inode in self.atimes.take() {
            let Some((atime, times)) = inode.pending_atime() else { continue };
            let change = SetAttr {
                atime: Some(SetTime::At(atime)),
                // Reading is no change of attributes.
                ctime: Some(SetTime::At(times.ctime)),
                ..SetAttr::default()
            };
            // Not as the reader, who need not be allowed to. Squashed, root's own files keep their times.
            if times.owner.uid != 0 || !self.flags.root_squash {
                self.files.note_atime(inode.ino(), atime);
                self.remote.call_later(times.owner, Request::SetAttr { node: inode.node, change });
            }
            inode.settle_atime(Some(atime));
        }
    }
}

/// Whether a read at `now` changes the access time (`relatime_need_update` of the kernel).
fn is_due(times: &Times, now: Time) -> bool {
    times.atime <= times.mtime || times.atime <= times.ctime || now.secs - times.atime.secs >= DAY_SECS
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexfs_wire::message::Caller;

    #[test]
    fn relatime() {
        let time = |secs| Time { secs, nanos: 0 };
        let times = |atime, mtime, ctime| Times {
            atime: time(atime),
            mtime: time(mtime),
            ctime: time(ctime),
            owner: Caller { uid: 0, gid: 0 },
            gives_group: false,
        };
        assert!(is_due(&times(10, 10, 5), time(20)));
        assert!(is_due(&times(10, 5, 10), time(20)));
        assert!(!is_due(&times(10, 5, 5), time(20)));
        assert!(is_due(&times(10, 5, 5), time(10 + DAY_SECS)));
        assert!(!is_due(&times(10, 5, 5), time(0)));
    }
}
