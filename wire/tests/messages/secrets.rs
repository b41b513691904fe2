//! Nothing that holds a secret prints it.

use std::fmt::Debug;

use flexfs_wire::creds::{AdminAddr, Creds};
use flexfs_wire::hello::{Granted, Hello, Open, Welcome};
use flexfs_wire::id::{Ino, SessionId};
use flexfs_wire::seal::Sealer;
use flexfs_wire::settings::{Flags, ValidateRequest};
use flexfs_wire::token::{CaPin, Secret, Token, TokenId, TokenKind};

use crate::samples;

/// Byte of every secret here: 167 in decimal, a7 in hex, `p6en` in base64.
const SECRET: u8 = 0xa7;

fn check(what: &dyn Debug) {
    let shown = format!("{what:?} {what:#?}");
    for trace in ["167", "a7a7", "0xa7", "p6en", "hunter2"] {
        assert!(!shown.contains(trace), "{trace} is in {shown}");
    }
    assert!(shown.len() > 10, "it shows something: {shown}");
}

#[test]
fn debug_hides_them() {
    let token = Token {
        kind: TokenKind::Volume,
        id: TokenId([1; 16]),
        secret: Secret::new([SECRET; 32]),
        ca_pin: CaPin([2; 16]),
    };
    let text = token.to_text().to_string();
    assert!(text.contains("p6en"), "the traces are those of the text: {text}");
    check(&token);
    check(&(token.secret_hash(), token.kind));
    let admin_addr = AdminAddr::parse("admin:1").unwrap();
    check(&Creds { admin_addr, token, secret: Some(Secret::new("hunter2".to_owned())) });
    let (client, volume) = ("host".to_owned(), "main".to_owned());
    check(&ValidateRequest { token: text.clone(), volume: volume.clone(), client: client.clone() });
    let open = Open { versions: (1, 1), token: text, volume, client, flags: Flags::default() };
    check(&open);
    check(&Hello::Open(open));
    let (versions, session, proof) = ((1, 1), SessionId(1), [SECRET; 32]);
    check(&Hello::Attach { versions, session, proof });
    check(&Hello::Resume { versions, session, proof });
    let granted = Granted { resume_key: [SECRET; 32], ..samples::granted() };
    check(&granted);
    check(&Welcome::Granted(Box::new(granted)));
    check(&Sealer::new([SECRET; 16], Ino(1)));
}
