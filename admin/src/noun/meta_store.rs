//! Meta stores: the metadata servers. A new one comes with the token its server presents to admin.

use flexfs_wire::creds::{AdminAddr, CredsError};
use flexfs_wire::token::TokenKind;
use rusqlite::{Row, Transaction};
use serde::Serialize;
use utoipa::ToSchema;

use super::Region;
use crate::fields::{Fields, NOTES_BYTES_MAX, need};
use crate::problem::Problem;
use crate::table::FieldKind::Text;
use crate::table::{Columns, Created, FieldDoc, Noun, Scene, field, needed, new_id, refer};
use crate::token::{self, Grant, TokenInfo, tokens_json, tokens_of};

/// A metadata server.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MetaStore {
    /// UUID.
    id: String,
    /// Unique name.
    name: String,
    /// `host:port` that mounts connect to.
    address: String,
    /// Region, `provider/code`.
    region: Option<String>,
    /// The operator's words.
    notes: String,
    /// Seconds since 1970.
    created_at: i64,
    /// Its tokens, without their secrets.
    tokens: Vec<TokenInfo>,
}

impl Noun for MetaStore {
    const NOUN: &'static str = "meta store";
    const PATH: &'static str = "meta-stores";
    const COLUMNS: &'static str = concat!(
        "m.id, m.name, m.address, m.region, m.notes, m.created_at, ",
        tokens_json!("t.meta_store = m.id")
    );
    const FROM: &'static str = "meta_stores m";
    const KEY: &'static str = "m.id";
    const NAMED: &'static str = "m.name = ?1";
    const FILTERS: &'static [(&'static str, &'static str)] =
        &[("name", "m.name"), ("address", "m.address"), ("region", "m.region")];
    const FIELDS: &'static [FieldDoc] = &[
        needed("name", Text, "Unique name."),
        needed("address", Text, "host:port that mounts connect to."),
        field("region", Text, "Region, provider/code."),
        field("notes", Text, "The operator's words."),
    ];

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            address: row.get(2)?,
            region: row.get(3)?,
            notes: row.get(4)?,
            created_at: row.get(5)?,
            tokens: tokens_of(row, 6)?,
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
        columns.set("address", Some(need("address", address(&mut fields)?)?));
        shared(tables, &mut fields, &mut columns)?;
        fields.finish()?;
        columns.insert(tables, "meta_stores")?;
        let minted = token::mint(tables, &Grant::plain(TokenKind::Meta, &key), scene)?;
        Ok(Created { key, minted: Some(minted) })
    }

    fn update(
        tables: &Transaction<'_>,
        key: &str,
        mut fields: Fields,
        _scene: &mut Scene<'_>,
    ) -> Result<(), Problem> {
        let mut columns = Columns::default();
        columns.set("name", fields.name("name")?).set("address", address(&mut fields)?);
        shared(tables, &mut fields, &mut columns)?;
        fields.finish()?;
        columns.update(tables, "meta_stores", "id", key)
    }

    fn delete(tables: &Transaction<'_>, key: &str, scene: &mut Scene<'_>) -> Result<(), Problem> {
        let ids: Vec<String> = tables
            .prepare_cached("SELECT id FROM tokens WHERE meta_store = ?1")?
            .query_map([key], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        ids.iter().try_for_each(|id| token::announce_end(tables, id, "deleted", scene))?;
        tables.execute("DELETE FROM meta_stores WHERE id = ?1", [key])?;
        Ok(())
    }
}

fn address(fields: &mut Fields) -> Result<Option<String>, Problem> {
    let Some(text) = fields.text("address", 300)? else { return Ok(None) };
    match AdminAddr::parse(&text) {
        // An address without a port would get admin's default port, which is never meant here.
        Ok(addr) if text.ends_with(&format!(":{}", addr.port())) => Ok(Some(addr.to_string())),
        Ok(_) => Err(Problem::field("address", "must be host:port; the port is missing")),
        Err(CredsError::AdminAddr(why)) => {
            Err(Problem::field("address", format!("must be host:port ({why})")))
        }
        Err(_) => Err(Problem::field("address", "must be host:port")),
    }
}

fn shared(tables: &Transaction<'_>, fields: &mut Fields, columns: &mut Columns) -> Result<(), Problem> {
    columns.set("region", refer::<Region>(tables, fields, "region")?);
    columns.set("notes", fields.text("notes", NOTES_BYTES_MAX)?);
    Ok(())
}
