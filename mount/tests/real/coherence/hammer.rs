//! Threads on both mounts at once, in one directory or one file, and what holds in any order they run in.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{scope, sleep};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;

use super::act::{open, range_lock};
use super::random::Random;
use crate::harness::{now, soon};

/// How long each of them goes on.
const WHILE: Duration = Duration::from_secs(4);
/// How long at most, on a machine so busy that nothing comes to be judged.
const WHILE_MAX: Duration = Duration::from_secs(60);
/// Looks a finder must at least have judged.
const JUDGED_MIN: u32 = 2;

/// Ends the loops of a test.
struct Clock(std::time::Instant);

impl Clock {
    fn start() -> Self {
        Self(now())
    }
    fn goes_on(&self) -> bool {
        self.0.elapsed() < WHILE
    }
    fn is_late(&self) -> bool {
        self.0.elapsed() > WHILE_MAX
    }
}

/// A counter that one writes and others read: it was written up to `done`, whatever a reader finds is not less.
#[derive(Default)]
struct Counter {
    done: AtomicU64,
}

impl Counter {
    /// A reader's look: `read` gives what is there.
    fn look(&self, last: &mut u64, who: &str, read: impl FnOnce() -> u64) {
        let done = self.done.load(Ordering::SeqCst);
        let found = read();
        assert!(found >= done, "{who} finds {found}, but {done} had been written before it asked");
        assert!(found >= *last, "{who} finds {found} after it had found {last}");
        *last = found;
    }

    /// The same on the writer's own mount: a write that is on its way is in the page cache already, and not there any more
    /// when the kernel had to drop the page meanwhile. What was completed stays.
    fn look_near(&self, who: &str, read: impl FnOnce() -> u64) {
        self.look(&mut 0, &format!("{who}, of its own mount"), read);
    }
}

/// Each mount writes a counter into one file, in one page; both counters are read on both mounts.
pub(super) fn counters(first: &Path, second: &Path) {
    fs::write(first.join("counters"), [0; 100]).unwrap();
    let counters = [Counter::default(), Counter::default()];
    let clock = Clock::start();
    let number = |file: &File, slot: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, slot * 8).unwrap();
        u64::from_le_bytes(bytes)
    };
    scope(|scope| {
        for (slot, mount) in [first, second].into_iter().enumerate() {
            let (clock, counter, slot) = (&clock, &counters[slot], slot as u64);
            scope.spawn(move || {
                let file = OpenOptions::new().write(true).open(mount.join("counters")).unwrap();
                for count in 1.. {
                    file.write_all_at(&u64::to_le_bytes(count), slot * 8).unwrap();
                    counter.done.store(count, Ordering::SeqCst);
                    if !clock.goes_on() {
                        return;
                    }
                    sleep(Duration::from_micros(100));
                }
            });
        }
        for mount in [first, second] {
            for fresh in [false, true] {
                let (clock, counters, number) = (&clock, &counters, &number);
                scope.spawn(move || {
                    let path = mount.join("counters");
                    let file = File::open(&path).unwrap();
                    let who = format!("{} (opened anew: {fresh})", path.display());
                    let mut last = [0; 2];
                    while clock.goes_on() {
                        for (slot, counter) in counters.iter().enumerate() {
                            let read = || match fresh {
                                true => number(&File::open(&path).unwrap(), slot as u64),
                                false => number(&file, slot as u64),
                            };
                            match mount == [first, second][slot] {
                                true => counter.look_near(&who, read),
                                false => counter.look(&mut last[slot], &who, read),
                            }
                        }
                    }
                });
            }
        }
    });
    for mount in [first, second] {
        let file = File::open(mount.join("counters")).unwrap();
        for (slot, counter) in counters.iter().enumerate() {
            assert_eq!(number(&file, slot as u64), counter.done.load(Ordering::SeqCst), "lost in the end");
        }
    }
}

/// On each mount a file goes back and forth between two names; the other one always finds it under just one.
pub(super) fn turns(first: &Path, second: &Path) {
    let clock = Clock::start();
    // Busy machines: they go on until each has judged something.
    let finders = AtomicU64::new(6);
    scope(|scope| {
        for (mover, finder, names) in [(first, second, ["p", "q"]), (second, first, ["r", "s"])] {
            fs::write(mover.join(names[0]), "here").unwrap();
            // Odd while a rename is on its way; half of it is how many were done.
            let turn: &'static AtomicU64 = Box::leak(Box::default());
            let (clock, finders) = (&clock, &finders);
            scope.spawn(move || {
                let mut random = Random::new(1);
                while finders.load(Ordering::SeqCst) > 0 && !clock.is_late() {
                    let at = usize::try_from(turn.load(Ordering::SeqCst) / 2 % 2).unwrap();
                    turn.fetch_add(1, Ordering::SeqCst);
                    fs::rename(mover.join(names[at]), mover.join(names[1 - at])).unwrap();
                    turn.fetch_add(1, Ordering::SeqCst);
                    // Where both mounts rename at once all the time, all names are asked for anew with each (`vfs/recall.rs`), and on a busy
                    // machine no look fits between two: later there is more time for it.
                    let most = if clock.goes_on() { 2_000 } else { 100_000 };
                    sleep(Duration::from_micros(random.next() % most));
                }
            });
            for way in 0..3 {
                scope.spawn(move || {
                    let mut random = Random::new(way);
                    let (mut judged, mut asked) = (0u32, 0u32);
                    while clock.goes_on() || judged <= JUDGED_MIN && !clock.is_late() {
                        let index = random.below(2);
                        let path = finder.join(names[index]);
                        let before = turn.load(Ordering::SeqCst);
                        let found = match way {
                            0 => open(&path, OFlags::RDONLY).is_ok(),
                            1 => rustix::fs::lstat(&path).is_ok(),
                            _ => fs::read_dir(finder)
                                .unwrap()
                                .any(|entry| entry.unwrap().file_name() == names[index]),
                        };
                        asked += 1;
                        if before != turn.load(Ordering::SeqCst) || before % 2 == 1 {
                            continue;
                        }
                        judged += 1;
                        let wanted = usize::try_from(before / 2 % 2).unwrap() == index;
                        let shown = path.display();
                        assert_eq!(found, wanted, "after {} renames: {shown} found (way {way})", before / 2);
                    }
                    finders.fetch_sub(1, Ordering::SeqCst);
                    assert!(judged > JUDGED_MIN, "only {judged} of {asked} looks fell between two renames");
                });
            }
        }
    });
}

/// Records appended on both mounts: none lost, none torn, each writer's in order.
pub(super) fn appends(first: &Path, second: &Path) {
    const RECORDS: usize = 400;
    let record = |writer: usize, number: usize| {
        let rest = "x".repeat((writer * 7 + number * 13) % 300);
        format!("{writer} {number} {rest}\n")
    };
    scope(|scope| {
        for writer in 0..4 {
            let path = [first, second][writer % 2].join("log");
            scope.spawn(move || {
                let open = || OpenOptions::new().create(true).append(true).open(&path).unwrap();
                let mut file = open();
                for number in 0..RECORDS {
                    file.write_all(record(writer, number).as_bytes()).unwrap();
                    // One of the two on each mount opens the file anew now and then.
                    if writer > 1 && number % 20 == 0 {
                        file = open();
                    }
                }
            });
        }
    });
    for mount in [first, second] {
        let text = fs::read_to_string(mount.join("log")).unwrap();
        let mut next = [0; 4];
        for line in text.split_inclusive('\n') {
            let writer: usize = line.split(' ').next().unwrap().parse().unwrap_or(9);
            assert!(writer < 4, "torn record {line:?}");
            assert_eq!(line, record(writer, next[writer]), "lost, torn or out of order");
            next[writer] += 1;
        }
        assert_eq!(next, [RECORDS; 4], "lost records");
    }
}

/// Two threads on each mount want one name: one of the four gets it, and both mounts show the same.
pub(super) fn exclusive(first: &Path, second: &Path) {
    let own = |thread: usize, round: usize| format!("own-{thread}-{round}");
    for round in 0..160 {
        let barrier = Barrier::new(4);
        let won: Vec<bool> = scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let (barrier, mount) = (&barrier, [first, second][thread % 2]);
                    scope.spawn(move || {
                        let (path, own) = (mount.join("wanted"), mount.join(own(thread, round)));
                        fs::write(&own, thread.to_string()).unwrap();
                        barrier.wait();
                        let said = match round % 4 {
                            0 => open(&path, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR).map(|_| ()),
                            1 => rustix::fs::mkdir(&path, rustix::fs::Mode::RWXU),
                            2 => rustix::fs::link(&own, &path),
                            _ => rustix::fs::renameat_with(CWD, &own, CWD, &path, RenameFlags::NOREPLACE),
                        };
                        assert!(matches!(said, Ok(()) | Err(Errno::EXIST)), "{said:?}");
                        said.is_ok()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "round {round}: winners {won:?}");
        let winner = won.iter().position(|won| *won).unwrap();
        let inodes = [first, second].map(|mount| rustix::fs::lstat(mount.join("wanted")).unwrap().st_ino);
        assert_eq!(inodes[0], inodes[1], "round {round}");
        let other = [second, first][winner % 2];
        match round % 4 {
            1 => fs::remove_dir(other.join("wanted")).unwrap(),
            0 => fs::remove_file(other.join("wanted")).unwrap(),
            _ => {
                assert_eq!(fs::read_to_string(other.join("wanted")).unwrap(), winner.to_string());
                fs::remove_file(other.join("wanted")).unwrap();
            }
        }
        for thread in (0..4).filter(|thread| round % 4 != 3 || *thread != winner) {
            fs::remove_file([second, first][thread % 2].join(own(thread, round))).unwrap();
        }
    }
}

/// A file replaced by rename on one mount: readers on both find whole versions, never an older one than before.
pub(super) fn versions(first: &Path, second: &Path) {
    let content = |version: u64| {
        let length = usize::try_from(version * 37 % 2500).unwrap() + 1;
        version.to_le_bytes().repeat(length)
    };
    fs::write(first.join("current"), content(0)).unwrap();
    let (clock, counter) = (Clock::start(), Counter::default());
    let (reads, gone) = (AtomicU64::new(0), AtomicU64::new(0));
    // A file that is replaced while it is opened was there all the time, or its successor is.
    let whole = |path: &Path| loop {
        reads.fetch_add(1, Ordering::Relaxed);
        match fs::read(path).map_err(super::act::errno) {
            Ok(bytes) => return bytes,
            Err(Errno::STALE) => gone.fetch_add(1, Ordering::Relaxed),
            Err(error) => panic!("{}: {error}", path.display()),
        };
    };
    scope(|scope| {
        scope.spawn(|| {
            for version in 1.. {
                fs::write(first.join("next"), content(version)).unwrap();
                fs::rename(first.join("next"), first.join("current")).unwrap();
                counter.done.store(version, Ordering::SeqCst);
                if !clock.goes_on() {
                    return;
                }
            }
        });
        for mount in [first, second, second] {
            let (clock, counter, whole) = (&clock, &counter, &whole);
            scope.spawn(move || {
                let path = mount.join("current");
                let (mut last, who) = (0, path.display().to_string());
                while clock.goes_on() {
                    counter.look(&mut last, &who, || {
                        let found = whole(&path);
                        let version = u64::from_le_bytes(*found.first_chunk().unwrap());
                        assert!(found == content(version), "{who}: version {version} is not whole");
                        version
                    });
                }
            });
        }
    });
    let (reads, gone) = (reads.into_inner(), gone.into_inner());
    // The kernel looks a name up and opens what it found; when that was replaced in between, it tries once more, and is then
    // at its end. The server keeps what was replaced for a while (SEMANTICS.md).
    assert_eq!(gone, 0, "of {reads} opens and reads {gone} failed with ESTALE");
}

/// A counter that is read and written under a lock, by two threads on each mount: no step is lost.
pub(super) fn locked(first: &Path, second: &Path) {
    const EACH: u64 = 100;
    fs::write(first.join("counter"), 0u64.to_le_bytes()).unwrap();
    scope(|scope| {
        for thread in 0..4 {
            let path = [first, second][thread % 2].join("counter");
            scope.spawn(move || {
                let file = open(&path, OFlags::RDWR).unwrap();
                let set = |kind| fcntl(&file, FcntlArg::F_OFD_SETLKW(&range_lock(kind, (0, 8)))).unwrap();
                for _ in 0..EACH {
                    set(libc::F_WRLCK);
                    let mut bytes = [0; 8];
                    file.read_exact_at(&mut bytes, 0).unwrap();
                    file.write_all_at(&(u64::from_le_bytes(bytes) + 1).to_le_bytes(), 0).unwrap();
                    set(libc::F_UNLCK);
                }
            });
        }
    });
    for mount in [first, second] {
        let bytes = fs::read(mount.join("counter")).unwrap();
        assert_eq!(u64::from_le_bytes(bytes.try_into().unwrap()), 4 * EACH, "steps under the lock are lost");
    }
}

/// Pairs of threads in one directory: one makes a name on its mount and tells the other, who must see it on the other
/// mount, takes it away and tells back.
pub(super) fn relay(first: &Path, second: &Path) {
    const ROUNDS: usize = 250;
    let done = AtomicBool::new(false);
    scope(|scope| {
        let pairs: Vec<_> = (0..4)
            .map(|pair| {
                let (maker, remover) = if pair % 2 == 0 { (first, second) } else { (second, first) };
                let ((tell, told), (tell_back, told_back)) = (channel(), channel());
                let making = scope.spawn(move || make(maker, pair, ROUNDS, &tell, &told_back));
                scope.spawn(move || {
                    for round in told {
                        see_and_remove(remover, pair, round);
                        tell_back.send(()).unwrap();
                    }
                });
                making
            })
            .collect();
        for mount in [first, second] {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    assert!(fs::read_dir(mount).unwrap().all(|entry| entry.is_ok()));
                }
            });
        }
        // Set also when a pair failed, so that the listers end.
        let _ = soon(Duration::from_secs(120), || pairs.iter().all(|pair| pair.is_finished()));
        done.store(true, Ordering::SeqCst);
    });
}

fn make(mount: &Path, pair: usize, rounds: usize, tell: &Sender<usize>, told_back: &Receiver<()>) {
    for round in 0..rounds {
        let path = mount.join(format!("relay-{pair}"));
        match round % 4 {
            0 => fs::write(&path, round.to_string()).unwrap(),
            1 => fs::create_dir(&path).unwrap(),
            2 => std::os::unix::fs::symlink(round.to_string(), &path).unwrap(),
            _ => {
                let new = mount.join(format!("new-{pair}"));
                fs::write(&new, round.to_string()).unwrap();
                fs::rename(new, &path).unwrap();
            }
        }
        tell.send(round).unwrap();
        told_back.recv().unwrap();
        let said = rustix::fs::lstat(&path).map(|_| ());
        assert_eq!(said, Err(Errno::NOENT), "{}: there after its removal", path.display());
    }
}

fn see_and_remove(mount: &Path, pair: usize, round: usize) {
    let path = mount.join(format!("relay-{pair}"));
    let shown = path.display();
    match round % 4 {
        1 => fs::remove_dir(&path).unwrap_or_else(|error| panic!("{shown}: {error}")),
        2 => {
            let target = fs::read_link(&path).unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert_eq!(target.to_str(), Some(round.to_string().as_str()), "{shown}");
            fs::remove_file(&path).unwrap();
        }
        _ => {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert_eq!(text, round.to_string(), "{shown}");
            fs::remove_file(&path).unwrap();
        }
    }
    let said = rustix::fs::lstat(&path).map(|_| ());
    assert_eq!(said, Err(Errno::NOENT), "{shown}: there after its removal by this mount");
}
