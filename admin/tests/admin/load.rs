//! Many tokens and many questions about them. Few in every build; the figures of the issue are taken by hand, in release:
//!
//! ```sh
//! FLEXFS_TOKENS=100000 FLEXFS_RATE=1000 cargo nextest run --release -p flexfs-admin --test admin -E 'test(load)' --no-capture
//! ```

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use flexfs_wire::token::{Secret, Token, TokenId, TokenKind};

use crate::bench::Server;

/// How long questions are asked.
const TIME: Duration = Duration::from_secs(5);
/// Connections, as many as a metadata server keeps.
const CONNECTIONS: u32 = 4;

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Tokens of the volume, put into the tables at once; each of them is good.
fn fill(server: &mut Server, count: u32) -> Vec<String> {
    assert!(server.stop());
    let mut tables = rusqlite::Connection::open(server.path("db").join("admin.db")).unwrap();
    let rows = tables.transaction().unwrap();
    let sql = "INSERT INTO tokens (id, kind, hash, volume, created_at) \
               SELECT ?1, 'volume', ?2, id, 0 FROM volumes WHERE name = 'main'";
    let texts = (0..count)
        .map(|number| {
            let mut id = [7; 16];
            // Spread over the index as random ones are.
            id[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
            let token = Token {
                kind: TokenKind::Volume,
                id: TokenId(id),
                secret: Secret::new([number.to_le_bytes()[0]; 32]),
                ca_pin: server.pin,
            };
            rows.execute(sql, (token.id.to_string(), token.secret_hash().0)).unwrap();
            token.to_text().to_string()
        })
        .collect();
    rows.commit().unwrap();
    drop(tables);
    server.launch();
    texts
}

/// Asks about tokens, one after the other, at an even pace; how long each answer took.
fn ask(server: &Server, meta: &str, tokens: &[String], every: Duration) -> Vec<Duration> {
    let mut stream = BufReader::new(server.connect());
    let start = Instant::now();
    let mut took = Vec::new();
    for (number, token) in (0..).zip(tokens.iter().cycle()) {
        let due = start + every * number;
        if due > start + TIME {
            break;
        }
        sleep(due.saturating_duration_since(Instant::now()));
        let body = serde_json::json!({ "token": token, "volume": "main", "client": "load" }).to_string();
        let head = format!(
            "POST /v1/tokens/validate HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {meta}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let asked = Instant::now();
        stream.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).unwrap();
        took.push(asked.elapsed());
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("accepted"), "{answer}");
    }
    took
}

#[test]
fn validations_are_quick_among_many_tokens() {
    let (count, rate) = (number("FLEXFS_TOKENS", 2_000), number("FLEXFS_RATE", 100));
    let mut server = Server::start();
    let (meta, _) = server.furnish();
    let tokens = fill(&mut server, count);
    let every = Duration::from_secs(1) * CONNECTIONS / rate;
    let mut took: Vec<Duration> = thread::scope(|scope| {
        let askers: Vec<_> = tokens
            .chunks(tokens.len().div_ceil(CONNECTIONS as usize))
            .map(|part| scope.spawn(|| ask(&server, &meta, part, every)))
            .collect();
        askers.into_iter().flat_map(|asker| asker.join().unwrap()).collect()
    });
    took.sort();
    let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
    println!(
        "{count} tokens, {rate} validations a second, {} in all: p50 {:?}, p99 {:?}, most {:?}",
        took.len(),
        at(50),
        at(99),
        at(100)
    );
    // Of a build without optimisation on a busy machine; the figure of a release build is in SECURITY.md.
    assert!(at(50) < Duration::from_millis(50), "p50 {:?}", at(50));
    let listed = server.json(&["list", "volume-tokens", "--filter", "volume=main"]);
    assert_eq!(listed.as_array().unwrap().len(), count as usize + 1, "all of them can be listed");
}
