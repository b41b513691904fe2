//! A stream of frames.

use flexfs_wire::frame::{HEADER_BYTES, Header};

use super::message::decode;

/// Headers that decode encode to the same bytes, bodies go to their decoder.
pub fn run(data: &[u8]) {
    let mut rest = data;
    while let Some((head, behind)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let Ok(header) = Header::decode(head) else { return };
        // The two reserved bytes are not kept: what they held must not matter to anything but the checksum.
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        let Some(body) = behind.get(..header.body_bytes as usize) else { return };
        decode(header.kind, body);
        let Some(next) = behind.get(header.rest_bytes()..) else { return };
        rest = next;
    }
}
