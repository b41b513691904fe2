//! Verbs, and which function does what.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use flexfs_wire::limits::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use flexfs_wire::token::hide;
use tracing_subscriber::EnvFilter;

use super::creds::InitCreds;
use super::fstab::InitFstab;
use super::mount8;
use super::scope::Scope;
use crate::config::{MountArgs, STATE_FOLDER};
use crate::daemon::{self, Ready};
use crate::status;

/// Exit code of a failure in the form `mount(8)` uses: "mount failure".
const MOUNT_FAILURE: u8 = 32;

/// Mount a flexfs volume.
#[derive(Debug, Parser)]
#[command(
    name = "mount.flexfs",
    bin_name = "mount.flexfs",
    version,
    disable_version_flag = true,
    after_help = "As a helper of mount(8): mount -t flexfs VOLUME MOUNT_POINT -o ro,credsFile=FILE"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Prepare this machine.
    #[command(subcommand)]
    Init(Init),
    /// Mount a volume; in the background, unless told otherwise.
    Start(Start),
    /// Show the figures of a mount.
    Status {
        /// Where it is mounted.
        mount_point: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Folder given to `start`.
        #[arg(long = "stateFolder", default_value = STATE_FOLDER)]
        state_folder: PathBuf,
    },
    /// Print the path of a directory as the server of an encrypted volume knows it, for `create volume-token --mountPath`.
    Scope(Scope),
    /// Show version and protocol.
    Version,
}

#[derive(Debug, Subcommand)]
enum Init {
    /// Check a volume token with admin, and store it for `start`.
    Creds(InitCreds),
    /// Add a volume to /etc/fstab.
    Fstab(InitFstab),
}

#[derive(Debug, clap::Args)]
struct Start {
    #[command(flatten)]
    mount: MountArgs,
    /// Stay in the foreground, log to standard error.
    #[arg(long, short = 'f')]
    foreground: bool,
    /// Standard output is a pipe to the process that wants to know how it went.
    #[arg(long = "tellParent", hide = true, requires = "foreground")]
    tell_parent: bool,
}

/// Runs the program with its arguments.
#[must_use]
pub fn main(args: &[OsString]) -> ExitCode {
    flexfs_uring::harden::forbid_dumps();
    if mount8::is_helper_call(args) {
        let mounted = mount8::parse(args).and_then(|(args, fake)| if fake { Ok(()) } else { start(args) });
        return report(mounted, MOUNT_FAILURE);
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        // Help goes to standard output with code 0, mistakes to standard error.
        Err(error) => {
            if !error.use_stderr() {
                drop(error.print());
                return ExitCode::SUCCESS;
            }
            eprint!("{}", hide(&error.to_string()));
            return ExitCode::FAILURE;
        }
    };
    let done = match cli.verb {
        Verb::Init(Init::Creds(init)) => init.run(),
        Verb::Init(Init::Fstab(init)) => init.run(),
        Verb::Start(Start { mount, foreground: false, .. }) => start(mount),
        Verb::Start(Start { mount, tell_parent, .. }) => {
            return serve(mount, if tell_parent { Ready::Parent } else { Ready::Nobody });
        }
        Verb::Status { mount_point, json, state_folder } => show(&state_folder, &mount_point, json),
        Verb::Scope(scope) => scope.path().and_then(|path| print(&path)),
        Verb::Version => print(&format!(
            "mount.flexfs {} (protocol {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION})",
            env!("CARGO_PKG_VERSION")
        )),
    };
    report(done, 1)
}

fn start(mut args: MountArgs) -> anyhow::Result<()> {
    args.make_absolute()?;
    daemon::start(&args)
}

fn serve(args: MountArgs, ready: Ready) -> ExitCode {
    init_log(args.verbose);
    match daemon::run(args, ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Once: here, or by the parent and in the log.
            if ready.fail(&error) {
                tracing::error!("{}", hide(&format!("{error:#}")));
                return ExitCode::FAILURE;
            }
            report(Err(error), 1)
        }
    }
}

fn show(state_folder: &Path, mount_point: &Path, json: bool) -> anyhow::Result<()> {
    let report = status::ask(state_folder, &lexical(mount_point)?)?;
    print(&if json { serde_json::to_string_pretty(&report)? } else { status::text(&report) })
}

/// One answer on standard output. A reader that has seen enough, as `head` has, is no error worth a word.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

/// The mount point's real path without asking the file system on it, which may not answer.
fn lexical(path: &Path) -> std::io::Result<PathBuf> {
    let whole = std::path::absolute(path)?;
    match (whole.parent(), whole.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(whole),
    }
}

fn report(done: anyhow::Result<()>, code: u8) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mount.flexfs: {}", hide(&format!("{error:#}")));
            ExitCode::from(code)
        }
    }
}

/// Logs to standard error: the terminal, or the daemon's log file.
fn init_log(verbose: bool) {
    // fuser takes an answer to a request that was given up for an error.
    let level = if verbose { "debug" } else { "info,fuser=error,fuser::reply=off" };
    let filter = EnvFilter::try_from_env("FLEXFS_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .log_internal_errors(false);
    if subscriber.try_init().is_err() {
        eprintln!("mount.flexfs: a log was set up before");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_daemon_gets_the_same_settings() {
        let mut args = MountArgs::new("-vol", Path::new("/mnt/x"));
        args.apply_options("ro,noexec,nosuid,noatime,nonempty,soft,verbose,umask=27,credsFile=/c,logFile=/l")
            .unwrap();
        args.apply_options(
            "memCapacity=10%,cpuLatency=off,transport=dev,stateFolder=/s,diskQuota=5%,diskFolder=/d",
        )
        .unwrap();
        let mut line: Vec<OsString> = ["mount.flexfs", "start", "--foreground"].map(OsString::from).to_vec();
        line.extend(args.to_args());
        let Verb::Start(start) = Cli::try_parse_from(line).unwrap().verb else { panic!("not start") };
        assert_eq!(start.mount, args);
    }
}
