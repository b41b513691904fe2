//! Providers: who runs the machines (a cloud, a data centre).

use rusqlite::{Row, Transaction};
use serde::Serialize;
use utoipa::ToSchema;

use crate::fields::{Fields, NAME_BYTES_MAX, need};
use crate::problem::Problem;
use crate::table::FieldKind::Text;
use crate::table::{Columns, Created, FieldDoc, Noun, Scene, field, needed};

/// A provider.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Provider {
    /// Unique short name; the key.
    code: String,
    /// Full name.
    name: String,
}

impl Noun for Provider {
    const NOUN: &'static str = "provider";
    const PATH: &'static str = "providers";
    const COLUMNS: &'static str = "code, name";
    const FROM: &'static str = "providers";
    const KEY: &'static str = "code";
    const NAMED: &'static str = "code = ?1";
    const FILTERS: &'static [(&'static str, &'static str)] = &[("code", "code"), ("name", "name")];
    const FIELDS: &'static [FieldDoc] = &[
        needed("code", Text, "Unique short name; fixed."),
        field("name", Text, "Full name; the code when left out."),
    ];

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { code: row.get(0)?, name: row.get(1)? })
    }

    fn create(
        tables: &Transaction<'_>,
        mut fields: Fields,
        _scene: &mut Scene<'_>,
    ) -> Result<Created, Problem> {
        let code = need("code", fields.name("code")?)?;
        let name = fields.text("name", NAME_BYTES_MAX)?.unwrap_or_else(|| code.clone());
        fields.finish()?;
        let mut columns = Columns::default();
        columns.set("code", Some(code.clone())).set("name", Some(name));
        columns.insert(tables, "providers")?;
        Ok(Created { key: code, minted: None })
    }

    fn update(
        tables: &Transaction<'_>,
        key: &str,
        mut fields: Fields,
        _scene: &mut Scene<'_>,
    ) -> Result<(), Problem> {
        fields.fixed(&["code"])?;
        let mut columns = Columns::default();
        columns.set("name", fields.text("name", NAME_BYTES_MAX)?);
        fields.finish()?;
        columns.update(tables, "providers", "code", key)
    }

    fn delete(tables: &Transaction<'_>, key: &str, _scene: &mut Scene<'_>) -> Result<(), Problem> {
        tables.execute("DELETE FROM providers WHERE code = ?1", [key])?;
        Ok(())
    }
}
