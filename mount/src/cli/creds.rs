//! `init creds`: a volume token into a file that only its owner can read.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use flexfs_wire::creds::{AdminAddr, Creds};
use flexfs_wire::creds_file;
use flexfs_wire::token::{Secret, TOKEN_TEXT_MAX, Token, TokenKind};
use zeroize::Zeroizing;

use crate::config::default_creds_path;
use crate::setup;

/// Arguments of `init creds`.
#[derive(Debug, clap::Args)]
pub(super) struct InitCreds {
    /// Address of the admin server, host or host:port.
    #[arg(long = "adminAddr")]
    admin_addr: AdminAddrArg,
    /// File that holds the volume token; `-` is standard input. Without it the token is asked for.
    #[arg(long = "tokenFile")]
    token_file: Option<PathBuf>,
    /// File that holds the secret of an encrypted volume. Without it the secret is asked for when there is need of one.
    #[arg(long = "secretFile")]
    secret_file: Option<PathBuf>,
    /// File to write [default: ~/.flexfs/mount/creds/VOLUME].
    #[arg(long = "credsFile")]
    creds_file: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
    /// Name of the volume; the token knows it, so this is a check.
    volume: Option<String>,
}

#[derive(Clone, Debug)]
struct AdminAddrArg(AdminAddr);

impl std::str::FromStr for AdminAddrArg {
    type Err = flexfs_wire::creds::CredsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        AdminAddr::parse(text).map(Self)
    }
}

impl InitCreds {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let text = read_token(self.token_file.as_deref())?;
        let token = Token::parse_kind(TokenKind::Volume, text.trim())?;
        let mut creds = Creds { admin_addr: self.admin_addr.0, token, secret: None };
        let answer = setup::for_token(&creds)?;
        if answer.encryption.is_some() || self.secret_file.is_some() {
            creds.secret = Some(read_secret(self.secret_file.as_deref(), &answer.settings.name)?);
        }
        // A wrong secret is told now, not at the first mount.
        setup::cipher(&creds, &answer)?;
        let volume = answer.settings.name;
        if let Some(wanted) = self.volume
            && wanted != volume
        {
            bail!("this token opens volume {volume}, not {wanted}");
        }
        let path = self.creds_file.unwrap_or_else(|| default_creds_path(&volume));
        if path.exists() && !self.force {
            bail!("{} is there already; replace it with --force", path.display());
        }
        creds_file::store(&path, &creds)?;
        println!("volume {volume}: credentials written to {}", path.display());
        println!("mount it with: mount.flexfs start {volume} MOUNT_POINT{}", hint(&path, &volume));
        Ok(())
    }
}

fn hint(path: &Path, volume: &str) -> String {
    if *path == default_creds_path(volume) {
        String::new()
    } else {
        format!(" --credsFile {}", path.display())
    }
}

/// From a file, or a person: the token may come from standard input.
fn read_secret(file: Option<&Path>, volume: &str) -> anyhow::Result<Secret<String>> {
    let Some(path) = file else {
        if !std::io::stdin().is_terminal() {
            bail!("volume {volume} is encrypted: give the file with its secret, --secretFile FILE");
        }
        return Ok(Secret::new(rpassword::prompt_password(format!("Secret of volume {volume}: "))?));
    };
    Ok(creds_file::read_secret(path)?)
}

/// From a file, standard input, or a person.
fn read_token(file: Option<&Path>) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(2 * TOKEN_TEXT_MAX));
    let most = 2 * TOKEN_TEXT_MAX as u64;
    match file {
        Some(path) if path != Path::new("-") => {
            let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
            file.take(most).read_to_string(&mut text).with_context(|| format!("read {}", path.display()))?;
        }
        None if std::io::stdin().is_terminal() => {
            text = Zeroizing::new(rpassword::prompt_password("Volume token: ")?);
        }
        _ => drop(std::io::stdin().take(most).read_to_string(&mut text).context("read standard input")?),
    }
    Ok(text)
}
