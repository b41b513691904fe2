//! The file system as the kernel asks for it: one async function per operation, typed arguments, an errno or a value.
//!
//! Sees the server through `link` and the bytes through `data`; knows nothing of FUSE but that inodes and open files have
//! numbers the kernel uses. What cores share (inodes, handles) stands behind sharded locks that are never held across an await.
//!
//! `args answer` <- `known ahead content` <- `inode handle notice forgotten` <- `recall state told behind gather prefetch` <- `name create attr file dir xattr lock atime export given`.

mod ahead;
mod answer;
mod appetite;
mod args;
mod atime;
mod attr;
mod behind;
mod content;
mod create;
mod dir;
mod dropping;
mod export;
mod file;
mod forgotten;
mod gather;
mod given;
mod handle;
mod inode;
mod known;
mod left;
mod lock;
mod name;
mod notice;
mod prefetch;
mod quiet;
mod recall;
mod state;
mod stream;
mod told;
mod watched;
mod xattr;

pub use answer::{DirItem, Found, Looked, Opened, ValidFor};
pub use args::{CopyArgs, Forget, MakeArgs, OpenFlags, ReadArgs, WriteArgs};
pub use dropping::Dropping;
pub use inode::Inode;
pub use notice::{Notice, Notices};
pub use recall::{Kernel, Progress, Recaller, Task, Told};
pub use state::{Ctx, Figures, Vfs};
