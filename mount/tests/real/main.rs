//! Real mounts: a cluster of the built binaries, the kernel's FUSE, and the programs people run on a file system.
//!
//! `./test mount` runs all of it. One test by hand, with the release binaries:
//! `FLEXFS_BIN_DIR=$PWD/target/release cargo nextest run -p flexfs-mount --profile mount -E 'test(rename)'`.
//! Each test runs over both transports, has a cluster of its own, ends it, and lets `meta.flexfs verify` have the last word.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failed step is a failed test")]

/// Makes a test of each transport out of `fn name(transport: Transport)`.
macro_rules! both {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn uring() {
                super::$name(crate::harness::Transport::Uring);
            }
            #[test]
            fn dev() {
                super::$name(crate::harness::Transport::Dev);
            }
        }
    )+};
}

/// Makes a test of the default transport: what such a test breaks lies behind the server, where no transport shows.
macro_rules! one {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn uring() {
                super::$name(crate::harness::Transport::Uring);
            }
        }
    )+};
}

mod acls;
mod ahead;
mod behind;
mod certificates;
mod child;
mod closed;
mod coherence;
mod crash;
mod disk_cache;
mod encryption;
mod ends;
mod faults;
mod files;
mod full;
mod handles;
mod hardening;
mod harness;
mod large;
mod locks;
mod mapped;
mod mounting;
mod names;
mod opens;
mod outage;
mod pages;
mod passthrough;
mod quickstart;
mod ready;
mod refusals;
mod revoke;
mod secrets;
mod space;
mod squash;
mod suites;
mod systemd;
mod tools;
mod tree;
mod twins;
mod wakeful;
mod xattrs;
