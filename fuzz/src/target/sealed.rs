//! Names, targets and values of encrypted volumes: whatever a server does with what clients gave it, a client reads what a
//! client wrote in that place, or nothing (`wire::cipher`, `mount::link::veil`).

use std::sync::OnceLock;

use flexfs_mount::link::veil::{self, Opening};
use flexfs_wire::cipher::{Cipher, UnwrapError, VolumeKey, WrappedKey};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::lease::{Keep, Recall};
use flexfs_wire::message::{DirEntry, Reply, Request, XattrMode};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;

use crate::source::Source;

/// Attributes that travel sealed.
const ATTRIBUTES: [&[u8]; 3] = [b"user.a", b"user.b", b"security.capability"];
/// Most memory that a try at a wrapped key may take, KiB.
const MEMORY_KIB_MAX: u32 = 256;

/// Text as a server has it, and what it was made of.
#[derive(Clone)]
struct Stored {
    kind: Kind,
    ino: Ino,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Target,
    Value(&'static [u8]),
}

/// The first byte chooses: bytes that nobody sealed, a server that exchanges what was sealed, or a wrapped key.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    match source.below(4) {
        0 => foreign(source),
        1 => wrapped(source.rest()),
        _ => exchanged(source),
    }
}

/// Keys of one run; nothing depends on which they are. Nothing is ever sealed with the second one: a fuzzer watches
/// comparisons, and would learn tags from them.
fn cipher(unused: bool) -> &'static Cipher {
    static CIPHERS: OnceLock<[Cipher; 2]> = OnceLock::new();
    &CIPHERS.get_or_init(|| [(); 2].map(|()| Cipher::new(&VolumeKey::random())))[usize::from(unused)]
}

fn foreign(mut source: Source<'_>) {
    let cipher = cipher(true);
    let ino = Ino(source.long());
    let bytes = source.rest();
    assert!(cipher.open_target(ino, bytes).is_err());
    assert!(cipher.open_value(ino, b"user.a", bytes).is_err());
    if let Ok(name) = Name::sealed(bytes) {
        assert!(cipher.open_name(ino, &name).is_err());
        let mut recalls = [Recall { id: 1, ino, keep: Keep::All, name: Some(name) }];
        veil::open_recalls(cipher, &mut recalls);
        assert!(recalls[0].name.is_none() && recalls[0].keep == Keep::Nothing, "more is dropped, not less");
    }
}

/// Costs beyond what a client takes are refused before memory is asked for; nothing but the right secret opens.
fn wrapped(bytes: &[u8]) {
    let Ok(wrapped) = serde_json::from_slice::<WrappedKey>(bytes) else { return };
    let text = serde_json::to_vec(&wrapped).expect("JSON");
    assert!(serde_json::from_slice::<WrappedKey>(&text).is_ok_and(|again| again == wrapped));
    if wrapped.check().is_err() {
        assert_eq!(wrapped.unwrap("correct horse").err(), Some(UnwrapError::Parameters));
    } else if wrapped.memory_kib <= MEMORY_KIB_MAX && wrapped.passes * wrapped.lanes <= 4 {
        assert_eq!(wrapped.unwrap("correct horse").err(), Some(UnwrapError::Wrong));
    }
}

fn exchanged(mut source: Source<'_>) {
    let mut stored: Vec<Stored> = Vec::new();
    while !source.is_empty() && stored.len() < 64 {
        if stored.is_empty() || source.one_in(2) {
            stored.extend(store(&mut source));
        } else {
            ask(&stored, &mut source);
        }
    }
}

/// A client sends something.
fn store(source: &mut Source<'_>) -> Option<Stored> {
    let ino = Ino(u64::from(source.byte() % 4) + 1);
    let (node, length) = (Node::unsealed(ino), source.below(48));
    let plain = source.take(length).to_vec();
    let cipher = cipher(false);
    let (kind, sealed) = match source.below(3) {
        0 => {
            let mut request = Request::Lookup { parent: node, name: Name::new(&plain).ok()? };
            veil::seal(cipher, &mut request);
            let Request::Lookup { name, .. } = request else { unreachable!("sealing changes no kind") };
            assert!(name.is_sealed(), "the server takes it");
            (Kind::Name, name.as_bytes().to_vec())
        }
        1 => (Kind::Target, cipher.seal_target(ino, &plain)),
        _ => {
            let attribute = source.pick(&ATTRIBUTES);
            let mut request = Request::SetXattr {
                node,
                name: attribute.to_vec(),
                value: plain.clone(),
                mode: XattrMode::Any,
            };
            veil::seal(cipher, &mut request);
            let Request::SetXattr { value, .. } = request else { unreachable!("sealing changes no kind") };
            (Kind::Value(attribute), value)
        }
    };
    assert!(plain.len() < 4 || !contains(&sealed, &plain), "the plaintext shows");
    Some(Stored { kind, ino, plain, sealed })
}

/// A client asks for one thing; the server answers with that, something else, or something damaged.
fn ask(stored: &[Stored], source: &mut Source<'_>) {
    let asked = &stored[source.below(stored.len())];
    let given = &stored[source.below(stored.len())];
    let mut bytes = given.sealed.clone();
    match source.below(6) {
        0 => bytes.truncate(source.below(256)),
        1 => bytes.extend_from_slice(source.take(4)),
        2 => {
            let place = source.below(256) % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= source.byte();
            }
        }
        _ => {}
    }
    // The same kind of thing in the same place, byte for byte as a client made it: one of them may come back for another one.
    let genuine: Vec<&Stored> = stored
        .iter()
        .filter(|other| other.kind == asked.kind && other.ino == asked.ino && other.sealed == bytes)
        .collect();
    match read(asked, bytes) {
        Ok(plain) => assert!(genuine.iter().any(|other| other.plain == plain), "no client wrote this here"),
        Err(Errno::EIO) => assert!(genuine.is_empty(), "what nobody touched is refused"),
        Err(errno) => panic!("{errno:?}"),
    }
}

/// What a program is shown.
fn read(asked: &Stored, bytes: Vec<u8>) -> Result<Vec<u8>, Errno> {
    let (cipher, node) = (cipher(false), Node::unsealed(asked.ino));
    let (mut request, mut reply) = match asked.kind {
        Kind::Name => {
            let name = Name::sealed(&bytes).map_err(|_| Errno::EIO)?;
            let entry = DirEntry { name, ino: Ino(9), kind: 0, cookie: 1, entry: None };
            let reply = Reply::Entries { entries: vec![entry], eof: true };
            (Request::ReadDir { node, cookie: 0, bytes_max: 4096, plus: false }, reply)
        }
        Kind::Target => (Request::ReadLink { node }, Reply::Bytes(bytes)),
        Kind::Value(name) => (Request::GetXattr { node, name: name.to_vec() }, Reply::Bytes(bytes)),
    };
    let opening: Opening = veil::seal(cipher, &mut request);
    veil::open(cipher, &opening, &mut reply)?;
    match reply {
        Reply::Bytes(plain) => Ok(plain),
        Reply::Entries { entries, .. } => Ok(entries[0].name.as_bytes().to_vec()),
        other => panic!("{other:?}"),
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
