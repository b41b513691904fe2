//! TLS records: any bytes as records, and real ones cut, swapped, repeated and changed on the way.

use std::collections::VecDeque;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use flexfs_wire::record::{
    Opener, PLAIN_BYTES_MAX, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RecordError, Sealer,
};
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{AeadKey, Iv};

use crate::source::Source;

const KEY: [u8; 32] = [7; 32];
const IV: [u8; 12] = [9; 12];

/// The first byte chooses: lengths of any bytes, a stream that somebody meddles with, or what a peer that has the
/// keys may put into a record.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    match source.below(3) {
        0 => lengths(source.rest()),
        1 => meddled(source),
        _ => inner(source.rest()),
    }
}

/// Lengths are within bounds or refused.
fn lengths(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(bytes)) = Opener::record_len(rest) {
        assert!((RECORD_HEADER_BYTES..=RECORD_BYTES_MAX).contains(&bytes));
        assert!(Opener::plain_bytes_max(bytes) < bytes);
        let Some(record) = rest.get(..bytes) else { return };
        // Nothing was ever sealed with this key: the fuzzer learns what the other ways seal from comparisons it watches.
        let secrets = ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([1; 32]), iv: Iv::from(IV) };
        let mut opener = Opener::new(0, &secrets).expect("a key");
        assert_eq!(opener.open_in_place(&mut record.to_vec()), Err(RecordError::Tag));
        rest = &rest[bytes..];
    }
}

/// Parts are sealed and travel; what arrives is a prefix of what was sent, however the records were treated.
fn meddled(mut source: Source<'_>) {
    let is_chacha = source.one_in(2);
    let (mut sealer, mut opener) = (Sealer::new(0, &secrets(is_chacha)).expect("a key"), opener(is_chacha));
    let (mut sent, mut wire) = (Vec::new(), Vec::new());
    for _ in 0..=source.below(6) {
        let count = if source.one_in(8) { PLAIN_BYTES_MAX + source.below(40) } else { source.below(64) };
        let part: Vec<u8> = source.take(16).iter().copied().cycle().take(count).collect();
        let (front, back) = part.split_at(source.below(256).min(part.len()));
        sealer.seal(&[front, &[], back], &mut wire).expect("few records");
        sent.extend_from_slice(&part);
    }
    let mut records = split(&wire);
    let is_meddled = meddle(&mut records, &mut source);
    let mut arrived = Vec::new();
    for record in &mut records {
        let mut room = vec![0; record.len()];
        let opened = if source.one_in(2) {
            opener.open_into(record, &mut room).map(|bytes| room[..bytes].to_vec())
        } else {
            opener.open_in_place(record).map(|plain| plain.to_vec())
        };
        match opened {
            Ok(plain) => arrived.extend_from_slice(&plain),
            Err(_) if is_meddled => break,
            Err(error) => panic!("a record nobody touched was refused: {error}"),
        }
    }
    assert!(sent.starts_with(&arrived), "what arrives is what was sent, in order, each byte once");
    assert!(is_meddled || arrived.len() == sent.len());
}

fn split(wire: &[u8]) -> VecDeque<Vec<u8>> {
    let (mut rest, mut records) = (wire, VecDeque::new());
    while let Some(bytes) = Opener::record_len(rest).expect("our own records") {
        records.push_back(rest[..bytes].to_vec());
        rest = &rest[bytes..];
    }
    assert!(rest.is_empty());
    records
}

/// Drops, repeats, swaps, cuts or changes some records; whether anything was done that must show.
fn meddle(records: &mut VecDeque<Vec<u8>>, source: &mut Source<'_>) -> bool {
    let before = records.clone();
    for _ in 0..source.below(4) {
        let Some(last) = records.len().checked_sub(1) else { break };
        let (index, other) = (source.below(256).min(last), source.below(256).min(last));
        match source.below(5) {
            0 => drop(records.remove(index)),
            1 => records.insert(index, records[other].clone()),
            2 => records.swap(index, other),
            3 => records[index].truncate(usize::from(source.short())),
            _ => {
                let place = usize::from(source.short()) % records[index].len().max(1);
                if let Some(byte) = records[index].get_mut(place) {
                    *byte ^= source.byte();
                }
            }
        }
    }
    *records != before
}

/// A record with the right tag around any bytes: its content is data, or an error that says what it was.
fn inner(plain: &[u8]) {
    let plain = &plain[..plain.len().min(PLAIN_BYTES_MAX + 200)];
    if plain.is_empty() {
        return;
    }
    let length = u16::try_from(plain.len() + 16).expect("bounded above").to_be_bytes();
    let header = [23, 3, 3, length[0], length[1]];
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).expect("a key"));
    let mut sealed = plain.to_vec();
    let nonce = Nonce::assume_unique_for_key(IV);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut sealed).expect("sealed");
    let mut record = [&header[..], &sealed, tag.as_ref()].concat();
    let opened = opener(false).open_in_place(&mut record).map(|found| found.to_vec());
    let kind = plain.iter().rposition(|byte| *byte != 0);
    match opened {
        Ok(found) => assert_eq!(Some((&*found, 23)), kind.map(|at| (&plain[..at], plain[at]))),
        Err(RecordError::Closed | RecordError::Alert(_)) => assert_eq!(kind.map(|at| plain[at]), Some(21)),
        Err(RecordError::Handshake) => assert_eq!(kind.map(|at| plain[at]), Some(22)),
        Err(RecordError::Type(kind)) => assert!(!matches!(kind, 21..=23)),
        Err(RecordError::Length(_)) => assert!(kind.is_some_and(|at| at > PLAIN_BYTES_MAX)),
        Err(error) => panic!("{error}"),
    }
}

fn opener(is_chacha: bool) -> Opener {
    Opener::new(0, &secrets(is_chacha)).expect("a key")
}

fn secrets(is_chacha: bool) -> ConnectionTrafficSecrets {
    let (key, iv) = (AeadKey::from(KEY), Iv::from(IV));
    if is_chacha {
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }
    } else {
        ConnectionTrafficSecrets::Aes256Gcm { key, iv }
    }
}
