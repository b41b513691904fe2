//! Tokens and secrets are in credentials files, on the wire inside TLS, in memory, and nowhere else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flexfs_wire::token::Token;
use serde_json::Value;

use crate::encryption::encrypted;
use crate::harness::{Cluster, Process, Run, Transport, VOLUME, binary, soon};
use crate::refusals::new_token;

both!(nowhere_else);
one!(last_uses);

/// Passphrase in a credentials file.
const PASSPHRASE: &str = "correct-horse-battery-staple";
/// Shortest part of a secret that is looked for, bytes.
const PART: usize = 10;

/// Forms in which a secret could be written, each enough of it to be recognised by.
struct Traces(Vec<(String, Vec<u8>)>);

impl Traces {
    fn new(tokens: &[(&str, &str)]) -> Self {
        let mut traces = vec![("the passphrase".to_owned(), PASSPHRASE.as_bytes().to_vec())];
        for (name, text) in tokens {
            let token = Token::parse(text).unwrap();
            let secret = token.secret.expose();
            let body = &text[text.find('_').unwrap() + 1..];
            let hex: String = secret.iter().take(PART).map(|byte| format!("{byte:02x}")).collect();
            let list = format!("{:?}", &secret[..PART]);
            let mut add = |form: &str, bytes: &[u8]| traces.push((format!("{name}, {form}"), bytes.to_vec()));
            // Behind version and id, which are public.
            add("as text", &body.as_bytes()[24..24 + 2 * PART]);
            add("as bytes", &secret[..PART]);
            add("in hex", hex.as_bytes());
            add("in capital hex", hex.to_uppercase().as_bytes());
            add("as a list", list.trim_matches(['[', ']']).as_bytes());
        }
        Self(traces)
    }

    /// Which of them are in `bytes`. One pass: the metadata server's folder holds hundreds of megabytes.
    fn find(&self, bytes: &[u8]) -> Vec<&str> {
        let pair = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
        let mut begins = vec![false; 1 << 16];
        for (_, part) in &self.0 {
            begins[pair(part)] = true;
        }
        let mut found = Vec::new();
        for (at, window) in bytes.windows(2).enumerate() {
            if begins[pair(window)] {
                let here = self.0.iter().filter(|(_, part)| bytes[at..].starts_with(part));
                found.extend(here.map(|(name, _)| name.as_str()));
            }
        }
        found
    }

    fn absent(&self, place: &str, bytes: &[u8]) {
        let found = self.find(bytes);
        assert!(found.is_empty(), "{place} shows {found:?}");
    }
}

fn token_of(creds: &Path) -> String {
    let text = fs::read_to_string(creds).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("token = ")).unwrap();
    line.trim_matches('"').to_owned()
}

/// All files below a folder that are no credentials and not on a mount.
fn files(folder: &Path, cluster: &Cluster, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let own = path == *cluster.mnt() || path == cluster.state().join("creds");
        let name = entry.file_name().to_string_lossy().into_owned();
        if own
            || name.starts_with("creds")
            || (name.starts_with("mnt") && kind.is_dir() && path.extension().is_none())
        {
            continue;
        }
        // Zeros, kept for a full disk.
        if name == "reserve" {
            continue;
        }
        if kind.is_dir() {
            files(&path, cluster, found);
        } else if kind.is_file() {
            found.push(path);
        }
    }
}

/// Everything logs all it can; programs are used rightly and wrongly; then nothing of the secrets is anywhere.
fn nowhere_else(transport: Transport) {
    let (cluster, _secret) = encrypted(transport, PASSPHRASE);
    let loud = ["env", "FLEXFS_LOG=trace", "RUST_LOG=trace", "RUST_BACKTRACE=1"];
    for server in [cluster.admin(), cluster.meta()] {
        server.kill();
        cluster.restart_behind(&server, &loud);
    }
    let back = || cluster.configure(&["list", "volumes"]).run().status.success();
    assert!(soon(Duration::from_secs(30), back), "admin does not come back");
    let extra = new_token(&cluster, &[]);
    let doomed = new_token(&cluster, &[]);
    let account = token_of(&cluster.operator_creds());
    let traces = Traces::new(&[
        ("the account token", &account),
        ("the meta token", &token_of(&cluster.state().join("creds/meta"))),
        ("the volume token", &token_of(&cluster.volume_creds())),
        ("another volume token", &extra.text),
        ("a revoked volume token", &doomed.text),
    ]);
    assert!(traces.find(extra.text.as_bytes()).len() == 1, "the search finds what is there");
    assert!(traces.find(&fs::read(cluster.operator_creds()).unwrap()).len() == 1);

    let creds = cluster.root().join("creds-extra");
    crate::refusals::write_creds(&cluster, &creds, &extra.text);
    assert!(fs::read_to_string(&creds).unwrap().contains(PASSPHRASE), "the mount has a secret to tell");
    let mnt = cluster.root().join("mnt-loud");
    fs::create_dir(&mnt).unwrap();
    let mut said = mount_loudly(&cluster, &mnt, &creds);
    fs::write(mnt.join("file"), "content").unwrap();
    let meta = cluster.meta();
    meta.kill();
    cluster.restart_server(&meta);
    assert!(soon(Duration::from_secs(30), || fs::read(mnt.join("file")).is_ok()), "no way back to meta");
    said.extend(used_wrongly(&cluster, &account, &doomed.text));
    said.extend(asked(&cluster, &mnt));
    for (place, text) in &said {
        traces.absent(place, text.as_bytes());
    }
    for process in Process::of(cluster.root()) {
        for file in ["cmdline", "environ", "comm"] {
            // It may have ended.
            let bytes = fs::read(process.proc(file)).unwrap_or_default();
            traces.absent(&format!("{file} of {process:?}"), &bytes);
        }
    }
    Run::new("umount").arg(&mnt).ok();
    cluster.wait_mount_gone(&mnt);
    cluster.as_made_by_up();
    let mut found = Vec::new();
    files(cluster.root(), &cluster, &mut found);
    let names: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
    for wanted in
        ["admin/admin.db", "log/admin.log", "log/meta.log", "servers.log", "mnt-loud.log", "key.pem"]
    {
        assert!(names.iter().any(|name| name.ends_with(wanted)), "{wanted} is not among {names:?}");
    }
    let servers = fs::read_to_string(cluster.root().join("servers.log")).unwrap();
    assert!(servers.contains("TRACE"), "the servers log all they can");
    for path in &found {
        traces.absent(&path.display().to_string(), &fs::read(path).unwrap());
    }
    cluster.finish();
}

fn mount_loudly(cluster: &Cluster, mnt: &Path, creds: &Path) -> Vec<(String, String)> {
    let run = cluster.start_mount(mnt, creds, &["--verbose"]);
    let ran = run.env("FLEXFS_LOG", "trace").env("RUST_LOG", "trace").ok();
    let log = cluster.log_of(mnt);
    assert!(log.contains("TRACE"), "the client logs all it can");
    vec![("mount.flexfs start".to_owned(), ran.text())]
}

/// Tokens where none belongs: what the programs say to that. (The shell's history is the person's own.)
fn used_wrongly(cluster: &Cluster, account: &str, doomed: &str) -> Vec<(String, String)> {
    let id = Token::parse(doomed).unwrap().id.to_string();
    cluster.configure(&["delete", "volume-token", &id]).ok();
    let mnt = cluster.root().join("mnt-never");
    let doomed_creds = cluster.root().join("creds-doomed");
    crate::refusals::write_creds(cluster, &doomed_creds, doomed);
    fs::create_dir(&mnt).unwrap();
    let admin = cluster.admin().flag("--bindAddr").unwrap().into_string().unwrap();
    let run = |program: &str, words: &[&str]| Run::new(binary(program)).args(words);
    let configure = |words: &[&str]| cluster.configure(words);
    let wrong = [
        ("an unknown verb of mount", run("mount", &[doomed])),
        ("an unknown flag of mount", run("mount", &["start", &format!("--token={doomed}")])),
        (
            "a token as a volume",
            run("mount", &["init", "creds", "--adminAddr", &admin, doomed]).input(doomed),
        ),
        ("a token as an address", run("mount", &["init", "creds", "--adminAddr", doomed])),
        ("mount(8) with a token", run("mount", &[doomed, "/nowhere", "-o", doomed])),
        ("a revoked token", cluster.start_mount(&mnt, &doomed_creds, &[])),
        ("an unknown verb of meta", run("meta", &[doomed])),
        ("a token of another kind", run("meta", &["init", "creds", "--adminAddr", &admin]).input(doomed)),
        ("flags of a unit", run("meta", &["init", "systemd", "--startFlags", doomed])),
        ("an unknown verb of admin", run("admin", &[account])),
        ("a token as an account", run("admin", &["init", "account", account, "--dbFolder", "/nowhere"])),
        ("an unknown noun", configure(&["create", doomed])),
        ("a token as an id", configure(&["show", "volume-token", doomed])),
        ("a token to delete", configure(&["delete", "volume-token", doomed])),
        ("a token as a volume", configure(&["create", "volume-token", "--volume", doomed])),
        ("an unknown flag of configure", configure(&["list", "volumes", &format!("--token={account}")])),
        ("a token for flags", configure(&["update", "volume", VOLUME, "--flags", doomed])),
    ];
    wrong.into_iter().map(|(what, run)| (what.to_owned(), run.fails().text())).collect()
}

/// What the programs tell whoever may ask.
fn asked(cluster: &Cluster, mnt: &Path) -> Vec<(String, String)> {
    let mut said = Vec::new();
    for noun in ["account", "meta-store", "volume", "volume-token", "block-store"] {
        for flags in [&[][..], &["--json"]] {
            let words = [&["list", noun], flags].concat();
            said.push((format!("{words:?}"), cluster.configure(&words).ok().text()));
        }
    }
    let tokens = cluster.configure_json(&["list", "volume-token"]);
    for token in tokens.as_array().unwrap() {
        let id = token["id"].as_str().unwrap();
        said.push((format!("show {id}"), cluster.configure(&["show", "volume-token", id]).ok().text()));
    }
    said.push(("audit".to_owned(), cluster.configure(&["audit", "--json"]).ok().text()));
    said.push(("status".to_owned(), Run::new(binary("mount")).arg("status").arg(mnt).run().text()));
    said.push(("ps".to_owned(), Run::new("ps").args(["-eww", "-o", "args"]).ok().text()));
    let metrics = cluster.meta().flag("--metricsAddr").unwrap().into_string().unwrap();
    let admin = cluster.admin().flag("--bindAddr").unwrap().into_string().unwrap();
    for url in [format!("http://{metrics}/metrics"), format!("https://{admin}/metrics")] {
        let ran = Run::new("curl").args(["-ksS", "--max-time", "10", &url]).ok();
        assert!(ran.out.contains("flexfs_"), "{url}: {}", ran.out);
        said.push((url, ran.out));
    }
    said
}

/// When and from where tokens were used: known to admin within seconds, for all kinds.
fn last_uses(transport: Transport) {
    let cluster = Cluster::start(transport);
    let mnt = cluster.mnt().display().to_string();
    let by = |value: &Value| value["lastUsedBy"].as_str().unwrap_or_default().to_owned();
    let shown = || {
        let tokens = cluster.configure_json(&["list", "volume-token"]);
        let volume = tokens.as_array().unwrap().iter().any(|token| {
            let by = by(token);
            by.contains(&format!(":{mnt} 127.0.0.1")) && token["lastUsedAt"].as_i64().is_some()
        });
        let of = |noun: &str| {
            let all = cluster.configure_json(&["list", noun]);
            let tokens = all[0]["tokens"].as_array().cloned().unwrap_or_default();
            tokens.iter().any(|token| by(token) == "127.0.0.1" && token["lastUsedAt"].as_i64().is_some())
        };
        volume && of("account") && of("meta-store")
    };
    assert!(soon(Duration::from_secs(30), shown), "{}", cluster.configure_json(&["list", "volume-token"]));
    // And for people.
    let table = cluster.configure(&["list", "volume-token"]).ok().out;
    assert!(table.contains("LAST USED BY") && table.contains("127.0.0.1"), "{table}");
    let account = cluster.configure(&["show", "account", "admin"]).ok().out;
    assert!(account.contains("last used") && account.contains("127.0.0.1"), "{account}");
    cluster.finish();
}
