//! What one side writes the other reads, for anything a message can hold.

use std::fmt::Debug;

use flexfs_wire::frame::{self, HEADER_BYTES, Header, Kind};
use flexfs_wire::id::RequestId;
use flexfs_wire::limits::FRAME_BYTES_MAX;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::strategy;

/// Encodes a frame behind other bytes, decodes it and compares.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(kind: Kind, body: &T, mark: u64) {
    let mut out = b"earlier frame".to_vec();
    let start = out.len();
    let mut header = Header::new(kind, RequestId(mark ^ 0x5555));
    header.mark = mark;
    header.credit = u16::try_from(mark & 0xffff).unwrap();
    frame::encode(header, body, 77, &mut out).unwrap();
    let raw: &[u8; HEADER_BYTES] = out[start..start + HEADER_BYTES].try_into().unwrap();
    let read = Header::decode(raw).unwrap();
    assert_eq!(
        (read.kind, read.request, read.mark, read.credit),
        (kind, header.request, mark, header.credit)
    );
    assert_eq!(read.payload_bytes, 77);
    assert_eq!(read.body_bytes as usize, out.len() - start - HEADER_BYTES);
    assert_eq!(&frame::decode::<T>(kind, &out[start + HEADER_BYTES..]).unwrap(), body);
    // One byte more or less is an error, never another message.
    out.push(0);
    assert!(frame::decode::<T>(kind, &out[start + HEADER_BYTES..]).is_err());
    out.truncate(out.len() - 2);
    assert!(frame::decode::<T>(kind, &out[start + HEADER_BYTES..]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn calls(call in strategy::call(), mark in any::<u64>()) {
        check(Kind::Request, &call, mark);
    }

    #[test]
    fn answers(answer in strategy::answer(), mark in any::<u64>()) {
        check(Kind::Reply, &answer, mark);
    }

    #[test]
    fn notices(notice in strategy::notice(), mark in any::<u64>()) {
        check(Kind::Notice, &notice, mark);
    }

    #[test]
    fn hellos(hello in strategy::hello(), mark in any::<u64>()) {
        check(Kind::Hello, &hello, mark);
    }

    #[test]
    fn welcomes(welcome in strategy::welcome(), mark in any::<u64>()) {
        check(Kind::Welcome, &welcome, mark);
    }

    #[test]
    fn replays(replay in strategy::replay(), mark in any::<u64>()) {
        check(Kind::Replay, &replay, mark);
    }

    #[test]
    fn recoveries(recovery in strategy::recovery(), mark in any::<u64>()) {
        check(Kind::Recovery, &recovery, mark);
    }

    /// A mutation is answered once; every node a request names is shown to the server's check.
    #[test]
    fn requests_know_themselves(request in strategy::request()) {
        prop_assert!(!request.is_mutation() || request.is_once());
        let shown = format!("{request:?}").matches("Node {").count();
        prop_assert_eq!(request.nodes().iter().flatten().count(), shown);
    }

    /// Settings go to admin's clients as JSON and to mounts as postcard: both give them back.
    #[test]
    fn settings_in_json(settings in strategy::settings()) {
        let text = serde_json::to_string(&settings).unwrap();
        prop_assert_eq!(&serde_json::from_str::<flexfs_wire::settings::VolumeSettings>(&text).unwrap(), &settings);
    }

    /// A frame past its bound is refused and leaves the buffer as it was.
    #[test]
    fn bounds(payload in FRAME_BYTES_MAX - 40..FRAME_BYTES_MAX + 40, body in 0u8..) {
        let mut out = b"earlier".to_vec();
        let fits = payload + HEADER_BYTES < FRAME_BYTES_MAX;
        let result = frame::encode(Header::new(Kind::Reply, RequestId(1)), &body, payload, &mut out);
        prop_assert_eq!(result.is_ok(), fits);
        if !fits {
            prop_assert_eq!(out.as_slice(), b"earlier");
        }
    }
}
