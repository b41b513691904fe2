//! What a thread can still do after it gave up the rest.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use flexfs_uring::harden::{self, InForce, Keep, Needs, Reach, Service, User};
use flexfs_uring::{Shard, ShardConfig};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::geteuid;

/// Runs `work` on a thread that has given up all but `needs`; other tests of this process keep theirs.
fn after(needs: Needs, work: impl FnOnce(InForce) + Send + 'static) {
    std::thread::spawn(move || work(harden::give_up(&needs).unwrap())).join().unwrap();
}

fn files(folders: Vec<PathBuf>, ports: Vec<u16>) -> Needs {
    Needs { user: None, keep: Keep::Files, reach: Some(Reach { folders, files: Vec::new(), ports }) }
}

fn status_of_thread(key: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn a_server_keeps_its_folder_and_its_admin() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, other) = (dir.path().join("own"), dir.path().join("other"));
    fs::create_dir(&folder).unwrap();
    fs::write(&other, "x").unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let [port, strange] = [&admin, &stranger].map(|listener| listener.local_addr().unwrap().port());
    after(files(vec![folder.clone()], vec![port]), move |in_force| {
        fs::create_dir(folder.join("a")).unwrap();
        fs::write(folder.join("a/file"), "x").unwrap();
        fs::rename(folder.join("a/file"), folder.join("file")).unwrap();
        fs::read_to_string("/etc/passwd").unwrap();
        assert!(in_force.no_new_privileges && in_force.no_dump, "{in_force}");
        if in_force.landlock == "files, ports, signals" {
            let denied = |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            denied(File::open(&other).unwrap_err());
            denied(fs::write("/etc/flexfs-test", "x").unwrap_err());
            denied(fs::rename(folder.join("file"), &other).unwrap_err());
            denied(TcpListener::bind("127.0.0.1:0").unwrap_err());
            denied(TcpStream::connect(("127.0.0.1", strange)).unwrap_err());
            TcpStream::connect(("127.0.0.1", port)).unwrap();
        } else {
            eprintln!("landlock: {}", in_force.landlock);
        }
    });
    // Threads that were there before are as they were.
    fs::read_to_string(dir.path().join("other")).unwrap();
}

#[test]
fn nothing_is_executed_and_nobody_is_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    after(files(vec![dir.path().to_owned()], Vec::new()), |in_force| {
        assert_eq!(status_of_thread("NoNewPrivs"), "1");
        assert_eq!(status_of_thread("Seccomp"), "2");
        let root = geteuid().is_root();
        assert_eq!(status_of_thread("CapEff"), if root { "0000000000000003" } else { "0000000000000000" });
        if root {
            assert_eq!(status_of_thread("CapBnd"), "0000000000000003");
            assert_eq!(in_force.capabilities, "chown,dac_override");
        }
        assert_eq!(Command::new("/bin/true").status().unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(mount("none", "/tmp", "tmpfs", MountFlags::empty(), None), Err(Errno::PERM));
        assert_eq!(unmount("/tmp", UnmountFlags::DETACH), Err(Errno::PERM));
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        // A thread that is started now is held the same way.
        let child = std::thread::spawn(|| (status_of_thread("Seccomp"), status_of_thread("NoNewPrivs")));
        assert_eq!(child.join().unwrap(), ("2".to_owned(), "1".to_owned()));
    });
}

/// Opens that the ring does are under the same limits.
#[test]
fn rings_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (dir.path().join("own"), dir.path().join("other"));
    fs::create_dir(&own).unwrap();
    after(files(vec![own.clone()], Vec::new()), move |in_force| {
        let config = ShardConfig { sq_entries: 8, recv_buffers: 0, ..ShardConfig::default() };
        Shard::new(&config).unwrap().block_on(async {
            let flags = OFlags::RDWR | OFlags::CREATE;
            let file = flexfs_uring::file::File::open(&own.join("file"), flags, 0o600).await.unwrap();
            file.write_all_at(b"x".to_vec(), 0).await.0.unwrap();
            let denied = flexfs_uring::file::File::open(&other, flags, 0o600).await;
            assert_eq!(denied.is_err(), in_force.landlock.starts_with("files"));
        });
    });
}

#[test]
fn a_client_may_mount_and_no_more() {
    if !geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_owned();
    after(Needs { user: None, keep: Keep::Mounts, reach: None }, move |in_force| {
        mount("none", &place, "tmpfs", MountFlags::empty(), None).unwrap();
        unmount(&place, UnmountFlags::empty()).unwrap();
        assert_eq!(Command::new("/bin/true").status().unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(in_force.capabilities, "dac_override,ipc_lock,sys_ptrace,sys_admin");
    });
}

#[test]
fn users_are_looked_up() {
    let text = User::find("no such user").unwrap_err().to_string();
    assert!(text.contains("useradd"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    if geteuid().is_root() {
        let user = User::find("nobody").unwrap();
        let text = user.take(dir.path()).unwrap_err().to_string();
        assert!(text.contains("chown -R nobody"), "{text}");
        user.take(&dir.path().join("new")).unwrap();
        user.take(&dir.path().join("new")).unwrap();
    } else {
        assert!(User::find("root").unwrap_err().to_string().contains("needs root"));
    }
}

/// systemd's own opinion, where it is installed: it knows every line, and finds little that is exposed.
#[test]
fn units_are_what_systemd_takes() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("not run: systemd-analyze is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("flexfs-test.service");
    let service = Service {
        description: "a server",
        after: "network-online.target",
        program: Path::new("/bin/true"),
        arguments: "",
        home: "/",
        lines: "Restart=always\nLimitMEMLOCK=infinity\n",
        user: Some("daemon"),
        folders: &[PathBuf::from("/var/lib/flexfs")],
        files: &[],
        ports: &[7440],
    };
    fs::write(&unit, service.text()).unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg(&unit).output().unwrap();
    let text = String::from_utf8_lossy(&verified.stderr).into_owned();
    let own: Vec<&str> = text.lines().filter(|line| line.contains("flexfs-test.service:")).collect();
    assert!(own.is_empty(), "{own:?}");
    // Tenths; 10.0 is a service that nothing is held of. Older versions know no --offline.
    let arguments = ["security", "--offline=yes", "--threshold=25", "--no-pager"];
    let judged = Command::new("systemd-analyze").args(arguments).arg(&unit).output().unwrap();
    let text = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(judged.status.success() || !text.contains("exposure level"), "{text}");
}
