//! What a test lets another process do: the test program starts itself again.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::FlockOperation;
use rustix::process::{Resource, Rlimit};

use crate::harness::{Run, soon};

/// Variable that tells the child what to do: `verb` and path, a line feed between them.
const TASK: &str = "FLEXFS_CHILD";

/// A process that does one thing to a file and then holds still. Killed when dropped.
pub(crate) struct Child {
    running: crate::harness::Running,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Child {
    /// Verbs: `flock-ex`, `flock-sh`, `posix-wait FIRST LENGTH`, `posix-try FIRST LENGTH`, `hold-open`, `stat`, `create`,
    /// `remove`, `read`; `flock-crowd COUNT`, `count TIMES KIND`; `posix-chain FIRST SECOND`, `ofd-chain FIRST SECOND`, `hold-many FIRST COUNT`, `write-exit`, `write-exec`, `write-fsync` and `threads` go on when they are told to.
    pub(crate) fn start(verb: &str, path: &Path) -> Self {
        let mut running = Run::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::entry", "--ignored", "--nocapture", "--test-threads=1"])
            .env(TASK, format!("{verb}\n{}", path.display()))
            .spawn_piped();
        let out = BufReader::new(running.child.stdout.take().unwrap());
        let (send, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some(word) = line.split("child: ").nth(1) {
                    // The test may have ended: then nobody listens.
                    let _ = send.send(word.to_owned());
                }
            }
        });
        let child = Self { running, lines };
        assert_eq!(child.says(Duration::from_secs(20)).as_deref(), Some("begin"));
        child
    }

    /// Its next word within `limit`.
    pub(crate) fn says(&self, limit: Duration) -> Option<String> {
        self.lines.recv_timeout(limit).ok()
    }

    /// Tells it to go on.
    pub(crate) fn tell(&mut self) {
        writeln!(self.running.child.stdin.as_mut().unwrap(), "go").unwrap();
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// Whether it ends within `limit`.
    pub(crate) fn ends(&mut self, limit: Duration) -> bool {
        self.running.end(limit).is_some()
    }

    /// Kills it; how long it took to end.
    pub(crate) fn kill_timed(mut self) -> Duration {
        self.running.signal(rustix::process::Signal::KILL);
        let start = crate::harness::now();
        assert!(self.running.end(Duration::from_secs(20)).is_some(), "a child survives kill -9");
        start.elapsed()
    }

    /// Interrupts it, as a person at a terminal would; whether that ended it within `limit`.
    pub(crate) fn interrupt(&mut self, limit: Duration) -> bool {
        self.running.signal(rustix::process::Signal::INT);
        self.running.end(limit).is_some()
    }

    /// Ends it.
    pub(crate) fn kill(mut self) {
        self.running.signal(rustix::process::Signal::KILL);
        assert!(self.running.end(Duration::from_secs(10)).is_some(), "a child survives kill -9");
    }

    /// Whether the process sleeps in a system call (state `S` or `D`) from now on for a while.
    pub(crate) fn is_waiting(&self) -> bool {
        self.says(Duration::from_millis(700)).is_none()
    }
}

/// The child's side.
#[test]
#[ignore = "helper process of other tests, started by them"]
fn entry() {
    let Ok(task) = std::env::var(TASK) else { return };
    let (verb, path) = task.split_once('\n').unwrap();
    let words: Vec<&str> = verb.split(' ').collect();
    say("begin");
    let number = |index: usize| words[index].parse::<i64>().unwrap();
    let file = |write: bool| OpenOptions::new().read(true).write(write).open(path).unwrap();
    match words[0] {
        "flock-ex" => hold(file(true), |file| rustix::fs::flock(file, FlockOperation::LockExclusive).is_ok()),
        "flock-sh" => hold(file(false), |file| rustix::fs::flock(file, FlockOperation::LockShared).is_ok()),
        "posix-wait" => {
            let lock = posix(libc::F_WRLCK, number(1), number(2));
            hold(file(true), |file| fcntl(file, FcntlArg::F_SETLKW(&lock)).is_ok());
        }
        "posix-try" => {
            let lock = posix(libc::F_WRLCK, number(1), number(2));
            hold(file(true), |file| fcntl(file, FcntlArg::F_SETLK(&lock)).is_ok());
        }
        "flock-crowd" => crowd(Path::new(path), words[1].parse().unwrap()),
        "count" => count(Path::new(path), words[1].parse().unwrap(), words[2] == "flock"),
        "posix-chain" => chain(&file(true), number(1), number(2), |lock| FcntlArg::F_SETLKW(lock)),
        "ofd-chain" => chain(&file(true), number(1), number(2), |lock| FcntlArg::F_OFD_SETLKW(lock)),
        "hold-open" => hold(file(true), |_| true),
        "hold-many" => hold_many(Path::new(path), words[1].parse().unwrap(), words[2].parse().unwrap()),
        "create" => say(if File::create_new(path).is_ok() { "done" } else { "failed" }),
        "remove" => say(if std::fs::remove_file(path).is_ok() { "done" } else { "failed" }),
        "read" => say(if std::fs::read(path).is_ok() { "done" } else { "failed" }),
        "write-exit" => {
            std::mem::forget(written(path));
            std::process::exit(0);
        }
        "write-exec" => {
            std::mem::forget(written(path));
            let error = std::os::unix::process::CommandExt::exec(&mut std::process::Command::new("true"));
            panic!("{error}");
        }
        "write-fsync" => say(if written(path).sync_all().is_ok() { "done" } else { "failed" }),
        "threads" => {
            let file = written(path);
            std::thread::spawn(move || file.sync_all());
            let path = std::path::PathBuf::from(path);
            std::thread::spawn(move || std::fs::metadata(path.with_extension("absent")));
            std::thread::sleep(Duration::from_secs(60));
        }
        "stat" => say(if std::fs::metadata(path).is_ok() { "done" } else { "failed" }),
        other => panic!("unknown verb {other}"),
    }
}

/// A POSIX lock on a range; length 0 reaches to the end of any file.
pub(crate) fn posix(kind: i32, start: i64, length: i64) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap(),
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// Takes one byte; told to go on, it waits for another one. Says `done`, `deadlock` or `failed`.
fn chain(file: &File, first: i64, second: i64, wait: fn(&libc::flock) -> FcntlArg<'_>) {
    let take = |byte| match fcntl(file, wait(&posix(libc::F_WRLCK, byte, 1))) {
        Ok(_) => "done",
        Err(nix::errno::Errno::EDEADLK) => "deadlock",
        Err(_) => "failed",
    };
    say(take(first));
    std::io::stdin().read_line(&mut String::new()).unwrap();
    say(take(second));
    let _ = soon(Duration::from_secs(60), || false);
}

/// Waits for a shared flock in as many threads, each through a description of its own.
fn crowd(path: &Path, threads: usize) {
    let waiter = |_| {
        let file = File::open(path).unwrap();
        std::thread::spawn(move || rustix::fs::flock(&file, FlockOperation::LockShared).map(|()| file))
    };
    let waiters: Vec<_> = (0..threads).map(waiter).collect();
    let files: Vec<_> = waiters.into_iter().map(|thread| thread.join().unwrap()).collect();
    say(if files.iter().all(Result::is_ok) { "done" } else { "failed" });
}

/// Adds 1 to the number in a file, under a lock of another file, again and again. The file is opened and closed inside the
/// lock, which is what makes other clients' changes seen; its length changes with the number.
fn count(path: &Path, times: u64, by_flock: bool) {
    let lock = OpenOptions::new().read(true).write(true).open(path.with_extension("lock")).unwrap();
    for _ in 0..times {
        if by_flock {
            rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        } else {
            fcntl(&lock, FcntlArg::F_SETLKW(&posix(libc::F_WRLCK, 0, 0))).unwrap();
        }
        let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut file, &mut text).unwrap();
        let number: u64 = text.parse().unwrap_or_else(|error| panic!("{error}: {text:?}"));
        file.write_all_at((number + 1).to_string().as_bytes(), 0).unwrap();
        drop(file);
        if by_flock {
            rustix::fs::flock(&lock, FlockOperation::Unlock).unwrap();
        } else {
            fcntl(&lock, FcntlArg::F_SETLK(&posix(libc::F_UNLCK, 0, 0))).unwrap();
        }
    }
    say("done");
}

/// A file with unsent bytes; comes back when the child is told to go on.
fn written(path: &str) -> File {
    let mut file = File::create(path).unwrap();
    file.write_all(&[7; 100_000]).unwrap();
    say("done");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    file
}

/// Makes numbered files in a folder and has all of them open at once; told to go on, it reads each through its handle.
fn hold_many(folder: &Path, first: u64, count: u64) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let open = |index: u64| {
        let path = folder.join(format!("file-{index}"));
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(path).unwrap();
        file.write_all_at(&index.to_le_bytes(), 0).unwrap();
        file
    };
    let files: Vec<File> = (first..first + count).map(open).collect();
    say("done");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    for (index, file) in (first..).zip(&files) {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), index);
    }
    say("done");
}

fn hold(file: File, take: impl Fn(&File) -> bool) {
    say(if take(&file) { "done" } else { "failed" });
    // Ended by the test; a minute is for a test that died.
    let _ = soon(Duration::from_secs(60), || false);
    drop(file);
}

fn say(word: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "child: {word}").unwrap();
    out.flush().unwrap();
}
