//! What the checks gather.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, Ino};

use super::report::Report;
use crate::engine::Store;
use crate::engine::key::{self, Tag};
use crate::namespace::record::{BlockRecord, DeadRange, FORMAT, FORMAT_OLDEST, Inode, State, decode};

/// The volume as its tables say.
pub(super) struct Facts {
    pub(super) state: State,
    pub(super) inodes: BTreeMap<Ino, InodeFacts>,
    pub(super) blocks: HashMap<BlockId, BlockFacts>,
    /// Live bytes by block and file, where the file is not the block's first one.
    pub(super) shares: HashMap<(BlockId, Ino), u64>,
}

/// An inode and what other tables say of it.
pub(super) struct InodeFacts {
    pub(super) inode: Inode,
    pub(super) links: u32,
    pub(super) entries: u64,
    pub(super) subdirs: u32,
    pub(super) extents: u64,
    pub(super) extent_bytes: u64,
    pub(super) data_bytes: u64,
    pub(super) xattr_bytes: u64,
    pub(super) dead: Vec<DeadRange>,
}

pub(super) struct BlockFacts {
    pub(super) record: BlockRecord,
    pub(super) live: u64,
}

impl Facts {
    /// Counters and inodes. `None` when there is no volume to check.
    pub(super) fn load(store: &impl Store, report: &mut Report) -> Result<Option<Self>, Errno> {
        let state = match store.get(&key::state())?.map(|row| decode::<State>(&row)) {
            Some(Ok(state)) if (FORMAT_OLDEST..=FORMAT).contains(&state.format) => state,
            Some(Ok(state)) => {
                report.problem(|| {
                    format!("the database has format {}, not {FORMAT_OLDEST} to {FORMAT}", state.format)
                });
                return Ok(None);
            }
            Some(Err(_)) => {
                report.problem(|| "the counters cannot be read".into());
                return Ok(None);
            }
            None => {
                report.problem(|| "there is no volume: the counters are missing".into());
                return Ok(None);
            }
        };
        let mut facts =
            Self { state, inodes: BTreeMap::new(), blocks: HashMap::new(), shares: HashMap::new() };
        each(store, Tag::Inode, &mut |key, value| {
            let ino = Ino(key::number(key, 1).unwrap_or(0));
            match Inode::decode(ino, value) {
                Ok(inode) if key.len() == 9 => {
                    facts.inodes.insert(ino, InodeFacts::new(inode));
                }
                _ => report.problem(|| format!("inode {ino}: its row cannot be read")),
            }
        })?;
        report.inodes = facts.inodes.len() as u64;
        report.check(facts.inodes.contains_key(&Ino::ROOT), || "the root directory is missing".into());
        Ok(Some(facts))
    }
}

impl InodeFacts {
    fn new(inode: Inode) -> Self {
        Self {
            inode,
            links: 0,
            entries: 0,
            subdirs: 0,
            extents: 0,
            extent_bytes: 0,
            data_bytes: 0,
            xattr_bytes: 0,
            dead: Vec::new(),
        }
    }
}

/// Visits every row of a table.
pub(super) fn each(store: &impl Store, tag: Tag, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Errno> {
    let (from, to) = key::table(tag);
    store.scan(&from, &to, &mut |key, value| {
        visit(key, value);
        ControlFlow::Continue(())
    })
}
