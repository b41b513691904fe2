//! The mount's side of a request: parsing, replying, the maps of file data.

use std::collections::BTreeMap;
use std::hint::black_box;

use flexfs_mount::data::dirty::Dirty;
use flexfs_mount::data::layout::Map;
use flexfs_mount::fuse::reply;
use flexfs_mount::fuse::request::{Header, parse};
use flexfs_mount::vfs::ValidFor;
use flexfs_wire::extent::{Extent, Layout};
use flexfs_wire::id::BlockId;

use super::{Case, repeated};
use crate::{answer, request};

/// Calls of a path.
const MANY: u64 = 1_000;
/// Lines of a listing.
const LISTED: u64 = 100;
/// Extents of a file.
const EXTENTS: u32 = 256;
/// Bytes of an extent.
const EXTENT_BYTES: u32 = 64 << 10;
/// Bytes of a read.
const READ_BYTES: u64 = 128 << 10;
/// Bytes of a region of dirty data.
const REGION_BYTES: u32 = 4 << 20;
/// Bytes of a write.
const WRITE_BYTES: u64 = 4_096;
/// Writes in a region, every other page of it.
const WRITES: u64 = 512;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case { name: "request/parse-lookup", calls: MANY, prepare: || request_parse("lookup") },
        Case { name: "request/parse-getattr", calls: MANY, prepare: || request_parse("getattr") },
        Case { name: "request/parse-setattr", calls: MANY, prepare: || request_parse("setattr") },
        Case { name: "request/parse-read", calls: MANY, prepare: || request_parse("read") },
        Case { name: "request/parse-write-128k", calls: MANY, prepare: || request_parse("write-128k") },
        Case { name: "request/parse-create", calls: MANY, prepare: || request_parse("create") },
        Case { name: "request/parse-rename2", calls: MANY, prepare: || request_parse("rename2") },
        Case { name: "reply/entry", calls: MANY, prepare: reply_entry },
        Case { name: "reply/attr", calls: MANY, prepare: reply_attr },
        Case { name: "reply/readdirplus-line", calls: LISTED, prepare: reply_lines },
        Case { name: "extents/resolve-128k-of-256", calls: MANY, prepare: extents_resolve },
        Case { name: "extents/overwrite-4k-of-256", calls: MANY, prepare: extents_overwrite },
        Case { name: "dirty/write-4k-stream", calls: WRITES, prepare: || dirty_write(1) },
        Case { name: "dirty/write-4k-scattered", calls: WRITES, prepare: || dirty_write(2) },
        Case { name: "dirty/lookup-128k-of-512", calls: MANY, prepare: dirty_lookup },
    ]
}

fn request_parse(name: &str) -> Box<dyn FnMut()> {
    let sample = request::samples().into_iter().find(|sample| sample.name == name).unwrap();
    repeated(MANY, move || {
        let header = Header::parse(black_box(&sample.header)).unwrap();
        drop(black_box(parse(&header, black_box(&sample.op), black_box(&sample.payload)).unwrap()));
    })
}

fn reply_entry() -> Box<dyn FnMut()> {
    let (found, mut out) = (answer::found(42), vec![0; 4_096]);
    repeated(MANY, move || {
        black_box(reply::entry(black_box(&mut out), black_box(&found)).unwrap());
    })
}

fn reply_attr() -> Box<dyn FnMut()> {
    let (attr, mut out) = (crate::attr::file_attr(42), vec![0; 4_096]);
    repeated(MANY, move || {
        black_box(reply::attr(black_box(&mut out), black_box(&attr), ValidFor::LEASE).unwrap());
    })
}

fn reply_lines() -> Box<dyn FnMut()> {
    let (items, mut out) = (answer::items(LISTED), vec![0; 128 << 10]);
    Box::new(move || {
        let mut filled = 0;
        for item in black_box(&items) {
            filled = reply::dir_item(&mut out, filled, item, true).unwrap();
        }
    })
}

fn map() -> Map {
    let extent = |index: u32| Extent {
        offset: u64::from(index) * u64::from(EXTENT_BYTES),
        length: EXTENT_BYTES,
        block: BlockId(u64::from(index / 64) + 1),
        block_offset: index % 64 * EXTENT_BYTES,
    };
    let extents = (0..EXTENTS).map(extent).collect();
    Map::new(Layout { inline: Vec::new(), extents, start: 0, end: u64::MAX, version: 1 }).unwrap()
}

/// Offsets all over the file.
fn offsets() -> impl FnMut() -> u64 {
    let mut at = 0;
    move || {
        at = (at + 7 * READ_BYTES) % (u64::from(EXTENTS) * u64::from(EXTENT_BYTES));
        at
    }
}

fn extents_resolve() -> Box<dyn FnMut()> {
    let (map, mut next) = (map(), offsets());
    let (mut out, mut wants) = (vec![0; usize::try_from(READ_BYTES).unwrap()], Vec::new());
    repeated(MANY, move || {
        let at = next();
        wants.clear();
        map.resolve(black_box(&(at..at + READ_BYTES)), at, &mut out, &mut wants);
        assert_eq!(wants.len(), 2);
    })
}

fn extents_overwrite() -> Box<dyn FnMut()> {
    let (mut map, mut next, mut version) = (map(), offsets(), 1);
    repeated(MANY, move || {
        version += 1;
        let at = next();
        let extent = Extent { offset: at, length: 4_096, block: BlockId(version), block_offset: 0 };
        map.apply_extents(version, &BTreeMap::from([(at, extent)]));
    })
}

fn dirty_write(stride: u64) -> Box<dyn FnMut()> {
    let data = vec![7; usize::try_from(WRITE_BYTES).unwrap()];
    Box::new(move || {
        let (mut dirty, mut full) = (Dirty::default(), Vec::new());
        for number in 0..WRITES {
            dirty.write(REGION_BYTES, number * stride * WRITE_BYTES, black_box(&data), &mut full);
        }
        assert_eq!(dirty.bytes(), WRITES * WRITE_BYTES);
    })
}

fn dirty_lookup() -> Box<dyn FnMut()> {
    let data = vec![7; usize::try_from(WRITE_BYTES).unwrap()];
    let (mut dirty, mut full) = (Dirty::default(), Vec::new());
    for number in 0..WRITES {
        dirty.write(REGION_BYTES, number * 2 * WRITE_BYTES, &data, &mut full);
    }
    let mut at = 0;
    repeated(MANY, move || {
        at = (at + 7 * WRITE_BYTES) % (WRITES * 2 * WRITE_BYTES - READ_BYTES);
        let mut found = 0;
        dirty.each_in(REGION_BYTES, at..at + READ_BYTES, |_, bytes| found += bytes.len());
        assert!(found > 0);
    })
}
