//! Steps on names, attributes and opens.

use flexfs_wire::attr::{S_IFBLK, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, SetAttr, SetTime};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::limits::FILE_BYTES_MAX;
use flexfs_wire::message::{Make, Reply, Request, XattrMode};
use flexfs_wire::name::Name;
use flexfs_wire::time::Time;

use super::call::settle_value;
use super::step::name;
use super::{World, node};
use crate::source::Source;

const XATTRS: [&[u8]; 6] = [b"user.a", b"user.b", b"trusted.t", b"security.s", b"other.o", b"user."];
/// Largest size that files are cut or grown to.
const SIZE_MAX: u16 = 40_000;

impl World {
    pub(super) fn step_make(&mut self, source: &mut Source<'_>) {
        let (mount, context, who) = self.caller(source);
        let (parent, text) = (self.dir(source), name(source));
        let kinds = [
            S_IFDIR | 0o755,
            S_IFREG | 0o644,
            S_IFLNK | 0o777,
            S_IFREG | 0o6775,
            S_IFDIR | 0o1777,
            S_IFIFO,
            S_IFBLK | 0o600,
            S_IFDIR | 0o2770,
            0o644,
        ];
        let mode = source.pick(&kinds);
        let flags = source.byte();
        let target = match () {
            () if mode == kinds[2] && flags & 7 != 7 => b"some/where".to_vec(),
            () if flags == 0xff => b"x".to_vec(),
            () => Vec::new(),
        };
        let (ino, is_good) = self.new_ino(mount, flags & 0xf0 == 0xf0);
        let make = Make {
            ino: Ino(ino),
            mode,
            umask: if flags & 8 == 8 { 0o022 } else { 0 },
            rdev: u32::from(flags),
            target,
            open: flags & 3 == 3,
        };
        let request = Request::Make { parent: node(parent), name: Some(parse(text)), make: make.clone() };
        let masked = context.umask;
        let made = self
            .expect(context, request, |model| model.make(who, parent, Some(text), &make, is_good, masked));
        self.compare_entry(made, ino);
    }

    pub(super) fn step_tmpfile(&mut self, source: &mut Source<'_>) {
        let (mount, context, who) = self.caller(source);
        let parent = self.dir(source);
        let (ino, is_good) = self.new_ino(mount, false);
        let mode = if source.one_in(8) { S_IFDIR } else { S_IFREG } | 0o600;
        let make = Make { ino: Ino(ino), mode, umask: 0, rdev: 0, target: Vec::new(), open: false };
        let request = Request::Make { parent: node(parent), name: None, make: make.clone() };
        let masked = context.umask;
        self.expect(context, request, |model| model.make(who, parent, None, &make, is_good, masked));
    }

    pub(super) fn step_link(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        let (ino, parent, text) = (self.any(source), self.dir(source), name(source));
        let request = Request::Link { node: node(ino), parent: node(parent), name: parse(text) };
        let made = self.expect(context, request, |model| model.link(who, ino, parent, text));
        self.compare_entry(made, ino);
    }

    pub(super) fn step_remove(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        let (parent, text) = (self.dir(source), name(source));
        // Mostly as the name wants it.
        let found = self.model.files.get(&parent).and_then(|dir| dir.names.get(text));
        let is_dir = found.is_some_and(|ino| self.model.files[ino].is_dir());
        let dir = is_dir != source.one_in(8);
        let request = Request::Remove { parent: node(parent), name: parse(text), dir };
        self.expect(context, request, |model| model.remove(who, parent, text, dir));
    }

    pub(super) fn step_rename(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        let (from, to) = ((self.dir(source), name(source)), (self.dir(source), name(source)));
        let flags = source.pick(&[0, 0, 0, 1, 2, 2, 3, 4]);
        let request = Request::Rename {
            parent: node(from.0),
            name: parse(from.1),
            new_parent: node(to.0),
            new_name: parse(to.1),
            flags,
        };
        self.expect(context, request, |model| model.rename(who, from, to, flags));
    }

    pub(super) fn step_set_attr(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        let (what, value) = (source.byte(), source.short());
        let at = SetTime::At(Time { secs: i64::from(value) - 30_000, nanos: 5 });
        let mut change = SetAttr { kill_privileges: what & 0xc0 == 0xc0, ..SetAttr::default() };
        match what & 7 {
            0 => change.mode = Some(u32::from(value) & 0o7777),
            1 => change.uid = Some(u32::from(value % 3) + 9),
            2 => change.gid = Some(u32::from(value % 3) + 9),
            3 => (change.mtime, change.atime) = (Some(at), Some(SetTime::Now)),
            4 => (change.mtime, change.atime) = (Some(SetTime::Now), Some(SetTime::Now)),
            // A reader's access time.
            5 => (change.atime, change.ctime) = (Some(at), Some(at)),
            _ => change.size = Some(u64::from(value % SIZE_MAX)),
        }
        if what == 0x3f {
            // The bound itself is a size that the model has no room for.
            change.size = Some(FILE_BYTES_MAX + 1 + u64::from(value));
        }
        let ino = if change.size.is_some() { self.file(source) } else { self.any(source) };
        let request = Request::SetAttr { node: node(ino), change };
        let told = self.expect(context, request, |model| model.set_attr(who, ino, &change));
        if let Some(Reply::Attr(attr)) = told {
            self.compare_attr(&attr);
        }
    }

    pub(super) fn step_xattr(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        let (ino, name) = (self.any(source), source.pick(&XATTRS).to_vec());
        if source.one_in(3) {
            let request = Request::RemoveXattr { node: node(ino), name: name.clone() };
            self.expect(context, request, |model| model.set_xattr(who, ino, &name, None, XattrMode::Any));
            return;
        }
        let value = vec![source.byte(); source.below(100)];
        let mode = source.pick(&[XattrMode::Any, XattrMode::Create, XattrMode::Replace]);
        let request = Request::SetXattr { node: node(ino), name: name.clone(), value: value.clone(), mode };
        self.expect(context, request, |model| model.set_xattr(who, ino, &name, Some(&value), mode));
    }

    /// A question: nothing changes.
    pub(super) fn step_ask(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        if source.one_in(2) {
            let (parent, text) = (self.dir(source), name(source));
            let request = Request::Lookup { parent: node(parent), name: parse(text) };
            let found = self.call(context, &request).map(|reply| match reply {
                Reply::Entry(entry) => entry.attr.ino.0,
                other => panic!("{other:?}"),
            });
            settle_value(&request, found, self.model.lookup(who, parent, text));
        } else {
            let (ino, name) = (self.any(source), source.pick(&XATTRS).to_vec());
            let request = Request::GetXattr { node: node(ino), name: name.clone() };
            let found = self.call(context, &request).map(|reply| match reply {
                Reply::Bytes(bytes) => bytes,
                other => panic!("{other:?}"),
            });
            settle_value(&request, found, self.model.xattr(who, ino, &name));
        }
    }

    pub(super) fn step_open(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        let (ino, flags) = (self.any(source), source.byte());
        let (write, truncate, kills) = (flags & 1 == 1, flags & 6 == 6, flags & 8 == 8);
        let request = Request::Open { node: node(ino), write, truncate, kill_privileges: kills };
        let kills = kills || who.is_plain;
        let opened = self.expect(context, request, |model| model.open(who, ino, write, truncate, kills));
        if let Some(Reply::Opened { attr, .. }) = opened {
            self.compare_attr(&attr);
        }
    }

    pub(super) fn step_close(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        let opens = self.model.opens.keys().filter(|key| key.0 == who.session);
        let mine: Vec<u64> = opens.map(|key| key.1).collect();
        let Some(ino) = mine.get(source.below(mine.len())).copied() else { return };
        let count = u32::from(source.byte() % 3) + 1;
        let request = Request::Close { node: node(ino), count };
        self.expect(context, request, |model| {
            model.close(who.session, ino, count);
            Ok(())
        });
    }

    /// The engine refuses the next commit: the call fails so, or as it would have anyway, and changes nothing.
    pub(super) fn step_failing(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        let errno = source.pick(&[Errno::ENOSPC, Errno::EIO]);
        let (parent, text) = (self.dir(source), name(source));
        let change = SetAttr { mode: Some(0o751), ..SetAttr::default() };
        self.fail_once(errno);
        let (request, said) = if source.one_in(2) {
            let request = Request::SetAttr { node: node(parent), change };
            (request, self.model.clone().set_attr(who, parent, &change))
        } else {
            let request = Request::Remove { parent: node(parent), name: parse(text), dir: false };
            (request, self.model.clone().remove(who, parent, text, false))
        };
        let failed = self.machine().apply(&context, &request).answer.expect("an answer").result;
        match said {
            Ok(()) => assert_eq!(failed, Err(errno), "{request:?}"),
            Err(faults) => {
                assert!(failed.as_ref().is_err_and(|failed| faults.has(*failed)), "{request:?}: {failed:?}");
                // Refused before it came to the store: the fault waits for the next commit.
                let now = self.now;
                assert_eq!(self.machine().finish_recovery(now), Err(errno));
            }
        }
    }

    /// A number for something new; a bad one is taken, or was granted to nobody.
    fn new_ino(&mut self, mount: usize, is_bad: bool) -> (u64, bool) {
        if is_bad {
            return (if self.now.secs % 2 == 0 { 1 } else { u64::MAX }, false);
        }
        let range = &mut self.mounts[mount].inos;
        if range.count == 0 {
            return (u64::MAX, false);
        }
        range.start += 1;
        range.count -= 1;
        (range.start - 1, true)
    }
}

/// A name of the table.
pub(super) fn parse(text: &[u8]) -> Name {
    Name::new(text).expect("the names are good ones")
}
