//! Token texts.

use flexfs_wire::token::{Token, TokenKind};

/// What parses prints the same text again.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for kind in TokenKind::ALL {
        if let Ok(token) = Token::parse_kind(kind, text) {
            assert_eq!(token.kind, kind);
        }
    }
    if let Ok(token) = Token::parse(text) {
        assert_eq!(token.to_text().as_str(), text, "one token has one text");
        assert!(token.verify_hash(&token.secret_hash()));
    }
}
