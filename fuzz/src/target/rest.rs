//! Admin's API without its socket: any method, path, query and body, over tables with one of everything.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use flexfs_admin::local::{Answer, Api, create};
use serde_json::Value;

use crate::source::Source;

const NOUNS: [&str; 7] =
    ["accounts", "providers", "regions", "block-stores", "meta-stores", "volumes", "volume-tokens"];
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "POST", "PATCH"];
/// Fields of bodies and filters of queries.
const KEYS: [&str; 33] = [
    "name",
    "code",
    "provider",
    "region",
    "kind",
    "path",
    "address",
    "metaStore",
    "blockStore",
    "blockSize",
    "compression",
    "encryption",
    "retention",
    "maxBlocks",
    "maxInodes",
    "flags",
    "notes",
    "volume",
    "mountPath",
    "expiresAt",
    "maxSessions",
    "opsPerSecond",
    "bytesPerSecond",
    "noToken",
    "endpoint",
    "bucket",
    "prefix",
    "overlapSeconds",
    "limit",
    "after",
    "retired",
    "id",
    "zzz",
];
const VALUES: [&str; 24] = [
    "null",
    "true",
    "0",
    "-1",
    "4194304",
    "1e99",
    "18446744073709551615",
    "\"\"",
    "\"a\"",
    "\"b\"",
    "\"a/a\"",
    "\"h:1\"",
    "\"/a/../b\"",
    "\"/x\"",
    "\"hosted\"",
    "\"s3\"",
    "\"lz4\"",
    "\"ro,noExec\"",
    "\"umask=0999\"",
    "{\"ro\":true}",
    "[1]",
    "{\"umask\":512}",
    "\"\\u0000\"",
    "\"\u{e4}'; --\"",
];

/// One of everything, in a folder that is copied for each run.
struct Template {
    folder: tempfile::TempDir,
    token: String,
}

/// A few calls, one after the other.
pub fn run(data: &[u8]) {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    let template = TEMPLATE.get_or_init(furnish);
    let folder = scratch();
    copy(template.folder.path(), folder.path());
    let api = Api::open(folder.path()).expect("a copy of a good folder");
    let mut source = Source::new(data);
    let mut secrets = vec![template.token.clone()];
    for _ in 0..6 {
        if source.is_empty() {
            break;
        }
        call(&api, &mut source, &mut secrets);
    }
}

fn call(api: &Api, source: &mut Source<'_>, secrets: &mut Vec<String>) {
    let method = source.pick(&METHODS);
    let target = target(source);
    let body = if method == "GET" { Vec::new() } else { body(source) };
    let token = if source.one_in(16) { "flexacct_nonsense".to_owned() } else { secrets[0].clone() };
    // What is no HTTP request does not come to a handler.
    let Ok(answer) = api.call(method, &target, &token, &body) else { return };
    let shown = String::from_utf8_lossy(&answer.body).into_owned();
    let context =
        || format!("{method} {target} {}: {} {shown}", String::from_utf8_lossy(&body), answer.status);
    assert!(answer.status < 500, "{}", context());
    if method == "GET" {
        assert!(!secrets.iter().any(|secret| shown.contains(secret.as_str())), "a secret: {}", context());
    }
    if answer.status >= 400 {
        check_problem(&answer, &target, &body).unwrap_or_else(|why| panic!("{why}: {}", context()));
        return;
    }
    let made: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    if let Some(token) = made["token"].as_str() {
        secrets.push(token.to_owned());
    }
    // What was made can be shown, under its key.
    let key = made.get("id").or_else(|| made.get("code")).and_then(Value::as_str);
    let path = target.split('?').next().unwrap_or_default();
    if let (true, Some(key)) = (method == "POST" && path.matches('/').count() == 3, key) {
        let again = api.call("GET", &format!("{path}/{key}"), &secrets[0], b"").expect("a request");
        assert_eq!(again.status, 200, "{}", context());
    }
}

/// RFC 9457, with the field at fault where there is one.
fn check_problem(answer: &Answer, target: &str, body: &[u8]) -> Result<(), String> {
    if answer.content_type != "application/problem+json" {
        return Err(format!("the type is {:?}", answer.content_type));
    }
    let problem: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let kind = problem["type"].as_str().ok_or("no type")?;
    if problem["status"] != answer.status || !kind.starts_with("urn:flexfs:problem:") {
        return Err("status or type".to_owned());
    }
    if problem["detail"].as_str().is_none_or(str::is_empty) {
        return Err("no detail".to_owned());
    }
    if kind.ends_with(":invalid-field") {
        let field = problem["field"].as_str().ok_or("no field")?;
        let fields: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let is_sent =
            fields.as_object().is_some_and(|fields| fields.keys().any(|key| key.starts_with(field)));
        if !is_sent && !KEYS.contains(&field) && !target.contains('?') {
            return Err(format!("{field:?} was not sent and is not known"));
        }
    }
    Ok(())
}

fn target(source: &mut Source<'_>) -> String {
    let noun = source.pick(&NOUNS);
    let shape = source.byte();
    let mut target = match shape & 7 {
        0..=2 => format!("/v1/configure/{noun}"),
        3..=5 => {
            format!("/v1/configure/{noun}/{}", source.pick(&["a", "a/a", "b", "%00", "%2e%2e", "-", "A"]))
        }
        6 => format!("/v1/configure/{noun}/a/rotate"),
        _ => source
            .pick(&[
                "/v1/volumes/for-token",
                "/v1/tokens/validate",
                "/v1/certificates/meta",
                "/v1/openapi.json",
                "/metrics",
                "/healthz",
                "/",
                "/v1/configure/",
            ])
            .to_owned(),
    };
    for index in 0..shape >> 6 {
        target.push(if index == 0 { '?' } else { '&' });
        target.push_str(source.pick(&KEYS));
        target.push('=');
        target.push_str(source.pick(&["a", "1", "0", "1000", "1001", "%ff", "%", "", "a%27", "true", "+"]));
    }
    if shape & 0x38 == 0x38 {
        target.push_str(&String::from_utf8_lossy(source.take(8)));
    }
    target
}

fn body(source: &mut Source<'_>) -> Vec<u8> {
    if source.one_in(4) {
        let count = source.below(200);
        return source.take(count).to_vec();
    }
    let pairs = (0..source.below(7)).map(|_| {
        let key = source.pick(&KEYS);
        let value = if source.one_in(8) {
            let count = source.below(90);
            serde_json::to_string(&String::from_utf8_lossy(source.take(count))).expect("a text")
        } else {
            source.pick(&VALUES).to_owned()
        };
        format!("\"{key}\":{value}")
    });
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(",")).into_bytes()
}

fn furnish() -> Template {
    let folder = scratch();
    let token = create(folder.path(), "a").expect("an empty folder");
    let api = Api::open(folder.path()).expect("just made");
    for (noun, body) in [
        ("providers", r#"{"code":"a"}"#),
        ("regions", r#"{"provider":"a","code":"a"}"#),
        ("block-stores", r#"{"name":"a","region":"a/a"}"#),
        ("meta-stores", r#"{"name":"a","address":"h:1"}"#),
        ("volumes", r#"{"name":"a","metaStore":"a","blockStore":"a"}"#),
        ("volume-tokens", r#"{"volume":"a"}"#),
    ] {
        let made =
            api.call("POST", &format!("/v1/configure/{noun}"), &token, body.as_bytes()).expect("a request");
        assert_eq!(made.status, 200, "{noun}: {}", String::from_utf8_lossy(&made.body));
    }
    Template { folder, token }
}

/// Memory where there is some: tables are written durably.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for tables")
}

fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).expect("the template").flatten() {
        // The fuzzer's own clock interrupts, and what copies by the kernel's means does not begin anew.
        while let Err(error) = fs::copy(file.path(), to.join(file.file_name())) {
            assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "a small file: {error}");
        }
    }
}
