//! Settings of volumes as admin keeps them: the JSON of its REST API and a part of `hello::Granted`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cipher::WrappedKey;
use crate::limits::SEGMENT_BYTES;
use crate::network::Networks;

/// Compression of a volume's segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    None,
    /// LZ4 block format.
    #[default]
    Lz4,
    /// Zstandard, level 1.
    Zstd,
}

/// Restrictions of a mount. A set flag only ever takes away: flags of volume, token and command line are or-ed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Flags {
    /// Read-only.
    pub ro: bool,
    /// No execution of programs.
    pub no_exec: bool,
    /// Set-uid and set-gid bits have no effect.
    pub no_suid: bool,
    /// Access times are not updated.
    pub no_atime: bool,
    /// uid 0 and gid 0 act as nobody (65534).
    pub root_squash: bool,
    /// Bits taken off the mode of everything made, besides the process's umask.
    pub umask: u16,
    /// POSIX access control lists can be neither set nor seen, nor are they checked: modes alone decide.
    pub no_acl: bool,
}

impl Flags {
    /// The strictest of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            ro: self.ro | other.ro,
            no_exec: self.no_exec | other.no_exec,
            no_suid: self.no_suid | other.no_suid,
            no_atime: self.no_atime | other.no_atime,
            no_acl: self.no_acl | other.no_acl,
            root_squash: self.root_squash | other.root_squash,
            umask: self.umask | other.umask,
        }
    }
}

/// What a client and a metadata server need to know of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSettings {
    /// UUID, lower case with dashes.
    pub id: String,
    /// Name.
    pub name: String,
    /// Block size in bytes.
    pub block_size: u32,
    /// Compression.
    pub compression: Compression,
    /// Blocks of `block_size` it may hold; 0 = no limit.
    pub max_blocks: u64,
    /// Inodes it may hold; 0 = no limit.
    pub max_inodes: u64,
    /// Seconds a block without live bytes is kept; -1 = for ever.
    pub retention: i64,
    /// Flags of the volume.
    pub flags: Flags,
    /// Whether clients encrypt what they write. The key is admin's to keep and the clients' to open; the metadata server
    /// refuses what is plain.
    #[serde(default)]
    pub encrypted: bool,
}

/// Body of `POST /v1/tokens/validate`, meta to admin.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValidateRequest {
    /// Text of the volume token.
    pub token: String,
    /// Name of the volume the client asked for.
    pub volume: String,
    /// Address and name of the client, for `last used`.
    pub client: String,
}

impl std::fmt::Debug for ValidateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValidateRequest")
            .field("volume", &self.volume)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenRefusal {
    /// Not a token, or damaged.
    Malformed,
    /// Another kind of token.
    WrongKind,
    /// A token made by another cluster (its CA pin is not ours).
    WrongCluster,
    /// Unknown, wrong secret, or revoked: not told apart to a stranger.
    Unknown,
    /// Expired.
    Expired,
    /// Opens another volume.
    WrongVolume,
    /// The volume was retired.
    Retired,
    /// The volume lives on another metadata server.
    WrongServer,
    /// Used from a network that it is not for.
    WrongNetwork,
}

/// Answer of `POST /v1/tokens/validate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum ValidateAnswer {
    /// The token is good.
    Accepted(Box<Access>),
    /// It is not.
    Refused {
        /// Class.
        reason: TokenRefusal,
        /// Sentence for the person.
        text: String,
    },
}

/// Bounds of what all sessions that a token opened may do together. The metadata server enforces them; 0 = no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenLimits {
    /// Sessions that may stand at once.
    pub max_sessions: u32,
    /// Requests per second.
    pub ops_per_second: u32,
    /// Bytes of files read and written per second: of blocks as stored, of inline parts as they are.
    pub bytes_per_second: u64,
}

impl TokenLimits {
    /// Least `bytes_per_second` but 0: a segment. A block of the largest size then takes two minutes.
    pub const BYTES_PER_SECOND_MIN: u64 = SEGMENT_BYTES as u64;

    /// Whether nothing is bounded.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a token permits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// Id of the token, hex. Named in logs and events.
    pub token_id: String,
    /// The volume.
    pub settings: VolumeSettings,
    /// Directory that is the session's root: absolute and normal, `/` for all of the volume.
    pub scope: String,
    /// Flags of volume and token together.
    pub flags: Flags,
    /// End of validity, seconds since 1970.
    pub expires_at: Option<i64>,
    /// Networks that its links may come from. The metadata server looks at each link, for only it sees the client.
    #[serde(default)]
    pub networks: Networks,
    /// Bounds of what its sessions may do.
    #[serde(default)]
    pub limits: TokenLimits,
}

/// One line of admin's event stream to a metadata server (`GET /v1/events`, JSON lines).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// First line: the tokens that are valid now for volumes of this server. Sessions of others end.
    Snapshot {
        /// Token ids, hex.
        tokens: Vec<String>,
        /// Limits of those among them that have any.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        limits: BTreeMap<String, TokenLimits>,
    },
    /// Nothing new; the stream lives. Every 2 s.
    Alive,
    /// A token ended.
    TokenRevoked {
        /// Token id, hex.
        id: String,
        /// Deleted, expired, rotated.
        cause: String,
    },
    /// Limits of a token changed; its sessions go on.
    TokenUpdated {
        /// Token id, hex.
        id: String,
        /// The new ones.
        limits: TokenLimits,
    },
    /// Settings of a volume changed.
    VolumeUpdated {
        /// The new ones.
        settings: VolumeSettings,
    },
    /// A volume was retired.
    VolumeRetired {
        /// UUID.
        id: String,
    },
}

/// Answer of `GET /v1/volumes/for-token`, admin to mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForToken {
    /// The volume.
    pub settings: VolumeSettings,
    /// `host:port` of its metadata server.
    pub meta_addr: String,
    /// Scope of the token.
    pub scope: String,
    /// Flags of volume and token together.
    pub flags: Flags,
    /// The key of an encrypted volume, under its secret.
    #[serde(default)]
    pub encryption: Option<WrappedKey>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_may_be_left_out() {
        let limits: TokenLimits = serde_json::from_str(r#"{"opsPerSecond":50}"#).unwrap();
        assert_eq!(limits, TokenLimits { ops_per_second: 50, ..TokenLimits::default() });
        assert!(!limits.is_none());
        let text = r#"{"event":"snapshot","tokens":["a"]}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        assert_eq!(event, Event::Snapshot { tokens: vec!["a".to_owned()], limits: BTreeMap::new() });
        assert_eq!(serde_json::to_string(&event).unwrap(), text, "as before where there are none");
    }
}
