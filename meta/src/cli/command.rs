//! Verbs and their flags.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use flexfs_uring::harden::{self, split_flags};
use flexfs_wire::limits::{META_PORT, METRICS_PORT};
use flexfs_wire::token::hide;

use super::systemd::{self, Systemd};
use super::{init, verify};
use crate::auth::OwnFiles;
use crate::config::{Config, default_path};
use crate::server;

/// The metadata server of a flexfs cluster: namespaces, locks, hosted blocks.
#[derive(Debug, Parser)]
#[command(name = "meta.flexfs", version, disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make one part of an installation.
    Init {
        #[command(subcommand)]
        part: Part,
    },
    /// Serve, in the foreground; logs go to stderr, SIGTERM stops cleanly.
    Start(Start),
    /// Check every invariant of the databases, with the server stopped.
    Verify(Verify),
    /// Print the version.
    Version,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Write the credentials file, after asking admin whether the token is good.
    Creds(Creds),
    /// Write a systemd unit for `start`.
    Systemd(Systemd),
}

#[derive(Debug, Args)]
pub(super) struct Creds {
    /// Address of the admin server: host, host:port or [v6]:port.
    #[arg(long = "adminAddr")]
    pub(super) admin_addr: String,
    /// File that holds the meta token; without it the token is asked for, or read from standard input.
    #[arg(long = "tokenFile")]
    pub(super) token_file: Option<PathBuf>,
    /// Where to write [default: ~/.flexfs/meta/creds].
    #[arg(long = "credsFile")]
    pub(super) creds_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Place {
    /// Folder of the databases and blocks [default: ~/.flexfs/meta/data].
    #[arg(long = "dbFolder")]
    db_folder: Option<PathBuf>,
}

impl Place {
    fn folder(&self) -> Result<PathBuf> {
        match &self.db_folder {
            Some(folder) => Ok(folder.clone()),
            None => default_path("data", "--dbFolder"),
        }
    }
}

#[derive(Debug, Args)]
struct Start {
    /// Address to listen on.
    #[arg(long = "bindAddr", default_value_t = SocketAddr::from(([0, 0, 0, 0], META_PORT)))]
    bind_addr: SocketAddr,
    #[command(flatten)]
    place: Place,
    /// Address of admin and meta token, made by `init creds` [default: ~/.flexfs/meta/creds].
    #[arg(long = "credsFile")]
    creds_file: Option<PathBuf>,
    /// Address of /metrics and /healthz.
    #[arg(long = "metricsAddr", default_value_t = SocketAddr::from(([127, 0, 0, 1], METRICS_PORT)))]
    metrics_addr: SocketAddr,
    /// Folder of this server's certificate and key [default: `tls` in the database folder].
    #[arg(long = "certFolder")]
    cert_folder: Option<PathBuf>,
    /// Certificate chain (PEM) to show instead of the one that admin makes: for meta.flexfs.internal, signed by the cluster's
    /// CA, whose certificate is the last of the chain. Read again when it changes.
    #[arg(long = "sslCert", requires = "ssl_key")]
    ssl_cert: Option<PathBuf>,
    /// Private key (PEM) of --sslCert.
    #[arg(long = "sslKey", requires = "ssl_cert")]
    ssl_key: Option<PathBuf>,
    /// Threads that serve connections [default: one per core].
    #[arg(long)]
    cores: Option<usize>,
    /// Started as root: become this user once the ports are taken. The folders become this user's when they are made.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Go on with a damaged journal: keep what is before the damage, and a copy of the journal beside it. Only when a start
    /// or `verify` told so.
    #[arg(long = "cutJournal")]
    cut_journal: bool,
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    place: Place,
    /// UUID of one volume; without it all are checked.
    #[arg(long)]
    volume: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    harden::forbid_dumps();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    match run(cli.verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("meta.flexfs: {}", hide(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// What is wrong with the command line; a token that stands in it is not repeated.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Help: a reader that has seen enough misses nothing.
        drop(error.print());
        return ExitCode::SUCCESS;
    }
    eprint!("{}", hide(&error.to_string()));
    ExitCode::from(2)
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Init { part: Part::Creds(creds) } => init::creds(&creds)?,
        Verb::Init { part: Part::Systemd(wanted) } => {
            let config = config(start_of(&wanted.start_flags)?)?;
            systemd::init(&wanted, config)?;
        }
        Verb::Start(start) => {
            log_to_stderr();
            server::run(&config(start)?)?;
        }
        Verb::Verify(Verify { place, volume, json }) => {
            return verify::run(&place.folder()?, volume.as_deref(), json);
        }
        Verb::Version => println!("meta.flexfs {}", env!("CARGO_PKG_VERSION")),
    }
    Ok(ExitCode::SUCCESS)
}

/// The flags of `start` as they will stand in a unit.
fn start_of(flags: &str) -> Result<Start> {
    let words = split_flags(flags)?;
    let line = ["meta.flexfs", "start"].into_iter().map(str::to_owned).chain(words);
    match Cli::try_parse_from(line).context("--startFlags")?.verb {
        Verb::Start(start) => Ok(start),
        _ => anyhow::bail!("--startFlags: these are no flags of `start`"),
    }
}

fn config(start: Start) -> Result<Config> {
    let db_folder = start.place.folder()?;
    Ok(Config {
        bind_addr: start.bind_addr,
        metrics_addr: start.metrics_addr,
        cert_folder: start.cert_folder.unwrap_or_else(|| db_folder.join("tls")),
        db_folder,
        own_certificate: start.ssl_cert.zip(start.ssl_key).map(|(cert, key)| OwnFiles { cert, key }),
        user: start.user,
        cut_journals: start.cut_journal,
        creds_file: match start.creds_file {
            Some(file) => file,
            None => default_path("creds", "--credsFile")?,
        },
        cores: start
            .cores
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
    })
}

/// Logs go to stderr; `FLEXFS_LOG` chooses what (`info`, `debug`, `flexfs_meta=debug`, ...).
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
        let parsed =
            Cli::try_parse_from(["meta.flexfs", "start", "--dbFolder", "/x", "--cores", "3"]).unwrap();
        let Verb::Start(start) = parsed.verb else { panic!() };
        assert_eq!(start.bind_addr.to_string(), "0.0.0.0:7441");
        assert_eq!(start.metrics_addr.to_string(), "127.0.0.1:7442");
        assert!(Cli::try_parse_from(["meta.flexfs", "init", "creds"]).is_err());
        assert_eq!(start_of("--dbFolder '/a b'").unwrap().place.folder().unwrap(), PathBuf::from("/a b"));
        for bad in ["--dbFolder", "--bogus", "a\nb"] {
            assert!(start_of(bad).is_err(), "{bad}");
        }
    }
}
