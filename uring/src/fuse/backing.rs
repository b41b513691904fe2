//! Files that the kernel reads in place of asking (FUSE passthrough, Linux 6.9): `FUSE_DEV_IOC_BACKING_OPEN` gives an open
//! file a number on the connection, which an answer to OPEN may name.
#![expect(unsafe_code, reason = "two ioctls that rustix does not know")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};

/// Group of the ioctls of /dev/fuse (`FUSE_DEV_IOC_MAGIC`).
const MAGIC: u8 = 229;

/// `struct fuse_backing_map` of include/uapi/linux/fuse.h.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

const _: () = assert!(size_of::<BackingMap>() == 16);

/// `FUSE_DEV_IOC_BACKING_OPEN`; the result is the number.
struct Open(BackingMap);

// SAFETY: the call reads 16 bytes at the pointer, which is a map owned by the value, and writes none; its result is the
// value of the call itself. JUSTIFICATION: there is no other way to name a backing file.
unsafe impl Ioctl for Open {
    type Output = i32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::write::<BackingMap>(MAGIC, 1)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(&mut self.0).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

/// `FUSE_DEV_IOC_BACKING_CLOSE`.
struct Close(u32);

// SAFETY: the call reads four bytes at the pointer, which is a number owned by the value, and writes none.
// JUSTIFICATION: as above.
unsafe impl Ioctl for Close {
    type Output = ();
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::write::<u32>(MAGIC, 2)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(&mut self.0).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// A number of a file on a FUSE connection, until this is dropped. Descriptors that were opened under it keep the file.
#[derive(Debug)]
pub struct Backing {
    device: Arc<OwnedFd>,
    id: i32,
}

impl Backing {
    /// Gives `file` a number on the connection of `device`.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, or when passthrough was not agreed on in INIT; ELOOP for a file on a file system that is
    /// stacked itself; EBADF, EINVAL, ENOMEM.
    pub fn open(device: &Arc<OwnedFd>, file: impl AsFd) -> io::Result<Self> {
        let map = BackingMap { fd: file.as_fd().as_raw_fd(), flags: 0, padding: 0 };
        // SAFETY: the descriptors are open for the whole call, which touches no memory but the map.
        let id = unsafe { rustix::ioctl::ioctl(device, Open(map)) }?;
        Ok(Self { device: Arc::clone(device), id })
    }

    /// The number, as `fuse_open_out` wants it.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        let id = self.id.unsigned_abs();
        // SAFETY: as in `open`. It fails only when the connection is gone, and the number with it.
        let _ = unsafe { rustix::ioctl::ioctl(&self.device, Close(id)) };
    }
}
