//! Arbitrary messages.

use flexfs_wire::attr::{Attr, SetAttr, SetTime};
use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, Layout, NewBlock};
use flexfs_wire::hello::{Granted, Hello, Open, Reason, Refused, Welcome};
use flexfs_wire::id::{BlockId, Commit, Epoch, Ino, Range, RequestId, SessionId};
use flexfs_wire::lease::{Keep, Recall};
use flexfs_wire::message::{
    Answer, Call, Caller, Carried, DirEntry, Entry, Inline, Lock, LockFamily, LockKind, Make, Notice,
    Recovery, Replay, Reply, Request, Segment, StatFs, Write, XattrMode,
};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::settings::{Compression, Flags, VolumeSettings};
use flexfs_wire::time::Time;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn node() -> impl Strategy<Value = Node> + Clone {
    (any::<u64>(), any::<u64>()).prop_map(|(ino, seal)| Node { ino: Ino(ino), seal })
}

fn name() -> impl Strategy<Value = Name> + Clone {
    vec(any::<u8>(), 1..=255).prop_filter_map("no name", |bytes| Name::new(&bytes).ok())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> + Clone {
    vec(any::<u8>(), 0..200)
}

fn time() -> impl Strategy<Value = Time> + Clone {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(secs, nanos)| Time { secs, nanos })
}

fn attr() -> impl Strategy<Value = Attr> + Clone {
    let numbers = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let sizes = (any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>());
    (numbers, sizes, time(), time(), time(), time()).prop_map(
        |(numbers, sizes, atime, mtime, ctime, btime)| {
            let (ino, mode, nlink, uid, gid, rdev) = numbers;
            let (size, blocks, version, has_xattrs) = sizes;
            Attr {
                ino: Ino(ino),
                mode,
                nlink,
                uid,
                gid,
                rdev,
                size,
                blocks,
                atime,
                mtime,
                ctime,
                btime,
                version,
                has_xattrs,
            }
        },
    )
}

fn set_time() -> impl Strategy<Value = SetTime> + Clone {
    prop_oneof![Just(SetTime::Now), time().prop_map(SetTime::At)]
}

fn set_attr() -> impl Strategy<Value = SetAttr> + Clone {
    let numbers = (any::<Option<u32>>(), any::<Option<u32>>(), any::<Option<u32>>(), any::<Option<u64>>());
    let times = (option::of(set_time()), option::of(set_time()), option::of(set_time()));
    (numbers, times, any::<bool>()).prop_map(|(numbers, (atime, mtime, ctime), kill_privileges)| {
        let (mode, uid, gid, size) = numbers;
        SetAttr { mode, uid, gid, size, atime, mtime, ctime, kill_privileges }
    })
}

fn lock() -> impl Strategy<Value = Lock> + Clone {
    let family = prop_oneof![Just(LockFamily::Posix), Just(LockFamily::Flock)];
    let kind = prop_oneof![Just(LockKind::Unlock), Just(LockKind::Read), Just(LockKind::Write)];
    (family, kind, any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>())
        .prop_map(|(family, kind, owner, pid, start, end)| Lock { family, kind, owner, pid, start, end })
}

fn extent() -> impl Strategy<Value = Extent> + Clone {
    (any::<u64>(), any::<u32>(), any::<u64>(), any::<u32>()).prop_map(|(offset, length, block, at)| Extent {
        offset,
        length,
        block: BlockId(block),
        block_offset: at,
    })
}

fn layout() -> impl Strategy<Value = Layout> + Clone {
    (bytes(), vec(extent(), 0..4), any::<u64>(), any::<u64>(), any::<u64>())
        .prop_map(|(inline, extents, start, end, version)| Layout { inline, extents, start, end, version })
}

fn entry() -> impl Strategy<Value = Entry> + Clone {
    (node(), attr()).prop_map(|(node, attr)| Entry { node, attr })
}

fn make() -> impl Strategy<Value = Make> + Clone {
    (any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>(), bytes(), any::<bool>()).prop_map(
        |(ino, mode, umask, rdev, target, open)| Make { ino: Ino(ino), mode, umask, rdev, target, open },
    )
}

fn write() -> impl Strategy<Value = Write> + Clone {
    let inline = option::of((any::<u32>(), bytes()).prop_map(|(offset, bytes)| Inline { offset, bytes }));
    let block = (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(block, raw_bytes, stored_bytes)| {
        NewBlock { block: BlockId(block), raw_bytes, stored_bytes }
    });
    let carried = option::of(
        (any::<u64>(), bytes()).prop_map(|(block, bytes)| Carried { block: BlockId(block), bytes }),
    );
    let flags = any::<(bool, bool, bool)>();
    (inline, vec(extent(), 0..4), vec(block, 0..3), flags, option::of(time()), carried).prop_map(
        |(inline, extents, blocks, (kill_privileges, promised, awaited), time, carried)| Write {
            inline,
            extents,
            blocks,
            kill_privileges,
            time,
            promised,
            carried,
            awaited,
        },
    )
}

fn reads() -> BoxedStrategy<Request> {
    prop_oneof![
        (node(), name()).prop_map(|(parent, name)| Request::Lookup { parent, name }),
        (node(), name()).prop_map(|(parent, name)| Request::LookupToOpen { parent, name }),
        (node(), any::<u64>(), option::of(name()), any::<u32>(), any::<bool>()).prop_map(
            |(node, cookie, first, count, open)| Request::ReadAhead { node, cookie, first, count, open }
        ),
        node().prop_map(|node| Request::GetAttr { node }),
        node().prop_map(|node| Request::ReadLink { node }),
        (node(), any::<u64>(), any::<u32>(), any::<bool>())
            .prop_map(|(node, cookie, bytes_max, plus)| Request::ReadDir { node, cookie, bytes_max, plus }),
        (node(), bytes()).prop_map(|(node, name)| Request::GetXattr { node, name }),
        node().prop_map(|node| Request::ListXattr { node }),
        Just(Request::StatFs),
        (node(), any::<u64>(), any::<u64>()).prop_map(|(node, start, end)| Request::ReadLayout {
            node,
            start,
            end
        }),
        (node(), any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(node, block, first, count)| {
            Request::ReadBlock { node, block: BlockId(block), first, count }
        }),
        (node(), any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
            |(node, block, segment, first, count)| Request::ReadPages {
                node,
                block: BlockId(block),
                segment,
                first,
                count
            }
        ),
        (node(), lock()).prop_map(|(node, lock)| Request::TestLock { node, lock }),
    ]
    .boxed()
}

fn business() -> BoxedStrategy<Request> {
    prop_oneof![
        Just(Request::Heartbeat),
        any::<u64>().prop_map(|count| Request::GrantInodes { count }),
        any::<u64>().prop_map(|count| Request::GrantBlocks { count }),
        any::<u64>().prop_map(|commit| Request::Sync { up_to: Commit(commit) }),
        any::<u64>().prop_map(|block| Request::PutBlock { block: BlockId(block) }),
        any::<u64>().prop_map(|id| Request::CancelWait { request: RequestId(id) }),
        Just(Request::Leave),
    ]
    .boxed()
}

fn names() -> BoxedStrategy<Request> {
    prop_oneof![
        (node(), option::of(name()), make()).prop_map(|(parent, name, make)| Request::Make {
            parent,
            name,
            make
        }),
        (node(), node(), name()).prop_map(|(node, parent, name)| Request::Link { node, parent, name }),
        (node(), name(), any::<bool>()).prop_map(|(parent, name, dir)| Request::Remove { parent, name, dir }),
        (node(), name(), node(), name(), any::<u32>()).prop_map(
            |(parent, name, new_parent, new_name, flags)| Request::Rename {
                parent,
                name,
                new_parent,
                new_name,
                flags
            }
        ),
    ]
    .boxed()
}

fn changes() -> BoxedStrategy<Request> {
    let mode = prop_oneof![
        Just(XattrMode::Any),
        Just(XattrMode::Create),
        Just(XattrMode::Replace),
        Just(XattrMode::AnyWithoutSetGid)
    ];
    let family = prop_oneof![Just(LockFamily::Posix), Just(LockFamily::Flock)];
    prop_oneof![
        (node(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(node, write, truncate, kill_privileges)| Request::Open {
                node,
                write,
                truncate,
                kill_privileges
            }
        ),
        (node(), any::<u32>()).prop_map(|(node, count)| Request::Close { node, count }),
        (node(), set_attr()).prop_map(|(node, change)| Request::SetAttr { node, change }),
        (node(), bytes(), bytes(), mode).prop_map(|(node, name, value, mode)| Request::SetXattr {
            node,
            name,
            value,
            mode
        }),
        (node(), bytes()).prop_map(|(node, name)| Request::RemoveXattr { node, name }),
        (node(), write()).prop_map(|(node, write)| Request::Write { node, write }),
        (node(), any::<u32>(), any::<u64>(), any::<u64>())
            .prop_map(|(node, mode, offset, length)| Request::Fallocate { node, mode, offset, length }),
        (node(), any::<u64>(), node(), any::<u64>(), any::<u64>()).prop_map(
            |(source, source_offset, target, target_offset, length)| Request::CopyRange {
                source,
                source_offset,
                target,
                target_offset,
                length
            }
        ),
        (node(), lock(), any::<bool>()).prop_map(|(node, lock, wait)| Request::Lock { node, lock, wait }),
        (node(), family, any::<u64>()).prop_map(|(node, family, owner)| Request::Unlock {
            node,
            family,
            owner
        }),
    ]
    .boxed()
}

fn leases() -> BoxedStrategy<Request> {
    prop_oneof![
        node().prop_map(|node| Request::Acquire { node }),
        vec(any::<u64>(), 0..5).prop_map(|ids| Request::Recalled { ids }),
        vec(any::<u64>().prop_map(Ino), 0..5).prop_map(|inos| Request::GiveBack { inos }),
        any::<u64>().prop_map(|epoch| Request::DropLeases { epoch: Epoch(epoch) }),
    ]
    .boxed()
}

fn recall() -> BoxedStrategy<Recall> {
    let keep = prop_oneof![Just(Keep::All), Just(Keep::Shared), Just(Keep::Nothing)];
    (any::<u64>(), any::<u64>(), keep, option::of(name()))
        .prop_map(|(id, ino, keep, name)| Recall { id, ino: Ino(ino), keep, name })
        .boxed()
}

pub(crate) fn request() -> BoxedStrategy<Request> {
    prop_oneof![reads(), business(), names(), changes(), leases()].boxed()
}

pub(crate) fn call() -> BoxedStrategy<Call> {
    (any::<u32>(), any::<u32>(), option::of(time()), request())
        .prop_map(|(uid, gid, told, request)| Call { told, ..Call::new(Caller { uid, gid }, request) })
        .boxed()
}

fn dir_entry() -> impl Strategy<Value = DirEntry> + Clone {
    (name(), any::<u64>(), any::<u32>(), any::<u64>(), option::of(entry()))
        .prop_map(|(name, ino, kind, cookie, entry)| DirEntry { name, ino: Ino(ino), kind, cookie, entry })
}

pub(crate) fn reply() -> BoxedStrategy<Reply> {
    let figures = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let segment =
        (any::<u32>(), any::<u32>(), any::<u8>(), any::<u64>()).prop_map(|(stored, raw, codec, check)| {
            Segment { stored_bytes: stored, raw_bytes: raw, codec, check }
        });
    prop_oneof![
        Just(Reply::Done),
        entry().prop_map(Reply::Entry),
        attr().prop_map(Reply::Attr),
        bytes().prop_map(Reply::Bytes),
        (vec(dir_entry(), 0..4), any::<bool>()).prop_map(|(entries, eof)| Reply::Entries { entries, eof }),
        figures.prop_map(|(bytes_total, bytes_free, inodes_total, inodes_free)| Reply::StatFs(StatFs {
            bytes_total,
            bytes_free,
            inodes_total,
            inodes_free
        })),
        layout().prop_map(Reply::Layout),
        vec(segment.clone(), 0..5).prop_map(Reply::Segments),
        (segment, bytes()).prop_map(|(segment, checks)| Reply::Pages { segment, checks }),
        lock().prop_map(Reply::Locked),
        (any::<u64>(), any::<u64>()).prop_map(|(start, count)| Reply::Granted(Range { start, count })),
        (any::<u64>(), any::<u64>(), bytes())
            .prop_map(|(start, count, seals)| Reply::Inodes { range: Range { start, count }, seals }),
        (attr(), option::of(layout())).prop_map(|(attr, layout)| Reply::Opened { attr, layout }),
        (any::<u64>(), attr()).prop_map(|(length, attr)| Reply::Copied { length, attr }),
        (entry(), option::of(layout()))
            .prop_map(|(entry, layout)| Reply::Found { entry, layout: layout.map(Box::new) }),
        (vec(dir_entry(), 0..4), vec((any::<u32>(), layout()), 0..4), any::<bool>())
            .prop_map(|(entries, layouts, eof)| Reply::Ahead { entries, layouts, eof }),
    ]
    .boxed()
}

pub(crate) fn answer() -> BoxedStrategy<Answer> {
    let result = prop_oneof![reply().prop_map(Ok), any::<i32>().prop_map(|number| Err(Errno(number)))];
    (any::<u64>(), time(), result)
        .prop_map(|(commit, at, result)| Answer { commit: Commit(commit), at, result })
        .boxed()
}

pub(crate) fn notice() -> BoxedStrategy<Notice> {
    prop_oneof![
        Just(Notice::Durable),
        ".{0,40}".prop_map(|text| Notice::Revoked { text }),
        Just(Notice::Closing),
        vec(recall(), 0..4).prop_map(|recalls| Notice::Recall { recalls }),
    ]
    .boxed()
}

fn flags() -> impl Strategy<Value = Flags> + Clone {
    (any::<[bool; 6]>(), any::<u16>()).prop_map(
        |([ro, no_exec, no_suid, no_atime, no_acl, root_squash], umask)| Flags {
            ro,
            no_exec,
            no_suid,
            no_atime,
            no_acl,
            root_squash,
            umask,
        },
    )
}

pub(crate) fn hello() -> BoxedStrategy<Hello> {
    let open = (any::<(u16, u16)>(), ".{0,40}", ".{0,40}", ".{0,40}", flags()).prop_map(
        |(versions, token, volume, client, flags)| {
            Hello::Open(Open { versions, token, volume, client, flags })
        },
    );
    let link = (any::<(u16, u16)>(), any::<u64>(), any::<[u8; 32]>(), any::<bool>()).prop_map(
        |(versions, session, proof, resume)| {
            let session = SessionId(session);
            if resume {
                Hello::Resume { versions, session, proof }
            } else {
                Hello::Attach { versions, session, proof }
            }
        },
    );
    prop_oneof![open, link].boxed()
}

pub(crate) fn settings() -> impl Strategy<Value = VolumeSettings> + Clone {
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)];
    let numbers = (any::<u32>(), any::<u64>(), any::<u64>(), any::<i64>());
    (".{0,40}", ".{0,40}", compression, numbers, flags(), any::<bool>()).prop_map(
        |(id, name, compression, numbers, flags, encrypted)| {
            let (block_size, max_blocks, max_inodes, retention) = numbers;
            VolumeSettings {
                id,
                name,
                block_size,
                compression,
                max_blocks,
                max_inodes,
                retention,
                flags,
                encrypted,
            }
        },
    )
}

pub(crate) fn welcome() -> BoxedStrategy<Welcome> {
    let numbers = (any::<u16>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let granted = (numbers, any::<[u8; 32]>(), node(), attr(), settings(), flags()).prop_map(
        |(numbers, resume_key, root, attr, settings, flags)| {
            let (version, session, epoch, lease_ms, durable) = numbers;
            Welcome::Granted(Box::new(Granted {
                version,
                session: SessionId(session),
                resume_key,
                epoch: Epoch(epoch),
                root,
                attr,
                settings,
                flags,
                lease_ms,
                durable: Commit(durable),
            }))
        },
    );
    let standing = (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(epoch, durable, recovering)| {
        let (epoch, durable) = (Epoch(epoch), Commit(durable));
        if recovering { Welcome::Recovering { epoch, durable } } else { Welcome::Attached { epoch, durable } }
    });
    let refused = (proptest::sample::select(crate::samples::reasons()), ".{0,60}")
        .prop_map(|(reason, text): (Reason, String)| Welcome::Refused(Refused { reason, text }));
    prop_oneof![granted, standing, refused].boxed()
}

pub(crate) fn replay() -> BoxedStrategy<Replay> {
    (any::<u64>(), time(), call())
        .prop_map(|(commit, at, call)| Replay { commit: Commit(commit), at, call })
        .boxed()
}

pub(crate) fn recovery() -> BoxedStrategy<Recovery> {
    (vec((node(), any::<u32>()), 0..5), vec((node(), lock()), 0..5), vec(node(), 0..5))
        .prop_map(|(opens, locks, exclusive)| Recovery { opens, locks, exclusive })
        .boxed()
}
