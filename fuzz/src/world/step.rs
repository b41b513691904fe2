//! What the next bytes stand for.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::RequestId;

use super::World;
use crate::model::ROOT;
use crate::source::Source;

/// Names that meet often.
const NAMES: [&[u8]; 6] = [b"a", b"b", b"c", b"dd", b"e e", b"\xff"];

impl World {
    /// One step.
    pub(super) fn step(&mut self, source: &mut Source<'_>) {
        match source.below(40) {
            0..=4 => self.step_make(source),
            5 => self.step_tmpfile(source),
            6 | 7 => self.step_link(source),
            8..=10 => self.step_remove(source),
            11..=14 => self.step_rename(source),
            15..=17 => self.step_set_attr(source),
            18 | 19 => self.step_write_inline(source),
            20..=22 => self.step_write_extents(source),
            23 => self.step_fallocate(source),
            24 => self.step_copy(source),
            25 => self.step_xattr(source),
            26 => self.step_ask(source),
            27 | 28 => self.step_open(source),
            29 => self.step_close(source),
            30..=33 => self.step_lock(source),
            34 => self.step_unlock_or_cancel(source),
            35 => self.step_background(source),
            36 => {
                let count = source.below(40);
                self.machine().store_mut().sync(count);
                self.forget_durable();
            }
            37 => self.step_mark(source),
            _ => self.step_upheaval(source),
        }
    }

    /// Any file there is, now and then one that is not.
    pub(super) fn any(&self, source: &mut Source<'_>) -> u64 {
        let choice = source.below(256);
        let count = self.model.files.len();
        if choice == 255 {
            return self.mounts[0].inos.start.saturating_sub(1).max(ROOT);
        }
        *self.model.files.keys().nth(choice % count).unwrap_or(&ROOT)
    }

    /// Mostly a directory.
    pub(super) fn dir(&self, source: &mut Source<'_>) -> u64 {
        self.one_of(source, |file| file.is_dir())
    }

    /// Mostly a regular file.
    pub(super) fn file(&self, source: &mut Source<'_>) -> u64 {
        self.one_of(source, |file| file.is_regular())
    }

    fn one_of(&self, source: &mut Source<'_>, wanted: impl Fn(&crate::model::File) -> bool) -> u64 {
        let choice = source.below(256);
        if choice >= 240 {
            return self.any(source);
        }
        let fitting: Vec<u64> =
            self.model.files.iter().filter(|(_, file)| wanted(file)).map(|(ino, _)| *ino).collect();
        fitting.get(choice % fitting.len().max(1)).copied().unwrap_or(ROOT)
    }

    fn step_background(&mut self, source: &mut Source<'_>) {
        let now = self.now;
        let _more = self.machine().background(now, source.below(9)).expect("the engine works");
        let retention = i64::from(source.byte() % 5);
        let (blocks, commit) = self.machine().collect(now, retention, 3).expect("the engine works");
        if self.machine().durable().current() >= commit {
            self.machine().collected(&blocks).expect("the engine works");
        }
    }

    /// A mount is done with its requests, or asks once more for one that it is not done with, or for one it is done with.
    fn step_mark(&mut self, source: &mut Source<'_>) {
        let index = source.below(self.mounts.len());
        let mount = &mut self.mounts[index];
        let Some(last) = mount.request.checked_sub(source.below(5) as u64) else { return };
        // A mark passes no request that still waits.
        let waiting = self.waits.iter().filter(|(context, _)| context.session == mount.session);
        let least = waiting.map(|(context, _)| context.request.0).min().unwrap_or(u64::MAX);
        mount.mark = mount.mark.max(last.min(least));
        let (session, mark) = (mount.session, mount.mark);
        self.machine().finished(session, RequestId(mark));
        let mine: Vec<usize> =
            (0..self.kept.len()).filter(|index| self.kept[*index].context.session == session).collect();
        let Some(index) = mine.get(source.below(mine.len())) else { return };
        let kept = &self.kept[*index];
        let (context, request, answer) = (kept.context, kept.request.clone(), kept.answer.clone());
        let again = self.machine().apply(&context, &request).answer.expect("it was answered before");
        if context.request.0 < mark {
            assert_eq!(again.result, Err(Errno::ECANCELED), "{request:?} is done with");
        } else {
            assert_eq!((again.result, again.at), (answer.result, answer.at), "{request:?} again");
        }
    }

    /// Rare: crashes, mounts that come and go, commits that fail.
    fn step_upheaval(&mut self, source: &mut Source<'_>) {
        match source.below(8) {
            0..=3 => {
                let survive = source.below(50);
                self.crash(survive);
            }
            4 => self.check(),
            5 if self.mounts.len() > 1 => {
                let index = source.below(self.mounts.len());
                self.leave(index);
            }
            5 | 6 => {
                if self.mounts.len() < 4 {
                    self.join();
                }
            }
            _ => self.step_failing(source),
        }
    }
}

/// One of a few names.
pub(super) fn name(source: &mut Source<'_>) -> &'static [u8] {
    source.pick(&NAMES)
}
