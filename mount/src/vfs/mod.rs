//! The file system as the kernel asks for it: one async function per operation, typed arguments, an errno or a value.
//!
//! Sees the parsed requests of `fuse`, the server through `link`, the bytes through `data`; sees neither queue nor
//! device. What cores share (inodes, handles) stands behind sharded locks that are never held across an await.
//!
//! `answer` <- `inode handle notice` <- `state` <- `name create attr file dir xattr lock atime`.

mod answer;
mod atime;
mod attr;
mod create;
mod dir;
mod file;
mod handle;
mod inode;
mod lock;
mod name;
mod notice;
mod state;
mod xattr;

pub use answer::{DirItem, Found, Opened, ValidFor};
pub use inode::Inode;
pub use notice::{Notice, Notices};
pub use state::{Ctx, Figures, Vfs};
