//! The audit log: who did what to which object, from where. Rows are added in the transaction of the change, and never
//! changed; those past the retention are removed.

use axum::Extension;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use flexfs_wire::token::hide;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, Transaction, named_params, params_from_iter};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::problem::Problem;
use crate::query::Page;
use crate::role::{Actor, Role, Verb};

/// Least retention, seconds: a trigger of the tables keeps younger rows.
pub(crate) const KEEP_MIN: i64 = 30 * 86_400;
/// Longest detail, in characters.
const DETAIL_MAX: usize = 2_048;
/// Columns that rows can be filtered by, and their names in the query.
const FILTERS: &[(&str, &str)] = &[
    ("account", "account"),
    ("token", "token"),
    ("peer", "peer"),
    ("action", "action"),
    ("noun", "noun"),
    ("key", "key"),
];

/// One row.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Audit {
    /// Number; goes up.
    id: i64,
    /// Seconds since 1970.
    at: i64,
    /// Name of the account then; empty for admin itself.
    account: String,
    /// Id of the token it was done with.
    token: String,
    /// Address it came from.
    peer: String,
    /// create, update, delete, rotate, expire.
    action: String,
    /// To what kind of object.
    noun: String,
    /// To which.
    key: String,
    /// Status of the answer: 200 done, 4xx refused.
    status: u16,
    /// The fields of the request.
    detail: String,
}

/// Something that was done, or refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deed<'a> {
    pub(crate) action: &'a str,
    pub(crate) noun: &'a str,
    pub(crate) key: &'a str,
    pub(crate) status: u16,
    pub(crate) detail: &'a str,
}

/// Adds a row. Bodies hold no secrets: tokens are made here, and only their hashes kept; one that somebody put into a field
/// all the same is left out.
pub(crate) fn note(tables: &Transaction<'_>, by: &Actor, now: i64, deed: Deed<'_>) -> Result<(), Problem> {
    let detail: String = hide(deed.detail).chars().take(DETAIL_MAX).collect();
    let key = hide(deed.key);
    tables
        .prepare_cached(
            "INSERT INTO audit (at, account, token, peer, action, noun, key, status, detail)
             VALUES (:at, :account, :token, :peer, :action, :noun, :key, :status, :detail)",
        )?
        .execute(named_params! {
            ":at": now, ":account": by.name, ":token": by.token, ":peer": by.peer, ":action": deed.action,
            ":noun": deed.noun, ":key": key, ":status": deed.status, ":detail": detail,
        })?;
    Ok(())
}

/// Removes rows older than `keep` seconds.
pub(crate) fn purge(tables: &Transaction<'_>, now: i64, keep: i64) -> Result<(), Problem> {
    tables.execute("DELETE FROM audit WHERE at <= ?1", [now - keep.max(KEEP_MIN)])?;
    Ok(())
}

/// `GET /v1/configure/audit`: the newest first. `?since=` (seconds since 1970), `?before=` (a number, for the next page),
/// `?limit=`, and filters.
pub(crate) async fn list(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<Vec<Audit>>, Problem> {
    if actor.role == Role::VolumeAdmin {
        return Err(actor.refused(Verb::Read, "row of the audit log"));
    }
    let Query(pairs) = query.map_err(|_| Problem::request("the query cannot be read"))?;
    let wanted = Wanted::parse(pairs)?;
    Ok(Json(app.db.read(move |tables, _| rows(tables, wanted)).await?))
}

/// Which rows: a page, but by their numbers downward.
#[derive(Debug)]
struct Wanted {
    since: i64,
    before: i64,
    page: Page,
}

impl Wanted {
    fn parse(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let (mut since, mut before, mut rest) = (0, i64::MAX, Vec::new());
        for (key, value) in pairs {
            let number = match key.as_str() {
                "since" => &mut since,
                "before" => &mut before,
                _ => {
                    rest.push((key, value));
                    continue;
                }
            };
            *number = value.parse().map_err(|_| Problem::field(key, "must be a whole number"))?;
        }
        Ok(Self { since, before, page: Page::parse(rest, FILTERS)? })
    }
}

fn rows(tables: &Connection, wanted: Wanted) -> Result<Vec<Audit>, Problem> {
    let mut sql = "SELECT id, at, account, token, peer, action, noun, key, status, detail FROM audit
                   WHERE at >= ?1 AND id < ?2"
        .to_owned();
    let mut values = vec![Value::from(wanted.since), Value::from(wanted.before)];
    for (column, value) in wanted.page.filters {
        values.push(Value::from(value));
        sql.push_str(&format!(" AND {column} = ?{}", values.len()));
    }
    sql.push_str(&format!(" ORDER BY id DESC LIMIT {}", wanted.page.limit));
    let mut statement = tables.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Audit> {
    Ok(Audit {
        id: row.get(0)?,
        at: row.get(1)?,
        account: row.get(2)?,
        token: row.get(3)?,
        peer: row.get(4)?,
        action: row.get(5)?,
        noun: row.get(6)?,
        key: row.get(7)?,
        status: row.get(8)?,
        detail: row.get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Db;

    #[test]
    fn rows_are_added_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = Db::create(&dir.path().join("db")).unwrap();
        let tables = connection.transaction().unwrap();
        let now: i64 = tables.query_row("SELECT unixepoch()", [], |row| row.get(0)).unwrap();
        let by = Actor { name: "ann".to_owned(), peer: "::1".to_owned(), ..Actor::admin() };
        let deed = |key| Deed { action: "delete", noun: "volume", key, status: 200, detail: "{}" };
        for (key, at) in [("old", now - 2 * KEEP_MIN), ("one", now), ("two", now)] {
            note(&tables, &by, at, deed(key)).unwrap();
        }
        assert!(tables.execute("UPDATE audit SET key = 'x'", []).is_err());
        assert!(tables.execute("DELETE FROM audit", []).is_err());
        purge(&tables, now, 0).unwrap();
        let pairs = |list: &[(&str, &str)]| {
            Wanted::parse(list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        let found = rows(&tables, pairs(&[("account", "ann"), ("since", "1")]).unwrap()).unwrap();
        let keys: Vec<&str> = found.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["two", "one"], "the newest first, and none past the retention");
        let before = found[0].id.to_string();
        assert_eq!(rows(&tables, pairs(&[("before", &before)]).unwrap()).unwrap().len(), 1);
        assert!(rows(&tables, pairs(&[("key", "' OR 1")]).unwrap()).unwrap().is_empty());
        for bad in [("limit", "0"), ("limit", "1001"), ("since", "x"), ("detail", "x")] {
            assert!(pairs(&[bad]).is_err(), "{bad:?}");
        }
    }
}
