//! What makes the bytes of a file these and no others: its size, and where they are. Blocks never change, so two files, or one file
//! at two times, with the same layout have the same bytes.

use flexfs_wire::errno::Errno;
use flexfs_wire::message::Request;

use super::core::{Core, NOBODY, attr_of};
use super::file::File;
use super::layout::Map;
use super::server::Server;

/// Windows of a layout that are asked for before a file is taken for one that changes all the time, or is too fragmented: the
/// windows of 64 GiB, and some.
const WINDOWS_MAX: u32 = 256 + 16;

impl<S: Server> Core<S> {
    /// The identity of a file's bytes, and its size. `None`: unwritten bytes, or bytes that are in no block. `fresh`: the server
    /// is asked for attributes first, whatever is known.
    pub(crate) async fn identity(&self, file: &File, fresh: bool) -> Result<Option<(u128, u64)>, Errno> {
        if fresh {
            let life = self.server.recalls().life();
            let attr = attr_of(self.call(NOBODY, Request::GetAttr { node: file.node }, file, None).await?)?;
            file.state().learn(&attr, life);
        }
        for tries in 0..WINDOWS_MAX {
            let unknown = {
                let state = file.state();
                if !state.is_clean() || state.size() == 0 {
                    return Ok(None);
                }
                let size = state.size();
                match state.map() {
                    None => 0,
                    Some(map) => match map.first_unknown(&(0..size)) {
                        Some(unknown) => unknown,
                        None => return Ok(map.identity(size).map(|identity| (identity, size))),
                    },
                }
            };
            // Its own tries tell who asks for the same again and again.
            self.try_layout(file, unknown, tries.min(1), None).await?;
        }
        Ok(None)
    }
}

impl Map {
    /// The identity of `size` bytes, all of which are described; `None` when some are not in blocks.
    fn identity(&self, size: u64) -> Option<u128> {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        hash.update(&size.to_le_bytes());
        for extent in self.extents()? {
            hash.update(&extent.offset.to_le_bytes());
            hash.update(&extent.length.to_le_bytes());
            hash.update(&extent.block.0.to_le_bytes());
            hash.update(&extent.block_offset.to_le_bytes());
        }
        Some(hash.digest128())
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::extent::{Extent, Layout};
    use flexfs_wire::id::BlockId;

    use super::*;

    fn map(extents: Vec<Extent>, inline: &[u8]) -> Map {
        let layout =
            Layout { end: u64::MAX, version: 1, extents, inline: inline.to_vec(), ..Layout::default() };
        Map::new(layout).unwrap()
    }

    #[test]
    fn each_part_of_a_layout_counts() {
        let extent = Extent { offset: 4096, length: 8192, block: BlockId(7), block_offset: 100 };
        let identity = |extent| map(vec![extent], &[]).identity(20_000).unwrap();
        let own = identity(extent);
        assert_eq!(own, identity(extent));
        for other in [
            Extent { offset: 0, ..extent },
            Extent { length: 8191, ..extent },
            Extent { block: BlockId(8), ..extent },
            Extent { block_offset: 0, ..extent },
        ] {
            assert_ne!(own, identity(other));
        }
        assert_ne!(own, map(vec![extent], &[]).identity(20_001).unwrap());
        assert_eq!(map(vec![extent], b"inline").identity(20_000), None);
    }
}
