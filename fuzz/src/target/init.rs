//! The negotiation of capabilities (INIT): whatever the kernel offers, the answer stays within it and within bounds.

use flexfs_mount::fuse::init::{InitError, Offer, wanted_without_parser};
use flexfs_wire::limits::FUSE_IO_BYTES_MAX;

/// Bits of INIT by `linux/fuse.h`.
const INIT_EXT: u64 = 1 << 30;
const OVER_IO_URING: u64 = 1 << 41;
/// What this client must never agree to: the kernel would own sizes and times, or cut files before its checks.
const REFUSED: u64 = 1 << 3 | 1 << 16 | 1 << 17 | 1 << 24 | 1 << 37;

/// Agreed upon only where access lists are served: the umask is the server's to apply then.
const FOR_ACLS: u64 = 1 << 6 | 1 << 20;

/// The bytes as the body of INIT.
pub fn run(data: &[u8]) {
    // A short offer has zeros where a long one has more.
    let mut full = [0; 64];
    for (byte, given) in full.iter_mut().zip(data) {
        *byte = *given;
    }
    let word = |at: usize| u32::from_le_bytes([full[at], full[at + 1], full[at + 2], full[at + 3]]);
    let Ok(offer) = Offer::parse(data) else {
        assert!(data.len() < 16);
        return;
    };
    let (low, high) = (u64::from(word(12)), u64::from(word(16)));
    let offered = if low & INIT_EXT == 0 { low } else { low | high << 32 };
    assert_eq!((offer.major, offer.minor, offer.flags), (word(0), word(4), offered));
    for (io_uring, acls) in [(false, false), (true, false), (false, true), (true, true)] {
        match offer.answer(io_uring, acls, false) {
            Err(InitError::Version(major, minor)) => {
                assert_eq!((major, minor), (word(0), word(4)));
                assert!(major != 7 || minor < 36);
            }
            Err(error) => panic!("{error}"),
            Ok(agreement) => {
                assert!(word(0) == 7 && word(4) >= 36);
                assert_eq!(agreement.flags & !offered, 0, "only what was offered");
                assert_eq!(agreement.flags & REFUSED, 0);
                assert!(acls || agreement.flags & FOR_ACLS == 0);
                assert_eq!(agreement.over_io_uring, io_uring && offered & OVER_IO_URING != 0);
                check_body(agreement.body(), agreement.flags, word(8));
            }
        }
    }
    assert_eq!(wanted_without_parser(true) & REFUSED, 0);
    assert_eq!(wanted_without_parser(false) & FOR_ACLS, 0);
}

/// `fuse_init_out`, field by field as the kernel reads it (`process_init_reply`).
fn check_body(body: &[u8], flags: u64, readahead: u32) {
    assert_eq!(body.len(), 64);
    let word = |at: usize| u32::from_le_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
    let half = |at: usize| u16::from_le_bytes([body[at], body[at + 1]]);
    assert!(word(0) == 7 && word(4) <= 45);
    assert!(word(8) <= readahead);
    assert_eq!(u64::from(word(12)) | u64::from(word(32)) << 32, flags);
    let (background, threshold) = (half(16), half(18));
    assert!(threshold > 0 && threshold <= background);
    let (max_write, granularity, max_pages) = (word(20), word(24), half(28));
    assert!(max_write as usize <= FUSE_IO_BYTES_MAX && max_write >= 4096);
    assert!(granularity.is_power_of_two() || granularity == 1);
    assert_eq!(u32::from(max_pages) * 4096, max_write);
}
