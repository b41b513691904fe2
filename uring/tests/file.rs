//! Files over the ring, against plain file I/O.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking; its patterns are cut to bytes"
)]

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use flexfs_uring::file::{self, File};
use flexfs_uring::timer::timeout;
use flexfs_uring::{Shard, ShardConfig, spawn};
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::OFlags;

fn shard() -> Shard {
    Shard::new(&ShardConfig { sq_entries: 8, recv_buffers: 0, ..ShardConfig::default() }).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Write { offset: u64, bytes: Vec<u8> },
    Read { offset: u64, count: usize },
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..20_000_u64, vec(any::<u8>(), 0..5_000)).prop_map(|(offset, bytes)| Step::Write { offset, bytes }),
        (0..25_000_u64, 1..6_000_usize).prop_map(|(offset, count)| Step::Read { offset, count }),
        Just(Step::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The same steps by the ring and by the standard library leave the same file and read the same bytes.
    #[test]
    fn the_ring_agrees_with_plain_file_io(steps in vec(step(), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let ours = folder.path().join("ring");
        let model = fs::File::options().read(true).write(true).create_new(true).open(folder.path().join("std")).unwrap();
        shard().block_on(async {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
            let file = File::open(&ours, flags, 0o600).await.unwrap();
            for step in &steps {
                match step {
                    Step::Write { offset, bytes } => {
                        let (done, back) = file.write_all_at(bytes.clone(), *offset).await;
                        done.unwrap();
                        assert_eq!(&back, bytes);
                        model.write_all_at(bytes, *offset).unwrap();
                    }
                    Step::Read { offset, count } => {
                        let mut want = vec![0; *count];
                        let mut filled = 0;
                        while filled < *count {
                            match model.read_at(&mut want[filled..], *offset + filled as u64).unwrap() {
                                0 => break,
                                read => filled += read,
                            }
                        }
                        want.truncate(filled);
                        let (done, got) = file.read_exact_at(vec![7], *count, *offset).await;
                        assert_eq!(done.is_ok(), filled == *count);
                        assert_eq!(got[0], 7, "reads append");
                        assert_eq!(got[1..], want);
                    }
                    Step::Sync => file.fdatasync().await.unwrap(),
                }
            }
            file.fsync().await.unwrap();
        });
        prop_assert_eq!(fs::read(ours).unwrap(), fs::read(folder.path().join("std")).unwrap());
    }
}

#[test]
fn many_operations_at_once_overflow_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    shard().block_on(async {
        let file = File::open(&path, OFlags::RDWR | OFlags::CREATE, 0o600).await.unwrap();
        // 400 operations in one turn on a ring of 8 submission and 32 completion entries.
        let tasks: Vec<_> = (0..400_u64)
            .map(|index| {
                let file = file.clone();
                spawn(async move { file.write_all_at(vec![index as u8; 16], index * 16).await.0 })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let bytes = fs::read(path).unwrap();
    assert_eq!(bytes.len(), 6400);
    assert!(bytes.chunks(16).enumerate().all(|(index, part)| part.iter().all(|byte| *byte == index as u8)));
}

#[test]
fn names_are_made_renamed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (sub, old, new) =
        (folder.path().join("sub"), folder.path().join("old"), folder.path().join("sub/new"));
    shard().block_on(async {
        file::mkdir(&sub, 0o700).await.unwrap();
        let file = File::open(&old, OFlags::WRONLY | OFlags::CREATE, 0o600).await.unwrap();
        file.write_at(b"x".to_vec(), 0).await.0.unwrap();
        file::rename(&old, &new).await.unwrap();
        assert_eq!(fs::read(&new).unwrap(), b"x");
        file::unlink(&new).await.unwrap();
        assert_eq!(file::unlink(&new).await.unwrap_err().kind(), std::io::ErrorKind::NotFound);
        let missing = File::open(&new, OFlags::RDONLY, 0).await.unwrap_err();
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
        let nul = std::path::Path::new("a\0b");
        assert_eq!(file::unlink(nul).await.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        assert!(
            file.read_at(Vec::new(), 0).await.0.is_err(),
            "no room to read into is not the end of the file"
        );
    });
}

#[test]
fn a_nonblocking_descriptor_is_waited_for() {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        rustix::io::write(&writer, b"late").unwrap();
    });
    shard().block_on(async {
        let (read, bytes) =
            timeout(Duration::from_secs(10), File::from(reader).read(Vec::with_capacity(16))).await.unwrap();
        assert_eq!((read.unwrap(), bytes.as_slice()), (4, &b"late"[..]));
    });
    thread.join().unwrap();
}
