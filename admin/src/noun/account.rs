//! Accounts: who may use this API. Each has tokens; a new one comes with its first.

use flexfs_wire::token::TokenKind;
use rusqlite::{Row, Transaction};
use serde::Serialize;
use utoipa::ToSchema;

use crate::fields::{Fields, NOTES_BYTES_MAX, need};
use crate::problem::Problem;
use crate::table::FieldKind::Text;
use crate::table::{Columns, Created, FieldDoc, Noun, Scene, field, needed, new_id};
use crate::token::{self, Grant, TokenInfo, tokens_json, tokens_of};

/// An account.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Account {
    /// UUID.
    id: String,
    /// Unique name.
    name: String,
    /// The operator's words.
    notes: String,
    /// Seconds since 1970.
    created_at: i64,
    /// Its tokens, without their secrets.
    tokens: Vec<TokenInfo>,
}

impl Noun for Account {
    const NOUN: &'static str = "account";
    const PATH: &'static str = "accounts";
    const COLUMNS: &'static str =
        concat!("a.id, a.name, a.notes, a.created_at, ", tokens_json!("t.account = a.id"));
    const FROM: &'static str = "accounts a";
    const KEY: &'static str = "a.id";
    const NAMED: &'static str = "a.name = ?1";
    const FILTERS: &'static [(&'static str, &'static str)] = &[("name", "a.name")];
    const FIELDS: &'static [FieldDoc] =
        &[needed("name", Text, "Unique name."), field("notes", Text, "The operator's words.")];

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            notes: row.get(2)?,
            created_at: row.get(3)?,
            tokens: tokens_of(row, 4)?,
        })
    }

    fn create(
        tables: &Transaction<'_>,
        mut fields: Fields,
        scene: &mut Scene<'_>,
    ) -> Result<Created, Problem> {
        let name = need("name", fields.name("name")?)?;
        let notes = fields.text("notes", NOTES_BYTES_MAX)?;
        fields.finish()?;
        create_account(tables, &name, notes, scene)
    }

    fn update(
        tables: &Transaction<'_>,
        key: &str,
        mut fields: Fields,
        _scene: &mut Scene<'_>,
    ) -> Result<(), Problem> {
        let mut columns = Columns::default();
        columns.set("name", fields.name("name")?).set("notes", fields.text("notes", NOTES_BYTES_MAX)?);
        fields.finish()?;
        columns.update(tables, "accounts", "id", key)
    }

    fn delete(tables: &Transaction<'_>, key: &str, scene: &mut Scene<'_>) -> Result<(), Problem> {
        // Whoever deletes the last way in could never come back.
        let others: i64 = tables.query_row(
            "SELECT count(*) FROM tokens WHERE kind = 'account' AND account <> ?1
             AND (expires_at IS NULL OR expires_at > ?2)",
            (key, scene.now),
            |row| row.get(0),
        )?;
        if others == 0 {
            return Err(Problem::conflict(
                "this is the last account with a valid token: make another one first",
            ));
        }
        tables.execute("DELETE FROM accounts WHERE id = ?1", [key])?;
        Ok(())
    }
}

/// Makes an account with its first token; also used by `init`, before there is an API.
pub(crate) fn create_account(
    tables: &Transaction<'_>,
    name: &str,
    notes: Option<String>,
    scene: &Scene<'_>,
) -> Result<Created, Problem> {
    let key = new_id();
    let mut columns = Columns::default();
    columns
        .set("id", Some(key.clone()))
        .set("name", Some(name.to_owned()))
        .set("notes", notes)
        .set("created_at", Some(scene.now));
    columns.insert(tables, "accounts")?;
    let minted = token::mint(tables, &Grant::plain(TokenKind::Account, &key), scene)?;
    Ok(Created { key, minted: Some(minted) })
}
