//! Every noun through configure.flexfs against a real admin.flexfs.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::bench::{CONFIGURE, Server};
use serde_json::{Value, json};

#[test]
fn providers_and_regions() {
    let server = Server::start();
    assert_eq!(server.json(&["create", "provider", "aws"]), json!({ "code": "aws", "name": "aws" }));
    let region = server.json(&["create", "region", "east", "--provider", "aws", "--name", "East Coast"]);
    assert_eq!(region, json!({ "id": "aws/east", "provider": "aws", "code": "east", "name": "East Coast" }));
    assert_eq!(server.json(&["show", "region", "aws/east"]), region);
    assert_eq!(server.json(&["update", "region", "aws/east", "--name", "E"])["name"], "E");
    assert_eq!(server.json(&["list", "regions", "--filter", "provider=aws"]).as_array().unwrap().len(), 1);
    assert_eq!(server.json(&["list", "regions", "--filter", "provider=x"]), json!([]));
    let text = server.refused(&["delete", "provider", "aws"]);
    assert!(text.contains("still in use"), "{text}");
    let text = server.refused(&["create", "region", "x", "--provider", "none"]);
    assert!(text.contains("provider: there is no provider \"none\""), "{text}");
    server.configure(&["delete", "region", "aws/east"]);
    server.configure(&["delete", "provider", "aws"]);
    assert!(server.refused(&["show", "provider", "aws"]).contains("there is no provider"));
    let text = server.refused(&["create", "provider", "a b"]);
    assert!(text.contains("code: must be letters"), "{text}");
    // Without a terminal nothing is asked.
    let text = server.refused(&["create", "provider"]);
    assert!(text.contains("Code of the provider is needed: give it as CODE"), "{text}");
}

#[test]
fn stores() {
    let server = Server::start();
    let block = server.json(&["create", "block-store", "b", "--notes", "n"]);
    assert_eq!((&block["kind"], &block["notes"]), (&json!("hosted"), &json!("n")));
    assert!(server.refused(&["create", "block-store", "b"]).contains("name: that name is taken"));
    assert!(server.refused(&["create", "block-store", "f", "--kind", "file"]).contains("path: is needed"));
    assert!(
        server.refused(&["create", "block-store", "f", "--kind", "tape"]).contains("kind: must be one of")
    );
    server.configure(&["create", "block-store", "f", "--kind", "file", "--path", "/srv/blocks"]);
    server.configure(&[
        "create",
        "block-store",
        "s",
        "--kind",
        "s3",
        "--endpoint",
        "https://s3",
        "--bucket",
        "k",
    ]);
    assert_eq!(server.json(&["list", "block-stores", "--filter", "kind=s3"])[0]["bucket"], "k");

    let meta = server.json(&["create", "meta-store", "m", "--address", "meta.example.com:7441"]);
    assert!(meta["token"].as_str().unwrap().starts_with("flexmeta_"));
    assert!(
        server.refused(&["create", "meta-store", "x", "--address", "nowhere"]).contains("port is missing")
    );
    // The secret is shown once.
    let shown = server.configure(&["show", "meta-store", "m", "--json"]);
    assert!(!shown.contains("flexmeta_") && shown.contains(meta["tokenId"].as_str().unwrap()), "{shown}");
    assert_eq!(server.json(&["update", "meta-store", "m", "--address", "h:1"])["address"], "h:1");

    let text = server.refused(&["create", "volume", "v", "--metaStore", "m", "--blockStore", "f"]);
    assert!(text.contains("blockStore: stores of kind file are not served in this release"), "{text}");
    server.configure(&["delete", "block-store", "f"]);
    server.configure(&["delete", "meta-store", "m"]);
}

#[test]
fn volumes() {
    let server = Server::start();
    server.furnish();
    let volume = server.json(&["show", "volume", "main"]);
    let wanted = json!({
        "metaStore": "m", "blockStore": "b", "blockSize": 4_194_304, "compression": "lz4", "encryption": false,
        "retention": 604_800, "maxBlocks": 0, "maxInodes": 0, "retiredAt": null,
    });
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(&volume[key], value, "{key}");
    }
    let changed = server.json(&[
        "update",
        "volume",
        "main",
        "--retention",
        "forever",
        "--maxBlocks",
        "10",
        "--flags",
        "ro,umask=0027",
        "--compression",
        "zstd",
        "--notes",
        "x",
    ]);
    assert_eq!((&changed["retention"], &changed["maxBlocks"]), (&json!(-1), &json!(10)));
    assert_eq!(changed["flags"]["umask"], 0o27);
    let table = server.configure(&["list", "volumes"]);
    assert!(
        table.contains("4 MiB") && table.contains("ro,umask=0027") && table.contains("forever"),
        "{table}"
    );

    let make = |more: &[&str]| {
        server.refused(&[&["create", "volume", "v", "--metaStore", "m", "--blockStore", "b"], more].concat())
    };
    assert!(make(&["--blockSize", "3M"]).contains("blockSize: must be a power of two"));
    assert!(make(&["--blockSize", "16M"]).contains("blockSize: must be a whole number from 262144"));
    assert!(make(&["--compression", "rar"]).contains("compression: must be none, lz4 or zstd"));
    assert!(make(&["--encryption"]).contains("Secret of the volume is needed: give the file that holds it"));
    assert!(make(&["--flags", "rw"]).contains("flags: unknown flag"));
    let text = server.refused(&["create", "volume", "main", "--metaStore", "m", "--blockStore", "b"]);
    assert!(text.contains("name: that name is taken"), "{text}");
    for size in ["256K", "512K", "1M", "2M", "4M", "8M"] {
        let name = format!("v{size}");
        let line = [
            "create",
            "volume",
            &name,
            "--metaStore",
            "m",
            "--blockStore",
            "b",
            "--blockSize",
            size,
            "--noToken",
        ];
        assert!(server.json(&line)["token"].is_null());
    }

    // Deleting only retires; the name is free again.
    server.configure(&["delete", "volume", "main"]);
    assert!(server.refused(&["show", "volume", "main"]).contains("there is no volume"));
    let id = volume["id"].as_str().unwrap();
    assert!(server.json(&["show", "volume", id])["retiredAt"].is_i64());
    assert!(server.refused(&["update", "volume", id, "--notes", "y"]).contains("was deleted"));
    server.configure(&["create", "volume", "main", "--metaStore", "m", "--blockStore", "b"]);
    assert_eq!(server.json(&["list", "volumes", "--filter", "retired=true"]).as_array().unwrap().len(), 1);
    assert!(server.refused(&["delete", "meta-store", "m"]).contains("still in use"));
}

/// The key of an encrypted volume is kept wrapped, shown to who may change the volume, and replaced by who knows it.
#[test]
fn encrypted_volumes() {
    let server = Server::start();
    let (meta, _) = server.furnish();
    let folder = tempfile::tempdir().unwrap();
    let secret = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (first, second) = (secret("first", "correct horse\n"), secret("second", "battery staple"));
    let short = secret("short", "too short");
    let line = |file: &str| {
        let words = ["create", "volume", "sealed", "--metaStore", "m", "--blockStore", "b", "--encryption"];
        [&words.map(str::to_owned)[..], &["--secretFile".to_owned(), file.to_owned()]].concat()
    };
    let short = line(&short);
    let text = server.refused(&short.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(text.contains("at least 12"), "{text}");
    let made = line(&first);
    let made = server.json(&made.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(made["encryption"], true);
    assert!(made["wrappedKey"].is_null(), "{made}");
    // The metadata server hears which ones are, when it connects too.
    let mut events = server.events(&meta);
    events.next().unwrap();
    let told: Vec<_> = (0..2).map(|_| events.next().unwrap()["settings"].clone()).collect();
    assert!(told.iter().all(|settings| settings["encrypted"] == (settings["name"] == "sealed")), "{told:?}");
    let rekey = |old: &str, new: &str| {
        ["volume", "rekey", "sealed", "--secretFile", old, "--newSecretFile", new].map(str::to_owned).to_vec()
    };
    let turn = rekey(&first, &second);
    let words: Vec<&str> = turn.iter().map(String::as_str).collect();
    server.configure(&words);
    assert!(server.refused(&words).contains("does not open this volume's key"));
    assert!(
        server.refused(&["volume", "rekey", "main", "--secretFile", &first]).contains("is not encrypted")
    );
    // One that was made of a key that is not there any more is not taken.
    let (status, key) = server.call("GET", "/v1/configure/volumes/sealed/key", &server.account, "");
    assert_eq!(status, 200, "{key}");
    let stale = key.replacen("\"passes\":3", "\"passes\":4", 1);
    let body = format!("{{\"wrappedKey\":{key},\"was\":{stale}}}");
    let (status, text) = server.call("PUT", "/v1/configure/volumes/sealed/key", &server.account, &body);
    assert_eq!(status, 409, "{text}");
    // Costs that would hold up clients are not taken either.
    let costly = key.replacen("65536", "4294967295", 1);
    let body = format!("{{\"wrappedKey\":{costly},\"was\":{key}}}");
    let (status, text) = server.call("PUT", "/v1/configure/volumes/sealed/key", &server.account, &body);
    assert!(status == 400 && text.contains("wrappedKey"), "{status} {text}");
    let audit = server.configure(&["audit", "--json"]);
    assert!(audit.contains("wrappedKey") && !audit.contains("salt"), "{audit}");
}

#[test]
fn volume_tokens() {
    let server = Server::start();
    server.furnish();
    let made = server.json(&[
        "create",
        "volume-token",
        "--volume",
        "main",
        "--mountPath",
        "/a/b/",
        "--flags",
        "ro,noExec",
        "--notes",
        "team",
        "--expires",
        "30d",
    ]);
    assert!(made["token"].as_str().unwrap().starts_with("flexvol_"));
    assert_eq!((&made["mountPath"], &made["flags"]["noExec"]), (&json!("/a/b"), &json!(true)));
    let id = made["id"].as_str().unwrap();
    let list = server.configure(&["list", "volume-tokens", "--filter", "volume=main"]);
    assert!(list.contains(id) && list.contains("ro,noExec") && list.contains("team"), "{list}");
    assert!(!list.contains("flexvol_"));
    let changed = server.json(&["update", "volume-token", id, "--expires", "never", "--notes", "other"]);
    assert_eq!((&changed["expiresAt"], &changed["notes"]), (&Value::Null, &json!("other")));
    let make =
        |more: &[&str]| server.refused(&[&["create", "volume-token", "--volume", "main"], more].concat());
    assert!(make(&["--mountPath", "a"]).contains("mountPath: must be an absolute path"));
    assert!(make(&["--mountPath", "/a/../b"]).contains("mountPath: must not hold the parts . and .."));
    assert!(make(&["--expires", "2001-01-01"]).contains("expiresAt: lies in the past"));
    server.configure(&["delete", "volume-token", id]);
    assert!(server.refused(&["show", "volume-token", id]).contains("there is no volume token"));
    // The automatic first token is the one that is left.
    assert_eq!(server.json(&["list", "volume-tokens"])[0]["notes"], "made with the volume");
}

#[test]
fn accounts() {
    let server = Server::start();
    let text = server.refused(&["delete", "account", "admin"]);
    assert!(text.contains("last account"), "{text}");
    let made = server.json(&["create", "account", "ann"]);
    let (status, _) = server.call("GET", "/v1/configure/accounts", made["token"].as_str().unwrap(), "");
    assert_eq!(status, 200);
    server.configure(&["update", "account", "ann", "--name", "anna"]);
    server.configure(&["delete", "account", "anna"]);
    let (status, answer) = server.call("GET", "/v1/configure/accounts", made["token"].as_str().unwrap(), "");
    assert!(status == 401 && answer.contains("unknown or was revoked"), "{answer}");
    let shown = server.configure(&["show", "account", "admin"]);
    assert!(shown.contains("last used"), "{shown}");
}

#[test]
fn lists_come_in_pages() {
    let server = Server::start();
    for index in 0..7 {
        server.configure(&["create", "provider", &format!("p{index}")]);
    }
    let (_, first) = server.call("GET", "/v1/configure/providers?limit=3", &server.account, "");
    let codes = |text: &str| -> Vec<String> {
        let rows: Vec<Value> = serde_json::from_str(text).unwrap();
        rows.iter().map(|row| row["code"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(codes(&first), ["p0", "p1", "p2"]);
    let (_, last) = server.call("GET", "/v1/configure/providers?limit=3&after=p4", &server.account, "");
    assert_eq!(codes(&last), ["p5", "p6"]);
    let (status, text) = server.call("GET", "/v1/configure/providers?colour=red", &server.account, "");
    assert!(status == 400 && text.contains("\"field\":\"colour\""), "{text}");
}

#[test]
fn documents() {
    let server = Server::start();
    let folder = server.path("man");
    server.configure(&["man", folder.to_str().unwrap()]);
    assert!(folder.join("configure.flexfs.1").exists());
    assert!(folder.join("configure.flexfs-create-volume.1").exists());
    for shell in ["bash", "zsh", "fish"] {
        assert!(server.configure(&["completions", shell]).contains("volume-token"), "{shell}");
    }
    let (status, text) = server.call("GET", "/v1/openapi.json", "", "");
    assert_eq!(status, 200);
    assert!(text.contains("/v1/configure/volume-tokens/{id}/rotate"));
    let (_, metrics) = server.call("GET", "/metrics", "", "");
    assert!(metrics.contains("flexfs_admin_requests_total"), "{metrics}");
}

/// `configure.flexfs .. | head`.
#[test]
fn a_reader_that_has_seen_enough_is_no_accident() {
    let server = Server::start();
    for arguments in [&["completions", "bash"][..], &["list", "accounts"], &["list", "accounts", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(CONFIGURE)
            .args(arguments)
            .arg("--credsFile")
            .arg(server.path("creds"))
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && text.is_empty(),
            "{arguments:?}: {}: {text}",
            output.status
        );
    }
    assert!(server.refused(&["rotate", "account", "admin", "--overlap", "-1h"]).contains("a duration is"));
}
