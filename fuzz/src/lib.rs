//! Fuzz targets as plain functions: `cargo fuzz run NAME` feeds them, and the tests below run the seeds in every build.
//!
//! Each takes any bytes, must not panic, and asserts what must hold of what it parsed.
#![forbid(unsafe_code)]

use flexfs_wire::block;
use flexfs_wire::creds::Creds;
use flexfs_wire::frame::{self, HEADER_BYTES, Header, Kind};
use flexfs_wire::hello::{Hello, Welcome};
use flexfs_wire::limits::{BLOCK_BYTES_MAX, SEGMENT_BYTES};
use flexfs_wire::message::{Answer, Call, Notice, Recovery, Replay};
use flexfs_wire::record::{Opener, RECORD_BYTES_MAX, RECORD_HEADER_BYTES};
use flexfs_wire::settings::Compression;
use flexfs_wire::token::{Token, TokenKind};

/// Token texts: what parses prints the same text again.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for kind in TokenKind::ALL {
        if let Ok(token) = Token::parse_kind(kind, text) {
            assert_eq!(token.kind, kind);
        }
    }
    if let Ok(token) = Token::parse(text) {
        assert_eq!(token.to_text().as_str(), text.trim(), "one token has one text");
        assert!(token.verify_hash(&token.secret_hash()));
    }
}

/// Credentials files: what parses is written in a form that parses to the same.
pub fn creds(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for kind in TokenKind::ALL {
        if let Ok(creds) = Creds::parse(kind, text) {
            let again = Creds::parse(kind, &creds.to_text()).expect("what we write, we read");
            assert_eq!(again.token.id, creds.token.id);
            assert_eq!(again.admin_addr.port(), creds.admin_addr.port());
            assert_eq!(again.secret.is_some(), creds.secret.is_some());
        }
    }
}

/// A stream of frames: headers that decode encode to the same bytes, bodies go to their decoder.
pub fn frame(data: &[u8]) {
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

/// Message bodies: the first byte chooses the kind; what decodes survives a round trip.
pub fn message(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let kinds =
        [Kind::Hello, Kind::Welcome, Kind::Request, Kind::Reply, Kind::Notice, Kind::Replay, Kind::Recovery];
    decode(kinds[usize::from(*kind) % kinds.len()], body);
}

/// Blocks: a foreign block is refused or its segments are; our own block gives its bytes back.
pub fn block(data: &[u8]) {
    if let Ok(index) = block::Index::parse(data) {
        let mut at = index.stored_range(0, 1).map_or(0, |range| range.start);
        let mut out = vec![0; SEGMENT_BYTES as usize];
        for segment in index.segments() {
            let end = at + segment.stored_bytes as usize;
            if let Some(stored) = data.get(at..end) {
                // The verdict does not matter, only that there is one.
                let _verdict = block::open_segment(segment, stored, &mut out[..segment.raw_bytes as usize]);
            }
            at = end;
        }
    }
    let Some((choice, raw)) = data.split_first() else { return };
    let compression = [Compression::None, Compression::Lz4, Compression::Zstd][usize::from(*choice) % 3];
    let mut stored = Vec::new();
    if block::seal(raw, compression, &mut stored).is_err() {
        assert!(raw.is_empty() || raw.len() > BLOCK_BYTES_MAX as usize);
        return;
    }
    let index = block::Index::parse(&stored).expect("what we seal, we parse");
    let mut opened = Vec::new();
    for number in 0..index.segments().len() {
        let number = u32::try_from(number).expect("few segments");
        let range = index.stored_range(number, 1).expect("a segment of the index");
        let segment = &index.segments()[number as usize];
        let start = opened.len();
        opened.resize(start + segment.raw_bytes as usize, 0);
        block::open_segment(segment, &stored[range], &mut opened[start..]).expect("what we seal, we open");
    }
    assert_eq!(opened, raw);
}

/// Records: lengths of arbitrary bytes are within bounds or refused.
pub fn record(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(bytes)) = Opener::record_len(rest) {
        assert!((RECORD_HEADER_BYTES..=RECORD_BYTES_MAX).contains(&bytes));
        assert!(Opener::plain_bytes_max(bytes) < bytes);
        let Some(next) = rest.get(bytes..) else { return };
        rest = next;
    }
}

fn decode(kind: Kind, body: &[u8]) {
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
    let mut out = Vec::new();
    let header = Header::new(kind, flexfs_wire::id::RequestId(1));
    frame::encode(header, &value, 0, &mut out).expect("what was decoded from a frame fits one");
    assert_eq!(frame::decode::<T>(kind, &out[HEADER_BYTES..]).as_ref(), Ok(&value));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a target over its committed seeds and over damaged copies of them.
    fn check(name: &str, target: fn(&[u8])) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
        let mut count = 0;
        for file in std::fs::read_dir(&folder).expect("each target has seeds") {
            let seed = std::fs::read(file.unwrap().path()).unwrap();
            target(&seed);
            for index in 0..seed.len().min(512) {
                let mut damaged = seed.clone();
                damaged[index] ^= 1 << (index % 8);
                target(&damaged);
                target(&seed[..index]);
            }
            count += 1;
        }
        assert!(count > 0, "no seeds in {}", folder.display());
    }

    #[test]
    fn token_seeds() {
        check("token", token);
    }
    #[test]
    fn creds_seeds() {
        check("creds", creds);
    }
    #[test]
    fn frame_seeds() {
        check("frame", frame);
    }
    #[test]
    fn message_seeds() {
        check("message", message);
    }

    #[test]
    fn block_seeds() {
        check("block", block);
    }
    #[test]
    fn record_seeds() {
        check("record", record);
    }

    /// `cargo test -p flexfs-fuzz -- --ignored write_seeds` makes the seeds anew from today's types.
    #[test]
    #[ignore = "writes into the tree"]
    fn write_seeds() {
        use flexfs_wire::id::{Ino, RequestId};
        use flexfs_wire::message::{Caller, Request};
        use flexfs_wire::name::Name;
        use flexfs_wire::seal::Node;
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
        let put = |target: &str, name: &str, bytes: &[u8]| {
            std::fs::create_dir_all(root.join(target)).unwrap();
            std::fs::write(root.join(target).join(name), bytes).unwrap();
        };
        for kind in TokenKind::ALL {
            let token = Token {
                kind,
                id: flexfs_wire::token::TokenId([1; 16]),
                secret: flexfs_wire::token::Secret::new([2; 32]),
                ca_pin: flexfs_wire::token::CaPin([3; 16]),
            };
            put("token", kind.noun(), token.to_text().as_bytes());
            let text =
                format!("adminAddr = \"admin.example.com:7440\"\ntoken = \"{}\"\n", token.to_text().as_str());
            put("creds", kind.noun(), text.as_bytes());
        }
        let node = Node { ino: Ino(42), seal: 7 };
        let calls = [
            Request::Lookup { parent: node, name: Name::new(b"file").unwrap() },
            Request::ReadDir { node, cookie: 3, bytes_max: 65536, plus: true },
            Request::Write { node, write: flexfs_wire::message::Write::default() },
            Request::Rename {
                parent: node,
                name: Name::new(b"a").unwrap(),
                new_parent: node,
                new_name: Name::new(b"b").unwrap(),
                flags: 1,
            },
        ];
        let mut stream = Vec::new();
        for (index, request) in calls.into_iter().enumerate() {
            let call = Call { caller: Caller { uid: 1000, gid: 100 }, request };
            let start = stream.len();
            let header = Header::new(Kind::Request, RequestId(index as u64 + 1));
            frame::encode(header, &call, 0, &mut stream).unwrap();
            let mut body = vec![2];
            body.extend_from_slice(&stream[start + HEADER_BYTES..]);
            put("message", &format!("call-{index}"), &body);
        }
        put("frame", "calls", &stream);
        let text = b"the same line again and again\n".repeat(20);
        for (name, compression) in
            [("none", Compression::None), ("lz4", Compression::Lz4), ("zstd", Compression::Zstd)]
        {
            let mut stored = Vec::new();
            block::seal(&text, compression, &mut stored).unwrap();
            put("block", name, &stored);
        }
        put(
            "record",
            "two",
            &[23, 3, 3, 0, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23, 3, 3, 64, 1],
        );
    }
}
