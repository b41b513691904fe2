//! Tokens, the verdict on them, and the credentials file they lie in.

use std::hint::black_box;

use criterion::Criterion;
use flexfs_admin::verdict::{self, Record, Target};
use flexfs_wire::creds::{AdminAddr, Creds};
use flexfs_wire::creds_file;
use flexfs_wire::id::Ino;
use flexfs_wire::seal::Sealer;
use flexfs_wire::settings::Flags;
use flexfs_wire::token::{Token, TokenKind};

use crate::sample;

pub(crate) fn benches(c: &mut Criterion) {
    tokens(c);
    verdicts(c);
    creds(c);
    let sealer = Sealer::new([7; 16], Ino::ROOT);
    c.bench_function("node/seal", |b| b.iter(|| sealer.seal(black_box(Ino(42)))));
    let node = sealer.seal(Ino(42));
    c.bench_function("node/verify", |b| b.iter(|| sealer.verify(black_box(node))));
}

fn tokens(c: &mut Criterion) {
    let token = sample::token();
    let text = token.to_text();
    let hash = token.secret_hash();
    let mut damaged = text.to_string();
    damaged.replace_range(40..41, "B");
    c.bench_function("token/parse", |b| b.iter(|| Token::parse(black_box(text.as_str()))));
    c.bench_function("token/parse-damaged", |b| b.iter(|| Token::parse(black_box(damaged.as_str()))));
    c.bench_function("token/to-text", |b| b.iter(|| black_box(&token).to_text()));
    c.bench_function("token/verify-hash", |b| b.iter(|| black_box(&token).verify_hash(black_box(&hash))));
}

/// What admin does for a meta server that asks about a token, without its tables.
fn verdicts(c: &mut Criterion) {
    let token = sample::token();
    let text = token.to_text();
    let record = Record {
        kind: TokenKind::Volume,
        hash: token.secret_hash(),
        owner: "v".to_owned(),
        expires_at: Some(i64::MAX),
    };
    let target = Target {
        volume: "genomes".to_owned(),
        meta_store: "m1".to_owned(),
        retired: false,
        volume_flags: Flags::default(),
        token_flags: Flags { ro: true, ..Flags::default() },
    };
    let judge = |text: &str, record: Option<&Record>| {
        let token = verdict::read(TokenKind::Volume, token.ca_pin, text)?;
        verdict::judge(&token, record, 1_700_000_000)?;
        verdict::judge_volume(&target, Some("genomes"), Some("m1"))?;
        Ok::<_, verdict::Refusal>(target.flags())
    };
    assert!(judge(&text, Some(&record)).unwrap().ro);
    assert!(judge(&text, None).is_err());
    c.bench_function("verdict/accepted", |b| b.iter(|| judge(black_box(&text), black_box(Some(&record)))));
    c.bench_function("verdict/unknown", |b| b.iter(|| judge(black_box(&text), black_box(None))));
}

fn creds(c: &mut Criterion) {
    let creds = Creds {
        admin_addr: AdminAddr::parse("admin.example.com:7440").unwrap(),
        token: sample::token(),
        secret: None,
    };
    let text = creds.to_text();
    c.bench_function("creds/parse", |b| {
        b.iter(|| Creds::parse(TokenKind::Volume, black_box(&text)).unwrap())
    });
    c.bench_function("creds/to-text", |b| b.iter(|| black_box(&creds).to_text()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("creds");
    creds_file::store(&path, &creds).unwrap();
    c.bench_function("creds/load-file", |b| b.iter(|| creds_file::load(TokenKind::Volume, &path).unwrap()));
}
