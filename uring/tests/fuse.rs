//! FUSE over io_uring against the real kernel: mounts, needs root and Linux 6.14 or newer.
//!
//! The file system is a root directory with one file, `data`, that reads as a pattern and takes any write. Accesses
//! come from other processes: a shard thread that touched its own mount would wait for itself.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking; its patterns are cut to bytes"
)]

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use flexfs_uring::file::{EventFd, File};
use flexfs_uring::fuse::{Entry, EntryEnd, Fetched, Queue, QueueConfig, RegisterError};
use flexfs_uring::timer::timeout;
use flexfs_uring::{Shard, ShardConfig, cpu, spawn};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, UnmountFlags};

const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";
const LIMIT: Duration = Duration::from_secs(60);
const PAYLOAD: usize = 1 << 20;
const FILE_BYTES: u64 = 8 << 20;

fn pattern(position: u64) -> u8 {
    (position.wrapping_mul(2_654_435_761) >> 13) as u8
}

fn number<const N: usize>(bytes: &[u8], offset: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes[offset..offset + N]);
    u64::from_le_bytes(wide)
}

/// A mounted, initialized connection and the watchdog that ends a test that hangs.
struct Mounted {
    folder: tempfile::TempDir,
    fd: Arc<OwnedFd>,
    done: mpsc::Sender<()>,
    watchdog: Option<JoinHandle<()>>,
}

impl Mounted {
    fn new() -> Self {
        let switched = fs::write(SWITCH, "Y");
        assert!(
            switched.is_ok() && fs::read_to_string(SWITCH).unwrap().trim() == "Y",
            "FUSE over io_uring is off ({switched:?}); as root, on Linux 6.14 or newer: modprobe fuse; echo Y > {SWITCH}"
        );
        let folder = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, 0.into())
            .unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", fd.as_raw_fd());
        let options = CString::new(options).unwrap();
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        rustix::mount::mount("flexfs-test", folder.path(), "fuse", flags, options.as_c_str()).unwrap();
        let (done, rest) = mpsc::channel();
        let path = folder.path().to_owned();
        let watchdog = std::thread::spawn(move || {
            if rest.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("the test hangs; the mount is detached and the process ended");
                let _ = rustix::mount::unmount(&path, UnmountFlags::DETACH);
                std::process::exit(101);
            }
        });
        Self { folder, fd: Arc::new(fd), done, watchdog: Some(watchdog) }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    fn unmount(&self) {
        rustix::mount::unmount(self.path(), UnmountFlags::empty()).unwrap();
    }

    fn end(mut self) {
        let _ = self.done.send(());
        self.watchdog.take().unwrap().join().unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.folder.path(), UnmountFlags::DETACH);
    }
}

/// Answers INIT on /dev/fuse and agrees on the ring.
async fn initialize(device: &File) {
    let (read, request) = device.read(Vec::with_capacity(PAYLOAD + 4096)).await;
    assert!(read.unwrap() >= 40 + 64);
    assert_eq!(number::<4>(&request, 4), 26, "the first request is INIT");
    let flags = number::<4>(&request, 40 + 12) | number::<4>(&request, 40 + 16) << 32;
    assert_ne!(flags & 1 << 41, 0, "the kernel does not offer FUSE_OVER_IO_URING");
    // INIT_EXT, MAX_PAGES, BIG_WRITES; OVER_IO_URING.
    let (low, high) = (1_u32 << 30 | 1 << 22 | 1 << 5, 1_u32 << 9);
    let mut answer = Vec::new();
    answer.extend(80_u32.to_le_bytes());
    answer.extend(0_u32.to_le_bytes());
    answer.extend(&request[8..16]);
    answer.extend([7_u32, 45, 1 << 17, low].iter().flat_map(|word| word.to_le_bytes()));
    answer.extend([64_u16, 48].iter().flat_map(|word| word.to_le_bytes()));
    answer.extend([PAYLOAD as u32, 1].iter().flat_map(|word| word.to_le_bytes()));
    answer.extend([256_u16, 0].iter().flat_map(|word| word.to_le_bytes()));
    answer.extend(high.to_le_bytes());
    answer.resize(80, 0);
    assert_eq!(device.write(answer).await.0.unwrap(), 80);
}

fn attributes(node: u64) -> Vec<u8> {
    let (mode, size) = if node == 1 { (0o040_755_u32, 0) } else { (0o100_644, FILE_BYTES) };
    let mut bytes = Vec::new();
    bytes.extend([node, size, size / 512, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend([0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].iter().flat_map(|word: &u32| word.to_le_bytes()));
    assert_eq!(bytes.len(), 88);
    bytes
}

/// Answers one request. `drop_reads`: reads are dropped without an answer.
fn answer(mut request: Fetched<'_>, drop_reads: bool) {
    let head = *request.header().in_out();
    let args = *request.header().op_in();
    let (opcode, node) = (number::<4>(&head, 4), number::<8>(&head, 16));
    let reply = |request: Fetched<'_>, bytes: &[u8]| {
        let mut request = request;
        request.payload_mut()[..bytes.len()].copy_from_slice(bytes);
        request.reply(0, bytes.len());
    };
    match opcode {
        1 if request.payload() == b"data\0" => {
            let mut entry = [0; 40];
            entry[0] = 2;
            reply(request, &[&entry[..], &attributes(2)].concat());
        }
        1 => request.reply(-2, 0),
        3 | 4 => reply(request, &[&[0; 16][..], &attributes(node)].concat()),
        14 => reply(request, &[[0; 8], [1, 0, 0, 0, 0, 0, 0, 0]].concat()),
        15 if drop_reads => drop(request),
        15 => {
            let (offset, size) = (number::<8>(&args, 8), number::<4>(&args, 16));
            let end = (offset + size).min(FILE_BYTES).max(offset);
            for (byte, position) in request.payload_mut().iter_mut().zip(offset..end) {
                *byte = pattern(position);
            }
            request.reply(0, (end - offset) as usize);
        }
        16 => {
            let (offset, size) = (number::<8>(&args, 8), number::<4>(&args, 16));
            assert_eq!(request.payload_len() as u64, size);
            assert!(
                request.payload().iter().zip(offset..).all(|(byte, position)| *byte == pattern(position))
            );
            reply(request, &size.to_le_bytes());
        }
        17 => {
            let mut statfs = [0; 80];
            statfs[..8].copy_from_slice(&777_u64.to_le_bytes());
            statfs[40..52].copy_from_slice(&[4096_u32, 255, 4096].map(u32::to_le_bytes).concat());
            reply(request, &statfs);
        }
        18 | 25 | 27 | 29 => reply(request, if opcode == 27 { &[0; 16] } else { &[] }),
        28 => request.reply(0, 0),
        _ => request.reply(-38, 0),
    }
}

/// Serves an entry until its end.
async fn serve(mut entry: Entry, drop_reads: bool) -> EntryEnd {
    let end = loop {
        match entry.next().await {
            Ok(request) => answer(request, drop_reads),
            Err(end) => break end,
        }
    };
    assert!(entry.next().await.is_err(), "an ended entry stays so");
    end
}

fn config(qid: u16, payload_bytes: usize) -> QueueConfig {
    QueueConfig { qid, depth: 4, payload_bytes }
}

/// Starts `shards_max` shards that serve all queues; `ready` is passed when every queue is registered. Each thread
/// ends when its entries do and says how many ended with `Unmounted`.
fn start(mounted: &Mounted, shards_max: usize, drop_reads: bool) -> Vec<JoinHandle<usize>> {
    let shares = cpu::shares(&cpu::possible().unwrap(), &cpu::allowed().unwrap(), shards_max);
    let ready = Arc::new(Barrier::new(shares.len() + 1));
    let initialized = Arc::new(Barrier::new(shares.len()));
    let threads = shares
        .into_iter()
        .enumerate()
        .map(|(index, share)| {
            let (fd, ready, initialized) =
                (Arc::clone(&mounted.fd), Arc::clone(&ready), Arc::clone(&initialized));
            std::thread::spawn(move || {
                let config_of_shard =
                    ShardConfig { cpu: Some(share.cpu), recv_buffers: 0, ..ShardConfig::default() };
                // All rings before INIT is answered.
                let shard = Shard::new(&config_of_shard).unwrap();
                shard.block_on(async move {
                    let device = File::from(Arc::clone(&fd));
                    if index == 0 {
                        initialize(&device).await;
                        // FORGET and INTERRUPT come here for ever.
                        let _reader = spawn(async move {
                            let mut buffer = Vec::with_capacity(PAYLOAD + 4096);
                            while let (Ok(_), mut back) = device.read(std::mem::take(&mut buffer)).await {
                                back.clear();
                                buffer = back;
                            }
                        });
                    }
                    initialized.wait();
                    let mut tasks = Vec::new();
                    for qid in share.qids {
                        let entries = Queue::register(&fd, &config(qid, PAYLOAD)).unwrap();
                        assert!(entries.iter().all(|entry| entry.qid() == qid));
                        tasks.extend(entries.into_iter().map(|entry| spawn(serve(entry, drop_reads))));
                    }
                    ready.wait();
                    let mut unmounted = 0;
                    for task in tasks {
                        unmounted += usize::from(matches!(task.await, EntryEnd::Unmounted));
                    }
                    unmounted
                })
            })
        })
        .collect();
    ready.wait();
    threads
}

/// Runs a command as another process; its output, or what went wrong.
fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn path_text(mounted: &Mounted) -> &str {
    mounted.path().to_str().unwrap()
}

fn ends(threads: Vec<JoinHandle<usize>>) -> usize {
    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
}

fn entries_expected() -> usize {
    cpu::possible().unwrap().len() * usize::from(config(0, 0).depth)
}

#[test]
fn a_mount_answers_on_every_cpu_and_ends_with_umount() {
    let mounted = Mounted::new();
    let threads = start(&mounted, usize::MAX, false);
    let path = mounted.path().to_str().unwrap();
    for allowed in cpu::allowed().unwrap() {
        let cpu = allowed.to_string();
        assert_eq!(
            run("taskset", &["-c", &cpu, "stat", "-c", "%F %a", path]).unwrap().trim(),
            "directory 755"
        );
        assert_eq!(run("taskset", &["-c", &cpu, "stat", "-f", "-c", "%b", path]).unwrap().trim(), "777");
    }
    assert_eq!(run("ls", &[path]).unwrap(), "");
    assert!(run("stat", &[&format!("{path}/absent")]).unwrap_err().contains("No such file"));
    mounted.unmount();
    assert_eq!(ends(threads), entries_expected());
    mounted.end();
}

#[test]
fn one_thread_serves_all_queues_and_data_comes_through() {
    let mounted = Mounted::new();
    let threads = start(&mounted, 1, false);
    let copy = tempfile::NamedTempFile::new().unwrap();
    let (data, copied) = (mounted.data(), copy.path().to_str().unwrap().to_owned());
    let data = data.to_str().unwrap();
    run("dd", &[&format!("if={data}"), &format!("of={copied}"), "bs=1M"]).unwrap();
    let bytes = fs::read(&copied).unwrap();
    assert_eq!(bytes.len() as u64, FILE_BYTES);
    assert!(bytes.iter().zip(0..).all(|(byte, position)| *byte == pattern(position)));
    // Back again; the server checks what it is given.
    run("dd", &[&format!("if={copied}"), &format!("of={data}"), "bs=1M", "conv=notrunc"]).unwrap();
    // Several readers at once, in small pieces that are no multiple of a page.
    let readers: Vec<_> = (0..4)
        .map(|_| {
            Command::new("dd")
                .args([&format!("if={data}"), "of=/dev/null", "bs=10007"])
                .stderr(Stdio::null())
                .spawn()
        })
        .collect();
    assert!(readers.into_iter().all(|reader| reader.unwrap().wait().unwrap().success()));
    mounted.unmount();
    assert_eq!(ends(threads), entries_expected());
    mounted.end();
}

#[test]
fn a_request_dropped_without_an_answer_gets_eio() {
    let mounted = Mounted::new();
    let threads = start(&mounted, usize::MAX, true);
    for _ in 0..10 {
        assert!(run("cat", &[mounted.data().to_str().unwrap()]).unwrap_err().contains("Input/output error"));
    }
    mounted.unmount();
    assert_eq!(ends(threads), entries_expected());
    mounted.end();
}

#[test]
fn a_refused_registration_is_seen_at_once() {
    let mounted = Mounted::new();
    let shard = Shard::new(&ShardConfig { recv_buffers: 0, ..ShardConfig::default() }).unwrap();
    shard.block_on(async {
        initialize(&File::from(Arc::clone(&mounted.fd))).await;
        // The negotiated payload is 1 MiB.
        let refused = Queue::register(&mounted.fd, &config(0, 8192)).unwrap_err();
        assert!(matches!(refused, RegisterError::Refused { qid: 0, .. }), "{refused:?}");
        assert!(refused.to_string().contains("max_write"), "{refused}");
    });
    let _ = rustix::mount::unmount(mounted.path(), UnmountFlags::DETACH);
    mounted.end();
}

/// The shard leaves while the file system is mounted and a request is held: no hang, nothing freed in use. The
/// client gets an error when the device is closed.
#[test]
fn a_shard_may_leave_a_live_mount() {
    let mut mounted = Mounted::new();
    let (fd, path) = (Arc::clone(&mounted.fd), mounted.path().to_owned());
    let held = EventFd::new().unwrap();
    let seen = held.clone();
    let thread = std::thread::spawn(move || {
        let shard = Shard::new(&ShardConfig { recv_buffers: 0, ..ShardConfig::default() }).unwrap();
        shard.block_on(async move {
            initialize(&File::from(Arc::clone(&fd))).await;
            for qid in 0..cpu::possible().unwrap().len() {
                for mut entry in Queue::register(&fd, &config(qid as u16, PAYLOAD)).unwrap() {
                    let seen = seen.clone();
                    let _task = spawn(async move {
                        let _request = entry.next().await.unwrap();
                        seen.notify().unwrap();
                        std::future::pending::<()>().await;
                    });
                }
            }
            timeout(LIMIT, held.wait()).await.unwrap().unwrap();
        });
    });
    let client = Command::new("stat").arg(&path).stderr(Stdio::piped()).spawn().unwrap();
    thread.join().unwrap();
    // The last reference of the device: the connection is aborted.
    mounted.fd = Arc::new(fs::File::open("/dev/null").unwrap().into());
    assert!(!client.wait_with_output().unwrap().status.success());
    // Until the connection has ended (the ring is taken down in the background) any error is right, then ENOTCONN.
    while !run("stat", &[path_text(&mounted)]).unwrap_err().contains("not connected") {}
    rustix::mount::unmount(mounted.path(), UnmountFlags::DETACH).unwrap();
    mounted.end();
}

/// The kernel cannot be told that an entry is gone; whoever asks must get an error, not wait for ever.
#[test]
fn entries_nobody_serves_answer_with_eio() {
    let mounted = Mounted::new();
    let (fd, path) = (Arc::clone(&mounted.fd), mounted.path().to_owned());
    let stop = EventFd::new().unwrap();
    let stopped = stop.clone();
    let (ready, registered) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let shard = Shard::new(&ShardConfig { recv_buffers: 0, ..ShardConfig::default() }).unwrap();
        shard.block_on(async move {
            initialize(&File::from(Arc::clone(&fd))).await;
            for qid in 0..cpu::possible().unwrap().len() {
                drop(Queue::register(&fd, &config(qid as u16, PAYLOAD)).unwrap());
            }
            ready.send(()).unwrap();
            timeout(LIMIT, stopped.wait()).await.unwrap().unwrap();
        });
    });
    registered.recv().unwrap();
    for _ in 0..20 {
        assert!(run("stat", &[path.to_str().unwrap()]).unwrap_err().contains("Input/output error"));
    }
    rustix::mount::unmount(&path, UnmountFlags::empty()).unwrap();
    stop.notify().unwrap();
    thread.join().unwrap();
    mounted.end();
}
