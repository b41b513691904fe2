//! Running a case under callgrind, in circumstances that are the same everywhere: no environment but what is set here,
//! the same name and arguments of the program, its copy in a folder whose path is equally long on every machine. All of
//! these lie on the stack and would move what follows.
//!
//! Which variant of `memcpy` or of a cipher runs depends on the CPU. Valgrind shows its programs a CPU of its own making:
//! with AVX2 a certain Intel model, without what AVX-512 has, whatever the machine is. So counts compare between machines
//! that have AVX2, and are not compared on others.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

use crate::baseline::Counts;
use crate::case::{self, Case};

/// Function whose instructions count, with all it calls.
const REGION: &str = "*counted_region*";

/// Why this machine's counts are no others' counts.
pub(crate) fn incomparable() -> Option<String> {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        return Some("the baseline is of x86-64 Linux".to_owned());
    }
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !cpu.split_whitespace().any(|word| word == "avx2") {
        return Some("this CPU has no AVX2, so other variants of memcpy and of the ciphers run".to_owned());
    }
    None
}

/// What counts depend on besides the source.
pub(crate) fn circumstances() -> String {
    let said = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.map_or_else(|_| format!("no {program}"), |text| text.lines().next().unwrap_or("?").to_owned())
    };
    format!(
        "{}, {}, {}",
        said("rustc", "--version"),
        said("valgrind", "--version"),
        said("getconf", "GNU_LIBC_VERSION")
    )
}

/// Instructions per call of all cases. Two at a time: each is a process of its own, and they do not disturb one another.
pub(crate) fn count_all() -> Counts {
    let folder = tempfile::Builder::new().prefix("flexfs-counts-").tempdir_in("/tmp").unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), folder.path().join("counts")).unwrap();
    let (todo, counts) = (Mutex::new(case::all().into_iter()), Mutex::new(Counts::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(case) = todo.lock().unwrap().next() else { return };
                    let count = count(folder.path(), &case);
                    counts.lock().unwrap().insert(case.name.to_owned(), count);
                }
            });
        }
    });
    counts.into_inner().unwrap()
}

fn count(folder: &Path, case: &Case) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={REGION}"))
        .args(["./counts", "--case", case.name])
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .output()
        .unwrap_or_else(|error| {
            panic!("valgrind cannot be run ({error}); install it: apt-get install valgrind")
        });
    let instructions = collected(&output);
    let instructions = instructions.unwrap_or_else(|| {
        panic!("{}: callgrind counted nothing:\n{}", case.name, String::from_utf8_lossy(&output.stderr))
    });
    instructions / case.calls
}

/// The sum callgrind says at its end; none when the case failed, or when its region was not found.
fn collected(output: &Output) -> Option<u64> {
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let (_, rest) = text.split_once("Collected : ")?;
    rest.split_whitespace().next()?.parse().ok().filter(|count| *count > 0)
}
