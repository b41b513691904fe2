//! `scope`: the path of a directory as the server of an encrypted volume knows it, for tokens that open that directory only.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use flexfs_wire::cipher::Cipher;
use flexfs_wire::creds_file;
use flexfs_wire::id::Ino;
use flexfs_wire::name::Name;
use flexfs_wire::token::TokenKind;

use crate::setup;

/// Arguments of `scope`.
#[derive(Debug, clap::Args)]
pub(super) struct Scope {
    /// Credentials of a mount of all of the volume.
    #[arg(long = "credsFile")]
    creds_file: PathBuf,
    /// A directory on that mount.
    directory: PathBuf,
}

impl Scope {
    /// The path, to be given as `--mountPath` of a new token.
    pub(super) fn path(&self) -> anyhow::Result<String> {
        let creds = creds_file::load(TokenKind::Volume, &self.creds_file)?;
        let found = setup::for_token(&creds)?;
        ensure!(
            found.scope == "/",
            "these credentials open {} only; take some of all of the volume",
            found.scope
        );
        let directory = self.directory.canonicalize().context("find the directory")?;
        ensure!(directory.is_dir(), "{} is no directory", directory.display());
        let (top, steps) = walk(&directory)?;
        let Some(cipher) = setup::cipher(&creds, &found)? else {
            let inner = directory.strip_prefix(top).context("the mount point is above")?;
            return Ok(format!("/{}", inner.display()));
        };
        seal(&cipher, &steps)
    }
}

/// The mount point above a directory, and the steps from there: number of the parent, name.
fn walk(directory: &Path) -> anyhow::Result<(PathBuf, Vec<(Ino, Name)>)> {
    let device = directory.metadata()?.dev();
    let mut steps = Vec::new();
    let mut at = directory;
    while let (Some(parent), Some(name)) = (at.parent(), at.file_name()) {
        let above = parent.metadata()?;
        if above.dev() != device {
            break;
        }
        let name =
            Name::new(name.as_bytes()).map_err(|errno| anyhow::anyhow!("{}: {errno}", at.display()))?;
        steps.push((Ino(above.ino()), name));
        at = parent;
    }
    if at.metadata()?.ino() != Ino::ROOT.0 {
        bail!("{} is not the root of a mounted volume", at.display());
    }
    steps.reverse();
    Ok((at.to_owned(), steps))
}

fn seal(cipher: &Cipher, steps: &[(Ino, Name)]) -> anyhow::Result<String> {
    let mut path = String::new();
    for (parent, name) in steps {
        path.push('/');
        path.push_str(std::str::from_utf8(cipher.seal_name(*parent, name).as_bytes())?);
    }
    Ok(if path.is_empty() { "/".to_owned() } else { path })
}
