//! Checks every invariant of a volume's database: what `meta.flexfs verify` runs, and every test after its scenario.
//!
//! Reads all tables once, in order. Memory: some 200 bytes for each inode and 100 for each block.

mod facts;
mod names;
mod report;
mod sessions;
mod space;

pub use report::{Report, verify};
