//! What a row of numbers stands for.

use flexfs_wire::attr::{S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, SetAttr, SetTime};
use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, NewBlock};
use flexfs_wire::id::{BlockId, Ino, RequestId};
use flexfs_wire::message::{
    FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, Inline, Make, Reply, Request, Write, XattrMode,
};
use flexfs_wire::name::Name;
use flexfs_wire::time::Time;

use super::compare::node;
use super::{BLOCK_BYTES, World, block_bytes};
use crate::model::{New, ROOT};

const NAMES: [&str; 6] = ["a", "b", "c", "dd", "e e", "f"];

impl World {
    pub(super) fn step(&mut self, step: &[u16; 7]) {
        let [what, who, args @ ..] = step;
        let client = usize::from(*who) % self.clients.len();
        match what % 32 {
            0..=4 => self.step_make(client, args),
            5 => self.step_tmpfile(client, args),
            6 | 7 => self.step_link(client, args),
            8..=10 => self.step_remove(client, args),
            11..=13 => self.step_rename(client, args),
            14 | 15 => self.step_set_attr(client, args),
            16 | 17 => self.step_write_inline(client, args),
            18..=20 => self.step_write_extents(client, args),
            21 => self.step_fallocate(client, args),
            22 | 23 => self.step_copy(client, args),
            24 => self.step_xattr(client, args),
            25 | 26 => self.step_open(client, args),
            27 => self.step_close(client, args),
            28 => self.step_background(args),
            29 => self.step_durable(args),
            30 => self.step_mark(client, args),
            _ => self.step_upheaval(client, args),
        }
    }

    /// Any inode there is, or was.
    fn any(&self, choice: u16) -> u64 {
        let inos: Vec<u64> = self.model.files.keys().copied().collect();
        match usize::from(choice) % (inos.len() + 1) {
            index if index < inos.len() => inos[index],
            _ => self.clients[0].inos.start.saturating_sub(1).max(ROOT),
        }
    }

    /// Mostly a directory.
    fn dir(&self, choice: u16) -> u64 {
        let dirs: Vec<u64> =
            self.model.files.iter().filter(|(_, file)| file.is_dir()).map(|(ino, _)| *ino).collect();
        if choice.is_multiple_of(16) { self.any(choice / 16) } else { dirs[usize::from(choice) % dirs.len()] }
    }

    /// Mostly a regular file.
    fn file(&self, choice: u16) -> u64 {
        let files: Vec<u64> =
            self.model.files.iter().filter(|(_, file)| file.is_regular()).map(|(ino, _)| *ino).collect();
        if choice.is_multiple_of(16) || files.is_empty() {
            return self.any(choice / 16);
        }
        files[usize::from(choice) % files.len()]
    }

    fn new_ino(&mut self, client: usize) -> u64 {
        let range = &mut self.clients[client].inos;
        range.start += 1;
        range.count -= 1;
        range.start - 1
    }

    fn new_block(&mut self, client: usize) -> BlockId {
        let range = &mut self.clients[client].blocks;
        range.start += 1;
        BlockId(range.start - 1)
    }

    fn step_make(&mut self, client: usize, args: &[u16; 5]) {
        let kinds = [S_IFREG | 0o644, S_IFREG | 0o2755, S_IFDIR | 0o755, S_IFLNK | 0o777, S_IFIFO | 0o600];
        let mode = kinds[usize::from(args[0]) % kinds.len()];
        let (parent, text) = (self.dir(args[1]), name(args[2]));
        let target = if mode == kinds[3] { b"some/where".to_vec() } else { Vec::new() };
        let open = args[3].is_multiple_of(4);
        let ino = self.new_ino(client);
        let make = Make { ino: Ino(ino), mode, umask: 0, rdev: 0, target: target.clone(), open };
        let request = Request::Make { parent: node(parent), name: Some(parse(text)), make };
        let session = self.clients[client].session.0;
        self.expect(client, request, |model| {
            let new = New { ino, mode, target: &target, open };
            model.make(session, parent, Some(text), &new)
        });
    }

    fn step_tmpfile(&mut self, client: usize, args: &[u16; 5]) {
        let (parent, ino) = (self.dir(args[0]), self.new_ino(client));
        let mode = S_IFREG | 0o600;
        let make = Make { ino: Ino(ino), mode, umask: 0, rdev: 0, target: Vec::new(), open: false };
        let request = Request::Make { parent: node(parent), name: None, make };
        let session = self.clients[client].session.0;
        self.expect(client, request, |model| {
            let new = New { ino, mode, target: &[], open: false };
            model.make(session, parent, None, &new)
        });
    }

    fn step_link(&mut self, client: usize, args: &[u16; 5]) {
        let (ino, parent, text) = (self.any(args[0]), self.dir(args[1]), name(args[2]));
        let request = Request::Link { node: node(ino), parent: node(parent), name: parse(text) };
        self.expect(client, request, |model| model.link(ino, parent, text));
    }

    fn step_remove(&mut self, client: usize, args: &[u16; 5]) {
        let (parent, text) = (self.dir(args[0]), name(args[1]));
        // Mostly as the entry wants it.
        let entry = self.model.files.get(&parent).and_then(|dir| dir.entries.get(text));
        let is_dir = entry.is_some_and(|ino| self.model.files[ino].is_dir());
        let dir = is_dir != args[2].is_multiple_of(8);
        let request = Request::Remove { parent: node(parent), name: parse(text), dir };
        self.expect(client, request, |model| model.remove(parent, text, dir));
    }

    fn step_rename(&mut self, client: usize, args: &[u16; 5]) {
        let (from, to) = ((self.dir(args[0]), name(args[1])), (self.dir(args[2]), name(args[3])));
        let flags = [0, 0, 0, 1, 2, 2, 3][usize::from(args[4]) % 7];
        let request = Request::Rename {
            parent: node(from.0),
            name: parse(from.1),
            new_parent: node(to.0),
            new_name: parse(to.1),
            flags,
        };
        self.expect(client, request, |model| model.rename(from, to, flags));
    }

    fn step_set_attr(&mut self, client: usize, args: &[u16; 5]) {
        let mut change = SetAttr::default();
        let mut ino = self.any(args[1]);
        match args[0] % 6 {
            0 => change.mode = Some(u32::from(args[2]) & 0o7777),
            1 => change.uid = Some(u32::from(args[2])),
            2 => {
                change.gid = Some(u32::from(args[2]));
                change.atime = Some(SetTime::Now);
            }
            3 => change.mtime = Some(SetTime::At(Time { secs: i64::from(args[2]) - 30_000, nanos: 5 })),
            _ => {
                ino = self.file(args[1]);
                change.size = Some(u64::from(args[2] % 40_000));
            }
        }
        let request = Request::SetAttr { node: node(ino), change };
        self.expect(client, request, |model| model.set_attr(ino, &change));
    }

    fn step_write_inline(&mut self, client: usize, args: &[u16; 5]) {
        let ino = self.file(args[0]);
        let offset = u32::from(args[1] % 1_000) * if args[2].is_multiple_of(4) { 16 } else { 1 };
        let bytes = vec![u8::try_from(args[3] % 255).unwrap() + 1; usize::from(args[4] % 600) + 1];
        let inline = Inline { offset, bytes: bytes.clone() };
        let request =
            Request::Write { node: node(ino), write: Write { inline: Some(inline), ..Write::default() } };
        let context = self.context(client);
        match self.call_as(context, request) {
            // The client's part then: as extents. Here it just does not happen.
            Err(Errno::EAGAIN) => {
                let end = u64::from(offset) + bytes.len() as u64;
                let has_extents = self.ns().attr(Ino(ino)).unwrap().blocks > 0;
                assert!(end > 16_384 || has_extents);
            }
            result => {
                let said = self.model.write(ino, &[(offset as usize, bytes)]);
                assert_eq!(result.map(|_| ()), said);
            }
        }
    }

    fn step_write_extents(&mut self, client: usize, args: &[u16; 5]) {
        let ino = self.file(args[0]);
        let new = self.new_block(client);
        let session = self.clients[client].session;
        match args[4] % 8 {
            // Not every client of this test stores what it writes.
            0..=2 => {}
            _ => self.ns().put_block(session, new, u64::from(BLOCK_BYTES)).unwrap(),
        }
        if args[4] % 8 == 7 {
            return; // Stored, and no file refers to it.
        }
        let (mut offset, mut block_offset) = (u64::from(args[1] % 30_000), 0);
        let (mut extents, mut parts) = (Vec::new(), Vec::new());
        for index in 0..=(args[2] % 6) {
            let length = u32::from(args[3].rotate_left(u32::from(index)) % 700) + 1;
            let zeros = (args[4] >> index).is_multiple_of(16);
            let block = if zeros { BlockId(0) } else { new };
            extents.push(Extent {
                offset,
                length,
                block,
                block_offset: if zeros { 0 } else { block_offset },
            });
            let bytes = if zeros { vec![0; length as usize] } else { block_bytes(new, block_offset, length) };
            parts.push((usize::try_from(offset).unwrap(), bytes));
            block_offset += length;
            offset += u64::from(length) + u64::from(args[4].rotate_right(u32::from(index)) % 500);
        }
        let blocks = vec![NewBlock { block: new, raw_bytes: BLOCK_BYTES, stored_bytes: 1 }];
        let write = Write { extents, blocks, ..Write::default() };
        self.expect(client, Request::Write { node: node(ino), write }, |model| model.write(ino, &parts));
    }

    fn step_fallocate(&mut self, client: usize, args: &[u16; 5]) {
        let ino = self.file(args[0]);
        let modes = [
            0,
            FALLOC_KEEP_SIZE,
            FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE,
            FALLOC_ZERO_RANGE,
            FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE,
        ];
        let mode = modes[usize::from(args[1]) % modes.len()];
        let (offset, length) = (u64::from(args[2] % 30_000), u64::from(args[3] % 20_000) + 1);
        let request = Request::Fallocate { node: node(ino), mode, offset, length };
        let range = (usize::try_from(offset).unwrap(), usize::try_from(offset + length).unwrap());
        let zero = mode & (FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE) != 0;
        let keep_size = mode & FALLOC_KEEP_SIZE != 0;
        self.expect(client, request, |model| model.fallocate(ino, range, zero, keep_size));
    }

    fn step_copy(&mut self, client: usize, args: &[u16; 5]) {
        let (source, target) = (self.file(args[0]), self.file(args[1]));
        let (from, to) = (usize::from(args[2] % 20_000), usize::from(args[3] % 20_000));
        let length = usize::from(args[4] % 20_000);
        let request = Request::CopyRange {
            source: node(source),
            source_offset: from as u64,
            target: node(target),
            target_offset: to as u64,
            length: length as u64,
        };
        let context = self.context(client);
        let said = self.model.copied(source, from, target, to, length);
        match (self.call_as(context, request), said) {
            (Ok(Reply::Copied { length, .. }), Ok(most)) => {
                let length = usize::try_from(length).unwrap();
                assert!(length <= most && (length > 0) == (most > 0));
                if length > 0 {
                    self.model.copy(source, from, target, to, length).unwrap();
                }
            }
            (Err(Errno::EOPNOTSUPP), Ok(most)) => assert!(most > 0),
            (got, said) => assert_eq!(got.map(|_| 0), said.map(|_| 1)),
        }
    }

    fn step_xattr(&mut self, client: usize, args: &[u16; 5]) {
        let ino = self.any(args[0]);
        let text = format!("user.{}", name(args[1]));
        let value = vec![1; usize::from(args[2] % 100)];
        let bytes = text.as_bytes().to_vec();
        if args[3].is_multiple_of(3) {
            let request = Request::RemoveXattr { node: node(ino), name: bytes };
            self.expect(client, request, |model| model.set_xattr(ino, &text, None));
        } else {
            let mode = XattrMode::Any;
            let request = Request::SetXattr { node: node(ino), name: bytes, value: value.clone(), mode };
            self.expect(client, request, |model| model.set_xattr(ino, &text, Some(&value)));
        }
    }

    fn step_open(&mut self, client: usize, args: &[u16; 5]) {
        let ino = self.any(args[0]);
        let (write, truncate) = (args[1].is_multiple_of(2), args[1].is_multiple_of(4));
        let request = Request::Open { node: node(ino), write, truncate, kill_privileges: false };
        let session = self.clients[client].session.0;
        self.expect(client, request, |model| model.open(session, ino, write, truncate));
    }

    fn step_close(&mut self, client: usize, args: &[u16; 5]) {
        let session = self.clients[client].session.0;
        let mine: Vec<u64> =
            self.model.opens.keys().filter(|(owner, _)| *owner == session).map(|(_, ino)| *ino).collect();
        if mine.is_empty() {
            return;
        }
        let ino = mine[usize::from(args[0]) % mine.len()];
        let request = Request::Close { node: node(ino), count: 1 };
        self.expect(client, request, |model| {
            model.close(session, ino);
            Ok(())
        });
    }

    fn step_background(&mut self, args: &[u16; 5]) {
        let now = self.now;
        let budget = usize::from(args[0] % 9);
        let _more = self.ns().background(now, budget).unwrap();
        let (blocks, commit) = self.ns().collect(now, i64::from(args[1] % 5), 3).unwrap();
        if self.ns().durable().current() >= commit {
            self.ns().collected(&blocks).unwrap();
        }
    }

    fn step_durable(&mut self, args: &[u16; 5]) {
        self.ns().store_mut().sync(usize::from(args[0] % 40));
        self.drop_durable();
    }

    /// The client is done with its requests, or asks once more for one that it is not done with.
    fn step_mark(&mut self, client: usize, args: &[u16; 5]) {
        let Some(last) = self.clients[client].request.checked_sub(u64::from(args[0] % 5)) else { return };
        self.clients[client].mark = self.clients[client].mark.max(last);
        let (session, mark) = (self.clients[client].session, self.clients[client].mark);
        self.ns().finished(session, RequestId(mark));
        let own = |kept: &&super::Kept| kept.context.session == session && kept.context.request.0 >= mark;
        let Some(kept) = self.kept.iter().find(own) else { return };
        let (context, request, answer) = (kept.context, kept.request.clone(), kept.answer.clone());
        let again = self.ns().apply(&context, &request).answer.unwrap();
        assert_eq!((again.result, again.at), (answer.result, answer.at), "a resend is answered as before");
    }

    /// Rare: crashes, clients that come and go, commits that fail.
    fn step_upheaval(&mut self, client: usize, args: &[u16; 5]) {
        match args[0] % 8 {
            0..=3 => self.crash(usize::from(args[1] % 50)),
            4 => {
                self.settle();
                self.compare();
                self.verify();
            }
            5 if self.clients.len() > 1 => {
                let gone = self.clients.remove(client);
                let now = self.now;
                assert_eq!(self.ns().end_session(now, gone.session).unwrap(), []);
                self.model.end(gone.session.0);
                // What it did and nobody will replay must not be lost, or the model would not know.
                self.ns().store_mut().sync(usize::MAX);
                self.drop_durable();
            }
            5 | 6 => {
                if self.clients.len() < 4 {
                    self.join();
                }
            }
            _ => {
                let (ino, now) = (self.file(args[1]), self.model.now);
                self.ns().store_mut().fail_after(0, Errno::ENOSPC);
                let change = SetAttr { size: Some(5), ..SetAttr::default() };
                let failed = self.call(client, Request::SetAttr { node: node(ino), change });
                let said = self.model.clone().set_attr(ino, &change).and(Err(Errno::ENOSPC));
                assert_eq!(failed.map(|_| ()), said);
                self.model.now = now;
                if said != Err(Errno::ENOSPC) {
                    // Refused before it came to the store: the fault waits for the next commit.
                    let now = self.now;
                    assert_eq!(self.ns().finish_recovery(now), Err(Errno::ENOSPC));
                }
            }
        }
    }
}

fn name(choice: u16) -> &'static str {
    NAMES[usize::from(choice) % NAMES.len()]
}

fn parse(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}
