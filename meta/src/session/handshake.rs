//! From a hello to a session, without I/O and without a clock: one type per state, each step consumes the last.
//!
//! ```text
//! bytes --read_hello--> Asked --+-- Opening  --handle_verdict--> Admitted   (the volume makes the session)
//!                               +-- Claiming --handle_sessions-> Proven     (the session is there)
//! ```
//! The request loop takes the session that comes out of this and holds no authentication branch.

use std::net::IpAddr;

use flexfs_wire::frame::{self, HEADER_BYTES, Header, Kind};
use flexfs_wire::hello::{self, Hello, Open, Proof, Reason, Refused};
use flexfs_wire::id::SessionId;
use flexfs_wire::limits::{HELLO_BYTES_MAX, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use flexfs_wire::network::Networks;
use flexfs_wire::settings::{Access, Flags, TokenRefusal, ValidateAnswer, ValidateRequest};
use flexfs_wire::token::{CaPin, Token, TokenError, TokenId, TokenKind};

use crate::auth::AdminError;

/// Longest `client` text kept, bytes.
const CLIENT_BYTES_MAX: usize = 256;

/// A hello that was understood.
#[derive(Debug)]
pub enum Asked {
    /// Wants a new session.
    Open(Box<Opening>),
    /// Claims a running one.
    Claim(Claiming),
}

/// A new session is asked for; its token is well-formed and of this cluster, no more is known.
pub struct Opening {
    version: u16,
    token_id: TokenId,
    open: Open,
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("token_id", &self.token_id).field("open", &self.open).finish()
    }
}

/// A running session is claimed; nothing was proven yet.
#[derive(Debug)]
pub struct Claiming {
    /// Which.
    pub session: SessionId,
    /// Whether the client is ready to replay.
    pub resume: bool,
    proof: Proof,
}

/// Admin said yes.
#[derive(Debug)]
pub struct Admitted {
    /// Protocol version of the session.
    pub version: u16,
    /// Admin's words.
    pub access: Access,
    /// Flags of volume, token and command line together.
    pub flags: Flags,
    /// Host and mount point, for the operator.
    pub client: String,
}

/// The claim of a running session holds.
#[derive(Debug)]
pub struct Proven {
    /// Which.
    pub session: SessionId,
    /// Whether the client is ready to replay.
    pub resume: bool,
}

/// Looks for a whole hello frame at the front of `input`: the hello and the bytes it took, `None` while more must come.
///
/// # Errors
/// `Protocol`: no frame, another frame, or longer than `HELLO_BYTES_MAX`.
pub fn read_hello(input: &[u8]) -> Result<Option<(Hello, usize)>, Refused> {
    let Some(head) = input.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let header = Header::decode(head).map_err(|error| protocol(error.to_string()))?;
    let bytes = HEADER_BYTES + header.rest_bytes();
    if header.kind != Kind::Hello || header.payload_bytes != 0 {
        return Err(protocol("the first frame of a link must be a hello".to_owned()));
    }
    if bytes > HELLO_BYTES_MAX {
        return Err(protocol(format!("a hello has at most {HELLO_BYTES_MAX} bytes")));
    }
    let Some(body) = input.get(HEADER_BYTES..bytes) else { return Ok(None) };
    let hello = frame::decode(Kind::Hello, body).map_err(|error| protocol(error.to_string()))?;
    Ok(Some((hello, bytes)))
}

/// Judges a hello by itself: versions, and the form, kind and cluster of its token.
///
/// # Errors
/// `Version`, `TokenMalformed`, `TokenKind`, `TokenUnknown`.
pub fn judge(hello: Hello, pin: CaPin) -> Result<Asked, Refused> {
    match hello {
        Hello::Open(open) => {
            let version = common_version(open.versions)?;
            let token = Token::parse_kind(TokenKind::Volume, &open.token).map_err(|e| bad_token(&e))?;
            if token.ca_pin != pin {
                let text = "the token belongs to another cluster than this metadata server";
                return Err(refused(Reason::TokenUnknown, text.to_owned()));
            }
            Ok(Asked::Open(Box::new(Opening { version, token_id: token.id, open })))
        }
        Hello::Attach { versions, session, proof } => {
            common_version(versions)?;
            Ok(Asked::Claim(Claiming { session, resume: false, proof }))
        }
        Hello::Resume { versions, session, proof } => {
            common_version(versions)?;
            Ok(Asked::Claim(Claiming { session, resume: true, proof }))
        }
    }
}

impl Opening {
    /// The token's public name, for logs.
    pub fn token_id(&self) -> TokenId {
        self.token_id
    }

    /// What to ask admin. `peer` is the client's address.
    pub fn question(&self, peer: &str) -> ValidateRequest {
        ValidateRequest {
            token: self.open.token.clone(),
            volume: self.open.volume.clone(),
            client: format!("{} {peer}", shorten(&self.open.client)),
        }
    }

    /// Goes on with admin's answer.
    ///
    /// # Errors
    /// The refusal to send.
    pub fn handle_verdict(self, verdict: Result<ValidateAnswer, AdminError>) -> Result<Admitted, Refused> {
        match verdict {
            Ok(ValidateAnswer::Accepted(access)) => Ok(Admitted {
                version: self.version,
                flags: access.flags.and(access.settings.flags).and(self.open.flags),
                access: *access,
                client: shorten(&self.open.client),
            }),
            Ok(ValidateAnswer::Refused { reason, text }) => Err(refused(reason_of(reason), text)),
            Err(AdminError::Unreachable { cause, .. }) => Err(refused(
                Reason::AdminUnreachable,
                format!(
                    "the metadata server cannot reach admin to check the token ({cause}); \
                     running mounts go on, new ones must wait until admin is back"
                ),
            )),
            Err(error @ (AdminError::Refused { .. } | AdminError::Malformed { .. })) => Err(refused(
                Reason::Server,
                format!("the metadata server could not check the token: {error}"),
            )),
        }
    }
}

impl Claiming {
    /// Goes on with the resume keys of the sessions of that number, one for each volume that has one: the index of
    /// the one the proof was made with.
    ///
    /// # Errors
    /// `SessionUnknown`, the same for a session that is not there and for a proof that is wrong.
    pub fn handle_sessions<'a>(
        self,
        mut resume_keys: impl Iterator<Item = &'a [u8; 32]>,
        exporter: &[u8; 32],
    ) -> Result<(Proven, usize), Refused> {
        match resume_keys.position(|key| verify_proof(key, self.session, exporter, &self.proof)) {
            Some(index) => Ok((Proven { session: self.session, resume: self.resume }, index)),
            None => {
                let text = "there is no such session (any more), or the proof is wrong; mount again";
                Err(refused(Reason::SessionUnknown, text.to_owned()))
            }
        }
    }
}

fn verify_proof(resume_key: &[u8; 32], session: SessionId, exporter: &[u8; 32], proof: &Proof) -> bool {
    let expected = hello::prove(resume_key, session, exporter);
    aws_lc_rs::constant_time::verify_slices_are_equal(&expected, proof).is_ok()
}

fn common_version((oldest, newest): (u16, u16)) -> Result<u16, Refused> {
    if oldest <= PROTOCOL_VERSION && newest >= PROTOCOL_VERSION_MIN && oldest <= newest {
        return Ok(newest.min(PROTOCOL_VERSION));
    }
    Err(refused(
        Reason::Version,
        format!(
            "the client speaks protocol versions {oldest} to {newest}, this server {PROTOCOL_VERSION_MIN} to \
             {PROTOCOL_VERSION}; update the older one"
        ),
    ))
}

fn bad_token(error: &TokenError) -> Refused {
    let reason = match error {
        TokenError::WrongKind { .. } => Reason::TokenKind,
        _ => Reason::TokenMalformed,
    };
    refused(reason, error.to_string())
}

fn reason_of(refusal: TokenRefusal) -> Reason {
    match refusal {
        TokenRefusal::Malformed => Reason::TokenMalformed,
        TokenRefusal::WrongKind => Reason::TokenKind,
        TokenRefusal::WrongCluster | TokenRefusal::Unknown => Reason::TokenUnknown,
        TokenRefusal::Expired => Reason::TokenExpired,
        TokenRefusal::WrongVolume | TokenRefusal::Retired | TokenRefusal::WrongServer => Reason::Volume,
        TokenRefusal::WrongNetwork => Reason::Network,
    }
}

/// Whether a link from there may use the token.
///
/// # Errors
/// `Network`.
pub fn check_network(networks: &Networks, peer: IpAddr) -> Result<(), Refused> {
    networks.check(peer).map_err(|text| refused(Reason::Network, text))
}

fn shorten(text: &str) -> String {
    let kept = text.floor_char_boundary(CLIENT_BYTES_MAX);
    // It goes into logs: one line, nothing a terminal would act on.
    text[..kept].chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn protocol(text: String) -> Refused {
    refused(Reason::Protocol, text)
}

fn refused(reason: Reason, text: String) -> Refused {
    Refused { reason, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexfs_wire::id::RequestId;
    use flexfs_wire::limits::PROTOCOL_VERSIONS;
    use flexfs_wire::token::Secret;

    fn token(kind: TokenKind, pin: CaPin) -> String {
        let token = Token { kind, id: TokenId([1; 16]), secret: Secret::new([2; 32]), ca_pin: pin };
        token.to_text().to_string()
    }

    fn open(token: String) -> Hello {
        Hello::Open(Open {
            versions: PROTOCOL_VERSIONS,
            token,
            volume: "v".to_owned(),
            client: "host:/mnt\u{1b}[31m".to_owned(),
            flags: Flags { ro: true, ..Flags::default() },
        })
    }

    fn reason(result: Result<Asked, Refused>) -> Reason {
        result.unwrap_err().reason
    }

    #[test]
    fn tokens_are_judged_before_admin_is_asked() {
        let pin = CaPin([7; 16]);
        assert!(matches!(judge(open(token(TokenKind::Volume, pin)), pin), Ok(Asked::Open(_))));
        assert_eq!(reason(judge(open(token(TokenKind::Account, pin)), pin)), Reason::TokenKind);
        assert_eq!(reason(judge(open("flexvol_zzz".to_owned()), pin)), Reason::TokenMalformed);
        let other = token(TokenKind::Volume, CaPin([8; 16]));
        assert_eq!(reason(judge(open(other), pin)), Reason::TokenUnknown);
        let newer = (PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 3);
        let old = Hello::Attach { versions: newer, session: SessionId(1), proof: [0; 32] };
        assert_eq!(reason(judge(old, pin)), Reason::Version);
    }

    #[test]
    fn admin_down_is_told_apart() {
        let pin = CaPin([7; 16]);
        let Ok(Asked::Open(opening)) = judge(open(token(TokenKind::Volume, pin)), pin) else { panic!() };
        assert!(!opening.question("1.2.3.4:5").client.contains('\u{1b}'));
        let error = AdminError::Unreachable { addr: "a".to_owned(), cause: "refused".to_owned() };
        let refused = opening.handle_verdict(Err(error)).unwrap_err();
        assert_eq!(refused.reason, Reason::AdminUnreachable);
    }

    #[test]
    fn proofs_bind_key_session_and_link() {
        let (key, exporter) = ([1; 32], [2; 32]);
        let proof = hello::prove(&key, SessionId(9), &exporter);
        let claim = |session| Claiming { session: SessionId(session), resume: false, proof };
        let handle = |session, keys: &[[u8; 32]], exporter| {
            claim(session).handle_sessions(keys.iter(), exporter).map(|(_, index)| index).ok()
        };
        assert_eq!(handle(9, &[key], &exporter), Some(0));
        assert_eq!(handle(9, &[[3; 32], key], &exporter), Some(1));
        assert_eq!(handle(8, &[key], &exporter), None);
        assert_eq!(handle(9, &[[3; 32]], &exporter), None);
        assert_eq!(handle(9, &[key], &[4; 32]), None);
        assert_eq!(handle(9, &[], &exporter), None);
    }

    #[test]
    fn hellos_are_bounded() {
        let mut bytes = Vec::new();
        let hello = Hello::Attach { versions: PROTOCOL_VERSIONS, session: SessionId(1), proof: [0; 32] };
        frame::encode(Header::new(Kind::Hello, RequestId(0)), &hello, 0, &mut bytes).unwrap();
        for cut in 0..bytes.len() {
            assert!(matches!(read_hello(&bytes[..cut]), Ok(None)), "{cut}");
        }
        assert!(matches!(read_hello(&bytes), Ok(Some((_, used))) if used == bytes.len()));
        let mut header = Header::new(Kind::Hello, RequestId(0));
        header.body_bytes = 5000;
        assert!(read_hello(&header.encode()).is_err());
        assert!(read_hello(&Header::new(Kind::Request, RequestId(0)).encode()).is_err());
        assert!(read_hello(b"GET / HTTP/1.1\r\nHost: example.com\r\n").is_err());
    }
}
