//! Requests of the kernel: both transports' parsers on the same bytes.

use flexfs_mount::fuse::request::{Header, OP_BYTES_MAX, Operation, parse, parse_whole};
use flexfs_wire::attr::{SetAttr, SetTime};
use flexfs_wire::limits::{
    FUSE_IO_BYTES_MAX, SYMLINK_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX,
};
use flexfs_wire::name::Name;

/// `fuse_in_header`, and the place io_uring has for it.
const HEADER_BYTES: usize = 40;
const HEADER_PLACE_BYTES: usize = 128;

/// The bytes as `/dev/fuse` gives them, then cut to the places of a ring entry.
pub fn run(data: &[u8]) {
    let whole = parse_whole(data);
    let Some((head, body)) = data.split_at_checked(HEADER_BYTES) else {
        assert!(whole.is_err(), "there is no request without a header");
        return;
    };
    if let Ok((header, operation)) = &whole {
        check(operation, header, body.len());
    }
    let mut place = [0xa5; HEADER_PLACE_BYTES];
    place[..HEADER_BYTES].copy_from_slice(head);
    let header = Header::parse(&place).expect("a whole header");
    let (op, payload) = body.split_at(argument_bytes(header.opcode).min(body.len()));
    // What a ring entry's place holds behind the argument is of an earlier request.
    for garbage in [0, 0xff] {
        let mut place = [garbage; OP_BYTES_MAX];
        place[..op.len()].copy_from_slice(op);
        let ring = parse(&header, &place, payload);
        if let Ok(operation) = &ring {
            check(operation, &header, payload.len());
        }
        if op.len() == argument_bytes(header.opcode) {
            assert_eq!(
                whole.as_ref().map(|(_, operation)| operation),
                ring.as_ref(),
                "one request, two readings"
            );
            assert!(whole.as_ref().map_or(true, |(other, _)| *other == header));
        }
    }
}

/// What must hold of whatever was parsed.
fn check(operation: &Operation, header: &Header, payload_bytes: usize) {
    match operation {
        Operation::Lookup { name }
        | Operation::Mknod { name, .. }
        | Operation::Mkdir { name, .. }
        | Operation::Unlink { name }
        | Operation::Rmdir { name }
        | Operation::Link { name, .. }
        | Operation::Create { name, .. } => check_name(name),
        Operation::Rename { name, new_name, .. } => {
            check_name(name);
            check_name(new_name);
        }
        Operation::Symlink { name, target } => {
            check_name(name);
            assert!(target.len() <= SYMLINK_BYTES_MAX && !target.contains(&0));
        }
        Operation::SetAttr { change } => check_times(change),
        Operation::Read { size, .. } | Operation::ReadDir { size, .. } => assert!(*size <= FUSE_IO_BYTES_MAX),
        Operation::Write { size, .. } => assert!(*size <= payload_bytes),
        Operation::SetXattr { name, value, .. } => {
            check_attribute(name);
            assert!(value.len() <= XATTR_VALUE_BYTES_MAX && name.len() + value.len() < payload_bytes);
        }
        Operation::GetXattr { name, .. } | Operation::RemoveXattr { name } => check_attribute(name),
        Operation::Forget { forgotten } => {
            assert!(forgotten.len() <= payload_bytes / 16 + 1);
            assert!(header.opcode == 42 || forgotten.len() == 1 && forgotten[0].nodeid == header.nodeid);
        }
        Operation::Unserved { opcode } => assert_eq!(*opcode, header.opcode),
        _ => {}
    }
}

fn check_name(name: &Name) {
    let bytes = name.as_bytes();
    assert!((1..=255).contains(&bytes.len()) && !bytes.contains(&b'/') && !bytes.contains(&0));
    assert!(bytes != b"." && bytes != b"..");
}

fn check_attribute(name: &[u8]) {
    assert!((1..=XATTR_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(&0));
}

fn check_times(change: &SetAttr) {
    assert!(change.mode.is_none_or(|mode| mode <= 0o7777));
    for time in [change.atime, change.mtime, change.ctime].into_iter().flatten() {
        assert!(matches!(time, SetTime::Now) || matches!(time, SetTime::At(at) if at.nanos < 1_000_000_000));
    }
}

/// Bytes of the argument in front of names and data, by opcode: sizes of the structs of `linux/fuse.h` (7.45) as
/// `fs/fuse/*.c` sends them. Written from there, not from the parser.
fn argument_bytes(opcode: u32) -> usize {
    match opcode {
        2 => 8,                                              // FORGET: fuse_forget_in
        3 => 16,                                             // GETATTR: fuse_getattr_in
        4 => 88,                                             // SETATTR: fuse_setattr_in
        8 => 16,                                             // MKNOD: fuse_mknod_in
        9 | 12 | 13 | 14 | 22 | 23 | 27 | 34 | 36 | 42 => 8, // MKDIR RENAME LINK OPEN GETXATTR LISTXATTR OPENDIR ACCESS INTERRUPT BATCH_FORGET
        15 | 16 | 28 | 44 => 40,                             // READ WRITE READDIR READDIRPLUS
        18 | 25 | 29 | 46 | 52 => 24,                        // RELEASE FLUSH RELEASEDIR LSEEK STATX
        20 | 21 | 30 | 35 | 45 | 51 => 16,                   // FSYNC SETXATTR FSYNCDIR CREATE RENAME2 TMPFILE
        26 => 64,                                            // INIT: fuse_init_in
        31..=33 => 48,                                       // GETLK SETLK SETLKW: fuse_lk_in
        43 => 32,                                            // FALLOCATE: fuse_fallocate_in
        47 | 53 => 56,                                       // COPY_FILE_RANGE: fuse_copy_file_range_in
        _ => 0,
    }
}
