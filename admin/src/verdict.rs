//! Yes or no to a token, and why. Pure: the record, the request and the time go in, a verdict comes out.

use std::net::IpAddr;

use flexfs_wire::network::Networks;
use flexfs_wire::settings::{Flags, TokenRefusal};
use flexfs_wire::token::{CaPin, SecretHash, Token, TokenError, TokenKind};

/// What the tables hold about a token.
#[derive(Clone, Debug)]
pub struct Record {
    /// Kind it was made as.
    pub kind: TokenKind,
    /// SHA-256 of its secret.
    pub hash: SecretHash,
    /// Id of the account, volume or meta store it belongs to.
    pub owner: String,
    /// End of validity, seconds since 1970; the token is dead from that second on.
    pub expires_at: Option<i64>,
}

/// What the tables hold about the volume a token opens.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name of the volume.
    pub volume: String,
    /// Id of the meta store it lives on.
    pub meta_store: String,
    /// Whether it was retired.
    pub retired: bool,
    /// Flags of the volume.
    pub volume_flags: Flags,
    /// Flags of the token.
    pub token_flags: Flags,
}

impl Target {
    /// The strictest of both.
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.volume_flags.and(self.token_flags)
    }
}

/// A refusal and its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Class.
    pub reason: TokenRefusal,
    /// What to tell the person. Never holds the token.
    pub text: String,
}

impl Refusal {
    fn new(reason: TokenRefusal, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// Parses a token that has to be of `kind` and of the cluster of `pin`.
///
/// # Errors
/// [`Refusal`]: malformed, of another kind or of another cluster.
pub fn read(kind: TokenKind, pin: CaPin, text: &str) -> Result<Token, Refusal> {
    let token = Token::parse_kind(kind, text).map_err(|error| {
        let reason = match error {
            TokenError::WrongKind { .. } => TokenRefusal::WrongKind,
            _ => TokenRefusal::Malformed,
        };
        Refusal::new(reason, error.to_string())
    })?;
    if token.ca_pin == pin {
        Ok(token)
    } else {
        Err(Refusal::new(
            TokenRefusal::WrongCluster,
            "this token belongs to another cluster (CA pin mismatch): use one that this cluster's admin made",
        ))
    }
}

/// Whether a token that [`read`] let pass is the one on record, and still valid.
///
/// # Errors
/// [`Refusal`]: unknown (never made, revoked, or a wrong secret: a stranger is not told which) or expired.
pub fn judge(token: &Token, record: Option<&Record>, now: i64) -> Result<(), Refusal> {
    // An unknown id costs the same comparison as a known one.
    let hash = record.map_or(SecretHash([0; 32]), |record| record.hash);
    let genuine = token.verify_hash(&hash);
    match record {
        Some(record) if genuine && record.kind == token.kind => {
            if record.expires_at.is_some_and(|end| end <= now) {
                return Err(Refusal::new(
                    TokenRefusal::Expired,
                    "this token has expired: ask the operator for a new one",
                ));
            }
            Ok(())
        }
        _ => Err(Refusal::new(
            TokenRefusal::Unknown,
            "this token is unknown or was revoked: ask the operator for a new one",
        )),
    }
}

/// Whether a valid volume token opens `volume` on `meta_store`. `None` asks for whatever the token opens.
///
/// # Errors
/// [`Refusal`]: the volume is another one, retired, or lives on another metadata server.
pub fn judge_volume(target: &Target, volume: Option<&str>, meta_store: Option<&str>) -> Result<(), Refusal> {
    if target.retired {
        return Err(Refusal::new(TokenRefusal::Retired, "the volume of this token was deleted"));
    }
    if volume.is_some_and(|name| name != target.volume) {
        return Err(Refusal::new(
            TokenRefusal::WrongVolume,
            "this token opens another volume than the one asked for: check the volume's name and the credentials file",
        ));
    }
    if meta_store.is_some_and(|id| id != target.meta_store) {
        return Err(Refusal::new(
            TokenRefusal::WrongServer,
            "the volume of this token lives on another metadata server: mount again to be sent there",
        ));
    }
    Ok(())
}

/// Whether a volume token may be used from there.
///
/// # Errors
/// [`Refusal`]: it is for other networks.
pub fn judge_network(networks: &Networks, peer: IpAddr) -> Result<(), Refusal> {
    networks.check(peer).map_err(|text| Refusal::new(TokenRefusal::WrongNetwork, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexfs_wire::token::{Secret, TokenId};

    fn token() -> Token {
        Token {
            kind: TokenKind::Volume,
            id: TokenId([1; 16]),
            secret: Secret::new([2; 32]),
            ca_pin: CaPin([3; 16]),
        }
    }

    fn record() -> Record {
        Record {
            kind: TokenKind::Volume,
            hash: token().secret_hash(),
            owner: "v".to_owned(),
            expires_at: Some(100),
        }
    }

    fn target() -> Target {
        Target {
            volume: "main".to_owned(),
            meta_store: "m1".to_owned(),
            retired: false,
            volume_flags: Flags { ro: true, umask: 0o22, ..Flags::default() },
            token_flags: Flags { no_exec: true, umask: 0o5, ..Flags::default() },
        }
    }

    #[test]
    fn reading() {
        let text = token().to_text();
        assert!(read(TokenKind::Volume, CaPin([3; 16]), &text).is_ok());
        let reason = |kind, pin, text: &str| read(kind, CaPin([pin; 16]), text).unwrap_err().reason;
        assert_eq!(reason(TokenKind::Meta, 3, &text), TokenRefusal::WrongKind);
        assert_eq!(reason(TokenKind::Volume, 4, &text), TokenRefusal::WrongCluster);
        assert_eq!(reason(TokenKind::Volume, 3, &text[..50]), TokenRefusal::Malformed);
    }

    #[test]
    fn judging() {
        assert!(judge(&token(), Some(&record()), 99).is_ok());
        let reason =
            |token: &Token, record: Option<&Record>, now| judge(token, record, now).unwrap_err().reason;
        assert_eq!(reason(&token(), Some(&record()), 100), TokenRefusal::Expired);
        assert_eq!(reason(&token(), None, 0), TokenRefusal::Unknown);
        let forged = Token { secret: Secret::new([9; 32]), ..token() };
        assert_eq!(reason(&forged, Some(&record()), 0), TokenRefusal::Unknown);
        // A wrong secret is not told that the token it guesses at has expired.
        assert_eq!(reason(&forged, Some(&record()), 200), TokenRefusal::Unknown);
        let other = Record { kind: TokenKind::Account, ..record() };
        assert_eq!(reason(&token(), Some(&other), 0), TokenRefusal::Unknown);
    }

    #[test]
    fn volumes() {
        assert!(judge_volume(&target(), Some("main"), Some("m1")).is_ok());
        assert!(judge_volume(&target(), None, None).is_ok());
        let reason = |target: &Target, v, m| judge_volume(target, v, m).unwrap_err().reason;
        assert_eq!(reason(&target(), Some("other"), Some("m1")), TokenRefusal::WrongVolume);
        assert_eq!(reason(&target(), Some("main"), Some("m2")), TokenRefusal::WrongServer);
        let retired = Target { retired: true, ..target() };
        assert_eq!(reason(&retired, Some("main"), Some("m1")), TokenRefusal::Retired);
    }

    #[test]
    fn flags_combine_to_the_strictest() {
        assert_eq!(target().flags(), Flags { ro: true, no_exec: true, umask: 0o27, ..Flags::default() });
    }
}
