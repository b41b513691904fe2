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

/// Version of `schema.sql`.
const SCHEMA_VERSION: i64 = 1;
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
        let connection = Connection::open_with_flags(
            path,
            rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        let version = prepare(&connection)?;
        anyhow::ensure!(
            version == SCHEMA_VERSION,
            "{} has tables of version {version}, this program knows {SCHEMA_VERSION}: update it",
            path.display()
        );
        Ok(Arc::new(Self { connection: Mutex::new(connection), hub: Hub::new() }))
    }

    /// Makes a new database with empty tables.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Connection> {
        let mut connection = Connection::open(path)?;
        prepare(&connection)?;
        let tables = connection.transaction()?;
        tables.execute_batch(include_str!("schema.sql"))?;
        tables.pragma_update(None, "user_version", SCHEMA_VERSION)?;
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
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
