//! What travels when links and sessions begin, end and come back.

use flexfs_wire::hello::{Granted, Hello, Open, Reason, Refused, Welcome};
use flexfs_wire::id::{Commit, Epoch, SessionId};
use flexfs_wire::limits::PROTOCOL_VERSIONS;
use flexfs_wire::message::{Lock, LockFamily, LockKind, Notice, Recovery, Replay};
use flexfs_wire::settings::{Compression, Flags, VolumeSettings};
use flexfs_wire::time::Time;

use crate::sample::{attr, call, make, node, token, write_inline};

/// Opens of a large recovery.
const OPENED: u64 = 10_000;

fn open(client: &str) -> Hello {
    Hello::Open(Open {
        versions: PROTOCOL_VERSIONS,
        token: token().to_text().to_string(),
        volume: "genomes".to_owned(),
        client: client.to_owned(),
        flags: Flags::default(),
    })
}

pub(crate) fn hellos() -> [(&'static str, Hello); 3] {
    let claim = Hello::Attach { versions: PROTOCOL_VERSIONS, session: SessionId(3), proof: [7; 32] };
    [("open", open("node17:/mnt/genomes")), ("open-large", open(&"x".repeat(3_000))), ("attach", claim)]
}

pub(crate) fn welcomes() -> [(&'static str, Welcome); 3] {
    let granted = Granted {
        version: 1,
        session: SessionId(3),
        resume_key: [8; 32],
        epoch: Epoch(2),
        root: node(1),
        attr: attr(),
        settings: VolumeSettings {
            id: "00000000-0000-4000-8000-000000000000".to_owned(),
            name: "genomes".to_owned(),
            block_size: 4 << 20,
            compression: Compression::Lz4,
            max_blocks: 0,
            max_inodes: 0,
            retention: 0,
            flags: Flags::default(),
            encrypted: false,
        },
        flags: Flags::default(),
        lease_ms: 10_000,
        durable: Commit(299),
    };
    let refused = Refused { reason: Reason::Server, text: "x".repeat(3_000) };
    [
        ("granted", Welcome::Granted(Box::new(granted))),
        ("attached", Welcome::Attached { epoch: Epoch(2), durable: Commit(300) }),
        ("refused-large", Welcome::Refused(refused)),
    ]
}

pub(crate) fn notices() -> [(&'static str, Notice); 2] {
    [("durable", Notice::Durable), ("revoked-large", Notice::Revoked { text: "x".repeat(1_000) })]
}

pub(crate) fn replays() -> [(&'static str, Replay); 2] {
    let replay = |request| Replay { commit: Commit(300), at: Time::default(), call: call(request) };
    [("make", replay(make())), ("write-16k-inline-large", replay(write_inline()))]
}

pub(crate) fn recoveries() -> [(&'static str, Recovery); 2] {
    let lock = Lock {
        family: LockFamily::Posix,
        kind: LockKind::Write,
        owner: 0xabcd,
        pid: 77,
        start: 10,
        end: u64::MAX,
    };
    let recovery = |count: u64| Recovery {
        exclusive: Vec::new(),
        opens: (0..count).map(|ino| (node(ino), 1)).collect(),
        locks: (0..count / 10).map(|ino| (node(ino), lock)).collect(),
    };
    [("3-opens", recovery(3)), ("10000-opens-large", recovery(OPENED))]
}
