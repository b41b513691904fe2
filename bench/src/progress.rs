//! How far it is, on standard error: a line that is written over on a terminal, a line per cell elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use flexfs_uring::clock;

/// The progress of a run.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    done: usize,
    all: usize,
    terminal: bool,
}

impl Progress {
    /// Of so many cells.
    pub(crate) fn new(all: usize) -> Self {
        Self { began: clock::now(), done: 0, all, terminal: std::io::stderr().is_terminal() }
    }

    /// Something that is no cell.
    pub(crate) fn note(&self, text: &str) {
        if self.terminal {
            self.write(&format!("\r\x1b[2K{text}\n"));
        } else {
            self.write(&format!("compare: {text}\n"));
        }
    }

    /// A cell begins.
    pub(crate) fn begin(&self, what: &str) {
        if self.terminal {
            self.write(&format!("\r\x1b[2K{} {what}", self.head()));
        }
    }

    /// It has ended.
    pub(crate) fn end(&mut self, what: &str, outcome: &str) {
        self.done += 1;
        if self.terminal {
            self.write(&format!("\r\x1b[2K{} {what}: {outcome}", self.head()));
        } else {
            self.write(&format!("{} {what}: {outcome}\n", self.head()));
        }
    }

    /// Leaves the line.
    pub(crate) fn finish(&self) {
        if self.terminal {
            self.write("\r\x1b[2K");
        }
    }

    fn head(&self) -> String {
        let elapsed = clock::now() - self.began;
        let left = left(elapsed, self.done, self.all)
            .map_or_else(String::new, |left| format!(", about {} left", minutes(left)));
        format!("[{}/{} {}{left}]", self.done, self.all, minutes(elapsed))
    }

    fn write(&self, text: &str) {
        let mut out = std::io::stderr();
        // A terminal that is gone takes nothing away from the measurement.
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }
}

/// From the mean of the cells so far; none before a few have ended.
fn left(elapsed: Duration, done: usize, all: usize) -> Option<Duration> {
    let done = u32::try_from(done).ok().filter(|done| *done >= 3)?;
    let rest = u32::try_from(all).ok()?.saturating_sub(done);
    (elapsed / done).checked_mul(rest)
}

fn minutes(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_the_mean_of_what_was_done() {
        assert_eq!(left(Duration::from_secs(10), 2, 10), None);
        assert_eq!(left(Duration::from_secs(10), 5, 10), Some(Duration::from_secs(10)));
        assert_eq!(left(Duration::from_secs(10), 10, 10), Some(Duration::ZERO));
        assert_eq!(minutes(Duration::from_secs(125)), "2:05");
    }
}
