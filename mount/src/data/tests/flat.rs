//! Random operations against a flat vector of bytes, with background work delayed and reordered.

use std::sync::Arc;
use std::time::Duration;

use flexfs_wire::attr::SetAttr;
use flexfs_wire::errno::Errno;
use flexfs_wire::message::{FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE};
use flexfs_wire::seal::Node;
use proptest::prelude::*;

use super::{CALLER, Mount, pattern, run, turns};
use crate::data::OpenMode;
use crate::data::model::Model;

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Append(usize),
    Read(usize, usize),
    Flush,
    Fsync,
    Truncate(usize),
    OpenTruncated,
    Fallocate(u32, usize, usize),
    Copy(usize, usize, usize),
    Seek(usize, bool),
    Reopen,
    Turns(u32),
    WriteBack,
    DropLayout,
}

/// Offsets and lengths up to `most`: small ones, large ones, and borders.
fn place(most: usize) -> impl Strategy<Value = usize> + Clone {
    prop_oneof![3 => 0..most, 2 => 0..most / 16 + 1, 1 => (0..most / 4096 + 1).prop_map(|page| page * 4096)]
}

fn step(most: usize) -> impl Strategy<Value = Step> {
    let modes = prop_oneof![
        Just(FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE),
        Just(FALLOC_ZERO_RANGE),
        Just(FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE),
        Just(0),
    ];
    prop_oneof![
        10 => (place(most), place(most / 2)).prop_map(|(at, length)| Step::Write(at, length)),
        4 => place(most / 4).prop_map(Step::Append),
        10 => (place(most), place(most)).prop_map(|(at, length)| Step::Read(at, length)),
        2 => Just(Step::Flush),
        1 => Just(Step::Fsync),
        3 => place(most).prop_map(Step::Truncate),
        1 => Just(Step::OpenTruncated),
        2 => (modes, place(most), place(most / 2)).prop_map(|(mode, at, length)| Step::Fallocate(mode, at, length)),
        2 => (place(most), place(most), place(most / 2)).prop_map(|(from, to, length)| Step::Copy(from, to, length)),
        2 => (place(most), any::<bool>()).prop_map(|(at, hole)| Step::Seek(at, hole)),
        1 => Just(Step::Reopen),
        4 => (0..12_u32).prop_map(Step::Turns),
        2 => Just(Step::WriteBack),
        1 => Just(Step::DropLayout),
    ]
}

/// A file under test and what it must contain.
struct World {
    mount: Mount,
    node: Node,
    flat: Vec<u8>,
    block_size: u32,
    stamp: u64,
}

impl World {
    async fn step(&mut self, step: Step) {
        let Self { mount, node, flat, .. } = self;
        let (files, node) = (&mount.files, *node);
        match step {
            Step::Write(at, length) => self.write(at, length).await,
            Step::Append(length) => self.write(self.flat.len(), length).await,
            Step::Read(at, length) => {
                let expected = flat.get(at..).map_or(&[][..], |rest| &rest[..length.min(rest.len())]);
                assert!(mount.read(node, at as u64, length).await == expected, "read {at} + {length}");
            }
            Step::Flush => files.flush(node, None).await.unwrap(),
            Step::Fsync => {
                files.fsync(node, None).await.unwrap();
                assert!(mount.server.content(1) == *flat, "after fsync");
                let world = mount.server.world();
                assert_eq!(world.synced, world.commit);
            }
            Step::Truncate(size) => {
                let change = SetAttr { size: Some(size as u64), ..SetAttr::default() };
                let (attr, _) = files.set_attr(CALLER, node, change, None).await.unwrap();
                assert_eq!(attr.size, size as u64);
                flat.resize(size, 0);
            }
            Step::OpenTruncated => {
                let mode = OpenMode { write: true, truncate: true, kill_privileges: false };
                assert_eq!(files.open(CALLER, node, mode, None).await.unwrap().attr.size, 0);
                files.close(CALLER, node);
                flat.clear();
            }
            Step::Fallocate(mode, at, length) => {
                let length = length + 1;
                files.fallocate(CALLER, node, mode, at as u64, length as u64, None).await.unwrap();
                if mode & FALLOC_KEEP_SIZE == 0 && flat.len() < at + length {
                    flat.resize(at + length, 0);
                }
                let end = (at + length).min(flat.len());
                if mode & !FALLOC_KEEP_SIZE != 0 && at < end {
                    flat[at..end].fill(0);
                }
            }
            Step::Copy(from, to, length) => {
                let length = length.min(from.abs_diff(to));
                let (source, target) = ((node, from as u64), (node, to as u64));
                let copied = files.copy_range(CALLER, source, target, length as u64, None).await.unwrap();
                let bytes = flat.get(from..).map_or(&[][..], |rest| &rest[..length.min(rest.len())]).to_vec();
                assert_eq!(copied, bytes.len() as u64);
                if !bytes.is_empty() {
                    flat.resize(flat.len().max(to + bytes.len()), 0);
                    flat[to..to + bytes.len()].copy_from_slice(&bytes);
                }
            }
            Step::Seek(at, hole) => self.seek(at, hole).await,
            Step::Reopen => self.reopen().await,
            Step::Turns(count) => turns(count).await,
            Step::WriteBack => files.core().write_back_old(Duration::ZERO).await,
            Step::DropLayout => files.core().file(node).state().map = None,
        }
        let attr = self.mount.attr(self.node).await;
        assert_eq!(attr.size, self.flat.len() as u64, "size");
    }

    async fn write(&mut self, at: usize, length: usize) {
        self.stamp += 1;
        let data = pattern(self.stamp, length);
        self.mount.write(self.node, at as u64, &data).await;
        if !data.is_empty() {
            self.flat.resize(self.flat.len().max(at + length), 0);
            self.flat[at..at + length].copy_from_slice(&data);
        }
    }

    async fn seek(&self, at: usize, hole: bool) {
        let found = self.mount.files.seek(CALLER, self.node, at as u64, hole, None).await;
        match found {
            Err(errno) => {
                assert_eq!(errno, Errno::ENXIO);
                let rest = self.flat.get(at..).unwrap_or(&[]);
                assert!(rest.is_empty() || !hole && rest.iter().all(|byte| *byte == 0));
            }
            Ok(found) => {
                let found = usize::try_from(found).unwrap();
                assert!(found >= at && found <= self.flat.len() && (hole || found < self.flat.len()));
                if hole {
                    assert_eq!(self.flat.get(found).copied().unwrap_or(0), 0);
                } else {
                    assert!(self.flat[at..found].iter().all(|byte| *byte == 0), "no data is jumped over");
                }
            }
        }
    }

    /// Closes, and opens with a client that knows nothing, or with the same after the kernel forgot.
    async fn reopen(&mut self) {
        let files = &self.mount.files;
        files.flush(self.node, None).await.unwrap();
        files.close(CALLER, self.node);
        assert_eq!(files.figures().dirty_bytes, 0);
        turns(40).await;
        files.forget(self.node.ino);
        assert!(files.core().find(self.node.ino).is_none());
        if self.stamp.is_multiple_of(2) {
            self.mount = Mount::new(Arc::clone(&self.mount.server), self.block_size, 1 << 20);
        }
        self.mount.files.open(CALLER, self.node, OpenMode::default(), None).await.unwrap();
    }
}

fn check(seed: u64, delay_max: u64, block_size: u32, steps: Vec<Step>) {
    run(async {
        let server = Arc::new(Model::new(seed, delay_max));
        let mount = Mount::new(server, block_size, 1 << 20);
        let node = mount.create(1);
        let mut world = World { mount, node, flat: Vec::new(), block_size, stamp: seed };
        for step in steps {
            world.step(step).await;
        }
        world.mount.files.sync_all().await.unwrap();
        assert!(world.mount.server.content(1) == world.flat, "at the end");
        assert_eq!(world.mount.files.figures().errors, 0);
        assert_eq!(world.mount.files.figures().dirty_bytes, 0);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Blocks of a page: many full blocks, many commits, windows of layout.
    #[test]
    fn small_blocks(
        seed in any::<u64>(), delay in 0..6_u64, steps in proptest::collection::vec(step(60_000), 1..60),
    ) {
        check(seed, delay, 4096, steps);
    }

    /// Everything around the inline part.
    #[test]
    fn small_files(
        seed in any::<u64>(), delay in 0..6_u64, steps in proptest::collection::vec(step(20_000), 1..60),
    ) {
        check(seed, delay, 262_144, steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Blocks of several segments.
    #[test]
    fn large_blocks(
        seed in any::<u64>(), delay in 0..6_u64, steps in proptest::collection::vec(step(700_000), 1..40),
    ) {
        check(seed, delay, 262_144, steps);
    }
}
