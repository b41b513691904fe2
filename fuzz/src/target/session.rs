//! The way from a stranger's bytes to a session (`meta::session`): hellos of any bytes and of any values, any verdict of
//! admin, any keys.

use flexfs_meta::auth::AdminError;
use flexfs_meta::session::handshake::{Asked, Claiming, Opening, judge, read_hello};
use flexfs_wire::frame::{self, Header, Kind};
use flexfs_wire::hello::{Hello, Open, prove};
use flexfs_wire::id::{RequestId, SessionId};
use flexfs_wire::limits::{HELLO_BYTES_MAX, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use flexfs_wire::settings::{Access, ValidateAnswer};
use flexfs_wire::token::{CaPin, Secret, Token, TokenId, TokenKind};

use crate::fabricate::fabricate;
use crate::source::Source;

const PIN: CaPin = CaPin([3; 16]);

/// The first byte chooses: raw bytes of a link, or a hello made from them.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    if source.one_in(2) {
        let bytes = source.rest();
        if let Some(hello) = read(bytes) {
            go_on(hello, &mut Source::new(bytes));
        }
        return;
    }
    let Some(hello) = some_hello(&mut source) else { return };
    let mut bytes = Vec::new();
    frame::encode(Header::new(Kind::Hello, RequestId(0)), &hello, 0, &mut bytes).expect("a small frame");
    if let Some(again) = read(&bytes) {
        assert!(again == hello, "what was sent is what arrives");
        go_on(again, &mut source);
    } else {
        assert!(bytes.len() > HELLO_BYTES_MAX);
    }
}

/// Bytes as they come in: nothing is decided before the hello is whole, and then the same at any later byte.
fn read(bytes: &[u8]) -> Option<Hello> {
    let whole = read_hello(bytes);
    let mut first = None;
    for end in 0..=bytes.len().min(HELLO_BYTES_MAX + 64) {
        match (read_hello(&bytes[..end]), &first) {
            (Ok(None), None) => {}
            (Ok(Some((_, used))), _) => {
                assert!(used <= end && used <= HELLO_BYTES_MAX);
                first.get_or_insert(end);
                assert!(whole.is_ok());
            }
            (Err(_), None) => {
                assert!(whole.is_err(), "what is refused early is refused");
                break;
            }
            (other, first) => panic!("a hello that was whole at {first:?} is {other:?} at {end}"),
        }
    }
    whole.ok().flatten().map(|(hello, _)| hello)
}

fn go_on(hello: Hello, source: &mut Source<'_>) {
    let copy = hello.clone();
    match (judge(hello, PIN), copy) {
        (Ok(Asked::Open(opening)), Hello::Open(open)) => {
            check_versions(open.versions);
            let token = Token::parse_kind(TokenKind::Volume, &open.token).expect("only volume tokens open");
            assert_eq!((token.ca_pin, opening.token_id()), (PIN, token.id));
            ask(*opening, &open, source);
        }
        (Ok(Asked::Claim(claim)), Hello::Attach { versions, session, proof }) => {
            check_versions(versions);
            assert!(!claim.resume);
            prove_it(claim, session, &proof, source);
        }
        (Ok(Asked::Claim(claim)), Hello::Resume { versions, session, proof }) => {
            check_versions(versions);
            assert!(claim.resume);
            prove_it(claim, session, &proof, source);
        }
        (Ok(asked), copy) => panic!("{copy:?} became {asked:?}"),
        (Err(refused), Hello::Open(open)) => {
            // A real token, for a text could be one that the refusal says anyway.
            let is_secret = Token::parse(&open.token).is_ok();
            assert!(!is_secret || !refused.text.contains(&open.token), "a refusal repeats the token");
        }
        (Err(_), _) => {}
    }
}

fn check_versions((oldest, newest): (u16, u16)) {
    assert!(oldest <= newest && oldest <= PROTOCOL_VERSION && newest >= PROTOCOL_VERSION_MIN);
}

/// Admin's verdict: only a yes opens, and flags only ever become stricter.
fn ask(opening: Opening, open: &Open, source: &mut Source<'_>) {
    let question = opening.question("192.0.2.1:9");
    assert!(question.client.len() <= 256 + 12 && !question.client.chars().any(char::is_control));
    assert_eq!((&question.token, &question.volume), (&open.token, &open.volume));
    let verdict = match source.below(4) {
        0 => Err(AdminError::Unreachable { addr: "a".to_owned(), cause: "b".to_owned() }),
        1 => Err(AdminError::Malformed { path: "/", cause: "b".to_owned() }),
        2 => fabricate(source)
            .map(|reason| ValidateAnswer::Refused { reason, text: "no".to_owned() })
            .ok_or_else(|| AdminError::Refused { status: 500, text: "b".to_owned() }),
        _ => match fabricate::<Access>(source) {
            Some(access) => Ok(ValidateAnswer::Accepted(Box::new(access))),
            None => return,
        },
    };
    let accepted = match &verdict {
        Ok(ValidateAnswer::Accepted(access)) => Some((**access).clone()),
        _ => None,
    };
    match (opening.handle_verdict(verdict), accepted) {
        (Ok(admitted), Some(access)) => {
            for flags in [access.flags, access.settings.flags, open.flags] {
                assert_eq!(admitted.flags.and(flags), admitted.flags, "a flag was lost");
            }
            check_versions((admitted.version, admitted.version));
            assert!(admitted.client.len() <= 256 && !admitted.client.chars().any(char::is_control));
        }
        (Err(_), None) => {}
        (outcome, accepted) => panic!("{outcome:?} of {accepted:?}"),
    }
}

/// A claim holds with the key its proof was made with, at its place among others, and with no other.
fn prove_it(claim: Claiming, session: SessionId, proof: &[u8; 32], source: &mut Source<'_>) {
    let exporter = [source.byte(); 32];
    let keys: Vec<[u8; 32]> = (0..source.below(4)).map(|_| [source.byte() & 3; 32]).collect();
    let said = keys.iter().position(|key| prove(key, session, &exporter) == *proof);
    let resume = claim.resume;
    let outcome = claim.handle_sessions(keys.iter(), &exporter);
    assert_eq!(outcome.as_ref().map(|(_, index)| *index).ok(), said);
    if let Ok((proven, _)) = outcome {
        assert_eq!((proven.session, proven.resume), (session, resume));
    }
}

/// Often a hello that gets somewhere: a real token, a real proof.
fn some_hello(source: &mut Source<'_>) -> Option<Hello> {
    let mut hello = fabricate::<Hello>(source)?;
    match &mut hello {
        Hello::Open(open) if source.one_in(2) => {
            let flags = source.byte();
            let kind = if flags & 3 == 3 { TokenKind::Account } else { TokenKind::Volume };
            let ca_pin = if flags & 12 == 12 { CaPin([4; 16]) } else { PIN };
            let token = Token { kind, id: TokenId([flags; 16]), secret: Secret::new([2; 32]), ca_pin };
            open.token = token.to_text().to_string();
            if flags & 0x30 != 0x30 {
                open.versions = (1, 1 + u16::from(flags >> 6));
            }
        }
        Hello::Attach { versions, session, proof } | Hello::Resume { versions, session, proof } => {
            *versions = (1, 1);
            let mut peek = *source;
            let exporter = [peek.byte(); 32];
            *proof = prove(&[peek.byte() & 3; 32], *session, &exporter);
        }
        Hello::Open(_) => {}
    }
    Some(hello)
}
