//! Whether a volume is encrypted, and its key: settled before anything is mounted.

use std::sync::Arc;

use flexfs_wire::cipher::{Cipher, UnwrapError};
use flexfs_wire::creds::Creds;
use flexfs_wire::settings::ForToken;

/// Why the volume's key was not had. Texts name no secret.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    /// The credentials have no secret.
    #[error(
        "volume {0} is encrypted, and the credentials hold no secret; write them anew with its secret: mount.flexfs init creds \
         --force --secretFile FILE"
    )]
    NoSecret(String),
    /// The credentials have a secret for a volume that is not encrypted. Whoever expects encryption must not write plain
    /// bytes because a server says so.
    #[error(
        "the credentials hold a secret, but volume {0} is not encrypted: nothing is mounted, for what is written would be \
         readable at the server; if that is meant, take the line `secret` out of the credentials file"
    )]
    NotEncrypted(String),
    /// The secret does not open the key.
    #[error("volume {volume}: {cause}; check the line `secret` of the credentials file")]
    Key {
        /// Its name.
        volume: String,
        /// Why.
        cause: UnwrapError,
    },
}

/// The cipher of an encrypted volume; takes a moment (Argon2id), and 64 MiB meanwhile.
///
/// # Errors
/// [`EncryptionError`], for the person.
pub fn cipher(creds: &Creds, found: &ForToken) -> Result<Option<Arc<Cipher>>, EncryptionError> {
    let volume = || found.settings.name.clone();
    match (&found.encryption, &creds.secret) {
        (None, None) if !found.settings.encrypted => Ok(None),
        (None, Some(_)) => Err(EncryptionError::NotEncrypted(volume())),
        (_, None) => Err(EncryptionError::NoSecret(volume())),
        (Some(wrapped), Some(secret)) => {
            let key = wrapped
                .unwrap(secret.expose())
                .map_err(|cause| EncryptionError::Key { volume: volume(), cause })?;
            Ok(Some(Arc::new(Cipher::new(&key))))
        }
    }
}
