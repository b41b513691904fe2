//! Fuzz targets as plain functions: `cargo fuzz run NAME` feeds them, and the tests run seeds and kept findings in every
//! build. `model` is a file system written from POSIX that `namespace` is compared with.
#![forbid(unsafe_code)]

mod fabricate;
pub mod model;
pub mod sim;
pub mod source;
pub mod target;
pub mod world;
