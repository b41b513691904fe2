//! Credentials on disk. The one exception to "wire does no I/O": mount, meta and configure need the same
//! two careful functions, and three copies of them would drift apart.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::cipher::check_secret;
use crate::creds::{CREDS_BYTES_MAX, Creds, CredsError, check_mode};
use crate::token::{Secret, TokenKind};

/// Why credentials could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CredsFileError {
    /// The system refused.
    #[error("{doing} {}: {error}{}", path.display(), hint(error))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The mode or the content is wrong.
    #[error("{}: {error}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        error: CredsError,
    },
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::NotFound { " (make it with `init creds`)" } else { "" }
}

/// Reads a file that only its owner may read. The mode is checked on the open file, so it cannot be swapped in between.
fn read_own(doing: &'static str, path: &Path) -> Result<Zeroizing<String>, CredsFileError> {
    let io = |error| CredsFileError::Io { doing, path: path.to_owned(), error };
    let file = File::open(path).map_err(io)?;
    check_mode(&path.to_string_lossy(), file.metadata().map_err(io)?.permissions().mode())
        .map_err(|error| CredsFileError::Refused { path: path.to_owned(), error })?;
    // One byte more than allowed tells a long file from one that just fits; the room never moves.
    let mut text = Zeroizing::new(String::with_capacity(CREDS_BYTES_MAX + 1));
    file.take(CREDS_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

/// Reads credentials of `kind`.
///
/// # Errors
/// [`CredsFileError`]: no such file, open to group or others, or a content that [`Creds::parse`] refuses.
pub fn load(kind: TokenKind, path: &Path) -> Result<Creds, CredsFileError> {
    let text = read_own("read credentials", path)?;
    Creds::parse(kind, &text).map_err(|error| CredsFileError::Refused { path: path.to_owned(), error })
}

/// Reads the secret of an encrypted volume from a file: its text, without the line end. The mode is checked as that of
/// credentials.
///
/// # Errors
/// [`CredsFileError`]: unreadable, open to group or others, or no secret.
pub fn read_secret(path: &Path) -> Result<Secret<String>, CredsFileError> {
    let text = read_own("read the secret in", path)?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    check_secret(secret)
        .map_err(|error| CredsFileError::Refused { path: path.to_owned(), error: error.into() })?;
    Ok(Secret::new(secret.to_owned()))
}

/// Writes credentials with mode 0600: into a new file beside `path`, synced, then renamed over it. Missing
/// folders are made with mode 0700.
///
/// # Errors
/// [`CredsFileError::Io`]; `path` is then as it was.
pub fn store(path: &Path, creds: &Creds) -> Result<(), CredsFileError> {
    let io = |error| CredsFileError::Io { doing: "write credentials", path: path.to_owned(), error };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = folder.join(name);
    let written = write_fresh(&fresh, creds)
        .and_then(|()| fs::rename(&fresh, path))
        .and_then(|()| File::open(folder)?.sync_all());
    written.map_err(|error| {
        // Best effort: what failed is reported, and a leftover is only readable by its owner.
        let _ = fs::remove_file(&fresh);
        io(error)
    })
}

fn write_fresh(fresh: &Path, creds: &Creds) -> io::Result<()> {
    // A leftover of a process with our id that died here; anything else would make `create_new` fail.
    match fs::remove_file(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh)?;
    file.write_all(creds.to_text().as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::creds::AdminAddr;
    use crate::token::{CaPin, Token, TokenId};

    #[test]
    fn store_load_and_refuse() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/creds");
        let creds = Creds {
            admin_addr: AdminAddr::parse("h:1").unwrap(),
            token: Token {
                kind: TokenKind::Meta,
                id: TokenId([7; 16]),
                secret: Secret::new([8; 32]),
                ca_pin: CaPin([9; 16]),
            },
            secret: None,
        };
        let error = load(TokenKind::Meta, &path).unwrap_err().to_string();
        assert!(error.contains("init creds"), "{error}");
        store(&path, &creds).unwrap();
        store(&path, &creds).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_eq!(load(TokenKind::Meta, &path).unwrap().token.id, creds.token.id);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = load(TokenKind::Meta, &path).unwrap_err().to_string();
        assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, vec![b'#'; CREDS_BYTES_MAX + 5]).unwrap();
        let error = load(TokenKind::Meta, &path).unwrap_err().to_string();
        assert!(error.contains("no credentials file"), "{error}");
    }
}
