//! When tokens were last used: gathered in memory, written in batches, never a write per validation.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::app::App;

/// Time between two batches; a crash forgets at most so much.
const BATCH: Duration = Duration::from_secs(10);
/// Most tokens remembered between two batches; more are written with the next.
const PENDING_MAX: usize = 65_536;
/// Longest name of a user kept, bytes.
const BY_BYTES_MAX: usize = 128;

/// Uses since the last batch.
#[derive(Debug, Default)]
pub(crate) struct Used(Mutex<HashMap<String, (i64, String)>>);

impl Used {
    /// Notes a use of the token `id`.
    pub(crate) fn note(&self, id: String, now: i64, by: &str) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() < PENDING_MAX || pending.contains_key(&id) {
            let by = by.chars().filter(|c| !c.is_control()).take(BY_BYTES_MAX).collect();
            pending.insert(id, (now, by));
        }
    }

    fn take(&self) -> HashMap<String, (i64, String)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes batches until admin stops, and once more then.
pub(crate) async fn run(app: App) {
    let mut shutdown = app.shutdown.clone();
    loop {
        let down = tokio::select! {
            () = tokio::time::sleep(BATCH) => false,
            _ = shutdown.wait_for(|down| *down) => true,
        };
        write(&app).await;
        if down {
            return;
        }
    }
}

async fn write(app: &App) {
    let batch = app.used.take();
    if batch.is_empty() {
        return;
    }
    let written = app
        .db
        .write(move |tables, _| {
            let mut update = tables
                .prepare_cached("UPDATE tokens SET last_used_at = ?2, last_used_by = ?3 WHERE id = ?1")?;
            for (id, (at, by)) in &batch {
                update.execute((id, at, by))?;
            }
            Ok(())
        })
        .await;
    if let Err(problem) = written {
        // Only a statistic; the next use notes it again.
        tracing::warn!(problem = problem.detail(), "last uses of tokens were not written");
    }
}
