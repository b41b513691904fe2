//! A certificate that the operator brings (`--sslCert`, `--sslKey`), for clusters whose CA's key is not admin's alone. Clients
//! take it for nothing but what it is: signed by the cluster's CA, for `meta.flexfs.internal`. Read again when the files change.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flexfs_wire::token::CaPin;
use zeroize::Zeroizing;

use super::certificate::{CertificateError, Current, assemble};

/// Pause between two looks at the files.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// Where they are.
#[derive(Clone, Debug)]
pub(crate) struct OwnFiles {
    /// Leaf, then the certificates up to the cluster's CA (PEM).
    pub(crate) cert: PathBuf,
    /// The leaf's private key (PEM).
    pub(crate) key: PathBuf,
}

/// What tells that a file is another one: its time and length.
pub(super) type Stamp = [Option<(SystemTime, u64)>; 2];

impl OwnFiles {
    /// Reads both, and looks at them as clients will.
    ///
    /// # Errors
    /// [`CertificateError`]: a file cannot be read, everybody may read the key, or clients would refuse the certificate.
    pub(super) fn read(&self, pin: CaPin, now: i64) -> Result<Current, CertificateError> {
        let chain = read(&self.cert)?;
        let key = Zeroizing::new(read(&self.key)?);
        let found = self.key.metadata().map_err(io(&self.key))?;
        let own =
            |cause: String| CertificateError::Own { cert: self.cert.clone(), key: self.key.clone(), cause };
        // A group may read it, as is usual for keys that several servers share.
        if found.permissions().mode() & 0o007 != 0 {
            return Err(own(format!(
                "everybody may read or change the key; mend it with: chmod o= {}",
                self.key.display()
            )));
        }
        assemble(&chain, &key, pin, now).map_err(own)
    }

    /// Another one after the files were replaced.
    pub(super) fn stamp(&self) -> Stamp {
        [&self.cert, &self.key].map(|path| {
            let found = path.metadata().ok()?;
            Some((found.modified().ok()?, found.len()))
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(io(path))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CertificateError {
    let path = path.to_owned();
    move |error| CertificateError::Io { path, error }
}
