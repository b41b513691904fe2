//! Names, symlink targets and values of extended attributes: AES-256-SIV (RFC 5297), the same text for the same bytes in
//! the same place, so that the server finds a name without reading it.
//!
//! ```text
//! SIV( associated data = use u8 ‖ inode u64 LE [‖ attribute name],  bytes )  =  tag 16 ‖ encrypted bytes
//!   use  'n' a name: inode of its directory      's' target: of the symlink      'x' value: of its owner
//! ```
//! Names travel as base64url without padding: a server's names hold neither `/` nor NUL, nor are they `.` or `..`.

use aes_siv::KeyInit as _;
use aes_siv::siv::Aes256Siv;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::{Cipher, Tampered};
use crate::id::Ino;
use crate::limits::{self, NAME_BYTES_MAX};
use crate::name::Name;

/// Bytes that an encrypted target or value is longer than its plaintext.
pub const TEXT_EXTRA_BYTES: usize = 16;

impl Cipher {
    /// A name as the server sees it.
    #[must_use]
    pub fn seal_name(&self, parent: Ino, name: &Name) -> Name {
        let sealed = self.seal(&owner(b'n', parent, b""), name.as_bytes());
        Name::sealed(URL_SAFE_NO_PAD.encode(sealed).as_bytes()).expect("base64url is a name")
    }

    /// The inverse of [`Cipher::seal_name`].
    ///
    /// # Errors
    /// [`Tampered`]: not a name made with this key in this directory.
    pub fn open_name(&self, parent: Ino, sealed: &Name) -> Result<Name, Tampered> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed.as_bytes()).map_err(|_| Tampered)?;
        let name = self.open(&owner(b'n', parent, b""), &bytes)?;
        Name::new(&name).map_err(|_| Tampered)
    }

    /// A symlink's target as the server sees it.
    #[must_use]
    pub fn seal_target(&self, link: Ino, target: &[u8]) -> Vec<u8> {
        self.seal(&owner(b's', link, b""), target)
    }

    /// The inverse of [`Cipher::seal_target`].
    ///
    /// # Errors
    /// [`Tampered`].
    pub fn open_target(&self, link: Ino, sealed: &[u8]) -> Result<Vec<u8>, Tampered> {
        self.open(&owner(b's', link, b""), sealed)
    }

    /// The value of an extended attribute as the server sees it.
    #[must_use]
    pub fn seal_value(&self, ino: Ino, name: &[u8], value: &[u8]) -> Vec<u8> {
        self.seal(&owner(b'x', ino, name), value)
    }

    /// The inverse of [`Cipher::seal_value`].
    ///
    /// # Errors
    /// [`Tampered`].
    pub fn open_value(&self, ino: Ino, name: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Tampered> {
        self.open(&owner(b'x', ino, name), sealed)
    }

    fn seal(&self, place: &[u8], bytes: &[u8]) -> Vec<u8> {
        self.siv().encrypt([place], bytes).expect("a text is far below what SIV takes")
    }

    fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Tampered> {
        self.siv().decrypt([place], sealed).map_err(|_| Tampered)
    }

    fn siv(&self) -> Aes256Siv {
        Aes256Siv::new((&*self.texts).into())
    }
}

/// Associated data.
fn owner(kind: u8, ino: Ino, name: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut place = Zeroizing::new(Vec::with_capacity(9 + name.len()));
    place.push(kind);
    place.extend_from_slice(&ino.0.to_le_bytes());
    place.extend_from_slice(name);
    place
}

const _: () = {
    // Four characters for three bytes.
    let sealed = NAME_BYTES_MAX + TEXT_EXTRA_BYTES;
    assert!((sealed * 4).div_ceil(3) == limits::NAME_SEALED_BYTES_MAX);
    assert!(limits::SYMLINK_BYTES_MAX + TEXT_EXTRA_BYTES == limits::SYMLINK_SEALED_BYTES_MAX);
    assert!(limits::XATTR_VALUE_BYTES_MAX + TEXT_EXTRA_BYTES == limits::XATTR_VALUE_SEALED_BYTES_MAX);
};

#[cfg(test)]
mod tests {
    use super::super::VolumeKey;
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn names_are_found_again_in_their_directory_only() {
        let cipher = Cipher::new(&VolumeKey::random());
        for text in ["a", "report.txt", &"x".repeat(255)] {
            let sealed = cipher.seal_name(Ino(5), &name(text));
            assert_eq!(sealed, cipher.seal_name(Ino(5), &name(text)));
            assert_ne!(sealed, cipher.seal_name(Ino(6), &name(text)));
            assert!(sealed.is_sealed(), "{sealed:?}");
            assert_eq!(cipher.open_name(Ino(5), &sealed), Ok(name(text)));
            assert_eq!(cipher.open_name(Ino(6), &sealed), Err(Tampered));
            assert_eq!(Cipher::new(&VolumeKey::random()).open_name(Ino(5), &sealed), Err(Tampered));
        }
        assert_eq!(cipher.open_name(Ino(5), &name("plain")), Err(Tampered));
    }

    #[test]
    fn targets_and_values_are_bound_to_their_owner() {
        let cipher = Cipher::new(&VolumeKey::random());
        let target = cipher.seal_target(Ino(9), b"../secret");
        assert_eq!(target.len(), 9 + TEXT_EXTRA_BYTES);
        assert_eq!(cipher.open_target(Ino(9), &target).unwrap(), b"../secret");
        assert_eq!(cipher.open_target(Ino(8), &target), Err(Tampered));
        let value = cipher.seal_value(Ino(9), b"user.a", b"");
        assert_eq!(cipher.open_value(Ino(9), b"user.a", &value).unwrap(), b"");
        assert_eq!(cipher.open_value(Ino(9), b"user.b", &value), Err(Tampered));
        assert_eq!(cipher.open_target(Ino(9), &value), Err(Tampered), "a value is no target");
        assert_eq!(cipher.open_value(Ino(9), b"user.a", &[]), Err(Tampered));
    }
}
