//! Volumes: mountable namespaces. Deleting one only retires it; its metadata server clears up later.

use flexfs_wire::limits::{BLOCK_BYTES_DEFAULT, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};
use flexfs_wire::settings::{Event, Flags};
use flexfs_wire::token::TokenKind;
use rusqlite::{Row, Transaction};
use serde::Serialize;
use utoipa::ToSchema;

use super::{BlockStore, MetaStore};
use crate::events::Outgoing;
use crate::fields::{Fields, NOTES_BYTES_MAX, need};
use crate::problem::Problem;
use crate::table::FieldKind::{Flag, Flags as FlagsField, Number, Object, Text};
use crate::table::{self, Columns, Created, FieldDoc, Noun, Scene, field, needed, new_id, refer};
use crate::token::{self, Grant, flags_json, json};
use crate::wrapped_key;

/// Retention when none is chosen: seven days, in seconds.
const RETENTION: i64 = 7 * 86_400;
/// Longest retention but "for ever", in seconds: a hundred years.
const RETENTION_MAX: i64 = 100 * 366 * 86_400;

/// A volume.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Volume {
    /// UUID.
    id: String,
    /// Name, unique among volumes that are not retired.
    name: String,
    /// Name of the metadata server.
    meta_store: String,
    /// UUID of the metadata server.
    meta_store_id: String,
    /// Name of the block store.
    block_store: String,
    /// UUID of the block store.
    block_store_id: String,
    /// Bytes.
    block_size: u32,
    /// `none`, `lz4` or `zstd`.
    compression: String,
    /// Whether clients encrypt.
    encryption: bool,
    /// Seconds a block without live bytes is kept; -1 = for ever.
    retention: i64,
    /// Blocks it may hold; 0 = no limit.
    max_blocks: i64,
    /// Inodes it may hold; 0 = no limit.
    max_inodes: i64,
    /// Flags of every mount.
    #[schema(value_type = Object)]
    flags: Flags,
    /// The operator's words.
    notes: String,
    /// Seconds since 1970.
    created_at: i64,
    /// When it was deleted.
    retired_at: Option<i64>,
}

impl Noun for Volume {
    const NOUN: &'static str = "volume";
    const PATH: &'static str = "volumes";
    const COLUMNS: &'static str = "v.id, v.name, m.name, m.id, b.name, b.id, v.block_size, v.compression, v.retention, \
        v.max_blocks, v.max_inodes, v.flags, v.notes, v.created_at, v.retired_at, v.wrapped_key <> ''";
    const FROM: &'static str =
        "volumes v JOIN meta_stores m ON m.id = v.meta_store JOIN block_stores b ON b.id = v.block_store";
    const KEY: &'static str = "v.id";
    const NAMED: &'static str = "v.name = ?1 AND v.retired_at IS NULL";
    const FILTERS: &'static [(&'static str, &'static str)] = &[
        ("name", "v.name"),
        ("metaStore", "m.name"),
        ("metaStoreId", "m.id"),
        ("blockStore", "b.name"),
        ("blockStoreId", "b.id"),
        ("blockSize", "v.block_size"),
        ("compression", "v.compression"),
        ("retired", "CASE WHEN v.retired_at IS NULL THEN 'false' ELSE 'true' END"),
    ];
    const VOLUME: Option<&'static str> = Some("v.id");
    const IS_VOLUME: bool = true;
    const FIELDS: &'static [FieldDoc] = &[
        needed("name", Text, "Name, unique among volumes that are not retired."),
        needed("metaStore", Text, "Name or id of the metadata server; fixed."),
        needed("blockStore", Text, "Name or id of the block store; fixed."),
        field("blockSize", Number, "Bytes: a power of two from 262144 to 8388608, default 4194304; fixed."),
        field("compression", Text, "none, lz4 (default) or zstd; for data written from now on."),
        field(
            "wrappedKey",
            Object,
            "Creation only: makes an encrypted volume; its key under its secret, as configure.flexfs makes it.",
        ),
        field(
            "retention",
            Number,
            "Seconds a block without live bytes is kept, default 604800; -1 = for ever.",
        ),
        field("maxBlocks", Number, "Blocks it may hold; 0 = no limit."),
        field("maxInodes", Number, "Inodes it may hold; 0 = no limit."),
        field("flags", FlagsField, "Flags of every mount."),
        field("notes", Text, "The operator's words."),
        field("noToken", Flag, "Creation only: make no first token."),
    ];

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            meta_store: row.get(2)?,
            meta_store_id: row.get(3)?,
            block_store: row.get(4)?,
            block_store_id: row.get(5)?,
            block_size: row.get(6)?,
            compression: row.get(7)?,
            encryption: row.get(15)?,
            retention: row.get(8)?,
            max_blocks: row.get(9)?,
            max_inodes: row.get(10)?,
            flags: json(row, 11)?,
            notes: row.get(12)?,
            created_at: row.get(13)?,
            retired_at: row.get(14)?,
        })
    }

    fn create(
        tables: &Transaction<'_>,
        mut fields: Fields,
        scene: &mut Scene<'_>,
    ) -> Result<Created, Problem> {
        let key = new_id();
        let no_token = fields.flag("noToken")?.unwrap_or(false);
        let wrapped_key = wrapped_key::field(&mut fields)?;
        let mut columns = Columns::default();
        columns.set("id", Some(key.clone())).set("created_at", Some(scene.now));
        columns.set("name", Some(need("name", fields.name("name")?)?));
        columns.set(
            "meta_store",
            Some(need("metaStore", refer::<MetaStore>(tables, &mut fields, "metaStore")?)?),
        );
        columns.set("block_store", Some(served_store(tables, &mut fields)?));
        columns.set("block_size", Some(block_size(&mut fields)?));
        columns.set("wrapped_key", wrapped_key.as_ref().map(wrapped_key::to_column));
        let changes = Changes::parse(&mut fields)?;
        fields.finish()?;
        columns
            .set("compression", Some(changes.compression.unwrap_or_else(|| "lz4".to_owned())))
            .set("retention", Some(changes.retention.unwrap_or(RETENTION)))
            .set("max_blocks", Some(changes.max_blocks.unwrap_or(0)))
            .set("max_inodes", Some(changes.max_inodes.unwrap_or(0)))
            .set("flags", Some(flags_json(changes.flags.unwrap_or_default())))
            .set("notes", changes.notes);
        columns.insert(tables, "volumes")?;
        announce(tables, &key, scene)?;
        let minted = if no_token {
            None
        } else {
            let grant =
                Grant { notes: "made with the volume".to_owned(), ..Grant::plain(TokenKind::Volume, &key) };
            Some(token::mint(tables, &grant, scene)?)
        };
        Ok(Created { key, minted })
    }

    fn update(
        tables: &Transaction<'_>,
        key: &str,
        mut fields: Fields,
        scene: &mut Scene<'_>,
    ) -> Result<(), Problem> {
        fields.fixed(&["metaStore", "blockStore", "blockSize", "wrappedKey", "noToken"])?;
        let name = fields.name("name")?;
        let changes = Changes::parse(&mut fields)?;
        fields.finish()?;
        if table::show::<Self>(tables, key)?.retired_at.is_some() {
            return Err(Problem::conflict("this volume was deleted; it cannot be changed any more"));
        }
        let mut columns = Columns::default();
        columns
            .set("name", name)
            .set("compression", changes.compression)
            .set("retention", changes.retention)
            .set("max_blocks", changes.max_blocks)
            .set("max_inodes", changes.max_inodes)
            .set("flags", changes.flags.map(flags_json))
            .set("notes", changes.notes);
        columns.update(tables, "volumes", "id", key)?;
        announce(tables, key, scene)
    }

    fn delete(tables: &Transaction<'_>, key: &str, scene: &mut Scene<'_>) -> Result<(), Problem> {
        let volume = table::show::<Self>(tables, key)?;
        if volume.retired_at.is_some() {
            return Ok(());
        }
        tables.execute("UPDATE volumes SET retired_at = ?2 WHERE id = ?1", (key, scene.now))?;
        let event = Event::VolumeRetired { id: volume.id };
        scene.events.push(Outgoing::Server { meta_store: volume.meta_store_id, event });
        Ok(())
    }
}

/// What may be given at creation and changed later.
struct Changes {
    compression: Option<String>,
    retention: Option<i64>,
    max_blocks: Option<i64>,
    max_inodes: Option<i64>,
    flags: Option<Flags>,
    notes: Option<String>,
}

impl Changes {
    fn parse(fields: &mut Fields) -> Result<Self, Problem> {
        let compression = fields.text("compression", 16)?;
        if compression.as_ref().is_some_and(|name| !["none", "lz4", "zstd"].contains(&name.as_str())) {
            return Err(Problem::field("compression", "must be none, lz4 or zstd"));
        }
        Ok(Self {
            compression,
            retention: fields.number("retention", -1, RETENTION_MAX)?,
            max_blocks: fields.number("maxBlocks", 0, i64::MAX)?,
            max_inodes: fields.number("maxInodes", 0, i64::MAX)?,
            flags: fields.flags("flags")?,
            notes: fields.text("notes", NOTES_BYTES_MAX)?,
        })
    }
}

fn block_size(fields: &mut Fields) -> Result<u32, Problem> {
    let (least, most) = (BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
    let Some(size) = fields.number("blockSize", i64::from(least), i64::from(most))? else {
        return Ok(BLOCK_BYTES_DEFAULT);
    };
    u32::try_from(size).ok().filter(|size| size.is_power_of_two()).ok_or_else(|| {
        Problem::field("blockSize", format!("must be a power of two from {least} to {most} bytes"))
    })
}

/// The block store of a new volume; only hosted ones are served yet.
fn served_store(tables: &Transaction<'_>, fields: &mut Fields) -> Result<String, Problem> {
    let store = need("blockStore", refer::<BlockStore>(tables, fields, "blockStore")?)?;
    let kind: String =
        tables.query_row("SELECT kind FROM block_stores WHERE id = ?1", [&store], |row| row.get(0))?;
    if kind == "hosted" {
        return Ok(store);
    }
    Err(Problem::field(
        "blockStore",
        format!("stores of kind {kind} are not served in this release: choose one of kind hosted"),
    ))
}

/// Queues the volume's settings for its metadata server.
fn announce(tables: &Transaction<'_>, key: &str, scene: &mut Scene<'_>) -> Result<(), Problem> {
    let sql = concat!("SELECT ", token::settings_columns!(), ", v.meta_store FROM volumes v WHERE v.id = ?1");
    let (settings, meta_store) =
        tables.query_row(sql, [key], |row| Ok((token::settings(row)?, row.get::<_, String>(9)?)))?;
    scene.events.push(Outgoing::Server { meta_store, event: Event::VolumeUpdated { settings } });
    Ok(())
}
