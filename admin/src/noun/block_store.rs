//! Block stores: where the blocks of volumes live.

use rusqlite::{Row, Transaction};
use serde::Serialize;
use utoipa::ToSchema;

use super::Region;
use crate::fields::{Fields, NOTES_BYTES_MAX, PATH_BYTES_MAX, check_scope, need};
use crate::problem::Problem;
use crate::table::FieldKind::Text;
use crate::table::{Columns, Created, FieldDoc, Noun, Scene, field, needed, new_id, refer};

/// Kinds of block stores; the first is the default.
const KINDS: [&str; 3] = ["hosted", "file", "s3"];

/// A block store.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BlockStore {
    /// UUID.
    id: String,
    /// Unique name.
    name: String,
    /// `hosted` (by the metadata server), `file` (a directory) or `s3`.
    kind: String,
    /// Region, `provider/code`.
    region: Option<String>,
    /// Directory of a `file` store.
    path: String,
    /// Address of an `s3` store.
    endpoint: String,
    /// Bucket of an `s3` store.
    bucket: String,
    /// Prefix of all keys in an `s3` store.
    prefix: String,
    /// The operator's words.
    notes: String,
    /// Seconds since 1970.
    created_at: i64,
}

impl Noun for BlockStore {
    const NOUN: &'static str = "block store";
    const PATH: &'static str = "block-stores";
    const COLUMNS: &'static str = "id, name, kind, region, path, endpoint, bucket, prefix, notes, created_at";
    const FROM: &'static str = "block_stores";
    const KEY: &'static str = "id";
    const NAMED: &'static str = "name = ?1";
    const FILTERS: &'static [(&'static str, &'static str)] =
        &[("name", "name"), ("kind", "kind"), ("region", "region")];
    const FIELDS: &'static [FieldDoc] = &[
        needed("name", Text, "Unique name."),
        field("kind", Text, "hosted (default), file or s3; fixed. Only hosted is served in this release."),
        field("region", Text, "Region, provider/code."),
        field("path", Text, "Directory of a file store, absolute; fixed."),
        field("endpoint", Text, "Address of an s3 store; fixed."),
        field("bucket", Text, "Bucket of an s3 store; fixed."),
        field("prefix", Text, "Prefix of all keys in an s3 store; fixed."),
        field("notes", Text, "The operator's words."),
    ];

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            kind: row.get(2)?,
            region: row.get(3)?,
            path: row.get(4)?,
            endpoint: row.get(5)?,
            bucket: row.get(6)?,
            prefix: row.get(7)?,
            notes: row.get(8)?,
            created_at: row.get(9)?,
        })
    }

    fn create(
        tables: &Transaction<'_>,
        mut fields: Fields,
        scene: &mut Scene<'_>,
    ) -> Result<Created, Problem> {
        let key = new_id();
        let mut columns = Columns::default();
        columns.set("id", Some(key.clone())).set("created_at", Some(scene.now));
        columns.set("name", Some(need("name", fields.name("name")?)?));
        let kind = fields.text("kind", 16)?.unwrap_or_else(|| KINDS[0].to_owned());
        if !KINDS.contains(&kind.as_str()) {
            return Err(Problem::field("kind", format!("must be one of {}", KINDS.join(", "))));
        }
        place(&kind, &mut fields, &mut columns)?;
        columns.set("kind", Some(kind));
        shared(tables, &mut fields, &mut columns)?;
        fields.finish()?;
        columns.insert(tables, "block_stores")?;
        Ok(Created { key, minted: None })
    }

    fn update(
        tables: &Transaction<'_>,
        key: &str,
        mut fields: Fields,
        _scene: &mut Scene<'_>,
    ) -> Result<(), Problem> {
        fields.fixed(&["kind", "path", "endpoint", "bucket", "prefix"])?;
        let mut columns = Columns::default();
        columns.set("name", fields.name("name")?);
        shared(tables, &mut fields, &mut columns)?;
        fields.finish()?;
        columns.update(tables, "block_stores", "id", key)
    }

    fn delete(tables: &Transaction<'_>, key: &str, _scene: &mut Scene<'_>) -> Result<(), Problem> {
        tables.execute("DELETE FROM block_stores WHERE id = ?1", [key])?;
        Ok(())
    }
}

/// Where a store of `kind` keeps its blocks; fields of other kinds stay and are refused as unknown.
fn place(kind: &str, fields: &mut Fields, columns: &mut Columns) -> Result<(), Problem> {
    match kind {
        "file" => {
            let path = need("path", fields.text("path", PATH_BYTES_MAX)?)?;
            let path = check_scope(&path).map_err(|text| Problem::field("path", text))?;
            columns.set("path", Some(path));
        }
        "s3" => {
            columns.set("endpoint", Some(need("endpoint", fields.text("endpoint", 512)?)?));
            columns.set("bucket", Some(need("bucket", fields.text("bucket", 255)?)?));
            columns.set("prefix", fields.text("prefix", 512)?);
        }
        _ => {}
    }
    Ok(())
}

fn shared(tables: &Transaction<'_>, fields: &mut Fields, columns: &mut Columns) -> Result<(), Problem> {
    columns.set("region", refer::<Region>(tables, fields, "region")?);
    columns.set("notes", fields.text("notes", NOTES_BYTES_MAX)?);
    Ok(())
}
