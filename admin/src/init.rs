//! `init`: the database, the CA and the first account, once.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use flexfs_uring::harden::User;
use flexfs_wire::creds::{AdminAddr, Creds};
use flexfs_wire::creds_file;
use flexfs_wire::token::{Token, TokenKind};
use rusqlite::Connection;
use rustix::fs::FlockOperation;

use crate::ca::Ca;
use crate::clock;
use crate::db;
use crate::db::Db;
use crate::fields::check_name;
use crate::noun::create_account;
use crate::role::Actor;
use crate::table::Scene;
use crate::token::{Minted, SecretText};

/// File of the database.
const DB_FILE: &str = "admin.db";
/// File whose lock says that somebody works on the folder.
const LOCK_FILE: &str = "lock";

/// Where configure finds its account token, when `init` writes it there instead of printing it.
#[derive(Debug)]
pub(crate) struct CredsOut {
    /// The file.
    pub(crate) file: PathBuf,
    /// The address to put beside the token.
    pub(crate) admin_addr: AdminAddr,
}

/// File of the database in `folder`.
pub(crate) fn db_file(folder: &Path) -> PathBuf {
    folder.join(DB_FILE)
}

/// Fails with the command that helps when `init` has not run.
pub(crate) fn check_made(folder: &Path) -> anyhow::Result<()> {
    if db_file(folder).exists() {
        return Ok(());
    }
    bail!(
        "{} holds no admin database: run `admin.flexfs init --dbFolder {}` first",
        folder.display(),
        folder.display()
    )
}

/// Takes the folder for this process; the lock goes with the returned file, which becomes the property of `user`.
pub(crate) fn lock(folder: &Path, user: Option<&User>) -> anyhow::Result<File> {
    let path = folder.join(LOCK_FILE);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    if let Some(user) = user {
        user.own(&path).with_context(|| format!("give {} to {}", path.display(), user.name()))?;
    }
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another admin.flexfs works on {}: stop it first", folder.display());
    }
    Ok(file)
}

/// Makes everything, or nothing that counts: the database appears last, complete. `ca` is certificate and key of a CA to be
/// the cluster's.
///
/// # Errors
/// The folder is in use already, or cannot be written.
pub(crate) fn run(
    folder: &Path,
    account: &str,
    ca: Option<(&Path, &Path)>,
    out: Option<CredsOut>,
) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("make {}", folder.display()))?;
    let _lock = lock(folder, None)?;
    if db_file(folder).exists() {
        bail!(
            "{} was initialized before; nothing was changed.\nStart it with `admin.flexfs start --dbFolder {}`; \
             a lost account token is replaced with `admin.flexfs init account NAME --dbFolder {}`",
            folder.display(),
            folder.display(),
            folder.display()
        );
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    // A CA that is there came from a backup, or from an `init` that was cut off: tokens out there may pin it.
    let ca = match (ca, folder.join("ca.key").exists()) {
        (None, true) => Ca::load(folder)?,
        (None, false) => Ca::create(folder, clock::wall())?,
        (Some((cert, key)), false) => Ca::adopt(folder, cert, key, clock::wall())?,
        (Some(_), true) => bail!(
            "{} holds a CA already, which tokens may pin: leave out --caCert, or name an empty folder",
            folder.display()
        ),
    };
    let fresh = folder.join("admin.db.new");
    for leftover in [&fresh, &folder.join("admin.db.new-wal"), &folder.join("admin.db.new-shm")] {
        let _ = fs::remove_file(leftover);
    }
    // SQLite makes its files with the mode of the process: this one first, and its companions follow it.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let mut tables = Db::create(&fresh)?;
    let minted = add_account(&mut tables, &ca, account)?;
    tables.close().map_err(|(_, error)| error)?;
    File::open(&fresh)?.sync_all()?;
    match &out {
        Some(out) => store(out, &minted)?,
        None => print(account, &minted),
    }
    fs::rename(&fresh, db_file(folder))?;
    File::open(folder)?.sync_all()?;
    eprintln!("Cluster CA: {} (pin {})", folder.join("ca.pem").display(), ca.pin());
    eprintln!("Start it:   admin.flexfs start --dbFolder {}", folder.display());
    Ok(())
}

/// One more account with a token, straight in the database: the way back in when every account token is lost.
/// A running admin takes it at once.
///
/// # Errors
/// The folder was not initialized, or the name is taken.
pub(crate) fn add(folder: &Path, account: &str, out: Option<CredsOut>) -> anyhow::Result<()> {
    check_made(folder)?;
    let ca = Ca::load(folder)?;
    let mut tables = Connection::open(db_file(folder))?;
    db::prepare(&tables)?;
    let minted = add_account(&mut tables, &ca, account)?;
    match &out {
        Some(out) => store(out, &minted),
        None => {
            print(account, &minted);
            Ok(())
        }
    }
}

pub(crate) fn add_account(tables: &mut Connection, ca: &Ca, name: &str) -> anyhow::Result<SecretText> {
    check_name(name).map_err(|text| anyhow::anyhow!("the account's name {text}"))?;
    let change = tables.transaction()?;
    let scene = Scene { now: clock::now(), pin: ca.pin(), events: &mut Vec::new(), by: &Actor::admin() };
    let made = create_account(&change, name, None, &scene)
        .map_err(|problem| anyhow::anyhow!("account {name:?}: {}", problem.detail()))?;
    change.commit()?;
    let Minted { text, .. } = made.minted.context("an account comes with a token")?;
    Ok(text)
}

fn store(out: &CredsOut, text: &SecretText) -> anyhow::Result<()> {
    let token = Token::parse_kind(TokenKind::Account, &text.0)?;
    creds_file::store(&out.file, &Creds { admin_addr: out.admin_addr.clone(), token, secret: None })?;
    eprintln!("The account token is in {} (mode 0600)", out.file.display());
    Ok(())
}

/// The only time this token is ever shown.
fn print(account: &str, text: &SecretText) {
    eprintln!("Token of account {account:?}, shown only now; give it to `configure.flexfs init creds`:");
    println!("{}", text.0.as_str());
}
