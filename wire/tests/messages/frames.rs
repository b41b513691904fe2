//! Hostile bytes: any input is refused or understood, nothing panics, nothing is read twice in two ways.

use flexfs_wire::frame::{self, FrameError, HEADER_BYTES, Header, Kind};
use flexfs_wire::hello::{Hello, Welcome};
use flexfs_wire::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX};
use flexfs_wire::message::{Answer, Call, Notice, Recovery, Replay};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::strategy;

/// Decodes as every kind of body.
fn decode_all(body: &[u8]) {
    fn one<T: Serialize + DeserializeOwned>(kind: Kind, body: &[u8]) {
        if let Ok(value) = frame::decode::<T>(kind, body) {
            // What was understood can be said again: no decoded value is beyond the encoder.
            postcard::to_allocvec(&value).unwrap();
        }
    }
    one::<Hello>(Kind::Hello, body);
    one::<Welcome>(Kind::Welcome, body);
    one::<Call>(Kind::Request, body);
    one::<Answer>(Kind::Reply, body);
    one::<Notice>(Kind::Notice, body);
    one::<Replay>(Kind::Replay, body);
    one::<Recovery>(Kind::Recovery, body);
}

/// A header of any content whose checksum is right, as a hostile peer would send it.
fn signed(mut bytes: [u8; HEADER_BYTES]) -> [u8; HEADER_BYTES] {
    let check = crc32fast::hash(&bytes[..28]);
    bytes[28..].copy_from_slice(&check.to_le_bytes());
    bytes
}

#[expect(clippy::cast_possible_truncation, reason = "2 MiB")]
const BODY_LIMIT: u32 = BODY_BYTES_MAX as u32;
#[expect(clippy::cast_possible_truncation, reason = "9 MiB")]
const FRAME_LIMIT: u32 = FRAME_BYTES_MAX as u32;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn bodies(body in vec(any::<u8>(), 0..300)) {
        decode_all(&body);
    }

    #[test]
    fn damaged_bodies(call in strategy::call(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut body = postcard::to_allocvec(&call).unwrap();
        let at = at.index(body.len());
        body[at] ^= flip;
        decode_all(&body);
    }

    #[test]
    fn headers(bytes in any::<[u8; HEADER_BYTES]>()) {
        // Without the checksum a random header passes once in four thousand million.
        prop_assert_eq!(Header::decode(&bytes), Err(FrameError::Check));
        match Header::decode(&signed(bytes)) {
            Ok(header) => {
                prop_assert!(header.rest_bytes() + HEADER_BYTES <= FRAME_BYTES_MAX);
                prop_assert!(header.body_bytes as usize <= BODY_BYTES_MAX);
            }
            Err(error) => prop_assert!(matches!(error, FrameError::Kind(_) | FrameError::TooLarge(_))),
        }
    }

    #[test]
    fn bounded_headers(kind in 0u8..12, body in 0..BODY_LIMIT * 2, payload in 0..FRAME_LIMIT * 2) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&body.to_le_bytes());
        bytes[4..8].copy_from_slice(&payload.to_le_bytes());
        bytes[24] = kind;
        let fits = body as usize <= BODY_BYTES_MAX
            && body as usize + payload as usize + HEADER_BYTES <= FRAME_BYTES_MAX;
        let known = (1..=7).contains(&kind);
        prop_assert_eq!(Header::decode(&signed(bytes)).is_ok(), fits && known);
    }
}
