//! Credentials files: which cluster, which token, and for encrypted volumes the secret.
//!
//! ```toml
//! adminAddr = "admin.example.com:7440"
//! token = "flexvol_..."
//! secret = "..."          # encrypted volumes only
//! ```
//!
//! Pure: text in, values out. Reading and writing files is [`crate::creds_file`]. Error texts never repeat what
//! stood in the file, for it holds secrets.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::cipher::SecretError;
use crate::limits::ADMIN_PORT;
use crate::token::{Secret, Token, TokenError, TokenKind};

/// Longest credentials file in bytes; three short lines and room for comments.
pub const CREDS_BYTES_MAX: usize = 16 * 1024;

/// Mode bits of group and others: none may be set on a credentials file.
const MODE_OTHERS: u32 = 0o077;

/// Address of an admin server: host name or IP address, and port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AdminAddr {
    host: String,
    port: u16,
}

impl AdminAddr {
    /// Parses `host:port`, `host`, `[v6]:port` or `[v6]`; the port is 7440 when none is named.
    ///
    /// # Errors
    /// [`CredsError::AdminAddr`], which says what such an address looks like.
    pub fn parse(text: &str) -> Result<Self, CredsError> {
        let bad = CredsError::AdminAddr;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(|| bad("the closing ] is missing"))?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| bad("no IPv6 address between [ and ]"))?;
                match rest {
                    "" => (host, None),
                    rest => {
                        (host, Some(rest.strip_prefix(':').ok_or_else(|| bad("a : belongs behind the ]"))?))
                    }
                }
            }
            None => match text.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err(bad("put an IPv6 address into [ ]")),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let host_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(host_char) {
            return Err(bad("the host part is no host name"));
        }
        let port = match port {
            None => ADMIN_PORT,
            Some(digits) => digits
                .parse::<u16>()
                .ok()
                .filter(|&port| port != 0 && digits.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| bad("the port must be a number from 1 to 65535"))?,
        };
        Ok(Self { host: host.to_owned(), port })
    }

    /// Host name or address, an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for AdminAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl TryFrom<String> for AdminAddr {
    type Error = CredsError;
    fn try_from(text: String) -> Result<Self, CredsError> {
        Self::parse(&text)
    }
}

impl From<AdminAddr> for String {
    fn from(addr: AdminAddr) -> Self {
        addr.to_string()
    }
}

/// The content of a credentials file.
#[derive(Clone, Debug)]
pub struct Creds {
    /// Where admin listens.
    pub admin_addr: AdminAddr,
    /// Who the holder is, and which cluster to trust.
    pub token: Token,
    /// Passphrase of an encrypted volume.
    pub secret: Option<Secret<String>>,
}

impl Creds {
    /// Parses a credentials file whose token must be of `kind`. Strict: unknown keys are refused.
    ///
    /// # Errors
    /// [`CredsError`]; its text names the key and never its value.
    pub fn parse(kind: TokenKind, text: &str) -> Result<Self, CredsError> {
        if text.len() > CREDS_BYTES_MAX {
            return Err(CredsError::TooLong);
        }
        let mut table = text.parse::<toml::Table>().map_err(|error| CredsError::Syntax {
            // The parser's own text quotes the line; only its position is safe to repeat.
            line: error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count()),
        })?;
        let mut take = |key: &'static str| match table.remove(key) {
            None => Ok(None),
            Some(toml::Value::String(value)) => Ok(Some(Zeroizing::new(value))),
            Some(_) => Err(CredsError::NotText(key)),
        };
        let (admin_addr, token, secret) = (take("adminAddr")?, take("token")?, take("secret")?);
        if let Some(key) = table.keys().next() {
            return Err(CredsError::UnknownKey(key.chars().take(40).collect()));
        }
        Ok(Self {
            admin_addr: AdminAddr::parse(&admin_addr.ok_or(CredsError::Missing("adminAddr"))?)?,
            token: Token::parse_kind(kind, &token.ok_or(CredsError::Missing("token"))?)?,
            secret: secret.map(|secret| Secret::new(secret.to_string())),
        })
    }

    /// The file's text; the inverse of [`Creds::parse`].
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let quote = |text: &str| Zeroizing::new(toml::Value::from(text).to_string());
        let token = self.token.to_text();
        let mut text = Zeroizing::new(String::with_capacity(1024));
        text.push_str("adminAddr = ");
        text.push_str(&quote(&self.admin_addr.to_string()));
        text.push_str("\ntoken = \"");
        text.push_str(&token);
        text.push_str("\"\n");
        if let Some(secret) = &self.secret {
            text.push_str("secret = ");
            text.push_str(&quote(secret.expose()));
            text.push('\n');
        }
        text
    }
}

/// Refuses a file that others may read or change.
///
/// # Errors
/// [`CredsError::Mode`] when a bit of group or others is set; its text holds the command that mends it.
pub fn check_mode(path: &str, mode: u32) -> Result<(), CredsError> {
    if mode & MODE_OTHERS == 0 {
        return Ok(());
    }
    Err(CredsError::Mode { path: path.to_owned(), mode: mode & 0o7777 })
}

/// Why credentials were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredsError {
    /// The file is open to others.
    #[error(
        "group or others may read or change {path} (mode {mode:04o}), and it holds a token; mend it with: chmod 600 {path}"
    )]
    Mode {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Longer than any credentials file.
    #[error("longer than {CREDS_BYTES_MAX} bytes: this is no credentials file")]
    TooLong,
    /// Not TOML.
    #[error("line {line} is not valid TOML; expected: adminAddr = \"host:port\" and token = \"...\"")]
    Syntax {
        /// Line of the error, from 1.
        line: usize,
    },
    /// A key that is not there.
    #[error("the key {0} is missing")]
    Missing(&'static str),
    /// A value of another type.
    #[error("the value of {0} must be a text in quotes")]
    NotText(&'static str),
    /// A key nobody reads: a typing error would otherwise go unnoticed.
    #[error("unknown key {0:?}; known are adminAddr, token and secret")]
    UnknownKey(String),
    /// No address.
    #[error("adminAddr must be host:port ({0})")]
    AdminAddr(&'static str),
    /// No secret of an encrypted volume.
    #[error("secret: {0}")]
    Secret(#[from] SecretError),
    /// No token, or one of another kind.
    #[error("token: {0}")]
    Token(#[from] TokenError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{CaPin, TokenId};

    fn creds(secret: Option<&str>) -> Creds {
        Creds {
            admin_addr: AdminAddr::parse("admin.example.com:443").unwrap(),
            token: Token {
                kind: TokenKind::Volume,
                id: TokenId([7; 16]),
                secret: Secret::new([8; 32]),
                ca_pin: CaPin([9; 16]),
            },
            secret: secret.map(|s| Secret::new(s.to_owned())),
        }
    }

    #[test]
    fn roundtrip() {
        for secret in [None, Some("plain"), Some("qu\"ote\\ \n # ' ünïcode \u{1}")] {
            let text = creds(secret).to_text();
            let again = Creds::parse(TokenKind::Volume, &text).unwrap();
            assert_eq!(*again.to_text(), *text);
            assert_eq!(again.secret.as_ref().map(|s| s.expose().as_str()), secret);
        }
    }

    #[test]
    fn refusals_name_the_key_not_the_value() {
        let token = creds(None).token.to_text();
        let cases = [
            ("adminAddr = \"a:1\"".to_owned(), "the key token is missing"),
            (format!("token = \"{}\"", &*token), "the key adminAddr is missing"),
            (
                format!("adminAddr=\"a:1\"\ntoken=\"{}\"\ntokne=\"hunter2\"", &*token),
                "unknown key \"tokne\"; known are adminAddr, token and secret",
            ),
            ("adminAddr=\"a:1\"\ntoken=12345".to_owned(), "the value of token must be a text in quotes"),
            ("# ok\nadminAddr=\"a:1\"\ntoken=hunter2".to_owned(), "line 3 is not valid TOML"),
            ("adminAddr=\"a:99999\"\ntoken=\"x\"".to_owned(), "the port must be a number from 1 to 65535"),
            ("adminAddr=\"a:1\"\ntoken=\"hunter2\"".to_owned(), "token: this is not a flexfs token"),
        ];
        for (text, wanted) in cases {
            let error = Creds::parse(TokenKind::Volume, &text).unwrap_err().to_string();
            assert!(error.contains(wanted) && !error.contains("hunter2"), "{error}");
        }
        let error = Creds::parse(TokenKind::Meta, &creds(None).to_text()).unwrap_err();
        assert_eq!(error.to_string(), "token: this is a volume token, but a meta token is needed here");
    }

    #[test]
    fn addresses() {
        let good = [
            ("a.b-c:1", "a.b-c:1"),
            ("127.0.0.1:7440", "127.0.0.1:7440"),
            ("host", "host:7440"),
            ("[::1]", "[::1]:7440"),
            ("[fe80::1]:99", "[fe80::1]:99"),
        ];
        for (text, shown) in good {
            let addr = AdminAddr::parse(text).unwrap();
            assert_eq!(addr.to_string(), shown);
            assert_eq!(AdminAddr::parse(shown).unwrap(), addr);
        }
        for text in
            ["", ":1", "a:", "a:0", "a:+5", "a:b", "::1", "[::1", "[x]:1", "[::1]1", "a b:1", "https://a:1"]
        {
            assert!(AdminAddr::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mode() {
        assert!(check_mode("/x", 0o100_600).is_ok());
        assert!(check_mode("/x", 0o100_400).is_ok());
        for mode in [0o644, 0o640, 0o602, 0o610] {
            let error = check_mode("/x/creds", mode).unwrap_err().to_string();
            assert!(error.ends_with("chmod 600 /x/creds"), "{error}");
        }
    }
}
