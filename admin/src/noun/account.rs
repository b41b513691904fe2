//! Accounts: who may use this API. Each has tokens; a new one comes with its first.

use flexfs_wire::token::TokenKind;
use rusqlite::{Row, Transaction};
use serde::Serialize;
use utoipa::ToSchema;

use super::Volume;
use crate::fields::{Fields, NAME_BYTES_MAX, NOTES_BYTES_MAX, need};
use crate::problem::Problem;
use crate::role::Role;
use crate::table::FieldKind::Text;
use crate::table::{self, Columns, Created, FieldDoc, Noun, Scene, field, needed, new_id};
use crate::token::{self, Grant, TokenInfo, json, tokens_json, tokens_of};

/// An account.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Account {
    /// UUID.
    id: String,
    /// Unique name.
    name: String,
    /// admin, volume-admin or auditor.
    role: String,
    /// Names of the volumes of a volume-admin.
    volumes: Vec<String>,
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
    const COLUMNS: &'static str = concat!(
        "a.id, a.name, a.notes, a.created_at, ",
        tokens_json!("t.account = a.id"),
        ", a.role, (SELECT json_group_array(v.name ORDER BY v.name) FROM account_volumes w
          JOIN volumes v ON v.id = w.volume WHERE w.account = a.id)"
    );
    const FROM: &'static str = "accounts a";
    const KEY: &'static str = "a.id";
    const NAMED: &'static str = "a.name = ?1";
    const FILTERS: &'static [(&'static str, &'static str)] = &[("name", "a.name"), ("role", "a.role")];
    const FIELDS: &'static [FieldDoc] = &[
        needed("name", Text, "Unique name."),
        field(
            "role",
            Text,
            "admin (all; the default), volume-admin (its volumes and their tokens) or auditor (looks).",
        ),
        field("volumes", Text, "Volumes of a volume-admin: names or ids, separated by commas."),
        field("notes", Text, "The operator's words."),
    ];

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            notes: row.get(2)?,
            created_at: row.get(3)?,
            tokens: tokens_of(row, 4)?,
            role: row.get(5)?,
            volumes: json(row, 6)?,
        })
    }

    fn create(
        tables: &Transaction<'_>,
        mut fields: Fields,
        scene: &mut Scene<'_>,
    ) -> Result<Created, Problem> {
        let name = need("name", fields.name("name")?)?;
        let notes = fields.text("notes", NOTES_BYTES_MAX)?;
        let (role, volumes) = rights(tables, &mut fields)?;
        fields.finish()?;
        let made = create_account(tables, &name, notes, scene)?;
        set_rights(tables, &made.key, role, volumes)?;
        Ok(made)
    }

    fn update(
        tables: &Transaction<'_>,
        key: &str,
        mut fields: Fields,
        scene: &mut Scene<'_>,
    ) -> Result<(), Problem> {
        let (role, volumes) = rights(tables, &mut fields)?;
        if role.is_some_and(|role| role != Role::Admin) {
            keep_an_admin(tables, key, scene)?;
        }
        let mut columns = Columns::default();
        columns.set("name", fields.name("name")?).set("notes", fields.text("notes", NOTES_BYTES_MAX)?);
        fields.finish()?;
        columns.update(tables, "accounts", "id", key)?;
        set_rights(tables, key, role, volumes)
    }

    fn delete(tables: &Transaction<'_>, key: &str, scene: &mut Scene<'_>) -> Result<(), Problem> {
        keep_an_admin(tables, key, scene)?;
        tables.execute("DELETE FROM accounts WHERE id = ?1", [key])?;
        Ok(())
    }
}

/// Whoever takes away the last way in could never come back.
fn keep_an_admin(tables: &Transaction<'_>, but: &str, scene: &Scene<'_>) -> Result<(), Problem> {
    let others: i64 = tables.query_row(
        "SELECT count(*) FROM tokens t JOIN accounts a ON a.id = t.account
         WHERE a.role = 'admin' AND a.id <> ?1 AND (t.expires_at IS NULL OR t.expires_at > ?2)",
        (but, scene.now),
        |row| row.get(0),
    )?;
    if others > 0 {
        return Ok(());
    }
    Err(Problem::conflict(
        "this is the last account of role admin with a valid token: make another one first",
    ))
}

/// Role and volumes, as far as they are given.
fn rights(
    tables: &Transaction<'_>,
    fields: &mut Fields,
) -> Result<(Option<Role>, Option<Vec<String>>), Problem> {
    let role = match fields.text("role", NAME_BYTES_MAX)? {
        Some(text) => Some(
            Role::parse(&text)
                .ok_or_else(|| Problem::field("role", "must be admin, volume-admin or auditor"))?,
        ),
        None => None,
    };
    let Some(names) = fields.text("volumes", NOTES_BYTES_MAX)? else { return Ok((role, None)) };
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let volumes = names.map(|name| {
        table::resolve::<Volume>(tables, name).map_err(|problem| Problem::field("volumes", problem.detail()))
    });
    Ok((role, Some(volumes.collect::<Result<_, _>>()?)))
}

fn set_rights(
    tables: &Transaction<'_>,
    key: &str,
    role: Option<Role>,
    volumes: Option<Vec<String>>,
) -> Result<(), Problem> {
    if let Some(role) = role {
        tables.execute("UPDATE accounts SET role = ?2 WHERE id = ?1", (key, role.name()))?;
    }
    if let Some(volumes) = volumes {
        tables.execute("DELETE FROM account_volumes WHERE account = ?1", [key])?;
        for volume in volumes {
            tables.execute("INSERT OR IGNORE INTO account_volumes VALUES (?1, ?2)", (key, volume))?;
        }
    }
    let role: String =
        tables.query_row("SELECT role FROM accounts WHERE id = ?1", [key], |row| row.get(0))?;
    let bound: i64 =
        tables
            .query_row("SELECT count(*) FROM account_volumes WHERE account = ?1", [key], |row| row.get(0))?;
    if bound > 0 && role != Role::VolumeAdmin.name() {
        return Err(Problem::field("volumes", "only an account of role volume-admin is bound to volumes"));
    }
    Ok(())
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
