//! Credentials files (TOML).

use flexfs_wire::creds::Creds;
use flexfs_wire::token::TokenKind;

/// What parses is written in a form that parses to the same.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for kind in TokenKind::ALL {
        if let Ok(creds) = Creds::parse(kind, text) {
            let again = Creds::parse(kind, &creds.to_text()).expect("what we write, we read");
            assert_eq!(again.token.id, creds.token.id);
            assert_eq!(again.admin_addr.to_string(), creds.admin_addr.to_string());
            assert_eq!(again.secret.is_some(), creds.secret.is_some());
        }
    }
}
