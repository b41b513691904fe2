//! What is refused, and in which words: bad tokens, bad files, strangers on the ports. The servers go on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use flexfs_wire::token::{Secret, Token};

use crate::harness::{Cluster, Run, Transport, VOLUME, binary, now};

both!(tokens, files, strangers);

/// A volume token as it was shown once.
pub(crate) struct NewToken {
    pub(crate) id: String,
    pub(crate) text: String,
}

/// Makes a token for the cluster's volume.
pub(crate) fn new_token(cluster: &Cluster, flags: &[&str]) -> NewToken {
    let made = cluster.configure_json(&[&["create", "volume-token", "--volume", VOLUME], flags].concat());
    let text = made["token"].as_str().unwrap_or_else(|| panic!("no token in {made}")).to_owned();
    NewToken { id: Token::parse(&text).unwrap().id.to_string(), text }
}

/// Writes a credentials file for a mount of this cluster.
pub(crate) fn write_creds(cluster: &Cluster, path: &Path, token: &str) {
    let own = fs::read_to_string(cluster.volume_creds()).unwrap();
    let address = own.lines().find(|line| line.starts_with("adminAddr")).unwrap();
    // Of an encrypted volume.
    let secret = own.lines().find(|line| line.starts_with("secret")).unwrap_or_default();
    fs::write(path, format!("{address}\ntoken = \"{token}\"\n{secret}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A token with one part changed and its checksum made right again.
fn forged(text: &str, change: impl FnOnce(&mut Token)) -> String {
    let mut token = Token::parse(text).unwrap();
    change(&mut token);
    token.to_text().to_string()
}

fn tokens(transport: Transport) {
    let cluster = Cluster::start(transport);
    let creds = cluster.root().join("creds");
    let mnt = cluster.root().join("mnt-guest");
    fs::create_dir(&mnt).unwrap();
    let good = new_token(&cluster, &[]).text;
    let revoked = new_token(&cluster, &[]);
    cluster.configure(&["delete", "volume-token", &revoked.id]).ok();
    let operator = fs::read_to_string(cluster.operator_creds()).unwrap();
    let account =
        operator.lines().find_map(|line| line.strip_prefix("token = ")).unwrap().trim_matches('"').to_owned();
    let stranger = Cluster::start(transport);
    let foreign = new_token(&stranger, &[]).text;
    stranger.finish();
    let mut typo = good.clone();
    typo.replace_range(30..31, if &good[30..31] == "A" { "B" } else { "A" });
    let cases = [
        ("truncated", good[..60].to_owned(), &["truncated"][..]),
        ("typing error", typo, &["checksum"]),
        ("no token", "hunter2-hunter2".to_owned(), &["not a flexfs token"]),
        ("wrong kind", account, &["account token", "volume token"]),
        ("wrong secret", forged(&good, |token| token.secret = Secret::new([7; 32])), &["unknown|revoked"]),
        (
            "unknown",
            forged(&good, |token| token.id = flexfs_wire::token::TokenId([7; 16])),
            &["unknown|revoked"],
        ),
        ("revoked", revoked.text, &["unknown|revoked"]),
        ("wrong cluster", foreign, &["cluster"]),
        // The metadata server's own word, not admin's.
        (
            "no such scope",
            new_token(&cluster, &["--mountPath", "/absent"]).text,
            &["/absent", "make that directory"],
        ),
    ];
    for (what, token, words) in cases {
        write_creds(&cluster, &creds, &token);
        let text = cluster.start_mount(&mnt, &creds, &[]).fails().text();
        for word in words {
            assert!(
                word.split('|').any(|word| text.contains(word)),
                "{what}: no word of {word:?} in: {text}"
            );
        }
        assert!(!text.contains(&token), "{what}: the token is in the text");
    }
    // The right token for another volume's name.
    write_creds(&cluster, &creds, &good);
    let run =
        Run::new(binary("mount")).arg("start").arg("--credsFile").arg(&creds).arg("other-volume").arg(&mnt);
    let text = run.fails().text();
    assert!(text.contains("volume"), "{text}");
    // The servers go on, and neither log nor command line ever held a token.
    cluster.start_mount(&mnt, &creds, &[]).ok();
    Run::new("umount").arg(&mnt).ok();
    cluster.wait_mount_gone(&mnt);
    let found = Run::new("grep")
        .args(["-rlE", "--include=*.log", "flex(vol|acc|meta)_[A-Za-z0-9_-]{60}"])
        .arg(cluster.root())
        .run();
    assert_eq!(found.out, "", "a token in a log");
    let lines = Run::new("grep").args(["-alE", "flex(vol|acc|meta)_[A-Za-z0-9_-]{60}"]);
    let shown = [cluster.meta(), cluster.admin()]
        .iter()
        .fold(lines, |run, process| run.arg(format!("/proc/{}/cmdline", process.pid().as_raw_nonzero())));
    assert_eq!(shown.run().out, "", "a token in a command line");
    cluster.finish();
}

fn files(transport: Transport) {
    let cluster = Cluster::start(transport);
    let creds = cluster.root().join("creds");
    let mnt = cluster.root().join("mnt-guest");
    fs::create_dir(&mnt).unwrap();
    let good = new_token(&cluster, &[]).text;
    write_creds(&cluster, &creds, &good);
    let refused = |words: &[&str]| {
        let text = cluster.start_mount(&mnt, &creds, &[]).fails().text();
        assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not in: {text}");
        assert!(!text.contains(&good), "the token is in the text");
    };
    fs::set_permissions(&creds, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&["chmod 600", "0644"]);
    fs::set_permissions(&creds, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&creds, format!("adminAddr = \"127.0.0.1:1\"\ntoken = \"{good}\"\n")).unwrap();
    refused(&["127.0.0.1:1"]);
    fs::write(&creds, format!("token = \"{good}\"\n")).unwrap();
    refused(&["adminAddr"]);
    fs::write(&creds, format!("{{{good}")).unwrap();
    refused(&["TOML"]);
    fs::remove_file(&creds).unwrap();
    refused(&["creds"]);
    // Mount points: missing, not empty, taken.
    write_creds(&cluster, &creds, &good);
    let text = cluster.start_mount(&cluster.root().join("absent"), &creds, &[]).fails().text();
    assert!(text.contains("absent"), "{text}");
    fs::write(mnt.join("file"), "x").unwrap();
    let text = cluster.start_mount(&mnt, &creds, &[]).fails().text();
    assert!(text.contains("empty"), "{text}");
    let text = cluster.start_mount(cluster.mnt(), &creds, &[]).fails().text();
    assert!(text.contains("mount"), "{text}");
    cluster.finish();
}

/// Ports of the servers, by their command lines.
fn addresses(cluster: &Cluster) -> [SocketAddr; 2] {
    [cluster.admin(), cluster.meta()].map(|process| {
        let address =
            process.flag("--bindAddr").expect("a server is told its address").into_string().unwrap();
        address.parse().unwrap_or_else(|error| panic!("{address}: {error}"))
    })
}

/// People and programs that talk to the ports without TLS, or nonsense, or nothing at all.
fn strangers(transport: Transport) {
    let cluster = Cluster::start(transport);
    fs::write(cluster.path("file"), "content").unwrap();
    let limit = Duration::from_secs(8);
    for address in addresses(&cluster) {
        let connect = || {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(limit)).unwrap();
            stream.set_write_timeout(Some(limit)).unwrap();
            stream
        };
        // Bytes no TLS begins with: the server closes, quickly.
        let noise: Vec<u8> = crate::files::pattern(12345, 300_000);
        let plain = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
        for bytes in [plain, noise, vec![0; 100_000], vec![0x16, 3, 1, 0xff, 0xff]] {
            let mut stream = connect();
            let start = now();
            // A server that has closed already makes the rest of a write fail: that is the refusal.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(start.elapsed() < limit, "{address} keeps a stranger for {:?}", start.elapsed());
            assert!(answer.len() < 4096, "{address} says too much to a stranger");
        }
        // Many that say nothing: the server lets go of each, and others are served meanwhile.
        let silent: Vec<TcpStream> = (0..60).map(|_| connect()).collect();
        assert_eq!(fs::read_to_string(cluster.path("file")).unwrap(), "content");
        for mut stream in silent {
            let closed = stream.read(&mut [0; 4096]);
            assert!(
                !matches!(&closed, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
                "{address} holds a silent stranger"
            );
        }
        // TLS, and then no protocol behind it. openssl does not know the cluster's CA, which is its own business.
        let target = address.to_string();
        let run = Run::new("openssl")
            .args(["s_client", "-quiet", "-connect", &target])
            .input("garbage garbage garbage\n".repeat(100));
        run.limit(10).run();
    }
    // The causes are in the logs, and everybody else is served as before.
    let logs = Run::shell("cat $(find \"$1\" -name '*.log')", &[cluster.state()]).ok().out;
    assert!(logs.contains("TLS"), "no log line about strangers: {logs}");
    assert_eq!(fs::read_to_string(cluster.path("file")).unwrap(), "content");
    let other = cluster.second_mount();
    assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "content");
    cluster.finish();
}
