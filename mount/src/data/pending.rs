//! Attributes that programs were told of, and the server was not yet (see `attr`).

use flexfs_wire::attr::{Attr, S_IFMT, SetAttr, SetTime, without_privileges};
use flexfs_wire::message::Caller;
use flexfs_wire::time::Time;

/// Changes that may join one that is on its way: others wait for all of them.
const JOINED_MAX: u32 = 64;

/// What programs were told of and the server was not.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Attributes as programs see them.
    pub(crate) attr: Attr,
    /// What the server is still to be told.
    next: Option<Told>,
    /// Changes so far.
    joined: u32,
}

/// A change to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) caller: Caller,
    pub(crate) change: SetAttr,
    pub(crate) at: Time,
}

impl Pending {
    /// Of a file with these attributes, and nothing to be sent.
    pub(crate) fn new(attr: Attr) -> Self {
        Self { attr, next: None, joined: 0 }
    }

    /// Whether no more changes may join.
    pub(crate) fn is_full(&self) -> bool {
        self.joined >= JOINED_MAX
    }

    /// Whether nothing is left to be sent.
    pub(crate) fn is_told(&self) -> bool {
        self.next.is_none()
    }

    /// What is to be sent next. Without any, all is told.
    pub(crate) fn take_next(&mut self) -> Option<Told> {
        self.next.take()
    }

    /// One more change, at `now`.
    pub(crate) fn join(&mut self, caller: Caller, change: &SetAttr, now: Time) {
        self.joined += 1;
        let mut next = self.next.map(|told| told.change).unwrap_or_default();
        apply(&mut self.attr, change, now);
        // As it is now: the server's result does not depend on what came before.
        if change.uid.is_some() {
            next.uid = Some(self.attr.uid);
        }
        if change.gid.is_some() {
            next.gid = Some(self.attr.gid);
        }
        if change.mode.is_some() || change.uid.is_some() || change.gid.is_some() || change.kill_privileges {
            next.mode = Some(self.attr.mode & !S_IFMT);
        }
        if change.atime.is_some() {
            next.atime = Some(SetTime::At(self.attr.atime));
        }
        if change.mtime.is_some() {
            next.mtime = Some(SetTime::At(self.attr.mtime));
        }
        self.next = Some(Told { caller, change: next, at: now });
    }
}

/// A change time behind the one before, whatever the clocks say: the younger attributes are told from the older by it.
pub(crate) fn after(now: Time, before: &Attr) -> Time {
    let Time { secs, nanos } = before.ctime;
    let next =
        if nanos < 999_999_999 { Time { secs, nanos: nanos + 1 } } else { Time { secs: secs + 1, nanos: 0 } };
    now.max(next)
}

/// As the server does it (`meta`: `namespace/setattr.rs`), for what has no access list.
pub(crate) fn apply(attr: &mut Attr, change: &SetAttr, now: Time) {
    let chowned = change.uid.is_some() || change.gid.is_some();
    attr.uid = change.uid.unwrap_or(attr.uid);
    attr.gid = change.gid.unwrap_or(attr.gid);
    if !attr.is_dir() && (chowned || change.kill_privileges) {
        attr.mode = without_privileges(attr.mode);
    }
    if let Some(mode) = change.mode {
        attr.mode = attr.mode & S_IFMT | mode & !S_IFMT;
    }
    attr.ctime = now;
    for (time, set) in [(&mut attr.atime, change.atime), (&mut attr.mtime, change.mtime)] {
        match set {
            Some(SetTime::Now) => *time = now,
            Some(SetTime::At(at)) => *time = at,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::attr::S_IFREG;
    use flexfs_wire::id::Ino;

    use super::*;

    const NOBODY: Caller = Caller { uid: 0, gid: 0 };

    fn at(secs: i64) -> Time {
        Time { secs, nanos: 0 }
    }

    #[test]
    fn changes_that_join_are_sent_as_one_that_has_their_result() {
        let mut pending = Pending::new(Attr::new(Ino(7), S_IFREG | 0o600, at(1)));
        let times =
            SetAttr { atime: Some(SetTime::Now), mtime: Some(SetTime::At(at(-5))), ..SetAttr::default() };
        pending.join(NOBODY, &times, at(2));
        pending.join(NOBODY, &SetAttr { mode: Some(0o6755), ..SetAttr::default() }, at(3));
        pending.join(NOBODY, &SetAttr { uid: Some(9), ..SetAttr::default() }, at(4));
        let sent = pending.take_next().unwrap();
        let change = sent.change;
        assert_eq!(
            (change.mode, change.uid, change.gid),
            (Some(0o755), Some(9), None),
            "chown clears set-uid"
        );
        assert_eq!((change.atime, change.mtime), (Some(SetTime::At(at(2))), Some(SetTime::At(at(-5)))));
        assert_eq!((sent.at, pending.attr.ctime, pending.attr.mtime), (at(4), at(4), at(-5)));
        assert!(pending.take_next().is_none());
        let mut server = Attr::new(Ino(7), S_IFREG | 0o600, at(1));
        apply(&mut server, &change, sent.at);
        assert_eq!(server, pending.attr);
        for _ in 0..JOINED_MAX {
            pending.join(NOBODY, &times, at(5));
        }
        assert!(pending.is_full());
    }

    #[test]
    fn change_times_go_up() {
        let before = Attr::new(Ino(7), S_IFREG, Time { secs: 5, nanos: 999_999_999 });
        assert_eq!(after(at(5), &before), at(6));
        assert_eq!(after(at(7), &before), at(7));
    }
}
