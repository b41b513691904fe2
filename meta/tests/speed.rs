//! How fast the machine is over its default engine. Not run by default: `cargo test --release -p flexfs-meta --test speed
//! -- --ignored --nocapture`.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a measurement: it reads the clock and ends when something fails"
)]

use std::time::{Duration, Instant};

use flexfs_meta::engine::Store;
use flexfs_meta::engine::fjall::{Fjall, Options};
use flexfs_meta::namespace::{Context, Limits, Namespace, Rights};
use flexfs_meta::verify::verify;
use flexfs_wire::attr::{S_IFDIR, S_IFREG, SetAttr};
use flexfs_wire::extent::{Extent, NewBlock};
use flexfs_wire::id::{BlockId, Ino, RequestId};
use flexfs_wire::message::{Caller, Inline, Make, Reply, Request, Write};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

struct Bench {
    ns: Namespace<Fjall>,
    context: Context,
}

impl Bench {
    fn call(&mut self, request: &Request) -> Reply {
        self.context.request.0 += 1;
        if self.context.request.0.is_multiple_of(64) {
            self.ns.finished(self.context.session, RequestId(self.context.request.0 - 32));
        }
        self.ns.apply(&self.context, request).answer.unwrap().result.unwrap()
    }

    fn make(&mut self, parent: Ino, name: &str, mode: u32, ino: u64) -> Ino {
        let make = Make { ino: Ino(ino), mode, umask: 0o022, rdev: 0, target: Vec::new(), open: false };
        let name = Some(Name::new(name.as_bytes()).unwrap());
        self.call(&Request::Make { parent: Node::unsealed(parent), name, make });
        Ino(ino)
    }
}

/// Wall time, and time of this thread on a core: the machine may be busy with other things.
struct Stopwatch(Instant, f64);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now(), on_core())
    }

    fn report(&self, what: &str, count: u32) {
        let (wall, core) = (self.0.elapsed().as_secs_f64(), on_core() - self.1);
        let count = f64::from(count);
        println!(
            "{what}: {count} in {wall:.2} s = {:.0}/s; on core {core:.2} s = {:.0}/s",
            count / wall,
            count / core
        );
    }
}

fn on_core() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Fjall::open(folder.path(), Options::default()).unwrap();
    let now = Time { secs: 1_700_000_000, nanos: 5 };
    let mut ns = Namespace::open(store, Limits::new(4 << 20, 0, 0), now).unwrap();
    ns.finish_recovery(now).unwrap();
    let (session, _) = ns.open_session(|_| Vec::new()).unwrap();
    let mut next = 0;
    for _ in 0..32 {
        let (range, _) = ns.grant_inodes(session, 65_536).unwrap();
        next = if next == 0 { range.start } else { next };
    }
    let (blocks, _) = ns.grant_blocks(session, 4_096).unwrap();
    let caller = Caller { uid: 1, gid: 1 };
    let context =
        Context { now, told: None, session, request: RequestId(0), caller, rights: Rights::Client, umask: 0 };
    let mut bench = Bench { ns, context };
    let dir = bench.make(Ino::ROOT, "dir", S_IFDIR | 0o755, next);
    let count = 1_000_000u32;
    next += 1;

    let start = Stopwatch::start();
    for number in 0..count {
        bench.make(dir, &format!("file-{number:07}"), S_IFREG | 0o644, next + u64::from(number));
    }
    start.report("creates in one directory", count);
    let durable = bench.ns.durable().clone();
    let last = bench.ns.keep("mark", Vec::new()).unwrap();
    assert!(durable.wait(last, Duration::from_secs(60)));
    start.report("the same, durable", count);

    let start = Stopwatch::start();
    for number in 0..100_000u32 {
        let inline = Some(Inline { offset: 0, bytes: vec![7; 4096] });
        let node = Node::unsealed(Ino(next + u64::from(number)));
        bench.call(&Request::Write { node, write: Write { inline, ..Write::default() } });
    }
    start.report("writes of 4 KiB inline", 100_000);

    let start = Stopwatch::start();
    let (mut cookie, mut listed) = (0, 0);
    loop {
        let request =
            Request::ReadDir { node: Node::unsealed(dir), cookie, bytes_max: 128 << 10, plus: true };
        let Reply::Entries { entries, eof } = bench.call(&request) else { panic!() };
        listed += u32::try_from(entries.len()).unwrap();
        cookie = entries.last().map_or(cookie, |entry| entry.cookie);
        if eof {
            break;
        }
    }
    assert_eq!(listed, count);
    start.report("entries listed with attributes", count);

    let start = Stopwatch::start();
    for number in 0..count {
        let name = Name::new(format!("file-{:07}", u64::from(number) * 7_919 % u64::from(count)).as_bytes())
            .unwrap();
        bench.call(&Request::Lookup { parent: Node::unsealed(dir), name });
    }
    start.report("lookups at random", count);

    let start = Stopwatch::start();
    for number in 0..count {
        let name = Name::new(format!("file-{number:07}").as_bytes()).unwrap();
        bench.call(&Request::Remove { parent: Node::unsealed(dir), name, dir: false });
    }
    start.report("unlinks", count);
    many_extents(&mut bench, next + u64::from(count), blocks.start);

    let store = bench.ns.into_store();
    let start = Instant::now();
    let found = verify(&store).unwrap();
    println!("verify in {:.2?}: {found}", start.elapsed());
    assert!(found.is_clean());
    store.close().unwrap();
}

/// A file of a million extents: what its truncation costs the caller, and the volume's thread at most.
fn many_extents(bench: &mut Bench, ino: u64, first_block: u64) {
    let file = bench.make(Ino::ROOT, "scattered", S_IFREG | 0o644, ino);
    let node = Node::unsealed(file);
    let start = Stopwatch::start();
    for part in 0..250u64 {
        let block = BlockId(first_block + part);
        let extents = (0..4_000u32).map(|index| Extent {
            offset: (part * 4_000 + u64::from(index)) * 8_192,
            length: 64,
            block,
            block_offset: index * 64,
        });
        let blocks = vec![NewBlock { block, raw_bytes: 4_000 * 64, stored_bytes: 1 }];
        let write = Write { extents: extents.collect(), blocks, ..Write::default() };
        bench.call(&Request::Write { node, write });
    }
    start.report("extents written", 1_000_000);
    let start = Instant::now();
    let change = SetAttr { size: Some(100), ..SetAttr::default() };
    bench.call(&Request::SetAttr { node, change });
    println!("truncation of a million extents answered in {:.2?}", start.elapsed());
    let (start, mut longest) = (Stopwatch::start(), Duration::ZERO);
    loop {
        let step = Instant::now();
        let more = bench.ns.background(bench.context.now, 1_024).unwrap();
        longest = longest.max(step.elapsed());
        if !more {
            break;
        }
    }
    start.report("dead extents removed", 1_000_000);
    println!("longest step {longest:.2?}");
}
