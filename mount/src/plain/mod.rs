//! FUSE passthrough: whole files of a volume in which nothing can change, as plain files of the local disk that the kernel
//! reads by itself. No request of such a read or mapping comes here.
//!
//! A file that is open this way cannot be taken back from the program that has it. So it is done only
//! * on volumes whose own flags say `ro`, which the metadata server then keeps so for this session (`meta: volume/trust.rs`):
//!   a mount that is merely read-only itself would miss what others write;
//! * on volumes that are not encrypted: what the kernel reads is plain, and a local disk holds nothing plain of those;
//! * with a disk cache, whose quota counts these files (half of it at most), in its folder `plain/`;
//! * over io_uring, and for files from [`passing::BYTES_MIN`] on.
//!
//! The first open is served here, and the file is put together behind it, of segments that were verified one by one, with a checksum
//! of the whole beside it (`place`). Opens after that pass through, once no descriptor is left that does not: the kernel has an
//! inode in one mode at a time (`EIO` else). A later mount verifies the whole once, when the file is first opened. What is
//! looked for is named by inode and by what the layout says where its bytes are (`data`: `identity`), so it is never another version.
//!
//! Should anything be recalled all the same, or the session end, the file that was passed through is emptied: its readers see an end
//! of file (`SIGBUS` in mappings), and nothing that may be old.
//!
//! Layers: `place` <- `table` <- `passing` <- `assemble`.

mod assemble;
mod passing;
mod place;
mod table;

pub use passing::{Figures, Passing};
