//! Requests as the kernel writes them into an entry: header, first argument, payload (`include/uapi/linux/fuse.h`).

use flexfs_mount::fuse::request::OP_BYTES_MAX;

/// A field of a first argument.
enum Field {
    Word(u32),
    Double(u64),
}
use Field::{Double, Word};

/// One request.
pub(crate) struct Sample {
    /// The operation.
    pub(crate) name: &'static str,
    /// `fuse_in_header`.
    pub(crate) header: Vec<u8>,
    /// The first argument's place, all of it.
    pub(crate) op: [u8; OP_BYTES_MAX],
    /// What follows.
    pub(crate) payload: Vec<u8>,
}

fn sample(name: &'static str, code: u32, fields: &[Field], payload: &[u8]) -> Sample {
    let bytes = |fields: &[Field]| {
        let field = |field: &Field| match field {
            Word(value) => value.to_ne_bytes().to_vec(),
            Double(value) => value.to_ne_bytes().to_vec(),
        };
        fields.iter().flat_map(field).collect::<Vec<u8>>()
    };
    let argument = bytes(fields);
    let mut op = [0; OP_BYTES_MAX];
    op[..argument.len()].copy_from_slice(&argument);
    let length = u32::try_from(40 + argument.len() + payload.len()).expect("requests are small");
    let header =
        bytes(&[Word(length), Word(code), Double(7), Double(42), Word(1000), Word(100), Word(77), Word(0)]);
    Sample { name, header, op, payload: payload.to_vec() }
}

/// `fuse_setattr_in` of a truncation with a new time.
fn setattr() -> [Field; 16] {
    [
        Word(1 << 3 | 1 << 5 | 1 << 6),
        Word(0),
        Double(3),
        Double(4_096),
        Double(0),
        Double(0),
        Double(1_700_000_000),
        Double(0),
        Word(0),
        Word(5),
        Word(0),
        Word(0o644),
        Word(0),
        Word(0),
        Word(0),
        Word(0),
    ]
}

/// `fuse_read_in` and `fuse_write_in`.
fn transfer(size: u32) -> [Field; 7] {
    [Double(3), Double(1 << 20), Word(size), Word(0), Double(0), Word(0), Word(0)]
}

/// `fuse_lk_in`.
fn lock() -> [Field; 8] {
    [Double(3), Double(9), Double(0), Double(u64::MAX >> 1), Word(1), Word(77), Word(0), Word(0)]
}

/// One request for each operation that is parsed.
pub(crate) fn samples() -> Vec<Sample> {
    let name = b"a-file-name.txt\0";
    let two = b"a-file-name.txt\0another-name.txt\0";
    let mut forgets = Vec::new();
    for ino in 0..64u64 {
        forgets.extend([ino.to_ne_bytes(), 1u64.to_ne_bytes()].concat());
    }
    let mut all = name_samples(name, two);
    all.extend([
        sample("forget", 2, &[Double(1)], b""),
        sample("getattr", 3, &[Word(0), Word(0), Double(0)], b""),
        sample("setattr", 4, &setattr(), b""),
        sample("readlink", 5, &[], b""),
        sample("open", 14, &[Word(2), Word(0)], b""),
        sample("read", 15, &transfer(128 << 10), b""),
        sample("write-128k", 16, &transfer(128 << 10), &vec![7; 128 << 10]),
        sample("statfs", 17, &[], b""),
        sample("release", 18, &[Double(3), Word(0), Word(0), Double(9)], b""),
        sample("fsync", 20, &[Double(3), Word(1), Word(0)], b""),
        sample("setxattr", 21, &[Word(5), Word(0), Word(0), Word(0)], b"user.name\0value"),
        sample("getxattr", 22, &[Word(256), Word(0)], b"user.name\0"),
        sample("listxattr", 23, &[Word(256), Word(0)], b""),
        sample("removexattr", 24, &[], b"user.name\0"),
        sample("flush", 25, &[Double(3), Word(0), Word(0), Double(9)], b""),
        sample("opendir", 27, &[Word(0), Word(0)], b""),
        sample("readdir", 28, &transfer(4_096), b""),
        sample("releasedir", 29, &[Double(3), Word(0), Word(0), Double(9)], b""),
        sample("fsyncdir", 30, &[Double(3), Word(0), Word(0)], b""),
        sample("getlk", 31, &lock(), b""),
        sample("setlk", 32, &lock(), b""),
        sample("setlkw", 33, &lock(), b""),
        sample("access", 34, &[Word(4), Word(0)], b""),
        sample("interrupt", 36, &[Double(7)], b""),
        sample("batch-forget-64", 42, &[Word(64), Word(0)], &forgets),
        sample("fallocate", 43, &[Double(3), Double(0), Double(4_096), Word(3), Word(0)], b""),
        sample("readdirplus", 44, &transfer(4_096), b""),
        sample("lseek", 46, &[Double(3), Double(0), Word(3), Word(0)], b""),
        sample(
            "copy-file-range",
            47,
            &[Double(3), Double(0), Double(43), Double(4), Double(0), Double(1 << 20), Double(0)],
            b"",
        ),
        sample("tmpfile", 51, &[Word(2), Word(0o644), Word(0o22), Word(0)], b"/\0"),
        sample("statx", 52, &[Word(0), Word(0), Double(0), Word(0), Word(0xfff)], b""),
    ]);
    all
}

/// Operations on names.
fn name_samples(name: &[u8], two: &[u8]) -> Vec<Sample> {
    vec![
        sample("lookup", 1, &[], name),
        sample("symlink", 6, &[], b"a-file-name.txt\0../some/where/else\0"),
        sample("mknod", 8, &[Word(0o100_644), Word(0), Word(0o22), Word(0)], name),
        sample("mkdir", 9, &[Word(0o755), Word(0o22)], name),
        sample("unlink", 10, &[], name),
        sample("rmdir", 11, &[], name),
        sample("rename", 12, &[Double(43)], two),
        sample("link", 13, &[Double(43)], name),
        sample("create", 35, &[Word(0o102), Word(0o100_644), Word(0o22), Word(0)], name),
        sample("rename2", 45, &[Double(43), Word(1), Word(0)], two),
    ]
}
