//! What accounts may do, and what is on record about it.

use crate::bench::Server;
use serde_json::{Value, json};

/// A server with the volumes `main` and `other`, and the token of an account of that role.
fn cluster(role: &str, volumes: &str) -> (Server, String) {
    let server = Server::start();
    server.furnish();
    server.configure(&["create", "volume", "other", "--metaStore", "m", "--blockStore", "b"]);
    let made = server.json(&["create", "account", "ann", "--role", role, "--volumes", volumes]);
    assert_eq!(made["role"], role);
    let token = made["token"].as_str().unwrap().to_owned();
    (server, token)
}

fn call(server: &Server, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, text) = server.call(method, &format!("/v1/configure/{path}"), token, &body);
    (status, serde_json::from_str(&text).unwrap_or_default())
}

#[test]
fn a_volume_admin_has_its_volumes_and_nothing_else() {
    let (server, ann) = cluster("volume-admin", "main");
    let ask = |method: &str, path: &str, body: Value| call(&server, &ann, method, path, &body);
    let (_, volumes) = ask("GET", "volumes", Value::Null);
    assert_eq!(volumes.as_array().unwrap().len(), 1);
    let (status, token) = ask("POST", "volume-tokens", json!({ "volume": "main", "flags": "ro" }));
    assert_eq!((status, &token["volume"]), (200, &json!("main")));
    let own = format!("volume-tokens/{}", token["id"].as_str().unwrap());
    assert_eq!(ask("PUT", &own, json!({ "notes": "mine" })).0, 204);
    assert_eq!(ask("POST", &format!("{own}/rotate"), json!({ "overlapSeconds": 0 })).0, 200);
    assert_eq!(ask("PUT", "volumes/main", json!({ "maxInodes": 100 })).0, 204);
    // Of another volume it does not even learn what there is.
    let others = server.json(&["list", "volume-tokens", "--filter", "volume=other"]);
    let other = format!("volume-tokens/{}", others[0]["id"].as_str().unwrap());
    for (method, path, body) in [
        ("GET", "volumes/other", Value::Null),
        ("GET", other.as_str(), Value::Null),
        ("PUT", other.as_str(), json!({ "notes": "x" })),
        ("DELETE", other.as_str(), Value::Null),
        ("POST", &format!("{other}/rotate"), Value::Null),
        ("POST", "volume-tokens", json!({ "volume": "other" })),
        ("PUT", "volumes/other", json!({ "notes": "x" })),
    ] {
        let (status, said) = ask(method, path, body);
        assert_eq!(status, 404, "{method} {path}: {said}");
    }
    assert_eq!(server.json(&["list", "volume-tokens", "--filter", "volume=other"]), others, "as they were");
    for (method, path, body) in [
        ("POST", "volumes", json!({ "name": "x", "metaStore": "m", "blockStore": "b" })),
        ("DELETE", "volumes/main", Value::Null),
        ("GET", "accounts", Value::Null),
        ("POST", "accounts", json!({ "name": "friend" })),
        ("PUT", "accounts/ann", json!({ "role": "admin" })),
        ("GET", "meta-stores", Value::Null),
        ("POST", "meta-stores/m/rotate", Value::Null),
        ("GET", "audit", Value::Null),
    ] {
        let (status, said) = ask(method, path, body);
        let text = said["detail"].as_str().unwrap_or_default();
        assert!(
            status == 403 && text.contains("volume-admin") && text.contains("role admin"),
            "{method} {path}: {said}"
        );
    }
    // Its own token it may renew.
    let (status, renewed) = ask("POST", "accounts/ann/rotate", json!({ "overlapSeconds": 0 }));
    assert_eq!(status, 200);
    assert_eq!(ask("GET", "volumes", Value::Null).0, 401, "the old one has ended");
    assert_eq!(call(&server, renewed["token"].as_str().unwrap(), "GET", "volumes", &Value::Null).0, 200);
    // The volume is taken from it.
    server.configure(&["update", "account", "ann", "--volumes", "other"]);
    let (_, volumes) = call(&server, renewed["token"].as_str().unwrap(), "GET", "volumes", &Value::Null);
    assert_eq!(volumes[0]["name"], "other");
}

#[test]
fn an_auditor_sees_all_and_changes_nothing() {
    let (server, ann) = cluster("auditor", "");
    for noun in ["accounts", "volumes", "volume-tokens", "meta-stores", "block-stores", "audit"] {
        let (status, rows) = call(&server, &ann, "GET", noun, &Value::Null);
        assert!(status == 200 && rows.is_array(), "{noun}: {rows}");
        assert!(!rows.to_string().contains("flexvol_") && !rows.to_string().contains("flexacc_"));
    }
    for (method, path) in [("POST", "volume-tokens"), ("PUT", "volumes/main"), ("DELETE", "accounts/ann")] {
        assert_eq!(call(&server, &ann, method, path, &json!({})).0, 403, "{method} {path}");
    }
}

#[test]
fn the_last_admin_stays() {
    let (server, _) = cluster("auditor", "");
    let text = server.refused(&["update", "account", "admin", "--role", "auditor"]);
    assert!(text.contains("last account of role admin"), "{text}");
    assert!(server.refused(&["delete", "account", "admin"]).contains("last account of role admin"));
    let text = server.refused(&["update", "account", "ann", "--volumes", "main"]);
    assert!(text.contains("only an account of role volume-admin"), "{text}");
    assert!(server.refused(&["create", "account", "x", "--volumes", "none"]).contains("no volume \"none\""));
    server.configure(&["update", "account", "ann", "--role", "admin"]);
    server.configure(&["update", "account", "admin", "--role", "auditor"]);
    assert!(server.refused(&["create", "account", "x"]).contains("role auditor"));
}

#[test]
fn who_did_what_is_on_record() {
    let (server, ann) = cluster("volume-admin", "main");
    let made = server.json(&["create", "volume-token", "--volume", "main", "--notes", "for bob"]);
    let id = made["id"].as_str().unwrap();
    server.configure(&["update", "volume-token", id, "--flags", "ro"]);
    server.configure(&["delete", "volume-token", id]);
    let refused = call(&server, &ann, "DELETE", "accounts/admin", &Value::Null);
    assert_eq!(refused.0, 403);
    let rows = server.json(&["audit", "--key", id]);
    let deeds: Vec<&str> =
        rows.as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(deeds, ["delete", "update", "create"], "the newest first");
    let created = &rows[2];
    assert_eq!((&created["account"], &created["peer"]), (&json!("admin"), &json!("127.0.0.1")));
    assert!(created["detail"].as_str().unwrap().contains("for bob"));
    assert_eq!(created["token"].as_str().unwrap().len(), 32);
    let rows = server.json(&["audit", "--account", "ann", "--since", "1h"]);
    assert_eq!(
        (&rows[0]["status"], &rows[0]["noun"], &rows[0]["key"]),
        (&json!(403), &json!("accounts"), &json!("admin"))
    );
    assert_eq!(server.json(&["audit", "--limit", "3"]).as_array().unwrap().len(), 3);
    let all = server.json(&["audit", "--limit", "5000"]).to_string();
    let secret = made["token"].as_str().unwrap();
    assert!(!all.contains("flexvol_") && !all.contains("flexacc_") && !all.contains(secret), "{all}");
    let table = server.configure(&["audit"]);
    assert!(table.lines().count() > 5 && table.starts_with("AT"), "{table}");
    // A volume's first token, and what comes of a rotation, are on record by themselves.
    let volume = server.json(&["create", "volume", "second", "--metaStore", "m", "--blockStore", "b"]);
    let rotated = server.json(&["rotate", "account", "ann"]);
    for (made, noun) in [(&volume, "volume token"), (&rotated, "account token")] {
        let rows = server.json(&["audit", "--key", made["tokenId"].as_str().unwrap()]);
        assert_eq!((&rows[0]["action"], &rows[0]["noun"]), (&json!("create"), &json!(noun)), "{rows}");
    }
    let of: Value = serde_json::from_str(
        server.json(&["audit", "--key", volume["tokenId"].as_str().unwrap()])[0]["detail"].as_str().unwrap(),
    )
    .unwrap();
    assert_eq!(of["of"], volume["id"]);
    // Tokens that somebody pasted where none belongs are not.
    assert!(!server.refused(&["delete", "volume-token", secret]).contains(secret));
    server.configure(&["update", "volume", "second", "--notes", secret]);
    let all = server.json(&["audit", "--limit", "5000"]).to_string();
    assert!(!all.contains(secret) && all.contains("flexvol_[hidden]"), "{all}");
    // What was refused has changed nothing and what failed half-way left no row of success.
    assert!(server.refused(&["create", "volume-token", "--volume", "none"]).contains("no volume"));
    assert_eq!(server.json(&["audit", "--limit", "1"])[0]["status"], 400);
}
