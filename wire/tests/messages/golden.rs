//! Golden bytes: `golden.txt` holds the encoding of every variant. The table is the protocol of version 2: a changed
//! line means that an older peer misreads this build. Appending lines is fine; to write the table anew after
//! adding a variant: `FLEXFS_GOLDEN=write cargo nextest run -p flexfs-wire golden`, then read the diff.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use flexfs_wire::frame::{self, Header, Kind};
use flexfs_wire::hello::{Hello, Welcome};
use flexfs_wire::id::RequestId;
use flexfs_wire::message::{Answer, Call, Notice, Recovery, Replay, Reply, Request};
use serde::Serialize;

use crate::samples;

const TABLE: &str = include_str!("golden.txt");

#[test]
fn bytes_are_pinned() {
    let now: String = lines().iter().fold(String::new(), |mut text, (name, bytes)| {
        writeln!(text, "{name} {bytes}").unwrap();
        text
    });
    if std::env::var_os("FLEXFS_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/messages/golden.txt"), now).unwrap();
        return;
    }
    for (old, new) in TABLE.lines().zip(now.lines()) {
        assert_eq!(old, new, "the encoding changed: an older peer would misread it");
    }
    assert_eq!(TABLE.lines().count(), now.lines().count(), "see the head of golden.rs");
}

#[test]
fn pinned_bytes_decode() {
    for line in TABLE.lines() {
        let (name, digits) = line.split_once(' ').unwrap();
        let bytes = unhex(digits);
        let kind = name.split('/').next().unwrap();
        let again = match kind {
            "request" => again::<Request>(&bytes),
            "reply" => again::<Reply>(&bytes),
            "notice" => again::<Notice>(&bytes),
            "hello" => again::<Hello>(&bytes),
            "welcome" => again::<Welcome>(&bytes),
            "answer" => again::<Answer>(&bytes),
            "replay" => again::<Replay>(&bytes),
            "recovery" => again::<Recovery>(&bytes),
            "reason" => again::<flexfs_wire::hello::Reason>(&bytes),
            "frame" => bytes.clone(),
            other => panic!("unknown line {other}"),
        };
        assert_eq!(hex(&again), digits, "{name}");
    }
}

#[test]
fn every_variant_has_a_line() {
    let seen: BTreeSet<&str> = TABLE.lines().filter_map(|line| line.split(' ').next()).collect();
    for (kind, names) in [
        ("request", samples::REQUESTS),
        ("reply", samples::REPLIES),
        ("notice", samples::NOTICES),
        ("hello", samples::HELLOS),
        ("welcome", samples::WELCOMES),
        ("reason", samples::REASONS),
    ] {
        for name in names {
            assert!(seen.contains(format!("{kind}/{name}").as_str()), "no sample of {kind}/{name}");
        }
    }
}

/// Name and hex bytes of every sample, in the order of the declarations.
fn lines() -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut line = |name: String, bytes: Vec<u8>| lines.push((name, hex(&bytes)));
    for request in samples::requests() {
        line(format!("request/{}", samples::request_name(&request)), encode(&request));
    }
    for reply in samples::replies() {
        line(format!("reply/{}", samples::reply_name(&reply)), encode(&reply));
    }
    for notice in samples::notices() {
        line(format!("notice/{}", samples::notice_name(&notice)), encode(&notice));
    }
    for hello in samples::hellos() {
        line(format!("hello/{}", samples::hello_name(&hello)), encode(&hello));
    }
    for welcome in samples::welcomes() {
        line(format!("welcome/{}", samples::welcome_name(&welcome)), encode(&welcome));
    }
    for reason in samples::reasons() {
        line(format!("reason/{}", samples::reason_name(&reason)), encode(&reason));
    }
    for (name, answer) in samples::answers() {
        line(format!("answer/{name}"), encode(&answer));
    }
    line("replay/Replay".into(), encode(&samples::replay()));
    line("recovery/Recovery".into(), encode(&samples::recovery()));
    for (name, bytes) in frames() {
        line(format!("frame/{name}"), bytes);
    }
    lines
}

/// A whole frame of each kind, header and body.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let request: Call = samples::call(samples::requests().remove(0));
    let reply = samples::answers().remove(0).1;
    vec![
        ("Hello", whole(Kind::Hello, &samples::hellos()[1], 0)),
        ("Welcome", whole(Kind::Welcome, &samples::welcomes()[1], 0)),
        ("Request", whole(Kind::Request, &request, 65_536)),
        ("Reply", whole(Kind::Reply, &reply, 0)),
        ("Notice", whole(Kind::Notice, &samples::notices()[0], 0)),
        ("Replay", whole(Kind::Replay, &samples::replay(), 0)),
        ("Recovery", whole(Kind::Recovery, &samples::recovery(), 0)),
    ]
}

fn whole<T: Serialize>(kind: Kind, body: &T, payload_bytes: usize) -> Vec<u8> {
    let mut header = Header::new(kind, RequestId(0x0102_0304));
    header.mark = 0x0a0b_0c0d_0e0f;
    header.credit = 512;
    let mut out = Vec::new();
    frame::encode(header, body, payload_bytes, &mut out).unwrap();
    out
}

fn again<T: Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) -> Vec<u8> {
    encode(&frame::decode::<T>(Kind::Notice, bytes).unwrap())
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}
