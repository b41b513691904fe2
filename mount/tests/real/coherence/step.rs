//! Steps: what one mount does before the other is asked.

use super::model::{Id, Model, Place, ROOT};
use super::random::{Fill, Random};

/// Names in every directory: few, so that they meet.
const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
/// Names of attributes.
const XATTRS: [&str; 3] = ["user.one", "user.two", "trusted.three"];
/// Most directories, and how deep they are made (renames take them deeper).
const DIRS_MAX: usize = 9;
const DEPTH_MAX: usize = 4;
/// Largest file, bytes.
const FILE_MAX: usize = 160_000;
const MODES: [u32; 8] = [0o644, 0o600, 0o000, 0o755, 0o700, 0o777, 0o640, 0o711];

/// `FALLOC_FL_*`.
pub(super) const KEEP_SIZE: u32 = 1;
pub(super) const PUNCH: u32 = 2;
pub(super) const ZERO: u32 = 16;

/// A file to work on.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Opened for this and closed after it.
    Path(Place),
    /// One of the files the acting mount has open, and stays open.
    Hand { index: usize, id: Id },
}

/// Flags of `renameat2(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flags {
    None,
    NoReplace,
    Exchange,
}

/// Flags of `setxattr(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum XattrMode {
    Any,
    Create,
    Replace,
}

/// What one mount does.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// `open(2)` with `O_CREAT`; the file stays open with `keep`.
    Create {
        at: Place,
        excl: bool,
        trunc: bool,
        keep: bool,
        append: bool,
    },
    Write {
        file: Target,
        offset: usize,
        fill: Fill,
    },
    /// Through a description with `O_APPEND`.
    Append {
        file: Target,
        fill: Fill,
    },
    /// Through a shared mapping, then `fsync(2)`, which is `msync(2)` of all of it.
    Map {
        file: Target,
        offset: usize,
        fill: Fill,
    },
    Truncate {
        file: Target,
        size: usize,
    },
    /// `fallocate(2)`.
    Space {
        file: Target,
        mode: u32,
        offset: usize,
        length: usize,
    },
    /// `copy_file_range(2)`.
    Copy {
        from: Target,
        from_offset: usize,
        to: Target,
        to_offset: usize,
        length: usize,
    },
    /// A program in place of the file, which ends with success or not.
    Program {
        at: Place,
        yes: bool,
    },
    Mkdir {
        at: Place,
        mode: u32,
    },
    Symlink {
        at: Place,
        target: String,
    },
    Link {
        from: Place,
        to: Place,
    },
    Rename {
        from: Place,
        to: Place,
        flags: Flags,
    },
    Unlink {
        at: Place,
    },
    Rmdir {
        at: Place,
    },
    Chmod {
        at: Place,
        mode: u32,
    },
    Chown {
        at: Place,
        uid: u32,
        gid: u32,
    },
    /// `utimensat(2)`; nanoseconds.
    Times {
        at: Place,
        mtime: i128,
    },
    SetXattr {
        at: Place,
        name: &'static str,
        value: Fill,
        mode: XattrMode,
    },
    RemoveXattr {
        at: Place,
        name: &'static str,
    },
    /// Takes a lock, which the other mount must find in its way, and lets it go.
    Lock {
        file: Target,
        start: usize,
        length: usize,
    },
    /// Closes one of the files this mount has open.
    Release {
        index: usize,
    },
}

/// What a step was made from.
pub(super) struct Choice<'a> {
    pub(super) model: &'a Model,
    pub(super) random: &'a mut Random,
    /// Files the acting mount has open, and whether with `O_APPEND`.
    pub(super) hands: &'a [(Id, bool)],
}

impl Choice<'_> {
    /// A random step.
    pub(super) fn step(mut self) -> Step {
        loop {
            let number = self.random.below(100);
            if let Some(step) = self.try_step(number) {
                return step;
            }
        }
    }

    /// One of a hundred; none where the tree has nothing to do it to.
    fn try_step(&mut self, number: usize) -> Option<Step> {
        Some(match number {
            0..=11 => self.create()?,
            12..=27 => self.write()?,
            28..=32 => {
                let fill = self.fill();
                Step::Append { file: self.file(true)?, fill }
            }
            33..=38 => {
                let size = self.random.size();
                Step::Truncate { file: self.file(false)?, size }
            }
            39..=42 => self.space()?,
            43..=44 => self.copy()?,
            45..=46 => self.map()?,
            47..=49 => {
                let (start, length) = (self.random.below(1000), 1 + self.random.below(1000));
                Step::Lock { file: self.file(false)?, start, length }
            }
            50..=52 => Step::Release { index: self.random.below(self.hands.len().checked_sub(1)? + 1) },
            53..=61 => self.rename(),
            62..=68 => Step::Unlink { at: self.maybe(|model, id| !model.is_dir(id)) },
            69..=71 => Step::Rmdir { at: self.maybe(Model::is_dir) },
            72..=74 => self.mkdir()?,
            75..=77 => Step::Link { from: self.maybe(|model, id| !model.is_dir(id)), to: self.place() },
            78..=79 => {
                let target = format!("to/{}", self.random.below(1000));
                Step::Symlink { at: self.place(), target }
            }
            80..=83 => Step::Chmod { mode: self.random.pick(&MODES), at: self.followed()? },
            84..=86 => {
                let ids = [0, 1000];
                let (uid, gid) = (self.random.pick(&ids), self.random.pick(&ids));
                Step::Chown { at: self.followed()?, uid, gid }
            }
            87..=89 => {
                let mtime = i128::from(self.random.next() % 4_000_000_000_000_000_000);
                Step::Times { at: self.followed()?, mtime }
            }
            90..=93 => self.set_xattr()?,
            94..=96 => Step::RemoveXattr { name: self.random.pick(&XATTRS), at: self.followed()? },
            _ if self.random.once_in(8) => Step::Program { yes: self.random.once_in(2), at: self.program()? },
            _ => return None,
        })
    }

    fn fill(&mut self) -> Fill {
        Fill { length: 1 + self.random.size(), seed: self.random.next() }
    }

    /// Any name of any directory.
    fn place(&mut self) -> Place {
        let dirs = self.model.dirs();
        Place { dir: self.random.pick(&dirs), name: self.random.pick(&NAMES) }
    }

    /// Mostly a name that is there and of the wanted kind, if there is one.
    fn maybe(&mut self, wanted: impl Fn(&Model, Id) -> bool) -> Place {
        if self.random.once_in(6) {
            return self.place();
        }
        self.named(wanted).unwrap_or_else(|| self.place())
    }

    fn named(&mut self, wanted: impl Fn(&Model, Id) -> bool) -> Option<Place> {
        let mut found = self.model.entries();
        found.retain(|(_, id)| wanted(self.model, *id));
        (!found.is_empty()).then(|| found.swap_remove(self.random.below(found.len())).0)
    }

    /// A name, there or not, that calls which follow symlinks may be given.
    fn followed(&mut self) -> Option<Place> {
        let place = self.maybe(|model, id| model.is_file(id) || model.is_dir(id));
        self.is_followed(&place).then_some(place)
    }

    fn is_followed(&self, place: &Place) -> bool {
        self.model.find(place).is_none_or(|id| self.model.is_file(id) || self.model.is_dir(id))
    }

    /// A file: open here, or by its name.
    fn file(&mut self, append: bool) -> Option<Target> {
        let fitting: Vec<usize> =
            (0..self.hands.len()).filter(|index| self.hands[*index].1 == append).collect();
        if !fitting.is_empty() && self.random.once_in(2) {
            let index = self.random.pick(&fitting);
            return Some(Target::Hand { index, id: self.hands[index].0 });
        }
        if self.random.once_in(20) {
            return self.followed().map(Target::Path);
        }
        self.named(Model::is_file).map(Target::Path)
    }

    fn id(&self, target: &Target) -> Option<Id> {
        match target {
            Target::Hand { id, .. } => Some(*id),
            Target::Path(place) => self.model.find(place).filter(|id| self.model.is_file(*id)),
        }
    }

    fn create(&mut self) -> Option<Step> {
        let at = match self.random.once_in(3) {
            true => self.followed()?,
            false => self.place(),
        };
        let excl = self.random.once_in(3);
        if !excl && !self.is_followed(&at) {
            return None;
        }
        let (trunc, keep) = (!excl && self.random.once_in(2), self.random.once_in(2));
        Some(Step::Create { at, excl, trunc, keep, append: keep && self.random.once_in(3) })
    }

    fn write(&mut self) -> Option<Step> {
        let file = self.file(false)?;
        let end = self.id(&file).map_or(0, |id| self.model.bytes(id).len());
        let offset = match self.random.below(4) {
            0 => 0,
            1 => end,
            2 => self.random.below(end + 1),
            _ => self.random.size(),
        };
        let mut fill = self.fill();
        fill.length = fill.length.min(FILE_MAX - offset.min(FILE_MAX - 1));
        Some(Step::Write { file, offset, fill })
    }

    /// Within the file: beyond its end there is nothing to be mapped.
    fn map(&mut self) -> Option<Step> {
        let file = self.file(false)?;
        let end = self.model.bytes(self.id(&file)?).len();
        let offset = self.random.below(end);
        let mut fill = self.fill();
        fill.length = fill.length.min(end - offset);
        (fill.length > 0).then_some(Step::Map { file, offset, fill })
    }

    fn space(&mut self) -> Option<Step> {
        let mode = self.random.pick(&[0, KEEP_SIZE, PUNCH | KEEP_SIZE, PUNCH | KEEP_SIZE, ZERO]);
        let (offset, length) = (self.random.size(), 1 + self.random.size());
        Some(Step::Space { file: self.file(false)?, mode, offset, length })
    }

    fn copy(&mut self) -> Option<Step> {
        let (from, to) = (self.file(false)?, self.file(false)?);
        let (source, target) = (self.id(&from)?, self.id(&to)?);
        // Overlaps are refused by rules of their own.
        (source != target).then_some(())?;
        let end = self.model.bytes(source).len();
        let from_offset = self.random.below(end + 1);
        let (to_offset, length) = (self.random.below(60_000), self.random.size());
        Some(Step::Copy { from, from_offset, to, to_offset, length })
    }

    fn program(&mut self) -> Option<Place> {
        let place = self.maybe(Model::is_file);
        self.model.find(&place).is_none_or(|id| self.model.is_file(id)).then_some(place)
    }

    fn rename(&mut self) -> Step {
        let flags = self.random.pick(&[Flags::None, Flags::None, Flags::NoReplace, Flags::Exchange]);
        let from = match self.random.once_in(3) {
            true => self.maybe(Model::is_dir),
            false => self.maybe(|_, _| true),
        };
        let to = match flags == Flags::Exchange {
            true => self.maybe(|_, _| true),
            false => self.place(),
        };
        Step::Rename { from, to, flags }
    }

    fn mkdir(&mut self) -> Option<Step> {
        let at = self.place();
        let depth = self.model.chain(at.dir).len();
        let full = self.model.dirs().len() >= DIRS_MAX || depth >= DEPTH_MAX;
        // One that is there may always be made in vain.
        (!full || self.model.find(&at).is_some()).then_some(Step::Mkdir { mode: 0o755, at })
    }

    fn set_xattr(&mut self) -> Option<Step> {
        let at = self.followed()?;
        let mode = self.random.pick(&[XattrMode::Any, XattrMode::Any, XattrMode::Create, XattrMode::Replace]);
        let value = Fill { length: self.random.below(300), seed: self.random.next() };
        Some(Step::SetXattr { at, name: self.random.pick(&XATTRS), value, mode })
    }
}

/// What a step may change: names, and inodes by their names or hands.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    pub(super) places: Vec<Place>,
    pub(super) nodes: Vec<Id>,
}

impl Step {
    /// What it may change, as the tree is now.
    pub(super) fn touched(&self, model: &Model) -> Touched {
        let mut touched = Touched::default();
        match self {
            Self::Create { at, .. }
            | Self::Program { at, .. }
            | Self::Mkdir { at, .. }
            | Self::Symlink { at, .. }
            | Self::Unlink { at }
            | Self::Rmdir { at }
            | Self::Chmod { at, .. }
            | Self::Chown { at, .. }
            | Self::Times { at, .. }
            | Self::SetXattr { at, .. }
            | Self::RemoveXattr { at, .. } => touched.places.push(at.clone()),
            Self::Link { from, to } | Self::Rename { from, to, .. } => {
                touched.places.extend([from.clone(), to.clone()]);
            }
            Self::Write { file, .. }
            | Self::Append { file, .. }
            | Self::Map { file, .. }
            | Self::Truncate { file, .. }
            | Self::Space { file, .. }
            | Self::Lock { file, .. } => touched.add(file),
            Self::Copy { from, to, .. } => {
                touched.add(from);
                touched.add(to);
            }
            Self::Release { .. } => {}
        }
        touched.resolve(model);
        touched
    }

    /// Whether it changes which names are there.
    pub(super) fn is_about_names(&self) -> bool {
        matches!(
            self,
            Self::Create { .. }
                | Self::Program { .. }
                | Self::Mkdir { .. }
                | Self::Symlink { .. }
                | Self::Link { .. }
                | Self::Rename { .. }
                | Self::Unlink { .. }
                | Self::Rmdir { .. }
        )
    }
}

impl Touched {
    fn add(&mut self, file: &Target) {
        match file {
            Target::Path(place) => self.places.push(place.clone()),
            Target::Hand { id, .. } => self.nodes.push(*id),
        }
    }

    /// Adds the inodes its places name now.
    pub(super) fn resolve(&mut self, model: &Model) {
        // A directory a place lies in may be gone by now.
        self.places.retain(|place| model.is_there(place.dir) && model.node(place.dir).names > 0);
        self.nodes.extend(self.places.iter().filter_map(|place| model.find(place)));
        self.nodes.retain(|id| *id != ROOT && model.is_there(*id));
        self.nodes.sort_unstable();
        self.nodes.dedup();
    }
}
