//! The command line of admin.flexfs.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use flexfs_wire::creds::AdminAddr;
use flexfs_wire::limits::ADMIN_PORT;

use crate::init::{self, CredsOut};
use crate::{daemon, systemd};

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
    Systemd {
        /// Flags of `start` in the unit.
        #[arg(long = "startFlags", default_value = "", allow_hyphen_values = true)]
        start_flags: String,
        /// Replace a unit that exists.
        #[arg(long)]
        force: bool,
        /// Enable and start it at once.
        #[arg(long)]
        now: bool,
        /// Folder of the units.
        #[arg(long = "unitFolder", default_value = "/etc/systemd/system")]
        unit_folder: PathBuf,
    },
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
    /// programs always get the cluster's certificate.
    #[arg(long = "sslCert", requires = "ssl_key")]
    pub(crate) ssl_cert: Option<PathBuf>,
    /// Private key (PEM) of --sslCert.
    #[arg(long = "sslKey", requires = "ssl_cert")]
    pub(crate) ssl_key: Option<PathBuf>,
    /// Days that the audit log is kept, at least 30.
    #[arg(
        long = "auditRetention",
        value_name = "DAYS",
        default_value_t = 400,
        value_parser = clap::value_parser!(u32).range(30..)
    )]
    pub(crate) audit_retention: u32,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("admin.flexfs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Init(Init { part: None, account, place, out }) => {
            init::run(&place.folder()?, &account, out.creds()?)
        }
        Verb::Init(Init { part: Some(Part::Account { name, place, out }), .. }) => {
            init::add(&place.folder()?, &name, out.creds()?)
        }
        Verb::Init(Init { part: Some(Part::Systemd { start_flags, force, now, unit_folder }), .. }) => {
            systemd::init(&unit_folder, &start_flags, force, now)
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
        let parsed =
            Cli::try_parse_from(["admin.flexfs", "init", "account", "ann", "--dbFolder", "/x"]).unwrap();
        assert!(matches!(parsed.verb, Verb::Init(Init { part: Some(Part::Account { .. }), .. })));
    }
}
