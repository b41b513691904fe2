//! A session as it is kept with the volume, to be found again after a restart.

use flexfs_wire::id::Ino;
use flexfs_wire::network::Networks;
use flexfs_wire::settings::{Flags, TokenLimits};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// Version of the record's encoding.
const VERSION: u8 = 3;
/// The one before had no limits, which come last.
const WITHOUT_LIMITS: u8 = 2;
/// The one before that had no networks, which come before them.
const WITHOUT_NETWORKS: u8 = 1;

/// What is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) token_id: String,
    pub(super) client: String,
    pub(super) flags: Flags,
    pub(super) root: Ino,
    pub(super) resume_key: [u8; 32],
    pub(super) networks: Networks,
    pub(super) limits: TokenLimits,
}

impl Drop for Record {
    fn drop(&mut self) {
        self.resume_key.zeroize();
    }
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("plain fields always encode into a Vec")
    }

    /// `None` for a record of another version of this program.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&VERSION, rest) => postcard::from_bytes(rest).ok(),
            // Three zeros, before them an empty text.
            (&WITHOUT_LIMITS, rest) => postcard::from_bytes(&[rest, &[0; 3]].concat()).ok(),
            (&WITHOUT_NETWORKS, rest) => postcard::from_bytes(&[rest, &[0; 4]].concat()).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_versions() {
        let record = Record {
            token_id: "ab".to_owned(),
            client: "host".to_owned(),
            flags: Flags { ro: true, umask: 0o22, ..Flags::default() },
            root: Ino(7),
            resume_key: [9; 32],
            networks: Networks::parse("10.0.0.0/8").unwrap(),
            limits: TokenLimits { max_sessions: 3, ops_per_second: 500, bytes_per_second: 1 << 40 },
        };
        let mut bytes = record.encode();
        let again = Record::decode(&bytes).unwrap();
        assert_eq!((again.root, again.flags, again.resume_key), (Ino(7), record.flags, [9; 32]));
        assert_eq!((&again.networks, again.limits), (&record.networks, record.limits));
        bytes[0] = VERSION + 1;
        assert!(Record::decode(&bytes).is_none());
        let mut old = Record::decode(&record.encode()).unwrap();
        old.limits = TokenLimits::default();
        let mut bytes = old.encode();
        bytes.truncate(bytes.len() - 3);
        bytes[0] = WITHOUT_LIMITS;
        let again = Record::decode(&bytes).unwrap();
        assert!(again.root == Ino(7) && again.networks == record.networks && again.limits.is_none());
        old.networks = Networks::default();
        let mut bytes = old.encode();
        bytes.truncate(bytes.len() - 4);
        bytes[0] = WITHOUT_NETWORKS;
        let again = Record::decode(&bytes).unwrap();
        assert!(again.root == Ino(7) && again.networks.is_empty() && again.limits.is_none());
        assert!(Record::decode(&[]).is_none());
    }
}
