//! Volume tokens: each opens one volume, perhaps one directory of it, perhaps with flags or limits, perhaps until a day.

use flexfs_wire::name::Name;
use flexfs_wire::network::Networks;
use flexfs_wire::settings::{Flags, TokenLimits};
use flexfs_wire::token::TokenKind;
use rusqlite::{Connection, Row, Transaction};
use serde::Serialize;
use utoipa::ToSchema;

use super::Volume;
use crate::fields::{Fields, NOTES_BYTES_MAX, PATH_BYTES_MAX, check_scope, need};
use crate::problem::Problem;
use crate::table::FieldKind::{Flags as FlagsField, Number, Text};
use crate::table::{self, Columns, Created, FieldDoc, Noun, Scene, field, needed, refer};
use crate::token::{self, Grant, Minted, flags_json, json};

/// A volume token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeToken {
    /// Id, 32 hex digits.
    id: String,
    /// Name of the volume.
    volume: String,
    /// UUID of the volume.
    volume_id: String,
    /// Directory of the volume that the holder sees as its root.
    mount_path: String,
    /// Flags of mounts with this token.
    #[schema(value_type = Object)]
    flags: Flags,
    /// Networks it may be used from, in CIDR notation, separated by commas; empty for all.
    #[schema(value_type = String)]
    networks: Networks,
    /// Sessions that may stand at once with this token; 0 = no limit.
    max_sessions: u32,
    /// Requests per second of all its sessions together; 0 = no limit.
    ops_per_second: u32,
    /// Bytes of blocks per second, read and written, of all its sessions together; 0 = no limit.
    bytes_per_second: u64,
    /// The operator's words.
    notes: String,
    /// Seconds since 1970, as all times.
    created_at: i64,
    /// End of validity.
    expires_at: Option<i64>,
    /// Last use, accurate to some seconds.
    last_used_at: Option<i64>,
    /// Host and mount point as the client names itself, and the address that the metadata server saw; an address alone where
    /// only admin was asked.
    last_used_by: String,
}

impl Noun for VolumeToken {
    const NOUN: &'static str = "volume token";
    const PATH: &'static str = "volume-tokens";
    const COLUMNS: &'static str = "t.id, v.name, v.id, t.mount_path, t.flags, t.notes, t.created_at, t.expires_at, \
        t.last_used_at, t.last_used_by, t.networks, t.max_sessions, t.ops_per_second, t.bytes_per_second";
    const FROM: &'static str = "tokens t JOIN volumes v ON v.id = t.volume";
    const KEY: &'static str = "t.id";
    const NAMED: &'static str = "t.id = ?1";
    const FILTERS: &'static [(&'static str, &'static str)] =
        &[("volume", "v.name"), ("volumeId", "v.id"), ("mountPath", "t.mount_path"), ("notes", "t.notes")];
    const VOLUME: Option<&'static str> = Some("v.id");
    const FIELDS: &'static [FieldDoc] = &[
        needed("volume", Text, "Name or id of the volume; fixed."),
        field("mountPath", Text, "Directory that the holder sees as its root, absolute; / when left out."),
        field("flags", FlagsField, "Flags of mounts with this token."),
        field("networks", Text, "Networks it may be used from: 10.1.0.0/16,2001:db8::/32; empty for all."),
        field("maxSessions", Number, "Sessions that may stand at once with this token; 0 = no limit."),
        field("opsPerSecond", Number, "Requests per second of all its sessions together; 0 = no limit."),
        field(
            "bytesPerSecond",
            Number,
            "Bytes of blocks per second, read and written, of all its sessions together, from 65536 on; 0 = no limit.",
        ),
        field("notes", Text, "The operator's words."),
        field("expiresAt", Number, "End of validity, seconds since 1970; null takes it away."),
    ];

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let TokenLimits { max_sessions, ops_per_second, bytes_per_second } = token::limits(row, 11)?;
        Ok(Self {
            max_sessions,
            ops_per_second,
            bytes_per_second,
            id: row.get(0)?,
            volume: row.get(1)?,
            volume_id: row.get(2)?,
            mount_path: row.get(3)?,
            flags: json(row, 4)?,
            notes: row.get(5)?,
            created_at: row.get(6)?,
            expires_at: row.get(7)?,
            last_used_at: row.get(8)?,
            last_used_by: row.get(9)?,
            networks: token::networks(row, 10)?,
        })
    }

    fn create(
        tables: &Transaction<'_>,
        mut fields: Fields,
        scene: &mut Scene<'_>,
    ) -> Result<Created, Problem> {
        let volume = need("volume", refer::<Volume>(tables, &mut fields, "volume")?)?;
        let changes = Changes::parse(&mut fields)?;
        fields.finish()?;
        if let Some(path) = &changes.mount_path {
            check_sealed(tables, &volume, path)?;
        }
        let grant = Grant {
            kind: TokenKind::Volume,
            owner: volume,
            mount_path: changes.mount_path.unwrap_or_else(|| "/".to_owned()),
            flags: changes.flags.unwrap_or_default(),
            notes: changes.notes.unwrap_or_default(),
            expires_at: changes.expires_at.flatten(),
            networks: changes.networks.unwrap_or_default(),
            limits: changes.limits.over(TokenLimits::default()),
        };
        if grant.expires_at.is_some_and(|end| end <= scene.now) {
            return Err(Problem::field("expiresAt", "lies in the past"));
        }
        let minted = token::mint(tables, &grant, scene)?;
        Ok(Created { key: minted.id.clone(), minted: Some(minted) })
    }

    fn update(
        tables: &Transaction<'_>,
        key: &str,
        mut fields: Fields,
        scene: &mut Scene<'_>,
    ) -> Result<(), Problem> {
        fields.fixed(&["volume"])?;
        let changes = Changes::parse(&mut fields)?;
        fields.finish()?;
        let before = table::show::<Self>(tables, key)?;
        if let Some(path) = &changes.mount_path {
            check_sealed(tables, &before.volume_id, path)?;
        }
        // What a session may do was fixed when it was granted: a change of that ends it, a remount gets the new.
        let narrowed = changes.mount_path.as_ref().is_some_and(|path| *path != before.mount_path)
            || changes.flags.is_some_and(|flags| flags != before.flags)
            || changes.networks.as_ref().is_some_and(|networks| *networks != before.networks);
        let limits = changes.limits.over(before.limits());
        let over = changes.expires_at.flatten().is_some_and(|end| end <= scene.now);
        let mut columns = Columns::default();
        columns
            .set("mount_path", changes.mount_path)
            .set("flags", changes.flags.map(flags_json))
            .set("networks", changes.networks.map(|networks| networks.to_string()))
            .set("max_sessions", changes.limits.sessions)
            .set("ops_per_second", changes.limits.ops)
            .set("bytes_per_second", changes.limits.bytes.map(token::limit_column))
            .set("notes", changes.notes)
            .set("expires_at", changes.expires_at);
        columns.update(tables, "tokens", "id", key)?;
        if over {
            token::announce_end(tables, key, "expired", scene)?;
        } else if narrowed {
            token::announce_end(tables, key, "its path, flags or networks were changed: mount again", scene)?;
        } else if limits != before.limits() {
            token::announce_limits(tables, key, limits, scene)?;
        }
        Ok(())
    }

    fn delete(tables: &Transaction<'_>, key: &str, scene: &mut Scene<'_>) -> Result<(), Problem> {
        token::retire(tables, key, 0, "deleted", scene)
    }
}

impl VolumeToken {
    fn limits(&self) -> TokenLimits {
        TokenLimits {
            max_sessions: self.max_sessions,
            ops_per_second: self.ops_per_second,
            bytes_per_second: self.bytes_per_second,
        }
    }

    /// Makes a token that permits the same, and ends this one after `overlap` seconds.
    pub(crate) fn rotate(
        tables: &Transaction<'_>,
        key: &str,
        overlap: i64,
        scene: &mut Scene<'_>,
    ) -> Result<Minted, Problem> {
        let old = table::show::<Self>(tables, key)?;
        let limits = old.limits();
        if old.expires_at.is_some_and(|end| end <= scene.now) {
            return Err(Problem::conflict("this token has expired: create a new one"));
        }
        let grant = Grant {
            kind: TokenKind::Volume,
            owner: old.volume_id,
            mount_path: old.mount_path,
            flags: old.flags,
            notes: old.notes,
            expires_at: old.expires_at,
            networks: old.networks,
            limits,
        };
        let minted = token::mint(tables, &grant, scene)?;
        token::retire(tables, key, overlap, "rotated", scene)?;
        Ok(minted)
    }
}

/// The metadata server finds a directory of an encrypted volume by encrypted names only.
fn check_sealed(tables: &Connection, volume: &str, path: &str) -> Result<(), Problem> {
    let sql = "SELECT wrapped_key <> '' FROM volumes WHERE id = ?1";
    let encrypted: bool = tables.query_row(sql, [volume], |row| row.get(0))?;
    let sealed = |name: &str| Name::sealed(name.as_bytes()).is_ok_and(|name| name.is_sealed());
    if !encrypted || path.split('/').filter(|name| !name.is_empty()).all(sealed) {
        return Ok(());
    }
    Err(Problem::field(
        "mountPath",
        "the volume is encrypted: give the path as its server knows it, which `mount.flexfs scope --credsFile FILE DIRECTORY` prints on a mount",
    ))
}

/// What may be given at creation and changed later.
struct Changes {
    mount_path: Option<String>,
    flags: Option<Flags>,
    notes: Option<String>,
    expires_at: Option<Option<i64>>,
    networks: Option<Networks>,
    limits: LimitChanges,
}

impl Changes {
    fn parse(fields: &mut Fields) -> Result<Self, Problem> {
        let mount_path = match fields.text("mountPath", PATH_BYTES_MAX)? {
            None => None,
            Some(path) => Some(check_scope(&path).map_err(|text| Problem::field("mountPath", text))?),
        };
        let networks = fields.text("networks", NOTES_BYTES_MAX)?;
        let networks = networks.map(|text| Networks::parse(&text)).transpose();
        Ok(Self {
            mount_path,
            networks: networks.map_err(|text| Problem::field("networks", text))?,
            flags: fields.flags("flags")?,
            notes: fields.text("notes", NOTES_BYTES_MAX)?,
            expires_at: fields.time("expiresAt")?,
            limits: LimitChanges::parse(fields)?,
        })
    }
}

/// Limits that were given.
struct LimitChanges {
    sessions: Option<u32>,
    ops: Option<u32>,
    bytes: Option<u64>,
}

impl LimitChanges {
    fn parse(fields: &mut Fields) -> Result<Self, Problem> {
        let mut number = |key, most| fields.number(key, 0, most);
        let sessions = number("maxSessions", u32::MAX.into())?.and_then(|most| u32::try_from(most).ok());
        let ops = number("opsPerSecond", u32::MAX.into())?.and_then(|most| u32::try_from(most).ok());
        let bytes = number("bytesPerSecond", i64::MAX)?.map(i64::unsigned_abs);
        let least = TokenLimits::BYTES_PER_SECOND_MIN;
        if bytes.is_some_and(|most| most != 0 && most < least) {
            let text =
                format!("must be 0 (no limit) or at least {least}: files are read in pieces of that size");
            return Err(Problem::field("bytesPerSecond", text));
        }
        Ok(Self { sessions, ops, bytes })
    }

    /// What comes of them, over what there was.
    fn over(&self, before: TokenLimits) -> TokenLimits {
        TokenLimits {
            max_sessions: self.sessions.unwrap_or(before.max_sessions),
            ops_per_second: self.ops.unwrap_or(before.ops_per_second),
            bytes_per_second: self.bytes.unwrap_or(before.bytes_per_second),
        }
    }
}
