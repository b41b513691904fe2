//! The parent's side of workers: starts them, lets them go together, collects what they tell, ends them in time.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use flexfs_uring::clock;

use super::spec::{Outcome, Spec};
use super::worker::{Answer, GO, READY};
use crate::entry::WORKER;
use crate::process;
use crate::stats::Histogram;

/// How often the crew looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why a crew has no outcome.
#[derive(Debug)]
pub(crate) enum CrewError {
    /// The work failed, and said why.
    Failed(String),
    /// It did not end in time: the file system hangs or is far too slow.
    Hung(String),
    /// Somebody asked the whole program to end.
    Interrupted,
}

/// Workers that begin together.
#[derive(Debug)]
pub(crate) struct Crew {
    children: Vec<Child>,
    lines: Receiver<(usize, String)>,
    deadline: Instant,
}

impl Crew {
    /// Starts a worker per order. `program` is this program; workers get process groups of their own.
    pub(crate) fn start(program: &Path, orders: &[Spec], limit: Duration) -> Result<Self, CrewError> {
        let (sender, lines) = mpsc::channel();
        let mut crew = Self { children: Vec::new(), lines, deadline: clock::now() + limit };
        for (index, order) in orders.iter().enumerate() {
            let failed =
                |error: &dyn std::fmt::Display| CrewError::Failed(format!("start a worker: {error}"));
            let order = serde_json::to_string(order).map_err(|error| failed(&error))?;
            let mut child = Command::new(program)
                .args([WORKER, &order])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .map_err(|error| failed(&error))?;
            let output = child.stdout.take();
            crew.children.push(child);
            let sender = sender.clone();
            std::thread::spawn(move || {
                let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
                for line in lines.map_while(Result::ok) {
                    drop(sender.send((index, line)));
                }
                // The end of the output, which may come without an answer.
                drop(sender.send((index, String::new())));
            });
        }
        Ok(crew)
    }

    /// Waits until all stand ready.
    pub(crate) fn gather(&mut self) -> Result<(), CrewError> {
        for _ in 0..self.children.len() {
            let (_, line) = self.next_line()?;
            if line != READY {
                return Err(CrewError::Failed(failure(&line)));
            }
        }
        Ok(())
    }

    /// Lets them go, and waits for all.
    pub(crate) fn work(mut self) -> Result<(Outcome, Vec<u64>), CrewError> {
        for child in &mut self.children {
            let Some(mut input) = child.stdin.take() else { continue };
            writeln!(input, "{GO}").map_err(|error| CrewError::Failed(format!("a worker died: {error}")))?;
        }
        let mut done = vec![None; self.children.len()];
        let (mut sum, mut histogram) = (Outcome::default(), Histogram::default());
        while done.iter().any(Option::is_none) {
            let (index, line) = self.next_line()?;
            if line.is_empty() && done[index].is_some() {
                continue;
            }
            let Ok(Answer::Done(outcome)) = serde_json::from_str(&line) else {
                return Err(CrewError::Failed(failure(&line)));
            };
            done[index] = Some(outcome.done);
            sum.done += outcome.done;
            sum.bytes += outcome.bytes;
            sum.nanos = sum.nanos.max(outcome.nanos);
            sum.cut |= outcome.cut;
            histogram.add(&outcome.latencies);
        }
        sum.latencies = histogram.pairs();
        Ok((sum, done.into_iter().flatten().collect()))
    }

    fn next_line(&self) -> Result<(usize, String), CrewError> {
        loop {
            if process::is_asked_to_end() {
                return Err(CrewError::Interrupted);
            }
            match self.lines.recv_timeout(clock::until(self.deadline).min(LOOK_EVERY)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) if clock::until(self.deadline).is_zero() => {
                    return Err(CrewError::Hung("not done within the time limit of a cell".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(CrewError::Failed("all workers died".to_owned()));
                }
            }
        }
    }
}

impl Drop for Crew {
    /// Ends whoever is left. A worker that waits for a file system that hangs cannot be waited for.
    fn drop(&mut self) {
        for child in &mut self.children {
            if matches!(child.try_wait(), Ok(None)) && self_ended(child).is_none() {
                process::kill_group(child.id());
                let _ = process::wait_for(child, Duration::from_millis(500));
            }
        }
    }
}

/// A worker that has answered ends by itself at once.
fn self_ended(child: &mut Child) -> Option<std::process::ExitStatus> {
    process::wait_for(child, Duration::from_millis(20))
}

fn failure(line: &str) -> String {
    match serde_json::from_str(line) {
        Ok(Answer::Failed(text)) => text,
        Ok(Answer::Done(_)) => "a worker was done before it was told to begin".to_owned(),
        Err(_) if line.is_empty() => "a worker died without a word".to_owned(),
        Err(_) => format!("a worker said {line:?}"),
    }
}
