//! Times and modes as programs see them before and after bytes travel.

use std::sync::Arc;

use flexfs_wire::attr::{SetAttr, SetTime};
use flexfs_wire::time::Time;

use super::{CALLER, Mount, pattern, run};
use crate::data::WriteMode;
use crate::data::model::Model;

fn mount() -> Mount {
    Mount::new(Arc::new(Model::new(1, 1)), 4096, 1 << 20)
}

#[test]
fn mtime_stays_what_it_was_when_the_bytes_arrive() {
    run(async {
        let mount = mount();
        for (ino, length) in [(1, 100), (2, 50_000)] {
            let node = mount.create(ino);
            let before = mount.attr(node).await;
            mount.write(node, 0, &pattern(1, length)).await;
            let written = mount.attr(node).await;
            assert!(written.mtime > before.mtime && written.ctime == written.mtime);
            assert!(written.blocks > 0, "data that is only here is no hole");
            mount.files.flush(node, None).await.unwrap();
            let sent = mount.attr(node).await;
            assert_eq!((sent.mtime, sent.ctime, sent.size), (written.mtime, written.ctime, length as u64));
            mount.files.close(CALLER, node);
            assert_eq!(mount.attr(node).await.mtime, written.mtime);
        }
    });
}

#[test]
fn a_set_mtime_outlives_the_bytes_written_before() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        mount.write(node, 0, &pattern(1, 9_000)).await;
        let time = Time { secs: 1_000_000_000, nanos: 5 };
        let change = SetAttr { mtime: Some(SetTime::At(time)), ..SetAttr::default() };
        let (attr, _) = mount.files.set_attr(CALLER, node, change, None).await.unwrap();
        assert_eq!((attr.mtime, attr.size), (time, 9_000));
        mount.files.close(CALLER, node);
        assert_eq!(mount.attr(node).await.mtime, time);
        // The next write counts again.
        mount.write(node, 0, b"x").await;
        assert!(mount.attr(node).await.mtime > time);
    });
}

#[test]
fn a_truncation_that_overtakes_bytes_does_not_turn_time_back() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        mount.write(node, 0, &pattern(1, 3_000)).await;
        let change = SetAttr { size: Some(1_000), ..SetAttr::default() };
        let (attr, _) = mount.files.set_attr(CALLER, node, change, None).await.unwrap();
        assert_eq!(mount.server.world().writes, 0, "nothing had to be sent first");
        mount.files.flush(node, None).await.unwrap();
        let sent = mount.attr(node).await;
        assert!(sent.mtime >= attr.mtime && sent.size == 1_000);
        assert_eq!(mount.server.content(1), pattern(1, 3_000)[..1_000]);
    });
}

#[test]
fn set_uid_goes_at_once() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        let change = SetAttr { mode: Some(0o6755), ..SetAttr::default() };
        mount.files.set_attr(CALLER, node, change, None).await.unwrap();
        mount
            .files
            .write(CALLER, node, 0, b"x", WriteMode { kill_privileges: true, ..WriteMode::default() }, None)
            .await
            .unwrap();
        assert_eq!(mount.attr(node).await.mode & 0o7777, 0o755);
    });
}
