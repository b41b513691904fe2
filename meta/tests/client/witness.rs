//! A client that behaves, beside one that does not: its calls must go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flexfs_wire::errno::Errno;
use flexfs_wire::message::{Reply, Request};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;

use super::Session;

/// Longest five calls of it may take: less than a lease, with tests unoptimised, several at once, on few cores.
const BOUND: Duration = Duration::from_secs(8);

/// The client, at work on a thread of its own.
pub(crate) struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Duration)>,
}

impl Witness {
    /// Begins to make, write, read and remove a file of its own, again and again, in a directory of its own: of what others
    /// hold leases of, it waits for them.
    pub(crate) fn start(mut session: Session) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let root = session.root();
        let dir = session.make(root, "witness", 0o040_700).node;
        let thread = std::thread::spawn(move || {
            let (mut calls, mut slowest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let start = Instant::now();
                round(&mut session, dir);
                slowest = slowest.max(start.elapsed());
                calls += 5;
            }
            session.get(Request::Leave);
            (calls, slowest)
        });
        Self { stop, thread }
    }

    /// Ends it; it must have got on all the time. Prints how.
    pub(crate) fn end(self, during: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let (calls, slowest) = self.thread.join().unwrap();
        println!("{during}: {calls} calls of the other client, the slowest five in {slowest:?}");
        assert!(calls > 0 && slowest < BOUND, "{during}: the other client waits {slowest:?}");
    }
}

fn round(session: &mut Session, dir: Node) {
    let name = Name::new(b"file").unwrap();
    let file = session.make(dir, "file", 0o100_600).node;
    assert!(session.write_inline(file, b"of good character").result.is_ok());
    assert_eq!(session.read_inline(file), b"of good character");
    let remove = Request::Remove { parent: dir, name: name.clone(), dir: false };
    assert_eq!(session.get(remove), Reply::Done);
    assert_eq!(session.fail(Request::Lookup { parent: dir, name }), Errno::ENOENT);
}
