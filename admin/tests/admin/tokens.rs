//! Tokens against a real admin.flexfs: what is refused says why, what ends is announced, nothing is logged.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use crate::bench::{Server, configure};
use flexfs_wire::token::{Secret, Token};
use serde_json::json;

#[test]
fn refused_volume_tokens_name_their_cause() {
    let server = Server::start();
    let (meta, token) = server.furnish();
    let reason = |token: &str, volume: &str| {
        let answer = server.validate(&meta, token, volume);
        assert_eq!(answer["verdict"], "refused", "{answer}");
        (answer["reason"].as_str().unwrap().to_owned(), answer["text"].as_str().unwrap().to_owned())
    };
    let told = |token: &str, volume: &str, wanted: (&str, &str)| {
        let (reason, text) = reason(token, volume);
        assert!(reason == wanted.0 && text.contains(wanted.1), "{reason}: {text}");
        assert!(!text.contains("flexvol_A"), "{text}");
    };
    let accepted = server.validate(&meta, &token, "main");
    assert_eq!(accepted["verdict"], "accepted");
    assert_eq!((&accepted["scope"], &accepted["settings"]["name"]), (&json!("/"), &json!("main")));

    told("", "main", ("malformed", "not a flexfs token"));
    told(&token[..40], "main", ("malformed", "truncated"));
    let mut typo = token.clone().into_bytes();
    typo[20] = if typo[20] == b'A' { b'B' } else { b'A' };
    told(&String::from_utf8(typo).unwrap(), "main", ("malformed", "checksum"));
    told(&meta, "main", ("wrong-kind", "this is a meta token, but a volume token is needed"));
    told(&token, "other", ("wrong-volume", "another volume"));
    let forged = Token { secret: Secret::new([7; 32]), ..Token::parse(&token).unwrap() };
    told(&forged.to_text(), "main", ("unknown", "unknown or was revoked"));
    let (_, foreign) = Server::start().furnish();
    told(&foreign, "main", ("wrong-cluster", "another cluster"));

    // A metadata server is told nothing about volumes of others.
    let other = server.json(&["create", "meta-store", "m2", "--address", "h:2"]);
    let answer = server.validate(other["token"].as_str().unwrap(), &token, "main");
    assert_eq!(answer["reason"], "wrong-server");

    let id = server.json(&["list", "volume-tokens"])[0]["id"].as_str().unwrap().to_owned();
    server.configure(&["update", "volume-token", &id, "--expires", "1s"]);
    std::thread::sleep(Duration::from_millis(2100));
    told(&token, "main", ("expired", "has expired"));
    server.configure(&["delete", "volume-token", &id]);
    told(&token, "main", ("unknown", "revoked"));

    let again = server.json(&["create", "volume-token", "--volume", "main"]);
    server.configure(&["delete", "volume", "main"]);
    told(again["token"].as_str().unwrap(), "main", ("retired", "was deleted"));

    // Secrets are in no log and not in the database.
    let (log, db) = (server.log(), std::fs::read(server.path("db/admin.db")).unwrap());
    let secret = Token::parse(&token).unwrap();
    for text in [&token[10..], &meta[10..], &server.account[10..]] {
        assert!(!log.contains(text));
        assert!(!db.windows(text.len()).any(|window| window == text.as_bytes()));
    }
    assert!(!db.windows(32).any(|window| window == secret.secret.expose()));
}

#[test]
fn mounts_find_their_volume() {
    let server = Server::start();
    let (meta, token) = server.furnish();
    let (status, answer) = server.call("GET", "/v1/volumes/for-token", &token, "");
    assert_eq!(status, 200, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["metaAddr"], &answer["settings"]["name"]), (&json!("10.0.0.1:7441"), &json!("main")));
    let (status, text) = server.call("GET", "/v1/volumes/for-token", &meta, "");
    assert!(status == 401 && text.contains("a volume token is needed"), "{text}");
    let (status, text) = server.call("GET", "/v1/volumes/for-token", "", "");
    assert!(status == 401 && text.contains("a volume token is needed here, as Authorization"), "{text}");
    let (status, text) = server.call("POST", "/v1/tokens/validate", &token, "{}");
    assert!(status == 401 && text.contains("a meta token is needed"), "{text}");
    let (status, text) = server.call("GET", "/v1/configure/volumes", &token, "");
    assert!(status == 401 && text.contains("an account token is needed"), "{text}");
    let (status, text) = server.call("POST", "/v1/tokens/validate", &meta, "{\"token\":98765}");
    assert!(status == 400 && text.contains("no validation request") && !text.contains("98765"), "{text}");
}

/// Each route takes tokens of one kind; another kind, none, or something else that looks like a credential is 401, and nothing
/// is told of what is behind the route.
#[test]
fn each_route_takes_one_kind_of_token() {
    let server = Server::start();
    let (meta, volume) = server.furnish();
    let account = server.account.clone();
    let configure = [
        ("GET", "/v1/configure/accounts"),
        ("GET", "/v1/configure/volumes/main"),
        ("GET", "/v1/configure/volume-tokens"),
        ("GET", "/v1/configure/audit"),
        ("POST", "/v1/configure/volume-tokens"),
        ("POST", "/v1/configure/accounts"),
        ("PUT", "/v1/configure/volumes/main"),
        ("DELETE", "/v1/configure/volumes/main"),
        ("POST", "/v1/configure/accounts/admin/rotate"),
        ("POST", "/v1/configure/meta-stores/m/rotate"),
        ("GET", "/v1/configure/regions/..%2f..%2f..%2fetc%2fpasswd"),
        ("GET", "/v1/configure/volumes/..%2f..%2fetc"),
    ];
    let of_meta = [("POST", "/v1/tokens/validate"), ("GET", "/v1/events"), ("POST", "/v1/certificates/meta")];
    let routes = (configure.iter().map(|route| (route, "an account token")))
        .chain(of_meta.iter().map(|route| (route, "a meta token")))
        .chain([(&("GET", "/v1/volumes/for-token"), "a volume token")]);
    let forged = Token { secret: Secret::new([7; 32]), ..Token::parse(&account).unwrap() }.to_text();
    for ((method, path), kind) in routes {
        let tokens = [
            (meta.as_str(), "a meta token"),
            (&volume, "a volume token"),
            (&account, "an account token"),
            ("", "none"),
            ("' OR 1=1 --", "none"),
            (&forged, "none"),
        ];
        for (token, _) in tokens.iter().filter(|(_, of)| *of != kind) {
            let (status, text) = server.call(method, path, token, "{}");
            assert_eq!(status, 401, "{method} {path}: {text}");
            assert!(!text.contains("main") && !text.contains(&Token::parse(&volume).unwrap().id.to_string()));
        }
    }
    // With the right one a path leads nowhere but to names.
    for path in ["regions/..%2f..%2f..%2fetc%2fpasswd", "volumes/..%2f..%2fetc", "volume-tokens/%2e%2e"] {
        let (status, text) = server.call("GET", &format!("/v1/configure/{path}"), &account, "");
        assert!(matches!(status, 400 | 404), "{path}: {status} {text}");
    }
    assert_eq!(server.call("GET", "/v1/configure/volumes/main", &account, "").0, 200, "all is as it was");
}

#[test]
fn refused_account_tokens_name_their_cause() {
    let server = Server::start();
    let (_, volume) = server.furnish();
    let with = |token: &str| {
        let file = server.path("other-token");
        std::fs::write(&file, token).unwrap();
        let line = ["init", "creds", "--adminAddr", &server.address(), "--tokenFile", file.to_str().unwrap()];
        let output = configure(&server.path("other-creds"), &line);
        assert!(!server.path("other-creds").exists());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(with(&server.account[..50]).contains("truncated"));
    assert!(with("hello").contains("not a flexfs token"));
    assert!(with(&volume).contains("this is a volume token, but an account token is needed here"));
    let other = Server::start();
    let text = with(&other.account);
    assert!(text.contains("not from the cluster this token belongs to (CA pin mismatch)"), "{text}");
    let forged = Token { secret: Secret::new([7; 32]), ..Token::parse(&server.account).unwrap() };
    let text = with(&forged.to_text());
    assert!(text.contains("unknown or was revoked"), "{text}");

    // Rotation ends the old token at once when asked to.
    let turned = server.json(&["rotate", "account", "admin", "--overlap", "0"]);
    let text = server.refused(&["list", "volumes"]);
    assert!(text.contains("unknown or was revoked"), "{text}");
    assert_eq!(server.call("GET", "/v1/configure/volumes", turned["token"].as_str().unwrap(), "").0, 200);
}

#[test]
fn open_credentials_are_refused_with_the_remedy() {
    let server = Server::start();
    let creds = server.path("creds");
    assert_eq!(creds.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    std::fs::set_permissions(&creds, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = server.refused(&["list", "volumes"]);
    assert!(text.contains(&format!("chmod 600 {}", creds.display())), "{text}");
    std::fs::set_permissions(&creds, std::fs::Permissions::from_mode(0o600)).unwrap();
    server.configure(&["list", "volumes"]);
    assert!(server.refused(&["init", "creds", "--adminAddr", "h:1"]).contains("--force replaces it"));
}

#[test]
fn events_tell_what_ends_within_a_second() {
    let server = Server::start();
    let (meta, first) = server.furnish();
    let id_of = |token: &str| Token::parse(token).unwrap().id.to_string();
    let mut events = server.events(&meta);
    assert_eq!(events.next().unwrap(), json!({ "event": "snapshot", "tokens": [id_of(&first)] }));
    let volume = events.next().unwrap();
    assert_eq!((&volume["event"], &volume["settings"]["name"]), (&json!("volume-updated"), &json!("main")));

    let start = Instant::now();
    server.configure(&["delete", "volume-token", &id_of(&first)]);
    assert_eq!(
        events.next().unwrap(),
        json!({ "event": "token-revoked", "id": id_of(&first), "cause": "deleted" })
    );
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());

    let short = server.json(&["create", "volume-token", "--volume", "main", "--expires", "2s"]);
    let event = events.next().unwrap();
    assert_eq!((&event["id"], &event["cause"]), (&short["id"], &json!("expired")));

    let old = server.json(&["create", "volume-token", "--volume", "main", "--flags", "ro"]);
    let new = server.json(&["rotate", "volume-token", old["id"].as_str().unwrap(), "--overlap", "3s"]);
    assert_eq!(server.validate(&meta, old["token"].as_str().unwrap(), "main")["verdict"], "accepted");
    let access = server.validate(&meta, new["token"].as_str().unwrap(), "main");
    assert_eq!(access["flags"]["ro"], true);
    assert_eq!(events.next().unwrap()["id"], old["id"]);

    server.configure(&["update", "volume-token", new["tokenId"].as_str().unwrap(), "--notes", "x"]);
    server.configure(&["update", "volume-token", new["tokenId"].as_str().unwrap(), "--flags", "ro,noExec"]);
    let event = events.next().unwrap();
    assert!(event["id"] == new["tokenId"] && event["cause"].as_str().unwrap().contains("changed"), "{event}");

    server.configure(&["update", "volume", "main", "--maxInodes", "5"]);
    assert_eq!(events.next().unwrap()["settings"]["maxInodes"], 5);
    server.configure(&["delete", "volume", "main"]);
    assert_eq!(events.next().unwrap()["event"], "volume-retired");
    assert_eq!(events.line().unwrap(), json!({ "event": "alive" }));
}

#[test]
fn limits_are_checked_kept_and_announced() {
    let server = Server::start();
    let (meta, first) = server.furnish();
    let limits = |token: &serde_json::Value| {
        ["maxSessions", "opsPerSecond", "bytesPerSecond"].map(|key| token[key].as_u64().unwrap())
    };
    let none = Token::parse(&first).unwrap().id.to_string();
    assert_eq!(limits(&server.json(&["show", "volume-token", &none])), [0, 0, 0]);
    let create = ["create", "volume-token", "--volume", "main"];
    let made = server.json(
        &[&create[..], &["--maxSessions", "3", "--opsPerSecond", "50", "--bytesPerSecond", "1M"]].concat(),
    );
    let id = made["id"].as_str().unwrap();
    assert_eq!(limits(&made), [3, 50, 1 << 20]);
    let access = server.validate(&meta, made["token"].as_str().unwrap(), "main");
    assert_eq!(limits(&access["limits"]), [3, 50, 1 << 20]);
    let shown = server.configure(&["show", "volume-token", id]);
    assert!(shown.contains("1 MiB") && shown.contains("50"), "{shown}");
    assert!(server.configure(&["list", "volume-tokens"]).contains("BYTES PER SECOND"));

    // Whoever connects is told, and whoever listens is told of changes.
    let mut events = server.events(&meta);
    let snapshot = events.next().unwrap();
    assert_eq!(limits(&snapshot["limits"][id]), [3, 50, 1 << 20]);
    assert!(snapshot["limits"].get(&none).is_none(), "{snapshot}");
    events.next().unwrap();
    let start = Instant::now();
    server.configure(&["update", "volume-token", id, "--opsPerSecond", "70", "--maxSessions", "0"]);
    let event = events.next().unwrap();
    assert_eq!((&event["event"], event["id"].as_str()), (&json!("token-updated"), Some(id)));
    assert_eq!(limits(&event["limits"]), [0, 70, 1 << 20]);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // What changes no limit says nothing; a rotated token keeps them.
    server.configure(&["update", "volume-token", id, "--opsPerSecond", "70", "--notes", "x"]);
    let new = server.json(&["rotate", "volume-token", id, "--overlap", "0"]);
    assert_eq!(events.next().unwrap()["event"], "token-revoked");
    let new = new["tokenId"].as_str().unwrap();
    assert_eq!(limits(&server.json(&["show", "volume-token", new])), [0, 70, 1 << 20]);
    let audit = server.json(&["audit"]).to_string();
    assert!(audit.contains("opsPerSecond\\\":70"), "{audit}");

    for (field, value) in [("maxSessions", "-1"), ("opsPerSecond", "1.5"), ("bytesPerSecond", "\"1M\"")] {
        let path = format!("/v1/configure/volume-tokens/{new}");
        let (status, text) = server.call("PUT", &path, &server.account, &format!("{{\"{field}\":{value}}}"));
        assert!(status == 400 && text.contains(field) && text.contains("whole number"), "{status} {text}");
    }
    let text = server.refused(&["update", "volume-token", new, "--bytesPerSecond", "10K"]);
    assert!(text.contains("bytesPerSecond: must be 0 (no limit) or at least 65536"), "{text}");
    assert_eq!(limits(&server.json(&["show", "volume-token", new])), [0, 70, 1 << 20]);
}

#[test]
fn a_stream_ends_with_its_meta_token_and_starts_again_with_a_snapshot() {
    let mut server = Server::start();
    let (meta, token) = server.furnish();
    let mut events = server.events(&meta);
    events.next().unwrap();
    events.next().unwrap();
    let turned = server.json(&["rotate", "meta-store", "m", "--overlap", "0"]);
    assert_eq!(events.next(), None);
    let meta = turned["token"].as_str().unwrap().to_owned();
    let mut events = server.events(&meta);
    assert_eq!(events.next().unwrap()["tokens"][0], Token::parse(&token).unwrap().id.to_string());

    // A stop is clean with a stream open, and what happened meanwhile is in the next snapshot.
    assert!(server.stop());
    while events.next().is_some() {}
    server.launch();
    server.configure(&["delete", "volume-token", &Token::parse(&token).unwrap().id.to_string()]);
    assert_eq!(server.events(&meta).next().unwrap(), json!({ "event": "snapshot", "tokens": [] }));
}

#[test]
fn last_use_is_recorded() {
    let mut server = Server::start();
    let (meta, token) = server.furnish();
    server.validate(&meta, &token, "main");
    // The batch is written on the way out.
    assert!(server.stop());
    server.launch();
    let row = server.json(&["list", "volume-tokens"]);
    assert_eq!(row[0]["lastUsedBy"], "test");
    assert!(row[0]["lastUsedAt"].is_i64());
}

#[test]
fn metadata_servers_get_certificates() {
    let server = Server::start();
    let (meta, volume) = server.furnish();
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let (status, chain) = server.call("POST", "/v1/certificates/meta", &meta, &csr);
    assert_eq!((status, chain.matches("BEGIN CERTIFICATE").count()), (200, 2), "{chain}");
    let (status, text) = server.call("POST", "/v1/certificates/meta", &meta, "nonsense");
    assert!(status == 400 && text.contains("signing request was refused"), "{text}");
    let (status, text) = server.call("POST", "/v1/certificates/meta", &volume, &csr);
    assert!(status == 401 && text.contains("a meta token is needed"), "{text}");
}
