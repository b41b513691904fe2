//! Message bodies of every kind: raw bytes, and values made from bytes.

use flexfs_wire::frame::{self, HEADER_BYTES, Header, Kind};
use flexfs_wire::hello::{Hello, Welcome};
use flexfs_wire::id::RequestId;
use flexfs_wire::message::{Answer, Call, Notice, Recovery, Replay};

use crate::fabricate::fabricate;
use crate::source::Source;

/// The first byte chooses the kind, and with its highest bit that the rest makes a value; what decodes, and any value,
/// survives a round trip.
pub fn run(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let kind = KINDS[usize::from(first & 0x7f) % KINDS.len()];
    if *first < 0x80 {
        return decode(kind, body);
    }
    match kind {
        Kind::Hello => make::<Hello>(kind, body),
        Kind::Welcome => make::<Welcome>(kind, body),
        Kind::Request => make::<Call>(kind, body),
        Kind::Reply => make::<Answer>(kind, body),
        Kind::Notice => make::<Notice>(kind, body),
        Kind::Replay => make::<Replay>(kind, body),
        Kind::Recovery => make::<Recovery>(kind, body),
    }
}

fn make<T>(kind: Kind, choices: &[u8])
where
    T: serde::Serialize + for<'a> serde::Deserialize<'a> + PartialEq + std::fmt::Debug,
{
    if let Some(value) = fabricate::<T>(&mut Source::new(choices)) {
        check_value(kind, &value);
    }
}

/// Decodes a body as its kind and sends it round.
pub(super) fn decode(kind: Kind, body: &[u8]) {
    match kind {
        Kind::Hello => round_trip::<Hello>(kind, body),
        Kind::Welcome => round_trip::<Welcome>(kind, body),
        Kind::Request => round_trip::<Call>(kind, body),
        Kind::Reply => round_trip::<Answer>(kind, body),
        Kind::Notice => round_trip::<Notice>(kind, body),
        Kind::Replay => round_trip::<Replay>(kind, body),
        Kind::Recovery => round_trip::<Recovery>(kind, body),
    }
}

fn round_trip<T>(kind: Kind, body: &[u8])
where
    T: serde::Serialize + for<'a> serde::Deserialize<'a> + PartialEq + std::fmt::Debug,
{
    let Ok(value) = frame::decode::<T>(kind, body) else { return };
    check_value(kind, &value);
}

/// A value that is encoded decodes to itself.
fn check_value<T>(kind: Kind, value: &T)
where
    T: serde::Serialize + for<'a> serde::Deserialize<'a> + PartialEq + std::fmt::Debug,
{
    let mut out = Vec::new();
    frame::encode(Header::new(kind, RequestId(1)), value, 0, &mut out).expect("it fits a frame");
    let head = out.first_chunk::<HEADER_BYTES>().expect("a frame begins with its header");
    let header = Header::decode(head).expect("what we encode, we decode");
    assert_eq!((header.kind, header.body_bytes as usize), (kind, out.len() - HEADER_BYTES));
    assert_eq!(frame::decode::<T>(kind, &out[HEADER_BYTES..]).as_ref(), Ok(value));
    // One byte too many or too few is an error, not another value.
    out.push(0);
    assert!(frame::decode::<T>(kind, &out[HEADER_BYTES..]).is_err());
    assert!(frame::decode::<T>(kind, &out[HEADER_BYTES..out.len() - 2]).is_err());
}

const KINDS: [Kind; 7] =
    [Kind::Hello, Kind::Welcome, Kind::Request, Kind::Reply, Kind::Notice, Kind::Replay, Kind::Recovery];
