//! Hosted blocks: stored once, read in segments, refused to those who have no right to them.

use std::time::Duration;

use flexfs_wire::block::{self, Index};
use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, NewBlock};
use flexfs_wire::id::{BlockId, Range};
use flexfs_wire::message::{Carried, Reply, Request, Write};
use flexfs_wire::seal::Node;
use flexfs_wire::settings::Compression;

use crate::client::Session;
use crate::client::cluster::{Cluster, within};

pub(super) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7u64;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect()
}

pub(super) fn grant(session: &mut Session) -> Range {
    let Reply::Granted(range) = session.get(Request::GrantBlocks { count: 256 }) else { panic!() };
    range
}

fn put(session: &mut Session, block: BlockId, stored: &[u8]) -> Result<Reply, Errno> {
    session.call_with(Request::PutBlock { block }, stored).0.result
}

pub(super) fn refer(session: &mut Session, node: Node, block: BlockId, raw: usize, stored: usize) {
    let (raw, stored) = (u32::try_from(raw).unwrap(), u32::try_from(stored).unwrap());
    let extent = Extent { offset: 0, length: raw, block, block_offset: 0 };
    let new = NewBlock { block, raw_bytes: raw, stored_bytes: stored };
    let write = Write { extents: vec![extent], blocks: vec![new], ..Write::default() };
    session.get(Request::Write { node, write });
}

#[test]
fn blocks_travel_whole_and_in_parts() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let file = session.make(session.root(), "f", 0o100_600).node;
    let range = grant(&mut session);
    let raw = noise(4 * 1024 * 1024);
    let mut stored = Vec::new();
    block::seal(&raw, Compression::None, &mut stored).unwrap();
    let id = BlockId(range.start);
    assert_eq!(put(&mut session, id, &stored), Ok(Reply::Done));
    refer(&mut session, file, id, raw.len(), stored.len());

    // Another session that was given the file reads it.
    let mut reader = cluster.open();
    let node = reader.lookup("f").unwrap().node;
    let index = Index::parse(&stored).unwrap();
    for (first, count) in [(0, 64), (3, 1), (63, 1), (10, 20)] {
        let request = Request::ReadBlock { node, block: id, first, count };
        let (answer, payload) = reader.call_with(request, &[]);
        assert_eq!(answer.result, Ok(Reply::Segments(index.select(first, count).unwrap().to_vec())));
        assert_eq!(payload, stored[index.stored_range(first, count).unwrap()]);
    }
    let beyond = Request::ReadBlock { node, block: id, first: 60, count: 5 };
    assert_eq!(reader.fail(beyond), Errno::EINVAL);
    let pages = |segment, first, count| Request::ReadPages { node, block: id, segment, first, count };
    for (number, first, count) in [(0, 0, 1), (63, 15, 1), (7, 3, 4), (8, 0, 16)] {
        let (answer, payload) = reader.call_with(pages(number, first, count), &[]);
        let segment = index.segments()[number as usize];
        let checks = index.page_checks(number).unwrap();
        assert_eq!(answer.result, Ok(Reply::Pages { segment, checks: checks.to_vec() }));
        let start = number as usize * 65_536 + first as usize * 4096;
        assert!(payload == raw[start..start + count as usize * 4096]);
        assert_eq!(block::check_pages(&segment, checks, first, &payload), Ok(()));
    }
    for (segment, first, count) in
        [(64, 0, 1), (0, 16, 1), (0, 0, 0), (0, 1, 16), (u32::MAX, u32::MAX, u32::MAX)]
    {
        assert_eq!(reader.fail(pages(segment, first, count)), Errno::EINVAL);
    }
    let text = cluster.scrape();
    assert!(text.contains("flexfs_meta_block_bytes_in") && text.contains("kind=\"putblock\""), "{text}");
}

/// A small block comes with the write that names it: it is a row, and never a file.
#[test]
fn a_small_block_travels_with_its_write() {
    let mut cluster = Cluster::start();
    let mut session = cluster.open();
    let file = session.make(session.root(), "f", 0o100_600).node;
    let id = BlockId(grant(&mut session).start);
    // Compressed it is small, and has two segments.
    let raw = [vec![b'a'; 65_536], noise(10_000)].concat();
    let (mut stored, mut other) = (Vec::new(), Vec::new());
    block::seal(&raw, Compression::Lz4, &mut stored).unwrap();
    block::seal(b"other", Compression::None, &mut other).unwrap();
    let (raw_bytes, stored_bytes) = (u32::try_from(raw.len()).unwrap(), u32::try_from(stored.len()).unwrap());
    let write = |bytes: &[u8]| Write {
        extents: vec![Extent { offset: 0, length: raw_bytes, block: id, block_offset: 0 }],
        blocks: vec![NewBlock { block: id, raw_bytes, stored_bytes }],
        carried: Some(Carried { block: id, bytes: bytes.to_vec() }),
        awaited: true,
        ..Write::default()
    };
    assert_eq!(
        session.fail(Request::Write { node: file, write: write(&vec![7; stored.len()]) }),
        Errno::EINVAL
    );
    let answer = session.call(Request::Write { node: file, write: write(&stored) });
    assert!(matches!(answer.result, Ok(Reply::Attr(_))), "{answer:?}");
    // Unasked, and sooner than a session is told that asks for nothing.
    session.link.wait_durable(answer.commit);
    assert_eq!(put(&mut session, id, &other), Ok(Reply::Done), "the first bytes stay");

    let index = Index::parse(&stored).unwrap();
    let reads = |session: &mut Session, node| {
        for (first, count) in [(0, 2), (0, 1), (1, 1)] {
            let request = Request::ReadBlock { node, block: id, first, count };
            let (answer, payload) = session.call_with(request, &[]);
            assert_eq!(answer.result, Ok(Reply::Segments(index.select(first, count).unwrap().to_vec())));
            assert_eq!(payload, stored[index.stored_range(first, count).unwrap()]);
        }
        assert_eq!(session.fail(Request::ReadBlock { node, block: id, first: 1, count: 2 }), Errno::EINVAL);
        // The first segment is compressed and comes whole, of the second a page comes alone.
        let pages = |segment, first| Request::ReadPages { node, block: id, segment, first, count: 1 };
        let (answer, payload) = session.call_with(pages(0, 9), &[]);
        assert_eq!(answer.result, Ok(Reply::Segments(index.select(0, 1).unwrap().to_vec())));
        assert_eq!(payload, stored[index.stored_range(0, 1).unwrap()]);
        let (answer, payload) = session.call_with(pages(1, 2), &[]);
        let checks = index.page_checks(1).unwrap().to_vec();
        assert_eq!(answer.result, Ok(Reply::Pages { segment: index.segments()[1], checks }));
        assert!(payload == raw[65_536 + 2 * 4096..], "the last page is not whole");
    };
    let mut reader = cluster.open();
    let node = reader.lookup("f").unwrap().node;
    reads(&mut reader, node);
    let stranger = reader.make(reader.root(), "g", 0o100_600).node;
    let foreign = Request::ReadBlock { node: stranger, block: id, first: 0, count: 1 };
    assert_eq!(reader.fail(foreign), Errno::ENOENT, "a file gives the right to its own blocks only");
    let foreign = Request::ReadPages { node: stranger, block: id, segment: 0, first: 0, count: 1 };
    assert_eq!(reader.fail(foreign), Errno::ENOENT, "nor to pages of others");
    let volume = session.granted.settings.id.clone();
    let folder = cluster.path(&format!("meta/volumes/{volume}/blocks"));
    let files = || std::fs::read_dir(&folder).map_or(0, Iterator::count);
    assert_eq!(files(), 0);

    cluster.kill_meta();
    cluster.start_meta();
    session.recover(Vec::new());
    reads(&mut session, file);
    assert_eq!(files(), 0);
    assert!(cluster.stop_meta() && cluster.verify().status.success());
}

/// A crash may leave a block in its place whose bytes never reached the disk. It was never answered: who stores it again gets his.
#[test]
fn a_block_that_a_crash_cut_off_is_written_anew() {
    let mut cluster = Cluster::start();
    let mut session = cluster.open();
    let file = session.make(session.root(), "f", 0o100_600).node;
    let range = grant(&mut session);
    let raw = noise(100_000);
    let (mut stored, mut other) = (Vec::new(), Vec::new());
    block::seal(&raw, Compression::None, &mut stored).unwrap();
    block::seal(b"other", Compression::None, &mut other).unwrap();
    let ids: Vec<BlockId> = (range.start..range.start + 4).map(BlockId).collect();
    // Whole, cut, empty, and with bytes that are not its own: numbers of one folder.
    for id in &ids {
        assert_eq!(put(&mut session, *id, &stored), Ok(Reply::Done));
    }
    let place = format!("meta/volumes/{}/blocks", session.granted.settings.id);
    let path = |id: BlockId| cluster.path(&format!("{place}/{:02x}/{:016x}", (id.0 >> 8) & 0xff, id.0));
    let paths: Vec<_> = ids.iter().map(|id| path(*id)).collect();
    cluster.kill_meta();
    let cut = |index: usize, length| {
        std::fs::File::options().write(true).open(&paths[index]).unwrap().set_len(length).unwrap();
    };
    cut(1, 70_000);
    cut(2, 0);
    let mut damaged = stored.clone();
    damaged[stored.len() - 1] ^= 1;
    std::fs::write(&paths[3], damaged).unwrap();
    cluster.start_meta();
    session.recover(Vec::new());
    assert_eq!(put(&mut session, ids[0], &other), Ok(Reply::Done), "the first bytes stay");
    for id in &ids[1..] {
        assert_eq!(put(&mut session, *id, &stored), Ok(Reply::Done));
    }
    for (id, path) in ids.iter().zip(&paths) {
        assert!(std::fs::read(path).unwrap() == stored, "{id}");
    }
    refer(&mut session, file, ids[1], raw.len(), stored.len());
    let request = Request::ReadBlock { node: file, block: ids[1], first: 1, count: 1 };
    let (answer, payload) = session.call_with(request, &[]);
    assert!(matches!(answer.result, Ok(Reply::Segments(_))) && payload == raw[65_536..], "{answer:?}");
    assert!(cluster.stop_meta() && cluster.verify().status.success());
}

#[test]
fn blocks_are_written_once_and_only_by_their_owner() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let range = grant(&mut session);
    let (first, second) = (BlockId(range.start), BlockId(range.start + 1));
    let mut stored = Vec::new();
    block::seal(b"first", Compression::Lz4, &mut stored).unwrap();
    let mut other = Vec::new();
    block::seal(b"other", Compression::Lz4, &mut other).unwrap();
    assert_eq!(put(&mut session, first, &stored), Ok(Reply::Done));
    assert_eq!(put(&mut session, first, &other), Ok(Reply::Done), "the same answer");
    let file = session.make(session.root(), "f", 0o100_600).node;
    refer(&mut session, file, first, 5, stored.len());
    let request = Request::ReadBlock { node: file, block: first, first: 0, count: 1 };
    let (_, payload) = session.call_with(request, &[]);
    assert_eq!(payload, b"first", "the first bytes stay");

    assert_eq!(put(&mut session, second, b"not a block"), Err(Errno::EINVAL));
    assert_eq!(put(&mut session, second, &stored[..stored.len() - 1]), Err(Errno::EINVAL));
    let mut stranger = cluster.open();
    assert_eq!(put(&mut stranger, second, &stored), Err(Errno::EACCES));
    assert_eq!(put(&mut session, BlockId(range.start + range.count), &stored), Err(Errno::EACCES));

    // A file gives the right to its own blocks only.
    assert_eq!(put(&mut session, second, &stored), Ok(Reply::Done));
    let node = stranger.lookup("f").unwrap().node;
    let foreign = Request::ReadBlock { node, block: second, first: 0, count: 1 };
    assert_eq!(stranger.fail(foreign), Errno::ENOENT);
    // The one who wrote it reads it before any file refers to it.
    let own = Request::ReadBlock { node: file, block: second, first: 0, count: 1 };
    assert!(session.call_with(own, &[]).0.result.is_ok());
}

/// Large ones are written past the page cache, in whole pages: zeros behind them are nobody's business.
#[test]
fn large_blocks_are_what_was_sent_whatever_their_length() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let file = session.make(session.root(), "f", 0o100_600).node;
    let range = grant(&mut session);
    let volume = session.granted.settings.id.clone();
    let folder = cluster.path(&format!("meta/volumes/{volume}/blocks"));
    for (id, length) in (range.start..).map(BlockId).zip([262_144, 300_001, 1 << 20]) {
        let (raw, mut stored) = (noise(length), Vec::new());
        block::seal(&raw, Compression::None, &mut stored).unwrap();
        assert_eq!(put(&mut session, id, &stored), Ok(Reply::Done));
        let path = folder.join(format!("{:02x}", (id.0 >> 8) & 0xff)).join(format!("{:016x}", id.0));
        let kept = std::fs::read(path).unwrap();
        assert!(kept.starts_with(&stored), "{length}");
        assert!(kept[stored.len()..].iter().all(|byte| *byte == 0) && kept.len() < stored.len() + 4096);
        let count = u32::try_from(length.div_ceil(65_536)).unwrap();
        let (_, payload) =
            session.call_with(Request::ReadBlock { node: file, block: id, first: 0, count }, &[]);
        assert!(payload == raw, "{length}");
    }
}

#[test]
fn damage_and_loss_are_told_apart_and_logged() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let file = session.make(session.root(), "f", 0o100_600).node;
    let range = grant(&mut session);
    let mut stored = Vec::new();
    block::seal(&noise(100_000), Compression::Lz4, &mut stored).unwrap();
    let volume = session.granted.settings.id.clone();
    let path = |id: BlockId| {
        let folder = cluster.path(&format!("meta/volumes/{volume}/blocks"));
        folder.join(format!("{:02x}", (id.0 >> 8) & 0xff)).join(format!("{:016x}", id.0))
    };
    for number in 0..2 {
        let id = BlockId(range.start + number);
        assert_eq!(put(&mut session, id, &stored), Ok(Reply::Done));
        assert_eq!(std::fs::read(path(id)).unwrap(), stored);
    }
    let (damaged, lost) = (BlockId(range.start), BlockId(range.start + 1));
    let mut bytes = stored.clone();
    bytes[40] ^= 1;
    std::fs::write(path(damaged), bytes).unwrap();
    std::fs::remove_file(path(lost)).unwrap();
    let read = |block| Request::ReadBlock { node: file, block, first: 0, count: 1 };
    assert_eq!(session.fail(read(damaged)), Errno::EIO);
    assert_eq!(session.fail(read(lost)), Errno::ENOENT);
    let log = cluster.log();
    assert!(
        log.contains(&path(damaged).display().to_string()) && log.contains(&path(lost).display().to_string())
    );
}

#[test]
fn garbage_is_collected_when_retention_is_over() {
    let cluster = Cluster::start();
    cluster.configure(&["update", "volume", "main", "--retention", "0s"]);
    let mut session = cluster.open();
    assert_eq!(session.granted.settings.retention, 0);
    let file = session.make(session.root(), "f", 0o100_600).node;
    let range = grant(&mut session);
    let mut stored = Vec::new();
    block::seal(&noise(50_000), Compression::None, &mut stored).unwrap();
    let id = BlockId(range.start);
    assert_eq!(put(&mut session, id, &stored), Ok(Reply::Done));
    refer(&mut session, file, id, 50_000, stored.len());
    let volume = &session.granted.settings.id;
    let folder = cluster.path(&format!("meta/volumes/{volume}/blocks"));
    let path = folder.join(format!("{:02x}/{:016x}", (id.0 >> 8) & 0xff, id.0));
    assert!(path.exists());
    let root = session.root();
    let name = flexfs_wire::name::Name::new(b"f").unwrap();
    session.get(Request::Remove { parent: root, name, dir: false });
    within(Duration::from_secs(25), || {
        session.get(Request::Heartbeat);
        (!path.exists()).then_some(())
    });
}

/// Who stores blocks and makes no file refer to them fills the volume like one who does.
#[test]
fn blocks_that_no_file_refers_to_count() {
    const MIB: usize = 1 << 20;
    let mut cluster = Cluster::start();
    let mut hoarder = cluster.open();
    let range = grant(&mut hoarder);
    let mut stored = Vec::new();
    block::seal(&noise(MIB), Compression::None, &mut stored).unwrap();
    cluster.configure(&["update", "volume", "main", "--maxBlocks", "1"]);
    within(Duration::from_secs(2), || {
        let Reply::StatFs(figures) = hoarder.get(Request::StatFs) else { panic!() };
        (figures.bytes_total == 4 * MIB as u64).then_some(())
    });
    let ids = || (range.start..range.start + range.count).map(BlockId);
    let kept = ids().take_while(|id| put(&mut hoarder, *id, &stored) == Ok(Reply::Done)).count();
    // The volume, and sixteen blocks that a client may have under way over its bound.
    assert_eq!(kept, 17 * 4 * MIB / stored.len());
    let next = BlockId(range.start + kept as u64);
    assert_eq!(put(&mut hoarder, next, &stored), Err(Errno::ENOSPC));
    // What is there may be put again, and used; one that is used leaves the place it took to its file.
    assert_eq!(put(&mut hoarder, BlockId(range.start), &stored), Ok(Reply::Done));
    let file = hoarder.make(hoarder.root(), "f", 0o100_600).node;
    refer(&mut hoarder, file, BlockId(range.start), MIB, stored.len());
    assert_eq!(put(&mut hoarder, next, &stored), Err(Errno::ENOSPC));

    // A restart forgets none.
    cluster.kill_meta();
    cluster.start_meta();
    hoarder.recover(Vec::new());
    let mut other = cluster.open();
    let own = BlockId(grant(&mut other).start);
    for _ in 0..2 {
        assert_eq!(put(&mut hoarder, next, &stored), Err(Errno::ENOSPC));
        assert_eq!(put(&mut other, own, &stored), Err(Errno::ENOSPC));
    }
    // A write that is refused lets go of its blocks, and so does the end of the session.
    let new = |block| NewBlock { block, raw_bytes: 8 << 20, stored_bytes: 0 };
    let extent = |block| Extent { offset: MIB as u64, length: 8 << 20, block, block_offset: 0 };
    let refused = BlockId(range.start + 1);
    let write = Write { extents: vec![extent(refused)], blocks: vec![new(refused)], ..Write::default() };
    assert_eq!(hoarder.fail(Request::Write { node: file, write: write.clone() }), Errno::ENOSPC);
    assert_eq!(hoarder.fail(Request::Write { node: file, write }), Errno::EINVAL);
    within(Duration::from_secs(15), || {
        hoarder.get(Request::Heartbeat);
        (put(&mut other, own, &stored) == Ok(Reply::Done)).then_some(())
    });
    hoarder.get(Request::Leave);
    let folder = cluster.path(&format!("meta/volumes/{}/blocks", other.granted.settings.id));
    let files = || {
        let folders = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        folders.map(|folder| std::fs::read_dir(folder).unwrap().count()).sum::<usize>()
    };
    assert!(files() > 60);
    within(Duration::from_secs(15), || {
        other.get(Request::Heartbeat);
        (files() == 2).then_some(())
    });
    assert!(cluster.stop_meta() && cluster.verify().status.success());
}
