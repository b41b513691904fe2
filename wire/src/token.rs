//! Bearer tokens: the one text form of all three kinds, and the one parser.
//!
//! Text: `flexacc_ | flexvol_ | flexmeta_` followed by unpadded base64url of the body below. All sizes are
//! multiples of three bytes, so the text is canonical: one body has exactly one spelling.
//!
//! ```text
//! 0        1         17            49          65       69
//! +--------+---------+-------------+-----------+--------+
//! | version| id (16) | secret (32) | ca_pin(16)| crc32  |   crc32 is IEEE, little-endian, over bytes 0..65
//! +--------+---------+-------------+-----------+--------+
//! ```
//!
//! The prefix lets a secret scanner find a leaked token; the checksum tells a typing error apart from a revoked
//! token without a network call; the pin makes the very first connection a verified one.
//! Absent here: randomness (callers bring it) and what a token permits (admin's tables say that).

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The only body version there is.
const VERSION: u8 = 1;
/// Bytes before the checksum: version, id, secret, pin.
const SEALED_BYTES: usize = 1 + 16 + 32 + 16;
/// Bytes of a whole body.
const BODY_BYTES: usize = SEALED_BYTES + 4;
/// Characters of a body in base64url; 69 bytes fill 92 characters with no bit left over.
const BODY_CHARS: usize = BODY_BYTES / 3 * 4;
const _: () = assert!(BODY_BYTES.is_multiple_of(3));
/// Longest body text looked at: room for later versions, and a bound on hostile input.
const BODY_CHARS_MAX: usize = 256;
/// Bytes of the longest body text.
const BODY_BYTES_MAX: usize = BODY_CHARS_MAX / 4 * 3;

/// Longest text of a token in this version, in bytes; inputs for tokens need no more room than this.
pub const TOKEN_TEXT_MAX: usize = "flexmeta_".len() + BODY_CHARS;

/// Whom a token speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// An operator at admin's REST API.
    Account,
    /// A mount of one volume.
    Volume,
    /// A metadata server at admin.
    Meta,
}

impl TokenKind {
    /// All kinds, in the order of the specification.
    pub const ALL: [Self; 3] = [Self::Account, Self::Volume, Self::Meta];

    /// The text every token of this kind begins with.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Account => "flexacc_",
            Self::Volume => "flexvol_",
            Self::Meta => "flexmeta_",
        }
    }

    /// The kind with its article, for error texts: `an account token`.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Account => "an account token",
            Self::Volume => "a volume token",
            Self::Meta => "a meta token",
        }
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account => "account",
            Self::Volume => "volume",
            Self::Meta => "meta",
        })
    }
}

/// A value that is wiped on drop and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes `value` into custody.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Every call is a place to look at in a review.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Public name of a token: shown in lists, logs and events. 16 random bytes, written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 16]);

/// Truncated SHA-256 of the public key (`SubjectPublicKeyInfo`, DER) of the cluster's CA; 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaPin(pub [u8; 16]);

/// Text that should have been 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 32 hexadecimal digits")]
pub struct HexError;

macro_rules! hex_id {
    ($name:ident) => {
        impl $name {
            /// Parses 32 hex digits of either case.
            ///
            /// # Errors
            /// [`HexError`] for any other text.
            pub fn parse(text: &str) -> Result<Self, HexError> {
                parse_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        // Hex in JSON and TOML, 16 plain bytes in postcard.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    let text = String::deserialize(from)?;
                    Self::parse(&text).map_err(serde::de::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(from).map(Self)
                }
            }
        }
    };
}

hex_id!(TokenId);
hex_id!(CaPin);

/// SHA-256 of a token's secret: what admin keeps instead of the secret. Harmless to store, useless to present.
#[derive(Clone, Copy)]
pub struct SecretHash(pub [u8; 32]);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hash]")
    }
}

/// A parsed token. That it parsed says nothing about whether admin accepts it.
#[derive(Clone, Debug)]
pub struct Token {
    /// Whom it speaks for.
    pub kind: TokenKind,
    /// Public name.
    pub id: TokenId,
    /// What proves possession.
    pub secret: Secret<[u8; 32]>,
    /// The cluster this token belongs to.
    pub ca_pin: CaPin,
}

impl Token {
    /// Parses the text form, exactly: no space around it is forgiven (readers of files and prompts trim).
    /// Total on any input.
    ///
    /// # Errors
    /// [`TokenError`], whose text names the cause and never repeats the input.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let (kind, body) = TokenKind::ALL
            .into_iter()
            .find_map(|kind| text.strip_prefix(kind.prefix()).map(|body| (kind, body)))
            .ok_or(TokenError::UnknownPrefix)?;
        let body = decode(body)?;
        let (id, rest) = split::<16>(&body[1..]);
        let (secret, rest) = split::<32>(rest);
        let (pin, _checksum) = split::<16>(rest);
        Ok(Self { kind, id: TokenId(*id), secret: Secret::new(*secret), ca_pin: CaPin(*pin) })
    }

    /// Parses a token that has to be of one kind.
    ///
    /// # Errors
    /// As [`Token::parse`], and [`TokenError::WrongKind`].
    pub fn parse_kind(kind: TokenKind, text: &str) -> Result<Self, TokenError> {
        let token = Self::parse(text)?;
        if token.kind == kind {
            Ok(token)
        } else {
            Err(TokenError::WrongKind { needed: kind, found: token.kind })
        }
    }

    /// The text form; the inverse of [`Token::parse`].
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut body = Zeroizing::new([0u8; BODY_BYTES]);
        body[0] = VERSION;
        body[1..17].copy_from_slice(&self.id.0);
        body[17..49].copy_from_slice(self.secret.expose());
        body[49..SEALED_BYTES].copy_from_slice(&self.ca_pin.0);
        let checksum = crc32fast::hash(&body[..SEALED_BYTES]);
        body[SEALED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        // Reserved in full, so that no half-written copy is left behind by a growing string.
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_TEXT_MAX));
        text.push_str(self.kind.prefix());
        URL_SAFE_NO_PAD.encode_string(body.as_slice(), &mut text);
        text
    }

    /// What admin stores for this token.
    #[must_use]
    pub fn secret_hash(&self) -> SecretHash {
        let hash = digest::digest(&digest::SHA256, self.secret.expose());
        let (hash, _) = split::<32>(hash.as_ref());
        SecretHash(*hash)
    }

    /// Whether `stored` is this token's hash; takes the same time for any answer.
    #[must_use]
    pub fn verify_hash(&self, stored: &SecretHash) -> bool {
        self.secret_hash().0.ct_eq(&stored.0).into()
    }
}

/// Why a text is not a token. By whose fault: the person who copied it, or (last) the age of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No kind's prefix.
    #[error("this is not a flexfs token: one begins with flexacc_, flexvol_ or flexmeta_")]
    UnknownPrefix,
    /// A sound token of another kind.
    #[error("this is {}, but {} is needed here", .found.noun(), .needed.noun())]
    WrongKind {
        /// The kind asked for.
        needed: TokenKind,
        /// The kind given.
        found: TokenKind,
    },
    /// Cut off, or run together with something else.
    #[error(
        "the token is truncated or too long: {found} characters follow its prefix where {BODY_CHARS} belong; copy it again"
    )]
    Length {
        /// Characters after the prefix, counted up to a bound.
        found: usize,
    },
    /// A character outside base64url.
    #[error("the token holds a character that cannot occur in one (typing error?); copy it again")]
    Encoding,
    /// Right form, wrong checksum.
    #[error("the token's checksum does not match, a character was changed (typing error?); copy it again")]
    Checksum,
    /// Sound, of a version this program does not know.
    #[error("the token is of version {0}, this program knows version {VERSION}: update it")]
    UnsupportedVersion(u8),
}

/// Characters of a body before its secret begins: version and id.
const PUBLIC_CHARS: usize = 22;

/// `text` with the bodies of tokens left out, sound or not. For what may repeat the words of a person who pasted a token where
/// none belongs: errors of a command line, paths of requests.
#[must_use]
pub fn hide(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((start, prefix)) = next_prefix(rest) {
        let (before, body) = rest.split_at(start + prefix.len());
        shown.push_str(before);
        let end =
            body.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).unwrap_or(body.len());
        shown.push_str(if end > PUBLIC_CHARS { "[hidden]" } else { &body[..end] });
        rest = &body[end..];
    }
    shown.push_str(rest);
    shown
}

/// Where the next token may begin, and by which prefix.
fn next_prefix(text: &str) -> Option<(usize, &'static str)> {
    let found = TokenKind::ALL.map(|kind| text.find(kind.prefix()).map(|start| (start, kind.prefix())));
    found.into_iter().flatten().min()
}

/// Decodes and checks a body: characters, then checksum, then version, then length, so that the most telling
/// error wins (a later version may have another length).
fn decode(text: &str) -> Result<Zeroizing<[u8; BODY_BYTES]>, TokenError> {
    if text.len() > BODY_CHARS_MAX {
        return Err(TokenError::Length { found: text.len() });
    }
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !text.bytes().all(alphabet) {
        return Err(TokenError::Encoding);
    }
    let length = || TokenError::Length { found: text.len() };
    let mut room = Zeroizing::new([0u8; BODY_BYTES_MAX]);
    // The alphabet is right, so what can fail is a dangling character or bits beyond the last byte.
    let found = URL_SAFE_NO_PAD.decode_slice(text, &mut *room).map_err(|_| length())?;
    let sealed = found.checked_sub(4).filter(|&sealed| sealed > 0).ok_or_else(length)?;
    let (bytes, checksum) = room[..found].split_at(sealed);
    if crc32fast::hash(bytes).to_le_bytes() != checksum {
        return Err(if found == BODY_BYTES { TokenError::Checksum } else { length() });
    }
    if bytes[0] != VERSION {
        return Err(TokenError::UnsupportedVersion(bytes[0]));
    }
    if found != BODY_BYTES {
        return Err(length());
    }
    let mut body = Zeroizing::new([0u8; BODY_BYTES]);
    body.copy_from_slice(&room[..BODY_BYTES]);
    Ok(body)
}

/// The first `N` bytes as an array; callers cut from arrays whose length the layout fixes.
fn split<const N: usize>(bytes: &[u8]) -> (&[u8; N], &[u8]) {
    bytes.split_first_chunk::<N>().expect("the body's layout holds every field")
}

fn parse_hex(text: &str) -> Result<[u8; 16], HexError> {
    if text.len() != 32 {
        return Err(HexError);
    }
    let digit = |b: u8| match b {
        b'0'..=b'9' => Ok(b - b'0'),
        b'a'..=b'f' => Ok(b - b'a' + 10),
        b'A'..=b'F' => Ok(b - b'A' + 10),
        _ => Err(HexError),
    };
    let mut bytes = [0u8; 16];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: TokenKind) -> Token {
        Token { kind, id: TokenId([1; 16]), secret: Secret::new([2; 32]), ca_pin: CaPin([3; 16]) }
    }

    #[test]
    fn golden() {
        // Pins version 1: change this only together with the version byte.
        let text = sample(TokenKind::Volume).to_text();
        assert_eq!(
            &**text,
            "flexvol_AQEBAQEBAQEBAQEBAQEBAQECAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgMDAwMDAwMDAwMDAwMDAwMEkMrJ"
        );
        assert_eq!(text.len(), TOKEN_TEXT_MAX - 1);
    }

    #[test]
    fn causes_are_told_apart() {
        let text = sample(TokenKind::Meta).to_text();
        assert!(Token::parse(&text).is_ok());
        assert_eq!(Token::parse("").unwrap_err(), TokenError::UnknownPrefix);
        assert_eq!(Token::parse("ghp_abc").unwrap_err(), TokenError::UnknownPrefix);
        assert_eq!(
            Token::parse_kind(TokenKind::Volume, &text).unwrap_err().to_string(),
            "this is a meta token, but a volume token is needed here"
        );
        assert_eq!(Token::parse("flexacc_").unwrap_err(), TokenError::Length { found: 0 });
        assert_eq!(Token::parse(&format!("{}\n", &**text)).unwrap_err(), TokenError::Encoding);
        let long = format!("flexacc_{}", "A".repeat(5000));
        assert_eq!(Token::parse(&long).unwrap_err(), TokenError::Length { found: 5000 });
        for cut in "flexmeta_".len()..text.len() {
            assert!(matches!(Token::parse(&text[..cut]), Err(TokenError::Length { .. })), "{cut}");
        }
    }

    #[test]
    fn later_version_is_named() {
        let mut body = vec![2u8; 90];
        let checksum = crc32fast::hash(&body);
        body.extend_from_slice(&checksum.to_le_bytes());
        let text = format!("flexvol_{}", URL_SAFE_NO_PAD.encode(&body));
        assert_eq!(Token::parse(&text).unwrap_err(), TokenError::UnsupportedVersion(2));
    }

    #[test]
    fn nothing_prints_the_secret() {
        let token = sample(TokenKind::Account);
        let shown = format!("{token:?} {:?}", token.secret_hash());
        assert!(shown.contains("[secret]") && !shown.contains("2, 2") && !shown.contains("0202"), "{shown}");
    }

    #[test]
    fn tokens_in_texts_are_hidden() {
        let text = sample(TokenKind::Volume).to_text();
        for (said, shown) in [
            ("", ""),
            ("no flexvol_short, flexacc_", "no flexvol_short, flexacc_"),
            (&*format!("a '{}' b", *text), "a 'flexvol_[hidden]' b"),
            (&*format!("{}{}/x", *text, *text), "flexvol_[hidden]/x"),
            (&*format!("{} {}", &text[..60], &text[8..]), &*format!("flexvol_[hidden] {}", &text[8..])),
            (&*format!("ü{}ü", &text[..40]), "üflexvol_[hidden]ü"),
        ] {
            assert_eq!(hide(said), shown);
        }
    }

    #[test]
    fn hash_verifies() {
        let token = sample(TokenKind::Account);
        let mut hash = token.secret_hash();
        assert!(token.verify_hash(&hash));
        hash.0[31] ^= 1;
        assert!(!token.verify_hash(&hash));
    }
}
