//! Frames: a fixed header, a postcard body, raw payload bytes.
//!
//! ```text
//!  0  body_bytes     u32   length of the postcard body
//!  4  payload_bytes  u32   length of the raw bytes behind it
//!  8  request        u64   request id; 0 for notices and hellos
//! 16  mark           u64   client to server: every request id below it is finished at the client (dedup may forget)
//!                          server to client: every commit up to it is durable
//! 24  kind           u8    Kind
//! 25  leases         u8    server to client, in replies: what is granted (`lease::Leases`); else 0
//! 26  credit         u16   server to client: requests the link may have in flight beyond this one
//! 28  check          u32   CRC-32 of bytes 0..28: a lost byte is found at the next frame, not a gigabyte later
//! ```
//! All little-endian.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::id::{Commit, RequestId};
use crate::lease::Leases;
use crate::limits::{BLOCK_BYTES_MAX, BODY_BYTES_MAX, FRAME_BYTES_MAX};

/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 32;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// `hello::Hello`, client to server, before a session.
    Hello = 1,
    /// `hello::Welcome`, server to client, before a session.
    Welcome = 2,
    /// `message::Call`.
    Request = 3,
    /// `message::Answer`.
    Reply = 4,
    /// `message::Notice`, server to client.
    Notice = 5,
    /// `message::Replay`, client to server during recovery.
    Replay = 6,
    /// `message::Recovery`, client to server: the end of its replay.
    Recovery = 7,
}

/// The header as it lies on the wire.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    body_bytes: U32,
    payload_bytes: U32,
    request: U64,
    mark: U64,
    kind: u8,
    leases: u8,
    credit: U16,
    check: U32,
}

const _: () = {
    assert!(size_of::<Raw>() == HEADER_BYTES);
    // A block of the largest size, its index and a body fit one frame.
    assert!(FRAME_BYTES_MAX >= BLOCK_BYTES_MAX as usize + HEADER_BYTES + 64 * 1024);
};

/// A header whose lengths are within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Kind of the frame.
    pub kind: Kind,
    /// Request id, 0 if none.
    pub request: RequestId,
    /// See the module's table.
    pub mark: u64,
    /// See the module's table.
    pub credit: u16,
    /// What a reply grants.
    pub leases: Leases,
    /// Body bytes.
    pub body_bytes: u32,
    /// Payload bytes.
    pub payload_bytes: u32,
}

/// Why bytes are not a frame. All of them are the peer's fault and end the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header's checksum is wrong.
    #[error(
        "frame header checksum is wrong: the peer does not speak the flexfs protocol, or bytes were lost"
    )]
    Check,
    /// Unknown kind.
    #[error("unknown frame kind {0}: the peer is newer than this program")]
    Kind(u8),
    /// Too large.
    #[error("frame of {0} bytes is larger than allowed")]
    TooLarge(u64),
    /// The body is not what the kind says.
    #[error("frame body of kind {0:?} cannot be decoded")]
    Body(Kind),
}

impl Header {
    /// Header of a frame.
    #[must_use]
    pub fn new(kind: Kind, request: RequestId) -> Self {
        Self { kind, request, mark: 0, credit: 0, leases: Leases::NONE, body_bytes: 0, payload_bytes: 0 }
    }

    /// `mark` of a server's frame.
    #[must_use]
    pub fn durable(&self) -> Commit {
        Commit(self.mark)
    }

    /// Bytes behind the header.
    #[must_use]
    pub fn rest_bytes(&self) -> usize {
        self.body_bytes as usize + self.payload_bytes as usize
    }

    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut raw = Raw {
            body_bytes: self.body_bytes.into(),
            payload_bytes: self.payload_bytes.into(),
            request: self.request.0.into(),
            mark: self.mark.into(),
            kind: self.kind as u8,
            leases: self.leases.0,
            credit: self.credit.into(),
            check: 0.into(),
        };
        raw.check = crc32fast::hash(&raw.as_bytes()[..28]).into();
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Parses a header.
    ///
    /// # Errors
    /// Any `FrameError` but `Body`.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let raw: &Raw = zerocopy::transmute_ref!(bytes);
        if crc32fast::hash(&bytes[..28]) != raw.check.get() {
            return Err(FrameError::Check);
        }
        let kind = match raw.kind {
            1 => Kind::Hello,
            2 => Kind::Welcome,
            3 => Kind::Request,
            4 => Kind::Reply,
            5 => Kind::Notice,
            6 => Kind::Replay,
            7 => Kind::Recovery,
            other => return Err(FrameError::Kind(other)),
        };
        let body = raw.body_bytes.get();
        let payload = raw.payload_bytes.get();
        let total = u64::from(body) + u64::from(payload) + HEADER_BYTES as u64;
        if total > FRAME_BYTES_MAX as u64 || body as usize > BODY_BYTES_MAX {
            return Err(FrameError::TooLarge(total));
        }
        Ok(Self {
            kind,
            request: RequestId(raw.request.get()),
            mark: raw.mark.get(),
            credit: raw.credit.get(),
            leases: Leases(raw.leases),
            body_bytes: body,
            payload_bytes: payload,
        })
    }
}

/// Appends a frame's header and body to `out`; the caller sends `payload_bytes` bytes behind it.
///
/// # Errors
/// `TooLarge` when body or frame pass their bounds; `out` is then as it was.
pub fn encode<T: serde::Serialize>(
    mut header: Header,
    body: &T,
    payload_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let Ok(mut filled) = postcard::to_extend(body, std::mem::take(out)) else {
        // Our own types always encode into a Vec; a failure here is a body no peer could read.
        return Err(FrameError::Body(header.kind));
    };
    let body_bytes = filled.len() - start - HEADER_BYTES;
    let total = (body_bytes + payload_bytes + HEADER_BYTES) as u64;
    let (Ok(body_u32), Ok(payload_u32)) = (u32::try_from(body_bytes), u32::try_from(payload_bytes)) else {
        filled.truncate(start);
        *out = filled;
        return Err(FrameError::TooLarge(total));
    };
    if body_bytes > BODY_BYTES_MAX || total > FRAME_BYTES_MAX as u64 {
        filled.truncate(start);
        *out = filled;
        return Err(FrameError::TooLarge(total));
    }
    header.body_bytes = body_u32;
    header.payload_bytes = payload_u32;
    filled[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
    *out = filled;
    Ok(())
}

/// Decodes a frame's body. Bytes left over are an error.
///
/// # Errors
/// `Body` when it is not a `T`.
pub fn decode<'a, T: serde::Deserialize<'a>>(kind: Kind, body: &'a [u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(FrameError::Body(kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trip_and_damage() {
        let mut header = Header::new(Kind::Reply, RequestId(77));
        header.mark = 5;
        header.leases = Leases::ATTR;
        header.body_bytes = 10;
        header.payload_bytes = 20;
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        for index in 0..HEADER_BYTES {
            let mut damaged = bytes;
            damaged[index] ^= 0x40;
            assert_eq!(Header::decode(&damaged), Err(FrameError::Check), "byte {index}");
        }
    }

    #[test]
    fn body_must_be_used_up() {
        let mut out = Vec::new();
        encode(Header::new(Kind::Notice, RequestId(0)), &7u8, 0, &mut out).unwrap();
        assert_eq!(decode::<u8>(Kind::Notice, &out[HEADER_BYTES..]), Ok(7));
        out.push(0);
        assert_eq!(decode::<u8>(Kind::Notice, &out[HEADER_BYTES..]), Err(FrameError::Body(Kind::Notice)));
    }
}
