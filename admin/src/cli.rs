//! The command line of admin.flexfs.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use flexfs_uring::harden::{self, split_flags};
use flexfs_wire::creds::AdminAddr;
use flexfs_wire::limits::ADMIN_PORT;
use flexfs_wire::token::hide;

use crate::configure::text::parse_duration;
use crate::daemon;
use crate::init::{self, CredsOut};
use crate::systemd::{self, Systemd};

/// The admin server of a flexfs cluster: accounts, volumes, stores and tokens.
#[derive(Debug, Parser)]
#[command(name = "admin.flexfs", version, disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the database, the cluster's CA and the first account; or one part of an installation.
    #[command(args_conflicts_with_subcommands = true)]
    Init(Init),
    /// Serve, in the foreground; logs go to stderr, SIGTERM stops cleanly.
    Start(Start),
    /// Print the version.
    Version,
}

#[derive(Debug, Args)]
struct Init {
    #[command(subcommand)]
    part: Option<Part>,
    /// Name of the first account.
    #[arg(long, default_value = "admin")]
    account: String,
    /// Certificate (PEM) of your own issuing CA, to be the cluster's: tokens will pin its key. Without it one is made.
    #[arg(long = "caCert", requires = "ca_key")]
    ca_cert: Option<PathBuf>,
    /// Private key (PEM) of --caCert; a copy is kept in the folder.
    #[arg(long = "caKey", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    out: Out,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Add an account straight to the database, for when every account token is lost.
    Account {
        /// Name of the account.
        name: String,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        out: Out,
    },
    /// Write a systemd unit for `start`.
    Systemd(Systemd),
}

#[derive(Debug, Args)]
struct Place {
    /// Folder of the database and the CA [default: ~/.flexfs/admin].
    #[arg(long = "dbFolder")]
    db_folder: Option<PathBuf>,
}

impl Place {
    fn folder(&self) -> anyhow::Result<PathBuf> {
        match &self.db_folder {
            Some(folder) => Ok(folder.clone()),
            None => {
                let home =
                    std::env::var_os("HOME").context("HOME is not set: name a folder with --dbFolder")?;
                Ok(Path::new(&home).join(".flexfs/admin"))
            }
        }
    }
}

#[derive(Debug, Args)]
struct Out {
    /// Write the account token into this credentials file (mode 0600) instead of printing it.
    #[arg(long = "credsFile")]
    creds_file: Option<PathBuf>,
    /// Address of this server to put into the credentials file.
    #[arg(long = "adminAddr", requires = "creds_file")]
    admin_addr: Option<String>,
}

impl Out {
    fn creds(self) -> anyhow::Result<Option<CredsOut>> {
        let Some(file) = self.creds_file else { return Ok(None) };
        let addr = self.admin_addr.unwrap_or_else(|| format!("127.0.0.1:{ADMIN_PORT}"));
        Ok(Some(CredsOut { file, admin_addr: AdminAddr::parse(&addr)? }))
    }
}

/// What `start` takes.
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Address to listen on.
    #[arg(long = "bindAddr", default_value = "0.0.0.0:7440")]
    pub(crate) bind_addr: SocketAddr,
    #[command(flatten)]
    place: Place,
    /// Certificate chain (PEM) for clients that come by another name than the role's, such as browsers; flexfs's own
    /// programs always get the cluster's certificate. Read again when it changes.
    #[arg(long = "sslCert", requires = "ssl_key")]
    pub(crate) ssl_cert: Option<PathBuf>,
    /// Private key (PEM) of --sslCert.
    #[arg(long = "sslKey", requires = "ssl_cert")]
    pub(crate) ssl_key: Option<PathBuf>,
    /// Started as root: become this user once the port is taken. The folder must be this user's.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Life of the certificates that this server issues, to metadata servers and to itself: 30d, 12h. They are renewed by
    /// themselves when a third of it is left [default: 30d].
    #[arg(long = "certLife", value_parser = parse_life)]
    pub(crate) cert_life: Option<Duration>,
    /// Days that the audit log is kept, at least 30.
    #[arg(
        long = "auditRetention",
        value_name = "DAYS",
        default_value_t = 400,
        value_parser = clap::value_parser!(u32).range(30..)
    )]
    pub(crate) audit_retention: u32,
}

/// Shortest life of a certificate.
const LIFE_MIN: Duration = Duration::from_secs(10);
/// Longest: what a thief of a key has of it.
const LIFE_MAX: Duration = Duration::from_secs(397 * 86_400);

fn parse_life(text: &str) -> Result<Duration, String> {
    let seconds = parse_duration(text)?;
    let life = Duration::from_secs(seconds.unsigned_abs());
    Some(life)
        .filter(|life| (LIFE_MIN..=LIFE_MAX).contains(life))
        .ok_or_else(|| "a certificate lives from 10s to 397d".to_owned())
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    harden::forbid_dumps();
    match Cli::try_parse() {
        Ok(cli) => report("admin.flexfs", run(cli.verb)),
        Err(error) => refuse(&error),
    }
}

/// The exit code of what was done, and its error in words; a token that stands in them is not repeated.
#[must_use]
pub fn report(program: &str, done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {}", hide(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// What is wrong with a command line; a token that stands in it is not repeated.
#[must_use]
pub fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Help: a reader that has seen enough misses nothing.
        drop(error.print());
        return ExitCode::SUCCESS;
    }
    eprint!("{}", hide(&error.to_string()));
    ExitCode::from(2)
}

fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Init(Init { part: None, account, ca_cert, ca_key, place, out }) => {
            init::run(&place.folder()?, &account, ca_cert.as_deref().zip(ca_key.as_deref()), out.creds()?)
        }
        Verb::Init(Init { part: Some(Part::Account { name, place, out }), .. }) => {
            init::add(&place.folder()?, &name, out.creds()?)
        }
        Verb::Init(Init { part: Some(Part::Systemd(wanted)), .. }) => {
            let start = unit_start(&wanted.start_flags)?;
            systemd::init(&wanted, start)
        }
        Verb::Start(start) => {
            log_to_stderr();
            let folder = start.place.folder()?;
            daemon::run(&start, &folder)
        }
        Verb::Version => {
            println!("admin.flexfs {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

/// What the flags of `start` that will stand in a unit come to.
fn unit_start(flags: &str) -> anyhow::Result<systemd::Start> {
    let words = split_flags(flags)?;
    let line = ["admin.flexfs", "start"].into_iter().map(str::to_owned).chain(words);
    let Verb::Start(start) = Cli::try_parse_from(line).context("--startFlags")?.verb else {
        bail!("--startFlags: these are no flags of `start`");
    };
    if start.user.is_some() {
        bail!(
            "give --user to `init systemd` and not in --startFlags: systemd starts the server as that user"
        );
    }
    let files = [start.ssl_cert, start.ssl_key].into_iter().flatten().collect();
    Ok(systemd::Start { folder: start.place.folder()?, files, port: start.bind_addr.port() })
}

/// Logs go to stderr; `FLEXFS_LOG` chooses what (`info`, `debug`, `flexfs_admin=debug`, ...).
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FLEXFS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log on a full disk loses lines; complaining about that on the same disk would end the program.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["admin.flexfs", "start", "--sslCert", "x"]).is_err());
        assert!(Cli::try_parse_from(["admin.flexfs", "init", "--adminAddr", "x:1"]).is_err());
        assert!(Cli::try_parse_from(["admin.flexfs", "start", "--auditRetention", "29"]).is_err());
        assert_eq!(parse_life("12h"), Ok(Duration::from_secs(43_200)));
        for bad in ["", "9s", "398d", "d", "-1d"] {
            assert!(parse_life(bad).is_err(), "{bad}");
        }
        assert_eq!(unit_start("--dbFolder '/a b'").unwrap().folder, PathBuf::from("/a b"));
        assert!(unit_start("--dbFolder /a --user x").is_err() && unit_start("--bogus").is_err());
        let parsed =
            Cli::try_parse_from(["admin.flexfs", "init", "account", "ann", "--dbFolder", "/x"]).unwrap();
        assert!(matches!(parsed.verb, Verb::Init(Init { part: Some(Part::Account { .. }), .. })));
    }
}
