//! What must be so: whatever completed is seen by everything that begins later, on whatever client.
//!
//! Each place of a file, each record of a log and each name has one writer, whose values go up. A reader must not see less
//! than what was completed, or seen by anybody, before it began; and nothing that nobody has begun to write.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use flexfs_uring::clock;

/// What one client writes to one place.
#[derive(Clone, Debug, Default)]
struct Register {
    owner: usize,
    /// Written or begun to be.
    begun: u64,
    /// Completed.
    completed: u64,
    /// Completed, or seen by somebody else.
    floor: u64,
    /// What a loss of the owner's session leaves: it is on disk.
    kept: u64,
    /// What was seen by others: it is at the server.
    seen: u64,
    /// The server died before that was on its disk: the owner has to replay it.
    at_risk: bool,
    /// Times that was possible.
    losses: u64,
}

/// Of a read, at its beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    floor: u64,
    losses: u64,
}

#[derive(Debug, Default)]
struct State {
    registers: BTreeMap<String, Register>,
    /// Sessions lost, of each client.
    losses: BTreeMap<usize, u64>,
    failure: Option<String>,
    journal: Vec<String>,
    digest: u64,
    operations: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Check {
    state: Mutex<State>,
    began: std::time::Instant,
    verbose: bool,
}

impl Check {
    pub(crate) fn new(verbose: bool) -> Self {
        Self { state: Mutex::default(), began: clock::now(), verbose }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more place, which `owner` writes.
    pub(crate) fn add(&self, place: String, owner: usize) {
        self.state().registers.insert(place, Register { owner, ..Register::default() });
    }

    /// The value of the next write.
    pub(crate) fn begin_write(&self, place: &str) -> u64 {
        let mut state = self.state();
        let register = state.registers.get_mut(place).expect("a place that was added");
        register.begun += 1;
        register.begun
    }

    /// How often sessions of a client were lost.
    pub(crate) fn losses(&self, client: usize) -> u64 {
        self.state().losses.get(&client).copied().unwrap_or(0)
    }

    /// A write has ended whose bytes were taken in after so many losses. False: they may be gone since, which another program of
    /// that machine was told of, perhaps.
    pub(crate) fn end_write(&self, place: &str, value: u64, losses: u64) -> bool {
        let mut state = self.state();
        let Some(register) = state.registers.get_mut(place) else { return false };
        if register.losses != losses {
            return false;
        }
        register.completed = register.completed.max(value);
        register.floor = register.floor.max(value);
        true
    }

    /// The value is on disk.
    pub(crate) fn keep(&self, place: &str, value: u64) {
        if let Some(register) = self.state().registers.get_mut(place) {
            register.kept = register.kept.max(value);
        }
    }

    /// What the owner knows to be completed.
    pub(crate) fn completed(&self, place: &str) -> u64 {
        self.state().registers.get(place).map_or(0, |register| register.completed)
    }

    /// A client begins to read. On the writer's own machine the kernel may show what was before as long as the write has not
    /// completed, though others see it already.
    pub(crate) fn before(&self, client: usize, place: &str) -> Before {
        let state = self.state();
        let register = state.registers.get(place).expect("a place that was added");
        let floor = if client == register.owner { register.completed } else { register.floor };
        Before { floor, losses: register.losses }
    }

    /// A client has read `value`.
    pub(crate) fn end_read(&self, client: usize, place: &str, before: Before, value: u64) {
        let mut state = self.state();
        let register = state.registers.get_mut(place).expect("a place that was added");
        let (begun, owner) = (register.begun, register.owner);
        if value > begun {
            let text =
                format!("client {client} read {value} in {place}, which was not written before {begun}");
            return self.fail_in(&mut state, text);
        }
        if register.losses == before.losses {
            if value < before.floor {
                let text = format!(
                    "client {client} read {value} in {place}, of client {owner}, after {} was completed",
                    before.floor
                );
                return self.fail_in(&mut state, text);
            }
            // The kernel shows on the writer's own machine what is on its way still.
            if client != owner {
                register.floor = register.floor.max(value);
                register.seen = register.seen.max(value);
            }
        }
    }

    /// A client has looked at a name, which is there while its value is odd.
    pub(crate) fn end_look(&self, client: usize, place: &str, before: Before, is_there: bool) {
        let mut state = self.state();
        let register = state.registers.get_mut(place).expect("a place that was added");
        let odd = u64::from(is_there);
        let value = if before.floor % 2 == odd { before.floor } else { before.floor + 1 };
        if value > register.begun && register.losses == before.losses {
            let there = if is_there { "there" } else { "absent" };
            let text =
                format!("client {client} found the {place} {there} after {} was completed", before.floor);
            return self.fail_in(&mut state, text);
        }
        // It is at least that; what was seen since by others may be more.
        if client != register.owner {
            register.floor = register.floor.max(value);
        }
    }

    /// The session of a client has ended: what was only there may be gone.
    pub(crate) fn lose(&self, client: usize) {
        let mut state = self.state();
        *state.losses.entry(client).or_default() += 1;
        for register in state.registers.values_mut().filter(|register| register.owner == client) {
            if !std::mem::take(&mut register.at_risk) {
                register.kept = register.kept.max(register.seen);
            }
            register.seen = register.kept;
            register.floor = register.kept;
            register.completed = register.kept;
            register.losses += 1;
        }
    }

    /// All that the server has is on its disk.
    pub(crate) fn settle(&self) {
        for register in self.state().registers.values_mut() {
            register.kept = register.kept.max(register.seen);
            register.at_risk = false;
        }
    }

    /// The server dies.
    pub(crate) fn crash(&self) {
        for register in self.state().registers.values_mut() {
            register.at_risk |= register.seen > register.kept;
        }
    }

    pub(crate) fn fail(&self, text: String) {
        self.fail_in(&mut self.state(), text);
    }

    fn fail_in(&self, state: &mut State, text: String) {
        let at = clock::now().saturating_duration_since(self.began);
        let text = format!("{at:?}: {text}");
        if self.verbose {
            state.journal.push(text.clone());
        }
        state.failure.get_or_insert(text);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.state().failure.is_some()
    }

    /// Something happened.
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        let at = clock::now().saturating_duration_since(self.began);
        let text = format!("{at:?} {}", text());
        let mut state = self.state();
        state.operations += 1;
        for byte in text.bytes() {
            state.digest = (state.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.verbose {
            state.journal.push(text);
        }
    }

    /// Failure, digest and number of what happened; the journal.
    pub(crate) fn take(&self) -> (Option<String>, u64, u64, Vec<String>) {
        let mut state = self.state();
        (state.failure.take(), state.digest, state.operations, std::mem::take(&mut state.journal))
    }
}
