//! Every bound the processes share, with unit and reason. Relations are asserted at compile time.

/// Protocol version spoken by this build; the golden-byte tests pin its encoding.
pub const PROTOCOL_VERSION: u16 = 8;
/// Oldest version still understood.
pub const PROTOCOL_VERSION_MIN: u16 = 8;
/// What a hello says is spoken: the oldest and the newest version.
pub const PROTOCOL_VERSIONS: (u16, u16) = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION);
/// Longest file name in bytes (`NAME_MAX` of Linux).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest name in bytes as the server of an encrypted volume sees it: 16 bytes more, in base64url.
pub const NAME_SEALED_BYTES_MAX: usize = 362;
/// Longest symbolic link target in bytes (`PATH_MAX` less its NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Longest path in bytes, as in `PATH_MAX`.
pub const PATH_BYTES_MAX: usize = 4096;
/// Longest target in bytes as the server of an encrypted volume sees it.
pub const SYMLINK_SEALED_BYTES_MAX: usize = SYMLINK_BYTES_MAX + 16;
/// Longest extended attribute value in bytes (`XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Longest value in bytes as the server of an encrypted volume sees it.
pub const XATTR_VALUE_SEALED_BYTES_MAX: usize = XATTR_VALUE_BYTES_MAX + 16;
/// Longest extended attribute name in bytes (`XATTR_NAME_MAX`).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Longest list of extended attribute names in bytes (`XATTR_LIST_MAX`).
pub const XATTR_LIST_BYTES_MAX: usize = 64 * 1024;
/// Most hard links of one file: as ext4, so that programs meet a limit they know.
pub const LINK_COUNT_MAX: u32 = 65_000;
/// Largest file size in bytes (`i64::MAX` of `off_t`, rounded down to a page).
pub const FILE_BYTES_MAX: u64 = 0x7fff_ffff_ffff_f000;
/// Largest frame in bytes, header included: one block of the largest size and its index fit.
pub const FRAME_BYTES_MAX: usize = 9 * 1024 * 1024;
/// Largest message body in bytes; the rest of a frame is raw payload.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Largest body of a request or a replay in bytes: a write of the most extents, each with a block of its own, inline bytes and a
/// block that comes along fit. Only answers and the end of a recovery may have more.
pub const REQUEST_BODY_BYTES_MAX: usize = 320 * 1024;
/// Largest encoded block in bytes that comes along with the write that names it: a whole segment, encrypted, with header and index
/// fits, and some small ones do. Larger ones are files of their own at the server.
pub const CARRIED_BYTES_MAX: usize = SEGMENT_BYTES as usize + 1024;
/// Calls a client keeps that are answered and not durable, bytes of their bodies; then it waits. So much may come back as
/// replays after a restart.
pub const UNSTABLE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes read from a peer before it was granted a session.
pub const HELLO_BYTES_MAX: usize = 4096;
/// Blocks of one session that are stored and that no file refers to yet, bytes, each counted as a segment at least; with more of them the
/// first go. Four times the most memory a client takes by default: it has no more bytes under way, and those of files just too large
/// to be inline count four times at most.
pub const IDLE_BYTES_MAX: u64 = 16 << 30;
/// Time for a handshake to finish, milliseconds.
pub const HANDSHAKE_MS_MAX: u64 = 5_000;
/// Smallest block size of a volume in bytes.
pub const BLOCK_BYTES_MIN: u32 = 256 * 1024;
/// Largest block size of a volume in bytes.
pub const BLOCK_BYTES_MAX: u32 = 8 * 1024 * 1024;
/// Block size of a volume when none is chosen, in bytes.
pub const BLOCK_BYTES_DEFAULT: u32 = 4 * 1024 * 1024;
/// A block is a row of segments of this many raw bytes; the last one may be shorter.
pub const SEGMENT_BYTES: u32 = 64 * 1024;
/// Files up to this many bytes live inline in meta's engine.
pub const INLINE_BYTES_MAX: usize = 16 * 1024;
/// Most entries in one answer to `ReadAhead`: some milliseconds of the volume's thread.
pub const AHEAD_ENTRIES_MAX: u32 = 1_024;
/// Most bytes of small files in it; with the entries it fits a body.
pub const AHEAD_DATA_BYTES_MAX: usize = 1024 * 1024;
/// Largest FUSE read or write in bytes: 256 pages, the kernel's `max_pages_limit`.
pub const FUSE_IO_BYTES_MAX: usize = 1024 * 1024;
/// Life of a session without a heartbeat, milliseconds.
pub const LEASE_MS: u64 = 10_000;
/// Time between two heartbeats of an idle session, milliseconds.
pub const HEARTBEAT_MS: u64 = 3_000;
/// Silence of the server after which a client no longer trusts its leases, milliseconds: sooner than the server, which
/// counts from the last byte it saw, lets others go on.
pub const LEASE_TRUST_MS: u64 = LEASE_MS - 2_000;
/// Time to answer a recall, milliseconds: unwritten data may have to go out first. A session that does not is ended.
pub const RECALL_MS_MAX: u64 = 30_000;
/// Dirty data older than this is written back, milliseconds.
pub const WRITEBACK_MS: u64 = 5_000;
/// Inode numbers given to a client at once.
pub const INODE_GRANT: u64 = 4_096;
/// Block ids given to a client at once.
pub const BLOCK_GRANT: u64 = 256;
/// Most extents in one write message; bounds the body and the time the namespace thread is held.
pub const EXTENTS_PER_WRITE_MAX: usize = 4_096;
/// Most links (TCP connections) of one session.
pub const LINKS_PER_SESSION_MAX: usize = 256;
/// Requests one link may have in flight.
pub const REQUESTS_PER_LINK_MAX: u32 = 1_024;
/// Default port of admin.
pub const ADMIN_PORT: u16 = 7440;
/// Default port of meta.
pub const META_PORT: u16 = 7441;
/// Default port of meta's metrics.
pub const METRICS_PORT: u16 = 7442;

const _: () = {
    assert!(BODY_BYTES_MAX < FRAME_BYTES_MAX);
    // A name, attributes and an extent or a few of each.
    assert!(
        AHEAD_ENTRIES_MAX as usize * (NAME_SEALED_BYTES_MAX + 512) + AHEAD_DATA_BYTES_MAX <= BODY_BYTES_MAX
    );
    // Numbers of 64 bits take ten bytes, of 32 bits five.
    assert!(
        EXTENTS_PER_WRITE_MAX * (30 + 20) + INLINE_BYTES_MAX + CARRIED_BYTES_MAX + 1024
            <= REQUEST_BODY_BYTES_MAX
    );
    assert!(XATTR_VALUE_SEALED_BYTES_MAX + XATTR_NAME_BYTES_MAX + 1024 <= REQUEST_BODY_BYTES_MAX);
    assert!(BLOCK_BYTES_MIN.is_multiple_of(SEGMENT_BYTES));
    assert!(INLINE_BYTES_MAX <= SEGMENT_BYTES as usize);
    assert!(IDLE_BYTES_MAX > 1_000 * BLOCK_BYTES_MAX as u64);
    assert!(HEARTBEAT_MS * 3 < LEASE_MS);
    assert!(HEARTBEAT_MS * 2 < LEASE_TRUST_MS);
};
