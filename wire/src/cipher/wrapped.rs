//! The volume key under the secret, as it lies at admin: the secret can be changed without any data being written again.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::VolumeKey;
use super::key::KEY_BYTES;
use super::secret::{SecretError, check_secret};

/// Bytes of a salt.
const SALT_BYTES: usize = 16;
/// Bytes of a GCM tag.
const TAG_BYTES: usize = 16;
/// Bytes of a wrapped key: nonce, key, tag.
const WRAPPED_BYTES: usize = NONCE_LEN + KEY_BYTES + TAG_BYTES;
/// What the wrapped key is authenticated with.
const CONTEXT: &[u8] = b"flexfs 1 volume key";
/// Costs of new keys: RFC 9106 section 4, second choice (64 MiB, three passes, four lanes), about 0.2 s.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// Most that a client takes upon itself because a server says so: 1 GiB, some seconds.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

/// A volume key that only the secret opens, with all it takes besides: JSON of admin's REST API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WrappedKey {
    /// How the secret becomes a key.
    pub kdf: Kdf,
    /// Memory that takes, KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes (they change the result, whoever computes it with how many threads).
    pub lanes: u32,
    /// Salt, 16 bytes.
    pub salt: Base64,
    /// Nonce 12 ‖ AES-256-GCM(volume key) 32 ‖ tag 16.
    pub wrapped: Base64,
}

/// Key derivation functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kdf {
    /// RFC 9106, version 0x13.
    Argon2id,
}

/// Bytes that are base64 in JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Base64(Vec<u8>);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(&self.0))
    }
}

impl TryFrom<String> for Base64 {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD.decode(text).map(Self).map_err(|_| "not base64")
    }
}

impl From<Base64> for String {
    fn from(bytes: Base64) -> Self {
        STANDARD.encode(bytes.0)
    }
}

/// Why a key does not come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// The secret cannot be one.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Costs beyond what this program takes, or lengths that cannot be.
    #[error(
        "the volume's wrapped key has costs or lengths that this program does not accept; update it, or ask the operator"
    )]
    Parameters,
    /// Another secret, or a damaged wrapped key.
    #[error("the secret does not open this volume's key")]
    Wrong,
}

impl WrappedKey {
    /// Wraps a key under a secret, with a salt of its own. Takes [`MEMORY_KIB`] for a moment.
    ///
    /// # Errors
    /// [`UnwrapError::Secret`].
    ///
    /// # Panics
    /// When the operating system gives no random bytes.
    pub fn wrap(key: &VolumeKey, secret: &str) -> Result<Self, UnwrapError> {
        check_secret(secret)?;
        let mut salt = vec![0; SALT_BYTES];
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut salt).and_then(|()| rand::fill(&mut nonce)).expect("the system gives random bytes");
        let mut new = Self {
            kdf: Kdf::Argon2id,
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: Base64(salt),
            wrapped: Base64(Vec::new()),
        };
        let mut wrapped = nonce.to_vec();
        let mut sealed = Zeroizing::new(key.0.to_vec());
        let outer = new.derive(secret)?;
        outer
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(new.context()),
                &mut *sealed,
            )
            .map_err(|_| UnwrapError::Parameters)?;
        wrapped.extend_from_slice(&sealed);
        new.wrapped = Base64(wrapped);
        Ok(new)
    }

    /// The key.
    ///
    /// # Errors
    /// [`UnwrapError`].
    pub fn unwrap(&self, secret: &str) -> Result<VolumeKey, UnwrapError> {
        check_secret(secret)?;
        self.check()?;
        let (nonce, sealed) =
            self.wrapped.0.split_first_chunk::<NONCE_LEN>().ok_or(UnwrapError::Parameters)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let outer = self.derive(secret)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let key = outer
            .open_in_place(nonce, Aad::from(self.context()), &mut sealed)
            .map_err(|_| UnwrapError::Wrong)?;
        Ok(VolumeKey(Zeroizing::new((&*key).try_into().map_err(|_| UnwrapError::Parameters)?)))
    }

    /// Whether costs and lengths are such as a client takes: what admin checks before it keeps one.
    ///
    /// # Errors
    /// [`UnwrapError::Parameters`].
    pub fn check(&self) -> Result<(), UnwrapError> {
        let sound = (8 * LANES_MAX..=MEMORY_KIB_MAX).contains(&self.memory_kib)
            && (1..=PASSES_MAX).contains(&self.passes)
            && (1..=LANES_MAX).contains(&self.lanes)
            && self.salt.0.len() == SALT_BYTES
            && self.wrapped.0.len() == WRAPPED_BYTES;
        if sound { Ok(()) } else { Err(UnwrapError::Parameters) }
    }

    fn derive(&self, secret: &str) -> Result<LessSafeKey, UnwrapError> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY_BYTES))
            .map_err(|_| UnwrapError::Parameters)?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(secret.as_bytes(), &self.salt.0, key.as_mut())
            .map_err(|_| UnwrapError::Parameters)?;
        let key = UnboundKey::new(&AES_256_GCM, &key[..]).map_err(|_| UnwrapError::Parameters)?;
        Ok(LessSafeKey::new(key))
    }

    /// Associated data: the costs as well, so that none can be exchanged.
    fn context(&self) -> Vec<u8> {
        let mut context = CONTEXT.to_vec();
        for cost in [self.memory_kib, self.passes, self.lanes] {
            context.extend_from_slice(&cost.to_le_bytes());
        }
        context.extend_from_slice(&self.salt.0);
        context
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_opens_and_it_can_be_changed() {
        let key = VolumeKey::random();
        let wrapped = WrappedKey::wrap(&key, "correct horse").unwrap();
        let json = serde_json::to_string(&wrapped).unwrap();
        let again: WrappedKey = serde_json::from_str(&json).unwrap();
        assert_eq!(*again.unwrap("correct horse").unwrap().0, *key.0);
        assert_eq!(again.unwrap("correct horsf").unwrap_err(), UnwrapError::Wrong);
        let rekeyed = WrappedKey::wrap(&again.unwrap("correct horse").unwrap(), "battery staple").unwrap();
        assert_eq!(*rekeyed.unwrap("battery staple").unwrap().0, *key.0);
        assert_ne!(rekeyed.salt, wrapped.salt);
        assert_eq!(
            WrappedKey::wrap(&key, "too short").unwrap_err().to_string(),
            "the secret has 9 characters; at least 12 are needed"
        );
    }

    #[test]
    fn costs_are_bounded_and_bound_to_the_key() {
        let wrapped = WrappedKey::wrap(&VolumeKey::random(), "correct horse").unwrap();
        for costly in [
            WrappedKey { memory_kib: u32::MAX, ..wrapped.clone() },
            WrappedKey { passes: 17, ..wrapped.clone() },
            WrappedKey { passes: 0, ..wrapped.clone() },
            WrappedKey { lanes: 1000, ..wrapped.clone() },
            WrappedKey { salt: Base64(vec![1; 8]), ..wrapped.clone() },
            WrappedKey { wrapped: Base64(vec![1; 59]), ..wrapped.clone() },
        ] {
            assert_eq!(costly.unwrap("correct horse").unwrap_err(), UnwrapError::Parameters);
        }
        let other = WrappedKey { passes: 1, ..wrapped };
        assert_eq!(other.unwrap("correct horse").unwrap_err(), UnwrapError::Wrong);
    }
}
