//! The whole of it against a server of maps and a flat vector of bytes.

mod closed;
mod errors;
mod flat;
mod growth;
mod leases;
mod shared;
mod times;

use std::future::Future;
use std::sync::Arc;

use flexfs_uring::{Shard, ShardConfig, yield_now};
use flexfs_wire::attr::Attr;
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Caller, Reply, Request};
use flexfs_wire::seal::Node;
use flexfs_wire::settings::Compression;

use super::model::Model;
use super::server::Server;
use super::{Config, Files, ReadMode, WriteMode};

const CALLER: Caller = Caller { uid: 1000, gid: 1000 };

/// A client and its server.
struct Mount {
    server: Arc<Model>,
    files: Files<Model>,
}

impl Mount {
    fn new(server: Arc<Model>, block_size: u32, mem_capacity: u64) -> Self {
        let config = Config { mem_capacity, block_size, compression: Compression::Lz4, cipher: None };
        Self { files: Files::new(Arc::clone(&server), config), server }
    }

    /// A new file, open.
    fn create(&self, ino: u64) -> Node {
        let (node, attr) = self.server.make(ino);
        let recalls = self.server.recalls();
        self.files.created(node, &attr, Leases::ALL, recalls.asked());
        node
    }

    async fn write(&self, node: Node, offset: u64, data: &[u8]) {
        self.files.write(CALLER, node, offset, data, WriteMode::default(), None).await.unwrap();
    }

    async fn read(&self, node: Node, offset: u64, length: usize) -> Vec<u8> {
        let mut out = vec![0xee; length];
        let got = self.files.read(CALLER, node, offset, &mut out, ReadMode::default(), None).await.unwrap();
        out.truncate(got.bytes);
        out
    }

    /// As `stat` shows it.
    async fn attr(&self, node: Node) -> Attr {
        let Ok(Reply::Attr(mut attr)) = self.server.call(CALLER, Request::GetAttr { node }, None).await
        else {
            panic!("no attributes")
        };
        let _ = self.files.observe(&mut attr);
        attr
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let shard = Shard::new(&ShardConfig { recv_buffers: 0, ..ShardConfig::default() }).unwrap();
    shard.block_on(future)
}

async fn turns(count: u32) {
    for _ in 0..count {
        yield_now().await;
    }
}

/// Bytes that tell where they belong: different for each seed, partly compressible.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|at| {
            if at % 3 == 0 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            }
            state.to_be_bytes()[0]
        })
        .collect()
}
