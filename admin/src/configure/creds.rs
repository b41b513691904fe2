//! configure's own credentials: where admin is, and the account token.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use flexfs_wire::creds::{AdminAddr, Creds};
use flexfs_wire::creds_file;
use flexfs_wire::token::TokenKind;

use crate::configure::ask;
use crate::configure::rest::Rest;

/// What `init creds` takes.
#[derive(Debug, Args)]
pub(crate) struct InitCreds {
    /// host:port of the admin server.
    #[arg(long = "adminAddr")]
    admin_addr: Option<String>,
    /// File that holds the account token; without it, standard input, or a prompt on a terminal.
    #[arg(long = "tokenFile")]
    token_file: Option<PathBuf>,
    /// Replace a credentials file that exists.
    #[arg(long)]
    force: bool,
}

/// The credentials file: the one named, or the default.
pub(crate) fn file(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    match named {
        Some(path) => Ok(path.to_owned()),
        None => {
            let home = std::env::var_os("HOME").context("HOME is not set: name a file with --credsFile")?;
            Ok(Path::new(&home).join(".flexfs/configure/creds"))
        }
    }
}

/// A client with the stored credentials.
pub(crate) fn rest(named: Option<&Path>) -> anyhow::Result<Rest> {
    let creds = creds_file::load(TokenKind::Account, &file(named)?)?;
    Ok(Rest::new(&creds))
}

/// `init creds`: takes the token, tries it, and only then writes it down.
pub(crate) fn init(init: InitCreds, named: Option<&Path>) -> anyhow::Result<()> {
    let path = file(named)?;
    if path.exists() && !init.force {
        bail!("{} exists; --force replaces it", path.display());
    }
    let admin_addr =
        AdminAddr::parse(&ask::text(init.admin_addr, "Address of admin (host:port)", "--adminAddr")?)?;
    let token = ask::token(TokenKind::Account, init.token_file.as_deref())?;
    let creds = Creds { admin_addr, token, secret: None };
    Rest::new(&creds)
        .get("/v1/configure/accounts?limit=1")
        .context("the credentials were tried and not stored")?;
    creds_file::store(&path, &creds)?;
    eprintln!("{} written (mode 0600)", path.display());
    Ok(())
}
