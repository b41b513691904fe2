//! What `/proc` says of a thread that asked for something: does it still want the answer?
//!
//! The kernel tells of signals (INTERRUPT), not of what they mean; and it tells nothing of a thread that is past signals
//! because it ends: `exit(2)` and the end of a killed process close files and wait for the answers, whatever comes.
//! Nor of a program that is replaced by `execve(2)`, which closes files too and holds up whoever looks at the process
//! (`ps`) meanwhile.
//!
//! Of threads that may be ending only `/proc/PID/status` is read: `/proc/PID/stat` waits for a process in `execve(2)` (its `exec_update_lock`), which
//! waits for us.

/// `SIGKILL` in a signal mask. A fatal signal is turned into it for every thread of the process.
const SIGKILL: u64 = 1 << 8;
/// Signals that end a process with a memory dump (signal(7)); they are not turned into `SIGKILL`: QUIT, ILL, TRAP, ABRT, BUS,
/// FPE, SEGV, XCPU, XFSZ, SYS.
const DUMPING: u64 =
    1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 23 | 1 << 24 | 1 << 30;
/// Signals that end nothing by default: CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH.
const HARMLESS: u64 = 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 27;

/// `fcntl(2)`: wait for a lock of an open file description.
const F_OFD_SETLKW: u64 = 38;

/// How far the end of a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It runs, or waits.
    Runs,
    /// It ends by itself, or its program does; what the files hold should be stored by then.
    Ends,
    /// It is being killed, or is gone: nobody reads the answer.
    Killed,
}

/// What is known of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) life: Life,
    /// A signal waits for it that is not blocked.
    pub(crate) has_signal: bool,
}

/// Looks at thread `pid`. Takes some ten microseconds and waits for nothing.
pub(crate) fn look(pid: u32) -> Thread {
    match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(text) => parse(&text).judge(),
        Err(_) => Thread { life: Life::Killed, has_signal: true },
    }
}

/// Whether thread `pid`, which is in `fcntl(2)` and waits for our answer, asks for a lock of an open file description.
///
/// Waits for nothing: a process that execs ends its other threads first, and this one ends with our answer only.
pub(crate) fn wants_description_lock(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|text| is_description_lock(&text))
}

/// `/proc/PID/syscall`: number, then six arguments in hexadecimal; of `fcntl(2)` the second is the command.
fn is_description_lock(text: &str) -> bool {
    let command = text.split_whitespace().nth(2).and_then(|word| word.strip_prefix("0x"));
    command.is_some_and(|digits| u64::from_str_radix(digits, 16) == Ok(F_OFD_SETLKW))
}

/// Lines of `/proc/PID/status` (proc_pid_status(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    /// Signals pending for the thread and for its process.
    pending: u64,
    blocked: u64,
    ignored: u64,
    caught: u64,
    /// The thread has memory: it gives that back before it closes its files.
    has_memory: bool,
    /// Kilobytes of code, 0 between two programs.
    code: Option<u64>,
    /// A thread of the kernel's own, which has neither.
    is_kernel: bool,
}

fn parse(text: &str) -> Status {
    let mut status = Status::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        let mask = || u64::from_str_radix(value, 16).unwrap_or(0);
        match key {
            "SigPnd" | "ShdPnd" => status.pending |= mask(),
            "SigBlk" => status.blocked = mask(),
            "SigIgn" => status.ignored = mask(),
            "SigCgt" => status.caught = mask(),
            "VmSize" => status.has_memory = true,
            "VmExe" => status.code = value.strip_suffix(" kB").and_then(|number| number.parse().ok()),
            "Kthread" => status.is_kernel = value == "1",
            _ => {}
        }
    }
    status
}

impl Status {
    fn judge(self) -> Thread {
        let waiting = self.pending & !self.blocked;
        let unhandled = waiting & !self.ignored & !self.caught;
        let is_past = !self.has_memory && !self.is_kernel;
        // Past its last signal, the one that ended it still stands among those of the process.
        let killed =
            self.pending & SIGKILL != 0 || unhandled & DUMPING != 0 || is_past && unhandled & !HARMLESS != 0;
        let life = match (killed, is_past || self.code == Some(0)) {
            (true, _) => Life::Killed,
            (false, true) => Life::Ends,
            (false, false) => Life::Runs,
        };
        Thread { life, has_signal: waiting != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: &str = "VmSize:\t  2000 kB\nVmExe:\t   8 kB\n";

    fn life(text: &str) -> Life {
        parse(text).judge().life
    }

    #[test]
    fn signals_of_a_running_thread() {
        let with = |lines: &str| parse(&format!("Name:\tx: y\n{MEMORY}Kthread:\t0\n{lines}")).judge();
        assert_eq!(with(""), Thread { life: Life::Runs, has_signal: false });
        assert_eq!(with("SigPnd:\t0100\n"), Thread { life: Life::Killed, has_signal: true });
        assert_eq!(with("ShdPnd:\t0002\nSigBlk:\tnonsense\n"), Thread { life: Life::Runs, has_signal: true });
        assert_eq!(with("ShdPnd:\t0002\nSigBlk:\t0002\n"), Thread { life: Life::Runs, has_signal: false });
        assert_eq!(with("ShdPnd:\t0004\n").life, Life::Killed, "SIGQUIT");
        assert_eq!(with("ShdPnd:\t0004\nSigCgt:\t0004\n").life, Life::Runs);
    }

    #[test]
    fn system_calls() {
        assert!(is_description_lock("72 0x3 0x26 0x7ffd5c 0x0 0x0 0x0 0x7ffd5b 0x7f12\n"));
        assert!(!is_description_lock("72 0x3 0x7 0x7ffd5c 0x0 0x0 0x0 0x7ffd5b 0x7f12\n"));
        assert!(!is_description_lock("running\n") && !is_description_lock(""));
    }

    #[test]
    fn ends() {
        assert_eq!(life("SigPnd:\t0\nKthread:\t0\n"), Life::Ends);
        assert_eq!(life("ShdPnd:\t0002\n"), Life::Killed, "SIGINT");
        assert_eq!(life("ShdPnd:\t10000\n"), Life::Ends, "SIGCHLD");
        assert_eq!(life("VmSize:\t4 kB\nVmExe:\t0 kB\n"), Life::Ends, "between two programs");
        assert_eq!(life("Kthread:\t1\n"), Life::Runs);
        assert_eq!((look(std::process::id()).life, look(u32::MAX).life), (Life::Runs, Life::Killed));
    }
}
