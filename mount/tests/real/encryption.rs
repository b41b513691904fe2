//! Encrypted volumes: what the servers hold is of no use without the secret, and what they change is found.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::harness::{
    Cluster, Options, Random, Run, Transport, VOLUME, binary, repository, scratch, soon, write_secret,
};
use crate::names::code;
use crate::refusals::{new_token, write_creds};

both!(programs_see_no_difference);
one!(servers_hold_nothing_readable, secrets_decide, another_secret, tampered_blocks);

const SECRET: &str = "correct horse battery staple";
/// Found nowhere but where a program wrote it: no word, and nothing that compresses.
const MARK: &str = "Zq7vK2xWm9RtB4nLd8sHc3Jf";

/// A cluster whose volume is encrypted; the folder holds the secret.
pub(crate) fn encrypted(transport: Transport, secret: &str) -> (Cluster, tempfile::TempDir) {
    let folder = scratch();
    let file = folder.path().join("secret");
    write_secret(&file, &format!("{secret}\n"));
    let flags = vec!["--secretFile".to_owned(), file.to_str().unwrap().to_owned()];
    (Cluster::with(Options { transport, flags, state: None }), folder)
}

/// A cluster whose volume is not, whatever the environment says of the other tests.
fn plain(transport: Transport) -> Cluster {
    Cluster::with(Options { transport, flags: vec!["--blockSize".to_owned(), "4M".to_owned()], state: None })
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..bytes / 8).flat_map(|_| random.next().to_le_bytes()).collect()
}

fn programs_see_no_difference(transport: Transport) {
    let (cluster, _secret) = encrypted(transport, SECRET);
    let long = "ü".repeat(127) + "x";
    fs::create_dir(cluster.path("dir")).unwrap();
    fs::write(cluster.path("dir").join(&long), "255 bytes").unwrap();
    assert_eq!(code(fs::write(cluster.path(format!("{long}x")), "")), Errno::NAMETOOLONG);
    symlink("dir/../dir", cluster.path("link")).unwrap();
    assert_eq!(fs::symlink_metadata(cluster.path("link")).unwrap().size(), 10);
    let target = "t".repeat(4095);
    symlink(&target, cluster.path("far")).unwrap();
    assert_eq!(fs::read_link(cluster.path("far")).unwrap().to_str().unwrap(), target);
    let big = noise(1, 9 << 20);
    fs::write(cluster.path("big"), &big).unwrap();
    fs::rename(cluster.path("big"), cluster.path("dir/moved")).unwrap();
    fs::hard_link(cluster.path("dir/moved"), cluster.path("other")).unwrap();
    Run::new("setfattr").args(["-n", "user.key", "-v", "a value"]).arg(cluster.path("other")).ok();
    // Another client, and this one without what it had cached.
    let second = cluster.second_mount();
    cluster.remount();
    for mnt in [cluster.mnt(), &second] {
        assert!(fs::read(mnt.join("other")).unwrap() == big);
        assert_eq!(fs::read_to_string(mnt.join("link").join(&long)).unwrap(), "255 bytes");
        assert_eq!(fs::symlink_metadata(mnt.join("link")).unwrap().size(), 10);
        let mut names: Vec<_> =
            fs::read_dir(mnt.join("dir")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["moved", long.as_str()]);
        let value = Run::new("getfattr").args(["--only-values", "-n", "user.key"]).arg(mnt.join("dir/moved"));
        assert_eq!(value.ok().out, "a value");
    }
    // What one client changes the other sees, by the names that it knows.
    fs::remove_file(second.join("dir/moved")).unwrap();
    assert!(!cluster.path("dir/moved").exists());
    let sources = Run::shell(
        "cd \"$1\" && git clone -q --no-hardlinks \"$2\" clone && git -C clone fsck",
        &[cluster.mnt(), repository()],
    );
    sources.limit(120).ok();
    cluster.kill_meta();
    cluster.restart();
    Run::shell("git -C \"$1/clone\" status --porcelain", &[cluster.mnt()]).limit(60).ok();
    cluster.finish();
}

/// Puts the mark into every place a program has for words and bytes.
fn leave_marks(cluster: &Cluster) {
    let dir = cluster.path(format!("d-{MARK}"));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(format!("f-{MARK}")), format!("small {MARK}")).unwrap();
    let mut big = noise(2, 5 << 20);
    for at in (0..big.len() - 64).step_by(300_000) {
        big[at..at + MARK.len()].copy_from_slice(MARK.as_bytes());
    }
    fs::write(dir.join("big"), &big).unwrap();
    symlink(format!("t-{MARK}"), dir.join("link")).unwrap();
    Run::new("setfattr").args(["-n", "user.mark", "-v", MARK]).arg(dir.join("big")).ok();
    fs::rename(dir.join("big"), cluster.path(format!("moved-{MARK}"))).unwrap();
    fs::write(cluster.path(format!("gone-{MARK}")), MARK).unwrap();
    fs::remove_file(cluster.path(format!("gone-{MARK}"))).unwrap();
    Run::new("sync").arg("-f").arg(&dir).ok();
}

/// Files that the servers wrote and that hold the text.
fn holding(cluster: &Cluster, text: &str) -> Vec<PathBuf> {
    // The mount's log and credentials are the client's own.
    let script = "cd \"$1\" && grep -rlaF --exclude-dir=creds --exclude=mount.log -- \"$2\" . || true";
    let found = Run::shell(script, &[cluster.state(), Path::new(text)]).limit(120).ok().out;
    found.lines().map(PathBuf::from).collect()
}

fn servers_hold_nothing_readable(transport: Transport) {
    let control = plain(transport);
    leave_marks(&control);
    control.down();
    assert!(!holding(&control, MARK).is_empty(), "this test could not find anything");
    control.finish();
    let (cluster, _secret) = encrypted(transport, SECRET);
    leave_marks(&cluster);
    cluster.down();
    assert_eq!(holding(&cluster, MARK), Vec::<PathBuf>::new());
    assert_eq!(holding(&cluster, SECRET), Vec::<PathBuf>::new());
    cluster.finish();
}

/// Credentials of a new token with a secret, or without.
fn creds(cluster: &Cluster, name: &str, secret: Option<&str>) -> PathBuf {
    let path = cluster.root().join(name);
    write_creds(cluster, &path, &new_token(cluster, &[]).text);
    let own = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> =
        own.lines().filter(|line| !line.starts_with("secret")).map(str::to_owned).collect();
    lines.extend(secret.map(|secret| format!("secret = \"{secret}\"")));
    fs::remove_file(&path).unwrap();
    write_secret(&path, &lines.join("\n"));
    path
}

fn secrets_decide(transport: Transport) {
    let (cluster, _secret) = encrypted(transport, SECRET);
    let mnt = cluster.root().join("mnt-guest");
    fs::create_dir(&mnt).unwrap();
    for (secret, words) in [
        (Some("correct horse battery stable"), "does not open this volume's key"),
        (Some("short"), "at least 12"),
        (None, "is encrypted, and the credentials hold no secret"),
    ] {
        let refused = cluster.start_mount(&mnt, &creds(&cluster, "creds", secret), &[]).fails().text();
        assert!(refused.contains(words), "{secret:?}: {refused}");
        assert!(secret.is_none_or(|secret| !refused.contains(secret)), "{refused}");
    }
    // A directory of it is given away by the path that the server knows.
    fs::create_dir_all(cluster.path("team/data")).unwrap();
    fs::write(cluster.path("team/data/file"), "theirs").unwrap();
    let scoped = ["create", "volume-token", "--volume", VOLUME, "--mountPath", "/team/data"];
    let refused = cluster.configure(&scoped).fails().text();
    assert!(refused.contains("mount.flexfs scope"), "{refused}");
    let scope = Run::new(binary("mount")).args(["scope", "--credsFile"]).arg(cluster.volume_creds());
    let path = scope.arg(cluster.path("team/data")).ok().out.trim().to_owned();
    assert!(!path.contains("team"), "{path}");
    let token = new_token(&cluster, &["--mountPath", &path]);
    let guest = cluster.root().join("creds-guest");
    write_creds(&cluster, &guest, &token.text);
    cluster.start_mount(&mnt, &guest, &[]).ok();
    assert_eq!(fs::read_to_string(mnt.join("file")).unwrap(), "theirs");
    fs::write(mnt.join("answer"), "ours").unwrap();
    Run::new("umount").arg(&mnt).limit(30).ok();
    cluster.wait_mount_gone(&mnt);
    assert_eq!(fs::read_to_string(cluster.path("team/data/answer")).unwrap(), "ours");
    cluster.finish();
    // Who expects encryption writes nothing plain.
    let control = plain(transport);
    let refused = control.start_mount(&mnt_of(&control), &creds(&control, "creds", Some(SECRET)), &[]);
    let refused = refused.fails().text();
    assert!(refused.contains("is not encrypted"), "{refused}");
    control.finish();
}

fn mnt_of(cluster: &Cluster) -> PathBuf {
    let mnt = cluster.root().join("mnt-guest");
    fs::create_dir(&mnt).unwrap();
    mnt
}

fn another_secret(transport: Transport) {
    const NEW: &str = "entirely other words";
    let (cluster, folder) = encrypted(transport, SECRET);
    fs::write(cluster.path("file"), noise(3, 1 << 20)).unwrap();
    Run::new("sync").arg("-f").arg(cluster.mnt()).ok();
    let before = blocks(&cluster);
    let (old, new) = (folder.path().join("secret"), folder.path().join("new"));
    write_secret(&new, NEW);
    let rekey = |old: &Path, new: &Path| {
        let words = ["volume", "rekey", VOLUME, "--secretFile", old.to_str().unwrap()];
        cluster.configure(&[&words[..], &["--newSecretFile", new.to_str().unwrap()]].concat())
    };
    rekey(&old, &new).ok();
    let refused = rekey(&old, &new).fails().text();
    assert!(refused.contains("does not open"), "{refused}");
    // Nothing was written again, mounts go on, and new ones need the new secret.
    assert_eq!(blocks(&cluster), before);
    fs::write(cluster.path("more"), "of the old mount").unwrap();
    let mnt = mnt_of(&cluster);
    let refused = cluster.start_mount(&mnt, &creds(&cluster, "old", Some(SECRET)), &[]).fails().text();
    assert!(refused.contains("does not open"), "{refused}");
    cluster.start_mount(&mnt, &creds(&cluster, "new", Some(NEW)), &[]).ok();
    assert!(fs::read(mnt.join("file")).unwrap() == noise(3, 1 << 20));
    assert_eq!(fs::read_to_string(mnt.join("more")).unwrap(), "of the old mount");
    Run::new("umount").arg(&mnt).limit(30).ok();
    cluster.wait_mount_gone(&mnt);
    // The audit log says that it happened, and shows nothing to guess at.
    let audit = cluster.configure(&["audit", "--json"]).ok().out;
    assert!(audit.contains("wrappedKey") && !audit.contains("salt"), "{audit}");
    cluster.finish();
}

/// Files of blocks on the server's disk, with their content's length.
fn blocks(cluster: &Cluster) -> Vec<(PathBuf, u64)> {
    let script = "find \"$1\" -type f -path '*/blocks/*' -printf '%s %p\\n' | sort";
    let found = Run::shell(script, &[&cluster.state().join("meta")]).ok().out;
    let block = |line: &str| line.split_once(' ').map(|(size, path)| (path.into(), size.parse().unwrap()));
    found.lines().filter_map(block).collect()
}

fn write(cluster: &Cluster, name: &str, bytes: &[u8]) {
    let mut file = File::create(cluster.path(name)).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// What a server, or whoever has its disk, can do to blocks: change, exchange, cut.
fn tampered_blocks(transport: Transport) {
    let (cluster, _secret) = encrypted(transport, SECRET);
    let mut files = Vec::new();
    for (seed, name) in (10..).zip(["changed", "one", "two", "cut", "whole"]) {
        let known = blocks(&cluster);
        write(&cluster, name, &noise(seed, 200_000));
        let new: Vec<_> = blocks(&cluster).into_iter().filter(|block| !known.contains(block)).collect();
        assert_eq!(new.len(), 1, "{new:?}");
        files.push(new[0].0.clone());
    }
    cluster.down();
    let [changed, one, two, cut, _] = &files[..] else { panic!("{files:?}") };
    let mut bytes = fs::read(changed).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(changed, bytes).unwrap();
    let (first, second) = (fs::read(one).unwrap(), fs::read(two).unwrap());
    assert_eq!(first.len(), second.len(), "such as are exchanged without the lengths telling");
    fs::write(one, second).unwrap();
    fs::write(two, first).unwrap();
    let bytes = fs::read(cut).unwrap();
    fs::write(cut, &bytes[..bytes.len() - 100]).unwrap();
    cluster.up();
    for name in ["changed", "one", "two", "cut"] {
        assert_eq!(code(fs::read(cluster.path(name))), Errno::IO, "{name}");
    }
    assert!(fs::read(cluster.path("whole")).unwrap() == noise(14, 200_000));
    let logged = || cluster.log_of(cluster.mnt()).contains("does not decrypt");
    assert!(soon(Duration::from_secs(5), logged), "{}", cluster.log_of(cluster.mnt()));
    cluster.finish();
}
