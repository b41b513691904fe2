//! What this machine has to offer.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

/// Switch of FUSE over io_uring (kernel 6.14 and later).
const ENABLE_URING: &str = "/sys/module/fuse/parameters/enable_uring";

/// Fails with the mending command unless this machine can mount.
pub(crate) fn require(uring: bool) {
    assert!(rustix::process::geteuid().is_root(), "real mounts need root: run `sudo ./test mount`");
    assert!(Path::new("/dev/fuse").exists(), "/dev/fuse is missing: run `modprobe fuse`");
    if !uring {
        return;
    }
    let state = fs::read_to_string(ENABLE_URING).unwrap_or_else(|error| {
        panic!("{ENABLE_URING}: {error}: FUSE over io_uring needs Linux 6.14 or newer")
    });
    if !matches!(state.trim(), "Y" | "1") {
        fs::write(ENABLE_URING, "Y").unwrap_or_else(|error| panic!("{error}: run `echo Y > {ENABLE_URING}`"));
    }
}

/// A built binary: `mount`, `meta`, `admin` or `configure`.
pub(crate) fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| match std::env::var_os("FLEXFS_BIN_DIR") {
        Some(folder) => fs::canonicalize(&folder)
            .unwrap_or_else(|error| panic!("FLEXFS_BIN_DIR={}: {error}", folder.display())),
        // target/<profile>/deps/real-<hash>
        None => std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned(),
    });
    let path = folder.join(format!("{name}-flexfs"));
    assert!(path.exists(), "{} is not built: run `cargo build` (or `./test mount`)", path.display());
    path
}

/// The repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A folder of a test, gone afterwards. Open to other users, who take part in some tests.
pub(crate) fn scratch() -> TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = std::env::var_os("FLEXFS_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o1777)).unwrap();
    let folder = tempfile::Builder::new().prefix("flexfs-").tempdir_in(parent).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Ports of 127.0.0.1 that nobody uses, from below the range the kernel gives to outgoing connections.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let seed = std::process::id();
    let mut held = Vec::new();
    for step in 0..10_000u32 {
        let port =
            20_000 + u16::try_from((seed.wrapping_mul(7919).wrapping_add(step * 13)) % 12_000).unwrap();
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, listener));
        }
        if held.len() == N {
            return std::array::from_fn(|index| held[index].0);
        }
    }
    panic!("no free ports");
}

/// Sources of crates, unpacked by cargo when this test was built: a real tree of many thousand files.
pub(crate) fn cargo_sources() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").expect("cargo ran with a HOME")).join(".cargo"),
        PathBuf::from,
    );
    let folders = fs::read_dir(home.join("registry/src")).expect("a build unpacks its dependencies here");
    let largest =
        folders.map(|entry| entry.unwrap().path()).max_by_key(|path| fs::read_dir(path).unwrap().count());
    largest.expect("a build unpacks its dependencies here")
}
