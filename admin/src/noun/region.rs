//! Regions of providers. The key has two parts, written `provider/code`.

use rusqlite::{Row, Transaction};
use serde::Serialize;
use utoipa::ToSchema;

use super::Provider;
use crate::fields::{Fields, NAME_BYTES_MAX, need};
use crate::problem::Problem;
use crate::table::FieldKind::Text;
use crate::table::{Columns, Created, FieldDoc, Noun, Scene, field, needed, refer};

/// A region.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Region {
    /// `provider/code`; the key.
    id: String,
    /// Code of the provider.
    provider: String,
    /// Short name, unique with the provider.
    code: String,
    /// Full name.
    name: String,
}

impl Noun for Region {
    const NOUN: &'static str = "region";
    const PATH: &'static str = "regions";
    const COLUMNS: &'static str = "id, provider, code, name";
    const FROM: &'static str = "regions";
    const KEY: &'static str = "id";
    const NAMED: &'static str = "id = ?1";
    const FILTERS: &'static [(&'static str, &'static str)] =
        &[("provider", "provider"), ("code", "code"), ("name", "name")];
    const FIELDS: &'static [FieldDoc] = &[
        needed("provider", Text, "Code of the provider; fixed."),
        needed("code", Text, "Short name, unique with the provider; fixed."),
        field("name", Text, "Full name; the code when left out."),
    ];

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { id: row.get(0)?, provider: row.get(1)?, code: row.get(2)?, name: row.get(3)? })
    }

    fn create(
        tables: &Transaction<'_>,
        mut fields: Fields,
        _scene: &mut Scene<'_>,
    ) -> Result<Created, Problem> {
        let provider = need("provider", refer::<Provider>(tables, &mut fields, "provider")?)?;
        let code = need("code", fields.name("code")?)?;
        let name = fields.text("name", NAME_BYTES_MAX)?.unwrap_or_else(|| code.clone());
        fields.finish()?;
        let key = format!("{provider}/{code}");
        let mut columns = Columns::default();
        columns
            .set("id", Some(key.clone()))
            .set("provider", Some(provider))
            .set("code", Some(code))
            .set("name", Some(name));
        columns.insert(tables, "regions")?;
        Ok(Created { key, minted: None })
    }

    fn update(
        tables: &Transaction<'_>,
        key: &str,
        mut fields: Fields,
        _scene: &mut Scene<'_>,
    ) -> Result<(), Problem> {
        fields.fixed(&["provider", "code"])?;
        let mut columns = Columns::default();
        columns.set("name", fields.text("name", NAME_BYTES_MAX)?);
        fields.finish()?;
        columns.update(tables, "regions", "id", key)
    }

    fn delete(tables: &Transaction<'_>, key: &str, _scene: &mut Scene<'_>) -> Result<(), Problem> {
        tables.execute("DELETE FROM regions WHERE id = ?1", [key])?;
        Ok(())
    }
}
