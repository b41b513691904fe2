//! Properties of the token parser: total, inverse of the printer, and no single slip of the hand passes.

use flexfs_wire::token::{CaPin, Secret, Token, TokenId, TokenKind};
use proptest::prelude::*;

fn token() -> impl Strategy<Value = Token> {
    (0..3usize, any::<[u8; 16]>(), any::<[u8; 32]>(), any::<[u8; 16]>()).prop_map(
        |(kind, id, secret, pin)| Token {
            kind: TokenKind::ALL[kind],
            id: TokenId(id),
            secret: Secret::new(secret),
            ca_pin: CaPin(pin),
        },
    )
}

proptest! {
    #[test]
    fn roundtrip(token in token()) {
        let text = token.to_text();
        let again = Token::parse(&text).unwrap();
        prop_assert_eq!(&*again.to_text(), &*text);
        prop_assert_eq!((again.kind, again.id, again.ca_pin), (token.kind, token.id, token.ca_pin));
        prop_assert!(again.verify_hash(&token.secret_hash()));
    }

    #[test]
    fn any_text_is_answered(text in any::<String>(), prefix in 0..3usize) {
        let _ = Token::parse(&text);
        let text = format!("{}{text}", TokenKind::ALL[prefix].prefix());
        prop_assert!(Token::parse(&text).is_err());
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Token::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_base64_is_answered(text in "flex(acc|vol|meta)_[A-Za-z0-9_-]{0,120}") {
        prop_assert!(Token::parse(&text).is_err());
    }

    #[test]
    fn one_changed_character_is_noticed(token in token(), at in any::<prop::sample::Index>(), to in "[ -~]") {
        let text = token.to_text();
        let at = at.index(text.len());
        let mut edited = text.to_string();
        edited.replace_range(at..=at, &to);
        prop_assume!(edited != **text);
        prop_assert!(Token::parse(&edited).is_err());
    }

    #[test]
    fn one_lost_or_added_character_is_noticed(token in token(), at in any::<prop::sample::Index>(), add in "[ -~]") {
        let text = token.to_text();
        let at = at.index(text.len());
        let mut lost = text.to_string();
        lost.remove(at);
        prop_assert!(Token::parse(&lost).is_err());
        let mut added = text.to_string();
        added.insert_str(at, &add);
        prop_assert!(Token::parse(&added).is_err());
    }

    #[test]
    fn two_swapped_neighbours_are_noticed(token in token(), at in any::<prop::sample::Index>()) {
        let text = token.to_text();
        let at = at.index(text.len() - 1);
        let mut bytes = text.as_bytes().to_vec();
        bytes.swap(at, at + 1);
        prop_assume!(bytes != text.as_bytes());
        prop_assert!(Token::parse(std::str::from_utf8(&bytes).unwrap()).is_err());
    }

    #[test]
    fn ids_survive_json_and_postcard(id in any::<[u8; 16]>()) {
        let id = TokenId(id);
        let json = serde_json::to_string(&id).unwrap();
        prop_assert_eq!(json.len(), 34);
        prop_assert_eq!(serde_json::from_str::<TokenId>(&json).unwrap(), id);
        let bytes = postcard::to_allocvec(&id).unwrap();
        prop_assert_eq!(bytes.len(), 16);
        prop_assert_eq!(postcard::from_bytes::<TokenId>(&bytes).unwrap(), id);
    }
}
