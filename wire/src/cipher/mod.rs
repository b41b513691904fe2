//! Encryption of a volume by its clients: what the servers and their disks hold can be read with the volume's secret only.
//!
//! ```text
//! secret (client's credentials file)
//!   | Argon2id, salt and costs of the volume              wrapped.rs
//! key-encryption key --unwraps--> volume key, 32 random bytes; wrapped it lies at admin
//!   | HMAC-SHA-256, label and block id    -> AES-256-GCM key of one block       segment.rs
//!   | HMAC-SHA-512, label                 -> AES-256-SIV key of names, symlink targets, attribute values    text.rs
//! ```
//!
//! Pure but for random bytes (volume keys, salts, nonces), which come from the operating system by way of `aws_lc_rs`.

mod key;
mod secret;
mod segment;
mod text;
mod wrapped;

pub use key::{Cipher, VolumeKey};
pub use secret::{SECRET_CHARS_MIN, SecretError, check_secret};
pub(crate) use segment::Place;
pub use segment::{BlockCipher, SEGMENT_EXTRA_BYTES};
pub use text::TEXT_EXTRA_BYTES;
pub use wrapped::{Base64, Kdf, UnwrapError, WrappedKey};

/// Encrypted bytes do not open: another key, or they were changed, swapped, cut or moved from another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("encrypted bytes do not open: they were changed, or are from another place or volume")]
pub struct Tampered;
