//! Tokens, files, frames, messages, blocks, records.

use flexfs_wire::block;
use flexfs_wire::frame::{self, HEADER_BYTES, Header, Kind};
use flexfs_wire::id::{Ino, RequestId};
use flexfs_wire::message::{Call, Caller, Request, Write};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::settings::Compression;
use flexfs_wire::token::{CaPin, Secret, Token, TokenId, TokenKind};

use super::Seeds;

pub(crate) fn make(seeds: &mut Seeds) {
    for kind in TokenKind::ALL {
        let token =
            Token { kind, id: TokenId([1; 16]), secret: Secret::new([2; 32]), ca_pin: CaPin([3; 16]) };
        let text = token.to_text();
        seeds.put("token", kind.noun(), text.as_bytes());
        let file = format!("adminAddr = \"admin.example.com:7440\"\ntoken = \"{}\"\n", text.as_str());
        seeds.put("creds", kind.noun(), file);
    }
    let wrapped = format!(
        r#"{{"kdf":"argon2id","memoryKib":128,"passes":1,"lanes":1,"salt":"{}","wrapped":"{}"}}"#,
        format_args!("{}==", "A".repeat(22)),
        "A".repeat(80)
    );
    seeds.put("sealed", "wrapped", [b"\x01", wrapped.as_bytes()].concat());
    messages(seeds);
    let text = b"the same line again and again\n".repeat(20);
    for (number, name, compression) in
        [(0, "none", Compression::None), (1, "lz4", Compression::Lz4), (2, "zstd", Compression::Zstd)]
    {
        let mut stored = Vec::new();
        block::seal(&text, compression, &mut stored).unwrap();
        seeds.put("block", name, &stored);
        seeds.put("block", &format!("raw-{name}"), [&[number, 40, 0], &text[..]].concat());
    }
    seeds.put("record", "lengths", [&[0][..], &[23, 3, 3, 0, 18], &[0; 18], &[23, 3, 3, 64, 1]].concat());
    seeds.put(
        "record",
        "meddled",
        [1, 0, 3, 0, 40, b'a', b'b', 7, 0, 9, 0, 3, 1, 0, 1, 2, 0, 1, 4, 0, 1, 6, 0, 255],
    );
    seeds.put("record", "inner", [&[2][..], b"data", &[23, 0, 0]].concat());
    seeds.put("record", "alert", [2, 1, 0, 21]);
}

fn messages(seeds: &mut Seeds) {
    let node = Node { ino: Ino(42), seal: 7 };
    let name = |text: &str| Name::new(text.as_bytes()).unwrap();
    let calls = [
        Request::Lookup { parent: node, name: name("file") },
        Request::ReadDir { node, cookie: 3, bytes_max: 65_536, plus: true },
        Request::ReadAhead { node, cookie: 3, first: Some(name("file")), count: 64, open: true },
        Request::Write { node, write: Write::default() },
        Request::Rename { parent: node, name: name("a"), new_parent: node, new_name: name("b"), flags: 1 },
    ];
    let mut stream = Vec::new();
    for (index, request) in calls.into_iter().enumerate() {
        let call = Call::new(Caller { uid: 1000, gid: 100 }, request);
        let start = stream.len();
        let header = Header::new(Kind::Request, RequestId(index as u64 + 1));
        frame::encode(header, &call, 0, &mut stream).unwrap();
        let mut body = vec![2];
        body.extend_from_slice(&stream[start + HEADER_BYTES..]);
        seeds.put("message", &format!("call-{index}"), &body);
    }
    seeds.put("frame", "calls", &stream);
}
