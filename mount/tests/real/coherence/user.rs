//! An ordinary user: a thread with the ids of one.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::fs::{Access, AtFlags, CWD, Gid, Uid};
use rustix::io::Errno;

/// Its user and group id.
pub(super) const USER: u32 = 1000;

/// The thread; ends when this is dropped.
pub(super) struct User {
    ask: Sender<(PathBuf, Access)>,
    told: Receiver<Result<(), Errno>>,
}

impl User {
    pub(super) fn start() -> Self {
        let (ask, asked) = channel::<(PathBuf, Access)>();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            // Ids of this thread alone, as the kernel has them.
            let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            for (path, access) in asked {
                let said = rustix::fs::accessat(CWD, &path, access, AtFlags::empty());
                // The test has ended otherwise.
                let _ = tell.send(said);
            }
        });
        Self { ask, told }
    }

    /// `access(2)` for the permission bits `wanted` (4 read, 2 write, 1 search).
    pub(super) fn access(&self, path: &Path, wanted: u32) -> Result<(), Errno> {
        let bits = [(4, Access::READ_OK), (2, Access::WRITE_OK), (1, Access::EXEC_OK)];
        let wanted = bits.into_iter().filter(|(bit, _)| wanted & bit != 0).map(|(_, access)| access);
        self.ask.send((path.to_owned(), wanted.collect())).unwrap();
        self.told.recv().unwrap()
    }
}
