//! The table of tokens: minting, finding, rotating. Secrets pass through here once, on the way out.

use flexfs_wire::cipher::WrappedKey;
use flexfs_wire::network::Networks;
use flexfs_wire::settings::{Access, Event, Flags, TokenLimits, VolumeSettings};
use flexfs_wire::token::{Secret, SecretHash, Token, TokenId, TokenKind};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::events::Outgoing;
use crate::problem::Problem;
use crate::table::Scene;
use crate::verdict::{Record, Target};

/// Longest overlap of a rotation, seconds: 90 days.
pub(crate) const OVERLAP_MAX: i64 = 90 * 86_400;
/// Overlap when none is given: one day to distribute the new token.
pub(crate) const OVERLAP: i64 = 86_400;

/// A token just made. Its text leaves in one answer and is nowhere else.
#[derive(Debug)]
pub(crate) struct Minted {
    /// Id, hex.
    pub(crate) id: String,
    /// The text.
    pub(crate) text: SecretText,
}

/// Text that `Debug` hides.
pub(crate) struct SecretText(pub(crate) Zeroizing<String>);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// Whose token, and what it permits.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    /// Kind.
    pub(crate) kind: TokenKind,
    /// Id of the account, volume or meta store.
    pub(crate) owner: String,
    /// Scope of a volume token, normalized.
    pub(crate) mount_path: String,
    /// Flags of a volume token.
    pub(crate) flags: Flags,
    /// The operator's words.
    pub(crate) notes: String,
    /// End of validity.
    pub(crate) expires_at: Option<i64>,
    /// Networks a volume token may be used from.
    pub(crate) networks: Networks,
    /// Limits of a volume token.
    pub(crate) limits: TokenLimits,
}

impl Grant {
    /// A token without limits.
    pub(crate) fn plain(kind: TokenKind, owner: &str) -> Self {
        Self {
            kind,
            owner: owner.to_owned(),
            mount_path: "/".to_owned(),
            flags: Flags::default(),
            notes: String::new(),
            expires_at: None,
            networks: Networks::default(),
            limits: TokenLimits::default(),
        }
    }
}

/// A token of an account or meta store as `show` tells it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenInfo {
    /// Id, hex.
    id: String,
    /// Seconds since 1970, as all times.
    created_at: i64,
    /// End of validity.
    expires_at: Option<i64>,
    /// Last use, accurate to some seconds.
    last_used_at: Option<i64>,
    /// The address it came from.
    last_used_by: String,
}

/// SQL that gathers the [`TokenInfo`]s of an owner as JSON; `{}` is the condition.
macro_rules! tokens_json {
    ($condition:literal) => {
        concat!(
            "(SELECT json_group_array(json_object('id', t.id, 'createdAt', t.created_at, ",
            "'expiresAt', t.expires_at, 'lastUsedAt', t.last_used_at, 'lastUsedBy', t.last_used_by) ",
            "ORDER BY t.created_at) FROM tokens t WHERE ",
            $condition,
            ")"
        )
    };
}
pub(crate) use tokens_json;

/// Reads a column of [`tokens_json`].
pub(crate) fn tokens_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<TokenInfo>> {
    json(row, column)
}

/// Reads a JSON column that this program wrote.
pub(crate) fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// Reads a column of networks.
pub(crate) fn networks(row: &Row<'_>, column: usize) -> rusqlite::Result<Networks> {
    let text: String = row.get(column)?;
    Networks::parse(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
    })
}

/// Reads limits from the columns `max_sessions, ops_per_second, bytes_per_second`, the first of which is `column`.
pub(crate) fn limits(row: &Row<'_>, column: usize) -> rusqlite::Result<TokenLimits> {
    Ok(TokenLimits {
        max_sessions: row.get(column)?,
        ops_per_second: row.get(column + 1)?,
        bytes_per_second: row.get::<_, i64>(column + 2)?.unsigned_abs(),
    })
}

/// A limit in bytes as the tables keep it.
pub(crate) fn limit_column(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Flags as the tables keep them.
pub(crate) fn flags_json(flags: Flags) -> String {
    serde_json::to_string(&flags).expect("flags are plain data")
}

/// Makes a token and remembers its hash.
pub(crate) fn mint(tables: &Transaction<'_>, grant: &Grant, scene: &Scene<'_>) -> Result<Minted, Problem> {
    let mut id = [0u8; 16];
    let mut secret = Zeroizing::new([0u8; 32]);
    getrandom::fill(&mut id)
        .and_then(|()| getrandom::fill(secret.as_mut_slice()))
        .map_err(|error| Problem::internal("drawing random bytes", &error))?;
    let token = Token { kind: grant.kind, id: TokenId(id), secret: Secret::new(*secret), ca_pin: scene.pin };
    let owner = |kind| (grant.kind == kind).then_some(grant.owner.as_str());
    tables.execute(
        "INSERT INTO tokens (id, kind, hash, account, volume, meta_store, mount_path, flags, notes, created_at, expires_at, \
         networks, max_sessions, ops_per_second, bytes_per_second)
         VALUES (:id, :kind, :hash, :account, :volume, :meta, :path, :flags, :notes, :created, :expires, :networks, \
         :sessions, :ops, :bytes)",
        named_params! {
            ":id": token.id.to_string(), ":kind": grant.kind.to_string(), ":hash": token.secret_hash().0,
            ":account": owner(TokenKind::Account), ":volume": owner(TokenKind::Volume), ":meta": owner(TokenKind::Meta),
            ":path": grant.mount_path, ":flags": flags_json(grant.flags), ":notes": grant.notes,
            ":created": scene.now, ":expires": grant.expires_at, ":networks": grant.networks.to_string(),
            ":sessions": grant.limits.max_sessions, ":ops": grant.limits.ops_per_second,
            ":bytes": limit_column(grant.limits.bytes_per_second),
        },
    )?;
    Ok(Minted { id: token.id.to_string(), text: SecretText(token.to_text()) })
}

/// The record of a token.
pub(crate) fn find(tables: &Connection, id: TokenId) -> Result<Option<Record>, Problem> {
    let record = tables
        .prepare_cached(
            "SELECT kind, hash, coalesce(account, volume, meta_store), expires_at FROM tokens WHERE id = ?1",
        )?
        .query_row([id.to_string()], |row| {
            Ok(Record {
                kind: kind_of(&row.get::<_, String>(0)?),
                hash: SecretHash(row.get(1)?),
                owner: row.get(2)?,
                expires_at: row.get(3)?,
            })
        })
        .optional()?;
    Ok(record)
}

fn kind_of(text: &str) -> TokenKind {
    match text {
        "account" => TokenKind::Account,
        "volume" => TokenKind::Volume,
        // The table's CHECK knows no other.
        _ => TokenKind::Meta,
    }
}

/// What a volume token opens.
#[derive(Debug)]
pub(crate) struct Opening {
    /// For the verdict.
    pub(crate) target: Target,
    /// Where the volume's metadata server listens.
    pub(crate) meta_addr: String,
    /// What the token permits.
    pub(crate) access: Access,
    /// Key of an encrypted volume, under its secret: for mounts only.
    pub(crate) wrapped_key: Option<WrappedKey>,
}

/// Looks up what the volume token `id` opens.
pub(crate) fn opening(tables: &Connection, id: TokenId) -> Result<Option<Opening>, Problem> {
    let sql = concat!(
        "SELECT ",
        settings_columns!(),
        ", v.meta_store, v.retired_at IS NOT NULL, m.address, t.mount_path, t.flags, t.expires_at, t.networks, ",
        "v.wrapped_key, t.max_sessions, t.ops_per_second, t.bytes_per_second ",
        "FROM tokens t JOIN volumes v ON v.id = t.volume JOIN meta_stores m ON m.id = v.meta_store WHERE t.id = ?1"
    );
    let opening = tables
        .prepare_cached(sql)?
        .query_row([id.to_string()], |row| {
            let settings = settings(row)?;
            let target = Target {
                volume: settings.name.clone(),
                meta_store: row.get(9)?,
                retired: row.get(10)?,
                volume_flags: settings.flags,
                token_flags: json(row, 13)?,
            };
            let access = Access {
                token_id: id.to_string(),
                settings,
                scope: row.get(12)?,
                flags: target.flags(),
                expires_at: row.get(14)?,
                networks: networks(row, 15)?,
                limits: limits(row, 17)?,
            };
            Ok(Opening { target, meta_addr: row.get(11)?, access, wrapped_key: wrapped_key(row, 16)? })
        })
        .optional()?;
    Ok(opening)
}

/// Reads the key of an encrypted volume; of others there is none.
pub(crate) fn wrapped_key(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<WrappedKey>> {
    let text: String = row.get(column)?;
    if text.is_empty() { Ok(None) } else { json(row, column).map(Some) }
}

/// What [`settings`] reads, of `volumes v`: nine columns, to be the first of a query.
macro_rules! settings_columns {
    () => {
        "v.id, v.name, v.block_size, v.compression, v.max_blocks, v.max_inodes, v.retention, v.flags, v.wrapped_key <> ''"
    };
}
pub(crate) use settings_columns;

/// Reads the settings from the first columns of a query, which are [`settings_columns`].
pub(crate) fn settings(row: &Row<'_>) -> rusqlite::Result<VolumeSettings> {
    let compression: String = row.get(3)?;
    Ok(VolumeSettings {
        id: row.get(0)?,
        name: row.get(1)?,
        block_size: row.get(2)?,
        compression: serde_json::from_value(compression.into()).unwrap_or_default(),
        max_blocks: row.get::<_, i64>(4)?.unsigned_abs(),
        max_inodes: row.get::<_, i64>(5)?.unsigned_abs(),
        retention: row.get(6)?,
        flags: json(row, 7)?,
        encrypted: row.get(8)?,
    })
}

/// Ends the token `id`, which belongs to `grant`: now when `overlap` is 0, else after that many seconds.
pub(crate) fn retire(
    tables: &Transaction<'_>,
    id: &str,
    overlap: i64,
    cause: &str,
    scene: &mut Scene<'_>,
) -> Result<(), Problem> {
    if overlap > 0 {
        tables.execute(
            "UPDATE tokens SET expires_at = min(coalesce(expires_at, ?2), ?2) WHERE id = ?1",
            (id, scene.now + overlap),
        )?;
        return Ok(());
    }
    announce_end(tables, id, cause, scene)?;
    tables.execute("DELETE FROM tokens WHERE id = ?1", [id])?;
    Ok(())
}

/// Queues the event that a token, still in the table, has ended.
pub(crate) fn announce_end(
    tables: &Connection,
    id: &str,
    cause: &str,
    scene: &mut Scene<'_>,
) -> Result<(), Problem> {
    let sql =
        "SELECT t.kind, v.meta_store FROM tokens t LEFT JOIN volumes v ON v.id = t.volume WHERE t.id = ?1";
    let found = tables
        .query_row(sql, [id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)))
        .optional()?;
    match found {
        Some((_, Some(meta_store))) => {
            let event = Event::TokenRevoked { id: id.to_owned(), cause: cause.to_owned() };
            scene.events.push(Outgoing::Server { meta_store, event });
        }
        Some((kind, None)) if kind == "meta" => scene.events.push(Outgoing::MetaTokenEnded(id.to_owned())),
        _ => {}
    }
    Ok(())
}

/// Queues the event that the limits of a volume token changed.
pub(crate) fn announce_limits(
    tables: &Connection,
    id: &str,
    limits: TokenLimits,
    scene: &mut Scene<'_>,
) -> Result<(), Problem> {
    let sql = "SELECT v.meta_store FROM tokens t JOIN volumes v ON v.id = t.volume WHERE t.id = ?1";
    if let Some(meta_store) = tables.query_row(sql, [id], |row| row.get(0)).optional()? {
        let event = Event::TokenUpdated { id: id.to_owned(), limits };
        scene.events.push(Outgoing::Server { meta_store, event });
    }
    Ok(())
}

/// Ends every token of an account or a meta store but `keep`.
pub(crate) fn retire_others(
    tables: &Transaction<'_>,
    owner: &str,
    keep: &str,
    overlap: i64,
    scene: &mut Scene<'_>,
) -> Result<(), Problem> {
    let ids: Vec<String> = tables
        .prepare_cached("SELECT id FROM tokens WHERE (account = ?1 OR meta_store = ?1) AND id <> ?2")?
        .query_map([owner, keep], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    ids.iter().try_for_each(|id| retire(tables, id, overlap, "rotated", scene))
}
