//! Two mounts, the model, and random steps: one mount does something, the other is asked at once.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::act::{Hand, Side, from_nix, open, range_lock};
use super::look::{Listing, Look};
use super::model::{Id, Model, Place, ROOT, Span};
use super::random::Random;
use super::step::{Choice, Step, Target, Touched};
use super::user::User;
use crate::harness::wall;

/// Steps that a failure prints.
const SHOWN: usize = 50;
/// Everything is looked at, on both mounts, once in so many steps.
const ALL_EVERY: usize = 1000;

/// What was done last; printed when the test fails.
struct Log {
    seed: u64,
    lines: VecDeque<Line>,
}

/// A step, the mount it was done on, and what came of it.
struct Line {
    number: usize,
    side: &'static str,
    step: Step,
    said: Option<Result<(), Errno>>,
}

impl Drop for Log {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for Line { number, side, step, said } in &self.lines {
            let said = match said {
                Some(Ok(())) => "ok".to_owned(),
                Some(Err(errno)) => format!("{errno:?}"),
                None => "..".to_owned(),
            };
            eprintln!("{number:>7} {side} {step:?}: {said}");
        }
        eprintln!("FLEXFS_SEED={} repeats it", self.seed);
    }
}

/// See the module.
pub(super) struct World {
    model: Model,
    sides: [Side; 2],
    user: User,
    random: Random,
    log: Log,
    /// Today's build, to see that all else is right: the other mount is asked after this pause only, and files are closed.
    pause: Option<std::time::Duration>,
    number: usize,
}

impl World {
    /// Makes the folder the test works in; the mounts are two, or one twice.
    pub(super) fn new(mounts: [&Path; 2], seed: u64, pause: Option<std::time::Duration>) -> Self {
        let start = wall();
        fs::create_dir(mounts[0].join("work")).unwrap();
        let model = Model::new(Span { from: start, to: wall() });
        let [first, second] = mounts.map(|mount| mount.join("work"));
        Self {
            model,
            sides: [Side::new("A", first), Side::new("B", second)],
            user: User::start(),
            random: Random::new(seed),
            log: Log { seed, lines: VecDeque::new() },
            pause,
            number: 0,
        }
    }

    pub(super) fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.number += 1;
            self.step();
            if self.number.is_multiple_of(ALL_EVERY) || self.number == steps {
                self.look(0).all();
                self.look(1).all();
            }
        }
    }

    fn look(&mut self, side: usize) -> Look<'_> {
        Look {
            side: &mut self.sides[side],
            model: &mut self.model,
            random: &mut self.random,
            user: &self.user,
        }
    }

    fn step(&mut self) {
        let (actor, other) = if self.random.once_in(2) { (0, 1) } else { (1, 0) };
        let hands: Vec<(Id, bool)> =
            self.sides[actor].hands.iter().map(|hand| (hand.id, hand.append)).collect();
        let choice = Choice { model: &self.model, random: &mut self.random, hands: &hands };
        let step = choice.step();
        let (number, side) = (self.number, self.sides[actor].name);
        self.log.lines.push_back(Line { number, side, step: step.clone(), said: None });
        if self.log.lines.len() > SHOWN {
            self.log.lines.pop_front();
        }
        let mut touched = step.touched(&self.model);
        let listing = if self.pause.is_none() { self.prepare(other, &step, &touched) } else { None };
        self.act(actor, other, &step);
        touched.resolve(&self.model);
        if let Some(pause) = self.pause {
            std::thread::sleep(pause);
        }
        self.check(other, &step, &touched);
        if let Some(listing) = listing {
            self.look(other).finish(listing);
        }
        if self.random.once_in(8) {
            self.check(actor, &step, &touched);
        }
        if let Step::Program { at, yes } = &step {
            self.execute(other, at, *yes);
        }
        let sides = &self.sides;
        self.model.sweep(|id| sides.iter().any(|side| side.hand_of(id).is_some()));
    }

    /// Lets the other mount have something in its caches that is about to change.
    fn prepare(&mut self, other: usize, step: &Step, touched: &Touched) -> Option<Listing> {
        if self.random.once_in(2) {
            self.check(other, step, touched);
        }
        for place in &touched.places {
            let id = self.model.find(place).filter(|id| self.model.is_file(*id));
            if let Some(id) = id
                && self.random.once_in(5)
            {
                self.look(other).keep(place, id);
            }
        }
        let place = touched.places.first().filter(|_| step.is_about_names())?;
        self.random.once_in(4).then(|| self.look(other).begin(place.dir))
    }

    /// Does it, and the same to the model.
    fn act(&mut self, actor: usize, other: usize, step: &Step) {
        let from = wall();
        let said = match step {
            Step::Lock { file, start, length } => {
                self.lock(actor, other, file, (*start, *length)).map(|()| None)
            }
            _ => self.sides[actor].act(&self.model, step),
        };
        let span = Span { from, to: wall() };
        let said_short = said.as_ref().map(|_| ()).map_err(|errno| *errno);
        if let Some(line) = self.log.lines.back_mut() {
            line.said = Some(said_short);
        }
        let wanted = self.model.apply(step, span);
        assert_eq!(said_short, wanted, "mount {}: {step:?}", self.sides[actor].name);
        if let (Ok(Some(file)), Step::Create { at, append, .. }) = (said, step)
            && self.pause.is_none()
        {
            let id = self.model.find(at).unwrap();
            let victim = self.random.below(64);
            self.sides[actor].keep(Hand { id, file, append: *append, map: None }, victim);
        }
    }

    /// What a step touched, as a mount shows it.
    fn check(&mut self, side: usize, step: &Step, touched: &Touched) {
        let about_attributes =
            matches!(step, Step::SetXattr { .. } | Step::RemoveXattr { .. } | Step::Program { .. });
        let about_access = matches!(step, Step::Chmod { .. } | Step::Chown { .. });
        for place in &touched.places {
            // In a random order: which question comes first decides what could be answered from memory.
            let id = self.model.find(place);
            if self.random.once_in(3) && step.is_about_names() {
                self.look(side).listing(place.dir);
            }
            if about_access || self.random.once_in(12) {
                self.look(side).access(place);
            }
            if let Some(id) = id
                && (about_attributes || self.random.once_in(16))
            {
                self.look(side).xattrs(place, id);
            }
            if let Some(id) = id
                && self.model.is_file(id)
                && self.random.once_in(3)
            {
                self.look(side).content(Some(place), id);
            }
            self.look(side).name(place);
            if let Some(id) = id
                && self.model.is_dir(id)
            {
                self.look(side).parent(id);
            }
        }
        for id in &touched.nodes {
            if self.model.is_file(*id) {
                let place = self.place_of(*id, touched);
                self.look(side).content(place.as_ref(), *id);
            }
        }
        if step.is_about_names() && self.random.once_in(2) {
            self.look(side).folders();
        }
    }

    /// A name of an inode, if it has one.
    fn place_of(&mut self, id: Id, touched: &Touched) -> Option<Place> {
        let named = touched.places.iter().find(|place| self.model.find(place) == Some(id)).cloned();
        named.or_else(|| {
            self.model.entries().into_iter().find(|(_, other)| *other == id).map(|(place, _)| place)
        })
    }

    /// A lock taken on one mount is in the way of the other, and is not any more when it is let go.
    fn lock(
        &mut self,
        actor: usize,
        other: usize,
        file: &Target,
        range: (usize, usize),
    ) -> Result<(), Errno> {
        let mut touched = Touched::default();
        let id = match file {
            Target::Hand { id, .. } => Some(*id),
            Target::Path(place) => self.model.find(place).filter(|id| self.model.is_file(*id)),
        };
        touched.places.extend(match file {
            Target::Path(place) => Some(place.clone()),
            Target::Hand { .. } => None,
        });
        let place = id.and_then(|id| self.place_of(id, &touched));
        let path = place.map(|place| self.sides[other].path(&self.model, &place));
        let there = path.map(|path| open(&path, OFlags::RDWR).unwrap());
        let ask = |wanted: i32| {
            let Some(file) = &there else { return };
            let mut lock = range_lock(libc::F_WRLCK, range);
            fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).unwrap();
            assert_eq!(i32::from(lock.l_type), wanted, "F_OFD_GETLK of a range the other mount locks");
            if wanted == libc::F_WRLCK {
                let shown = (usize::try_from(lock.l_start).unwrap(), usize::try_from(lock.l_len).unwrap());
                assert_eq!(shown, range, "F_OFD_GETLK shows another range");
                let lock = range_lock(libc::F_WRLCK, range);
                let taken = fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map_err(from_nix);
                assert_eq!(taken, Err(Errno::AGAIN), "both mounts have the lock");
            }
        };
        let said = self.sides[actor].lock(&self.model, file, range, || ask(libc::F_WRLCK));
        ask(libc::F_UNLCK);
        said
    }

    /// Runs a program that was replaced on the other mount a moment ago.
    fn execute(&mut self, side: usize, at: &Place, yes: bool) {
        let id = self.model.find(at).unwrap();
        let path = self.sides[side].path(&self.model, at);
        // Open for writing it cannot run.
        for side in &mut self.sides {
            side.hands.retain(|hand| hand.id != id);
        }
        let status =
            Command::new(&path).status().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(status.success(), yes, "{} runs as it was before", path.display());
    }

    /// Closes everything.
    pub(super) fn end(mut self) {
        for side in &mut self.sides {
            side.hands.clear();
            side.folders.clear();
        }
        self.model.sweep(|_| false);
        assert!(self.model.is_there(ROOT));
    }
}

/// Seed of this run: `FLEXFS_SEED`, else one of its own; printed.
pub(super) fn seed() -> u64 {
    let given = std::env::var("FLEXFS_SEED").ok().map(|text| text.parse().unwrap());
    let seed = given.unwrap_or_else(|| u64::try_from(wall() / 1000).unwrap_or(1) % 1_000_000_007);
    eprintln!("seed {seed}");
    seed
}

/// A folder given by the person at the keyboard, to be used in place of a mount.
pub(super) fn local() -> Option<PathBuf> {
    std::env::var_os("FLEXFS_COHERENCE_DIR").map(PathBuf::from)
}
