//! Programs people run: git, cargo, sqlite, fio, tar, rsync.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::harness::{Cluster, Run, Transport};
use crate::tree::compare;

both!(git, cargo, sqlite_wal, sqlite_rollback, fio, tar, rsync);

fn git(transport: Transport) {
    let cluster = Cluster::start(transport);
    let source = cluster.root().join("source.git");
    make_repository(&source, transport.scale(300, 60));
    let (clone, second) = (cluster.path("clone"), cluster.path("second"));
    let git = |folder: &Path| {
        let run = Run::new("git").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        run.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).arg("-C").arg(folder).limit(120)
    };
    git(cluster.mnt()).args(["clone", "-q", "--no-hardlinks"]).arg(&source).arg(&clone).ok();
    git(&clone).args(["fsck", "--full", "--strict"]).ok();
    assert_eq!(git(&clone).args(["status", "--porcelain"]).ok().out, "");
    // A clone within the mount makes hard links.
    git(cluster.mnt()).args(["clone", "-q"]).arg(&clone).arg(&second).ok();
    fs::write(second.join("file-1"), "changed\n").unwrap();
    git(&second).args(["commit", "-qam", "change"]).ok();
    git(&second).args(["checkout", "-q", "HEAD~5"]).ok();
    git(&second).args(["gc", "-q", "--prune=now"]).ok();
    cluster.remount();
    for folder in [&clone, &second] {
        git(folder).args(["fsck", "--full", "--strict"]).ok();
        assert_eq!(git(folder).args(["status", "--porcelain"]).ok().out, "");
    }
    assert_eq!(
        git(&clone).args(["rev-list", "--count", "HEAD"]).ok().out.trim(),
        transport.scale("300", "60")
    );
    cluster.finish();
}

/// A bare repository with a history of many small files, made by fast-import.
fn make_repository(folder: &Path, commits: usize) {
    Run::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(folder).ok();
    let mut stream = String::new();
    for commit in 1..=commits {
        let message = format!("commit {commit}");
        writeln!(
            stream,
            "commit refs/heads/main\ncommitter t <t@example.com> {} +0000",
            1_700_000_000 + commit
        )
        .unwrap();
        writeln!(stream, "data {}\n{message}", message.len()).unwrap();
        for file in 0..3 {
            let text = format!("{commit} {file} {}\n", "text ".repeat(commit % 50));
            let name = format!("folder-{}/file-{commit}-{file}", commit % 20);
            writeln!(stream, "M 100644 inline {name}\ndata {}\n{text}", text.len()).unwrap();
        }
        writeln!(stream, "M 100644 inline file-1\ndata {}\n{message}", message.len()).unwrap();
    }
    let run = Run::new("git").arg("-C").arg(folder).args(["fast-import", "--quiet"]);
    run.input(stream).ok();
}

fn cargo(transport: Transport) {
    let cluster = Cluster::start(transport);
    let folder = cluster.path("small");
    fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = "[package]\nname = \"small\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.join("src/lib.rs"), "pub fn answer() -> u32 { 42 }\n").unwrap();
    fs::write(folder.join("src/main.rs"), "fn main() { println!(\"{}\", small::answer()) }\n").unwrap();
    let cargo = |verb: &str| {
        let run = Run::new("cargo").arg(verb).arg("--offline").arg("--quiet").folder(&folder).limit(180);
        // Settings of the build that runs this test are not this crate's.
        run.env("CARGO_TARGET_DIR", folder.join("target")).env("RUSTFLAGS", "").env("CARGO_INCREMENTAL", "1")
    };
    cargo("build").ok();
    let program = folder.join("target/debug/small");
    assert_eq!(Run::new(&program).ok().out, "42\n");
    fs::write(folder.join("src/lib.rs"), "pub fn answer() -> u32 { 43 }\n").unwrap();
    assert_eq!(cargo("run").ok().out, "43\n");
    cluster.remount();
    assert_eq!(Run::new(&program).ok().out, "43\n");
    cargo("build").ok();
    cluster.finish();
}

fn sqlite_wal(transport: Transport) {
    sqlite(transport, "WAL", transport.scale(10_000, 2_000));
}

fn sqlite_rollback(transport: Transport) {
    sqlite(transport, "DELETE", transport.scale(300, 100));
}

fn sqlite(transport: Transport, journal: &str, transactions: usize) {
    let cluster = Cluster::start(transport);
    let database = cluster.path("data.db");
    let mut script = format!("PRAGMA journal_mode={journal};\nPRAGMA synchronous=NORMAL;\n");
    script.push_str("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, number INTEGER);\nCREATE INDEX i ON t (number);\n");
    for id in 1..=transactions {
        let filler = "x".repeat(id % 200);
        writeln!(script, "BEGIN; INSERT INTO t VALUES ({id}, '{filler}', {}); COMMIT;", id * 7 % 1000)
            .unwrap();
    }
    let ran = Run::new("sqlite3").arg("-bail").arg(&database).input(script).limit(300).ok();
    assert_eq!(ran.out.lines().next(), Some(journal.to_lowercase().as_str()), "journal mode");
    cluster.remount();
    // A second reader beside the first: shared memory of the WAL, and locks.
    let check = "PRAGMA integrity_check; SELECT count(*), sum(length(text)) FROM t;";
    let bytes: usize = (1..=transactions).map(|id| id % 200).sum();
    let wanted = format!("ok\n{transactions}|{bytes}\n");
    let ran = Run::new("sqlite3").arg(&database).arg(check).limit(120).ok();
    assert_eq!(ran.out, wanted);
    Run::new("sqlite3").arg(&database).arg("DELETE FROM t WHERE id % 2; VACUUM;").limit(120).ok();
    cluster.down();
    cluster.verify();
    cluster.up();
    let ran = Run::new("sqlite3")
        .arg(&database)
        .arg("PRAGMA integrity_check; SELECT count(*) FROM t;")
        .limit(120)
        .ok();
    assert_eq!(ran.out, format!("ok\n{}\n", transactions / 2));
    cluster.finish();
}

fn fio(transport: Transport) {
    let cluster = Cluster::start(transport);
    let size = transport.scale("64m", "16m");
    let jobs: [(&str, &[&str]); 5] = [
        ("buffered", &["--ioengine=psync", "--bs=4k"]),
        ("ranges", &["--ioengine=psync", "--bsrange=1k-256k", "--bs_unaligned=1", "--fsync=64"]),
        ("direct", &["--ioengine=psync", "--bs=64k", "--direct=1"]),
        ("mapped", &["--ioengine=mmap", "--bs=4k"]),
        ("deep", &["--ioengine=io_uring", "--iodepth=16", "--bs=16k", "--direct=1"]),
    ];
    let run = |name: &str, flags: &[&str], only: bool| {
        let run = Run::new("fio")
            .arg(format!("--name={name}"))
            .arg(format!("--directory={}", cluster.mnt().display()));
        let run =
            run.arg(format!("--size={size}")).args(["--rw=randwrite", "--verify=crc32c", "--verify_fatal=1"]);
        let run = run.args(["--do_verify=1", "--verify_state_save=0", "--randrepeat=1", "--group_reporting"]);
        let run = if only { run.arg("--verify_only=1") } else { run };
        run.args(flags).folder(cluster.root()).limit(240).ok();
    };
    for (name, flags) in jobs {
        run(name, flags, false);
    }
    cluster.remount();
    for (name, flags) in jobs {
        run(name, flags, true);
    }
    // Reads and writes mixed, several processes on files of their own.
    let mixed = [
        "--numjobs=3",
        "--rw=randrw",
        "--bs=8k",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
    ];
    let folder = format!("--directory={}", cluster.mnt().display());
    let run = Run::new("fio").args(["--name=mixed", "--size=8m", "--ioengine=psync"]).args(mixed).arg(folder);
    run.folder(cluster.root()).limit(240).ok();
    cluster.finish();
}

fn tar(transport: Transport) {
    let cluster = Cluster::start(transport);
    let source = cluster.path("source");
    make_tree(&source, transport.scale(400, 100));
    let (archive, target) = (cluster.path("a.tar"), cluster.path("target"));
    fs::create_dir(&target).unwrap();
    let script =
        "tar -C \"$1\" --format=posix --sparse --xattrs -cf \"$2\" . && tar -C \"$3\" --xattrs -xpf \"$2\"";
    Run::shell(script, &[&source, &archive, &target]).limit(120).ok();
    compare(&source, &target);
    cluster.remount();
    compare(&source, &target);
    Run::new("tar").arg("-C").arg(&target).arg("--compare").arg("-f").arg(&archive).limit(120).ok();
    let name =
        Run::new("getfattr").args(["--only-values", "-n", "user.flexfs"]).arg(target.join("file-0")).ok();
    assert_eq!(name.out, "value");
    cluster.finish();
}

/// Every kind of inode: files of many sizes and modes, a sparse one, hard links, symlinks, a FIFO, deep folders.
fn make_tree(folder: &Path, files: usize) {
    let deep = folder.join("a/b/c/d/e/f/g/h");
    fs::create_dir_all(&deep).unwrap();
    for index in 0..files {
        let path = folder.join(format!("file-{index}"));
        fs::write(&path, vec![u8::try_from(index % 251).unwrap(); index * index % 70_000]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400 + u32::try_from(index % 0o400).unwrap()))
            .unwrap();
    }
    fs::hard_link(folder.join("file-1"), deep.join("link")).unwrap();
    std::os::unix::fs::symlink("../../file-2", folder.join("a/symlink")).unwrap();
    std::os::unix::fs::symlink("nowhere", deep.join("dangling")).unwrap();
    Run::new("mkfifo").arg(deep.join("fifo")).ok();
    Run::new("truncate").args(["-s", "20m"]).arg(folder.join("sparse")).ok();
    Run::new("setfattr").args(["-n", "user.flexfs", "-v", "value"]).arg(folder.join("file-0")).ok();
}

fn rsync(transport: Transport) {
    let cluster = Cluster::start(transport);
    let source = cluster.root().join("source");
    make_tree(&source, transport.scale(400, 100));
    // Not of this second: for what is no regular file rsync compares whole seconds.
    let old = "find \"$1\" -exec touch -h -d '2020-01-02 03:04:05.678901234' {} +";
    Run::shell(old, &[&source]).ok();
    let target = cluster.path("target");
    let from = format!("{}/", source.display());
    let rsync = || Run::new("rsync").args(["-aHX", "--itemize-changes", &from]).arg(&target).limit(120);
    assert!(rsync().ok().out.lines().count() > 100);
    compare(&source, &target);
    assert_eq!(rsync().ok().out, "", "a second rsync has nothing to do");
    cluster.remount();
    assert_eq!(rsync().ok().out, "", "nor has one after a remount");
    fs::remove_file(source.join("file-3")).unwrap();
    fs::write(source.join("file-4"), "other").unwrap();
    rsync().arg("--delete").ok();
    Run::shell(old, &[&source]).ok();
    assert!(rsync().ok().out.lines().count() >= 2, "times of what changed");
    compare(&source, &target);
    cluster.finish();
}
