//! The key of a volume, and what is derived of it.

use std::fmt;

use aws_lc_rs::{hmac, rand};
use zeroize::Zeroizing;

/// Bytes of a volume key.
pub(super) const KEY_BYTES: usize = 32;
/// Bytes of an AES-256-SIV key: one half for the tag, one for the encryption (RFC 5297).
pub(super) const SIV_KEY_BYTES: usize = 64;

/// What all of an encrypted volume hangs on. Made once, at the volume's creation, and only ever kept wrapped.
pub struct VolumeKey(pub(super) Zeroizing<[u8; KEY_BYTES]>);

impl VolumeKey {
    /// A new one.
    ///
    /// # Panics
    /// When the operating system gives no random bytes: nothing safe can be done then.
    #[must_use]
    pub fn random() -> Self {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(key.as_mut()).expect("the operating system gives random bytes");
        Self(key)
    }
}

impl fmt::Debug for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VolumeKey")
    }
}

/// The keys in use of one volume. Shared by all cores of a mount.
pub struct Cipher {
    /// Derives the key of each block.
    pub(super) blocks: hmac::Key,
    /// AES-256-SIV.
    pub(super) texts: Zeroizing<[u8; SIV_KEY_BYTES]>,
}

impl Cipher {
    /// Derives them.
    #[must_use]
    pub fn new(key: &VolumeKey) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, &key.0[..]);
        let wide = hmac::Key::new(hmac::HMAC_SHA512, &key.0[..]);
        let mut texts = Zeroizing::new([0; SIV_KEY_BYTES]);
        texts.copy_from_slice(hmac::sign(&wide, b"flexfs 1 texts").as_ref());
        let blocks = hmac::sign(&root, b"flexfs 1 blocks");
        Self { blocks: hmac::Key::new(hmac::HMAC_SHA256, blocks.as_ref()), texts }
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_show_nothing_of_themselves() {
        let key = VolumeKey::random();
        assert_eq!(format!("{key:?} {:?}", Cipher::new(&key)), "VolumeKey Cipher");
        assert_ne!(*key.0, *VolumeKey::random().0);
    }
}
