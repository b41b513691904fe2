//! The database: one SQLite file in WAL mode, one connection behind a mutex, used from blocking threads.
//!
//! Events go out while the mutex is still held, so subscribers see them in the order of the commits, and a
//! snapshot taken in the same section misses none.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::events::{Hub, Outgoing};
use crate::problem::Problem;

/// Version of the tables: `schema.sql` is 1, each upgrade one more.
const SCHEMA_VERSION: i64 = 3;
/// What leads from each version to the next.
const UPGRADES: [&str; 2] = [include_str!("upgrade-2.sql"), include_str!("upgrade-3.sql")];
/// How long a statement waits for another process (a backup, `init account`).
const BUSY: Duration = Duration::from_secs(5);

/// The database of this process.
#[derive(Debug)]
pub(crate) struct Db {
    connection: Mutex<Connection>,
    hub: Hub,
}

impl Db {
    /// Opens a database that `create` made.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Arc<Self>> {
        let mut connection = Connection::open_with_flags(
            path,
            rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        let version = prepare(&connection)?;
        anyhow::ensure!(
            (1..=SCHEMA_VERSION).contains(&version),
            "{} has tables of version {version}, this program knows {SCHEMA_VERSION}: update it",
            path.display()
        );
        if version < SCHEMA_VERSION {
            let tables = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
            upgrade(&tables, version)?;
            tables.commit()?;
            tracing::info!(from = version, to = SCHEMA_VERSION, "tables were brought to this version");
        }
        Ok(Arc::new(Self { connection: Mutex::new(connection), hub: Hub::new() }))
    }

    /// Makes a new database with empty tables.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Connection> {
        let mut connection = Connection::open(path)?;
        prepare(&connection)?;
        let tables = connection.transaction()?;
        tables.execute_batch(include_str!("schema.sql"))?;
        upgrade(&tables, 1)?;
        tables.commit()?;
        Ok(connection)
    }

    /// Runs `work` on a blocking thread, without changes.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection, &Hub) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let db = Arc::clone(self);
        blocking(move || work(&db.lock(), &db.hub)).await
    }

    /// Runs `work` in a transaction on a blocking thread; commits, then publishes the events it returned.
    pub(crate) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Transaction<'_>, &mut Vec<Outgoing>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let db = Arc::clone(self);
        blocking(move || {
            let mut connection = db.lock();
            let tables = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut events = Vec::new();
            let done = work(&tables, &mut events)?;
            tables.commit()?;
            for event in events {
                db.hub.publish(event);
            }
            Ok(done)
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic in `work` rolled its transaction back on the way out: the connection is sound.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn upgrade(tables: &Transaction<'_>, from: i64) -> rusqlite::Result<()> {
    let done = usize::try_from(from - 1).unwrap_or(0);
    for script in &UPGRADES[done..] {
        tables.execute_batch(script)?;
    }
    tables.pragma_update(None, "user_version", SCHEMA_VERSION)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Problem::internal("the request", &error)),
    }
}

/// Sets what SQLite keeps per connection; answers the version of the tables.
pub(crate) fn prepare(connection: &Connection) -> rusqlite::Result<i64> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A revocation that was answered must survive a power cut.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Files elsewhere are out of reach.
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_first_version_are_brought_to_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(include_str!("schema.sql")).unwrap();
        old.execute("INSERT INTO accounts VALUES ('1', 'first', '', 5)", []).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        for _ in 0..2 {
            let db = Db::open(&path).unwrap();
            let role: String =
                db.lock().query_row("SELECT role FROM accounts", [], |row| row.get(0)).unwrap();
            assert_eq!(role, "admin", "as it was");
        }
        let new = Db::create(&dir.path().join("new")).unwrap();
        let schema = |tables: &Connection| -> Vec<String> {
            let mut rows =
                tables.prepare("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").unwrap();
            rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(schema(&Db::open(&path).unwrap().lock()), schema(&new));
        let newer = Connection::open(&path).unwrap();
        newer.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        assert!(Db::open(&path).unwrap_err().to_string().contains("update it"));
    }
}
