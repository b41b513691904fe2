//! Stored bytes of a segment, verified and opened: the same for what came over the network and for what was on the disk.

use flexfs_wire::block::{BlockError, open_encrypted, open_segment};
use flexfs_wire::cipher::BlockCipher;
use flexfs_wire::message::Segment;

/// Verifies `stored` as segment `number` of a block, and opens it into `room`, which takes exactly its raw bytes. `plain` is
/// used in between. On an error `room` may hold anything.
pub(super) fn open(
    cipher: Option<&BlockCipher>,
    number: u32,
    segment: &Segment,
    stored: &[u8],
    room: &mut [u8],
    plain: &mut Vec<u8>,
) -> Result<(), BlockError> {
    match cipher {
        Some(cipher) => open_encrypted(cipher, number, segment, stored, room, plain),
        None => open_segment(segment, stored, room),
    }
}
