//! What the nouns of the API have in common: one trait, and SQL made from its constants.
//!
//! Every piece of SQL text here is a constant of this program; everything from outside is a bound parameter.

use flexfs_wire::token::CaPin;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params_from_iter};
use serde::Serialize;
use utoipa::ToSchema;

use crate::events::Outgoing;
use crate::fields::Fields;
use crate::problem::Problem;
use crate::query::Page;
use crate::role::{Actor, VOLUMES_OF};
use crate::token::Minted;

/// Type of a field of a body, for the OpenAPI document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldKind {
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// True or false.
    Flag,
    /// Mount flags: an object, or names in one text.
    Flags,
    /// An object.
    Object,
}

/// One field of a body, for the OpenAPI document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldDoc {
    /// Its name in JSON.
    pub(crate) name: &'static str,
    /// Its type.
    pub(crate) kind: FieldKind,
    /// Whether creation cannot do without.
    pub(crate) needed: bool,
    /// What it is for.
    pub(crate) doc: &'static str,
}

/// Shorthand for a [`FieldDoc`] that may be left out.
pub(crate) const fn field(name: &'static str, kind: FieldKind, doc: &'static str) -> FieldDoc {
    FieldDoc { name, kind, needed: false, doc }
}

/// Shorthand for a [`FieldDoc`] that creation needs.
pub(crate) const fn needed(name: &'static str, kind: FieldKind, doc: &'static str) -> FieldDoc {
    FieldDoc { name, kind, needed: true, doc }
}

/// What a change of the tables knows besides its fields.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    /// Seconds since 1970.
    pub(crate) now: i64,
    /// The cluster; new tokens carry it.
    pub(crate) pin: CaPin,
    /// Events to publish after the commit.
    pub(crate) events: &'a mut Vec<Outgoing>,
    /// Who does it.
    pub(crate) by: &'a Actor,
}

/// What creation made.
#[derive(Debug)]
pub(crate) struct Created {
    /// Key of the new object.
    pub(crate) key: String,
    /// Token made with it: shown in this answer and never again.
    pub(crate) minted: Option<Minted>,
}

/// One table of `/v1/configure`.
pub(crate) trait Noun: Serialize + ToSchema + Sized + Send + 'static {
    /// Singular, for texts.
    const NOUN: &'static str;
    /// Plural, as in the path.
    const PATH: &'static str;
    /// Columns that [`Noun::read`] takes, in order.
    const COLUMNS: &'static str;
    /// Tables and joins.
    const FROM: &'static str;
    /// SQL expression of the key; lists are ordered by it.
    const KEY: &'static str;
    /// SQL condition on `?1` by which people name an object besides its key.
    const NAMED: &'static str;
    /// Filters of lists: name in the query, SQL expression.
    const FILTERS: &'static [(&'static str, &'static str)];
    /// Fields of bodies.
    const FIELDS: &'static [FieldDoc];
    /// SQL expression of the id of the volume it belongs to, if it is a volume's.
    const VOLUME: Option<&'static str> = None;
    /// Whether it is the volume itself.
    const IS_VOLUME: bool = false;

    /// Takes a row apart.
    fn read(row: &Row<'_>) -> rusqlite::Result<Self>;
    /// Makes an object.
    fn create(tables: &Transaction<'_>, fields: Fields, scene: &mut Scene<'_>) -> Result<Created, Problem>;
    /// Changes the given fields.
    fn update(
        tables: &Transaction<'_>,
        key: &str,
        fields: Fields,
        scene: &mut Scene<'_>,
    ) -> Result<(), Problem>;
    /// Takes an object away.
    fn delete(tables: &Transaction<'_>, key: &str, scene: &mut Scene<'_>) -> Result<(), Problem>;
}

/// A page of objects, those that `by` may see.
pub(crate) fn list<N: Noun>(tables: &Connection, page: &Page, by: &Actor) -> Result<Vec<N>, Problem> {
    let mut sql = format!("SELECT {} FROM {} WHERE {} > ?1", N::COLUMNS, N::FROM, N::KEY);
    let mut values = vec![Value::from(page.after.clone())];
    for (expression, value) in &page.filters {
        values.push(Value::from(value.clone()));
        // Compared as texts, so that `?blockSize=4194304` finds numbers too.
        sql.push_str(&format!(" AND CAST({expression} AS TEXT) = ?{}", values.len()));
    }
    if let (Some(account), Some(volume)) = (by.bound_to(), N::VOLUME) {
        values.push(Value::from(account.to_owned()));
        sql.push_str(&format!(" AND {volume} IN {VOLUMES_OF}{})", values.len()));
    }
    sql.push_str(&format!(" ORDER BY {} LIMIT {}", N::KEY, page.limit));
    let mut statement = tables.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), N::read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One object by its key.
pub(crate) fn show<N: Noun>(tables: &Connection, key: &str) -> Result<N, Problem> {
    let sql = format!("SELECT {} FROM {} WHERE {} = ?1", N::COLUMNS, N::FROM, N::KEY);
    tables
        .prepare_cached(&sql)?
        .query_row([key], N::read)
        .optional()?
        .ok_or_else(|| Problem::missing(N::NOUN, key))
}

/// The key of the object that `text` names by key or by name.
pub(crate) fn resolve<N: Noun>(tables: &Connection, text: &str) -> Result<String, Problem> {
    let key = N::KEY;
    let sql = format!("SELECT {key} FROM {} WHERE {key} = ?1 OR ({}) LIMIT 1", N::FROM, N::NAMED);
    tables
        .prepare_cached(&sql)?
        .query_row([text], |row| row.get(0))
        .optional()?
        .ok_or_else(|| Problem::missing(N::NOUN, text))
}

/// The key of the object that a field of a body names.
pub(crate) fn refer<N: Noun>(
    tables: &Connection,
    fields: &mut Fields,
    field: &str,
) -> Result<Option<String>, Problem> {
    let Some(text) = fields.text(field, 128)? else { return Ok(None) };
    match resolve::<N>(tables, &text) {
        Ok(key) => Ok(Some(key)),
        Err(problem) => Err(Problem::field(field, problem.detail())),
    }
}

/// Columns to write: collected field by field, then inserted or updated at once.
#[derive(Debug, Default)]
pub(crate) struct Columns(Vec<(&'static str, Value)>);

impl Columns {
    /// Adds a column when there is a value for it.
    pub(crate) fn set(&mut self, column: &'static str, value: Option<impl Into<Value>>) -> &mut Self {
        if let Some(value) = value {
            self.0.push((column, value.into()));
        }
        self
    }

    /// Inserts a row.
    pub(crate) fn insert(self, tables: &Transaction<'_>, table: &'static str) -> Result<(), Problem> {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| *name).collect();
        let marks: Vec<String> = (1..=names.len()).map(|n| format!("?{n}")).collect();
        let sql = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), marks.join(", "));
        tables.execute(&sql, params_from_iter(self.0.into_iter().map(|(_, value)| value)))?;
        Ok(())
    }

    /// Updates the row whose `key_column` is `key`; no column, no statement.
    pub(crate) fn update(
        self,
        tables: &Transaction<'_>,
        table: &'static str,
        key_column: &'static str,
        key: &str,
    ) -> Result<(), Problem> {
        if self.0.is_empty() {
            return Ok(());
        }
        let sets: Vec<String> =
            self.0.iter().enumerate().map(|(index, (name, _))| format!("{name} = ?{}", index + 1)).collect();
        let sql =
            format!("UPDATE {table} SET {} WHERE {key_column} = ?{}", sets.join(", "), self.0.len() + 1);
        let values = self.0.into_iter().map(|(_, value)| value).chain([Value::from(key.to_owned())]);
        tables.execute(&sql, params_from_iter(values))?;
        Ok(())
    }
}

/// A new UUID.
pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::db::Db;
    use crate::noun::{Account, BlockStore, MetaStore, Provider, Region, Volume, VolumeToken};

    /// A database with one of everything.
    fn furnished() -> Connection {
        let dir = tempfile::tempdir().unwrap();
        let mut tables = Db::create(&dir.path().join("db")).unwrap();
        let changes = tables.transaction().unwrap();
        make::<Account>(&changes, r#"{"name":"a"}"#);
        make::<Provider>(&changes, r#"{"code":"a"}"#);
        make::<Region>(&changes, r#"{"provider":"a","code":"a"}"#);
        make::<BlockStore>(&changes, r#"{"name":"a","region":"a/a"}"#);
        make::<MetaStore>(&changes, r#"{"name":"a","address":"h:1"}"#);
        make::<Volume>(&changes, r#"{"name":"a","metaStore":"a","blockStore":"a"}"#);
        make::<VolumeToken>(&changes, r#"{"volume":"a"}"#);
        changes.commit().unwrap();
        tables
    }

    fn make<N: Noun>(tables: &Transaction<'_>, body: &str) {
        let mut scene =
            Scene { now: 1000, pin: CaPin([0; 16]), events: &mut Vec::new(), by: &Actor::admin() };
        N::create(tables, Fields::parse(body.as_bytes()).unwrap(), &mut scene).unwrap();
    }

    /// Creates and updates with a body; whatever the answer is, an accepted object can be read again.
    fn try_body<N: Noun>(tables: &mut Connection, body: &[u8]) {
        let changes = tables.transaction().unwrap();
        let mut scene =
            Scene { now: 1000, pin: CaPin([0; 16]), events: &mut Vec::new(), by: &Actor::admin() };
        if let Ok(created) = Fields::parse(body).and_then(|fields| N::create(&changes, fields, &mut scene)) {
            serde_json::to_value(show::<N>(&changes, &created.key).unwrap()).unwrap();
        }
        let first: String = changes
            .query_row(&format!("SELECT {} FROM {} LIMIT 1", N::KEY, N::FROM), [], |row| row.get(0))
            .unwrap();
        let _ = Fields::parse(body).and_then(|fields| N::update(&changes, &first, fields, &mut scene));
        serde_json::to_value(show::<N>(&changes, &first).unwrap()).unwrap();
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
            "(a|b|h:1|/a/b|hosted|s3|lz4|ro|ro,noExec|4194304)".prop_map(Into::into),
            Just(4_194_304.into()),
        ];
        leaf.prop_recursive(2, 6, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
                proptest::collection::hash_map("(ro|umask|x)", inner, 0..3)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        let key = "(name|code|provider|region|kind|path|address|metaStore|blockStore|blockSize|compression|encryption|\
            retention|maxBlocks|flags|notes|volume|mountPath|expiresAt|noToken|endpoint|bucket|\
            maxSessions|opsPerSecond|bytesPerSecond|zzz)";
        prop_oneof![
            proptest::collection::hash_map(key, value(), 0..6)
                .prop_map(|map| serde_json::to_vec(&map).unwrap()),
            proptest::collection::vec(any::<u8>(), 0..60),
        ]
    }

    #[test]
    fn any_body_is_answered() {
        let mut tables = furnished();
        let mut runner = proptest::test_runner::TestRunner::default();
        let tables = std::cell::RefCell::new(&mut tables);
        runner
            .run(&body(), |body| {
                let tables = &mut tables.borrow_mut();
                try_body::<Account>(tables, &body);
                try_body::<Provider>(tables, &body);
                try_body::<Region>(tables, &body);
                try_body::<BlockStore>(tables, &body);
                try_body::<MetaStore>(tables, &body);
                try_body::<Volume>(tables, &body);
                try_body::<VolumeToken>(tables, &body);
                Ok(())
            })
            .unwrap();
    }
}
