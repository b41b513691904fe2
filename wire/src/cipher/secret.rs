//! Rules for the secret of an encrypted volume.

/// Fewest characters of a secret. What protects short ones is Argon2id's cost alone.
pub const SECRET_CHARS_MIN: usize = 12;
/// Longest secret in bytes, far beyond any phrase; a credentials file holds 8 KiB.
const SECRET_BYTES_MAX: usize = 1024;

/// Why a text is no secret. Never holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Too few characters.
    #[error("the secret has {0} characters; at least {SECRET_CHARS_MIN} are needed")]
    Short(usize),
    /// Too many bytes.
    #[error("the secret is longer than {SECRET_BYTES_MAX} bytes")]
    Long,
}

/// Checks a secret's length.
///
/// # Errors
/// [`SecretError`].
pub fn check_secret(secret: &str) -> Result<(), SecretError> {
    let chars = secret.chars().count();
    if chars < SECRET_CHARS_MIN {
        return Err(SecretError::Short(chars));
    }
    if secret.len() > SECRET_BYTES_MAX {
        return Err(SecretError::Long);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_in_characters() {
        assert_eq!(check_secret("elf Zeichen"), Err(SecretError::Short(11)));
        assert_eq!(check_secret("zwölfzeichen"), Ok(()));
        assert_eq!(check_secret(&"x".repeat(1025)), Err(SecretError::Long));
    }
}
