//! Ends tokens when their time is up, and forgets them a month later.

use std::time::Duration;

use crate::app::App;
use crate::audit::{self, Deed};
use crate::clock;
use crate::problem::Problem;
use crate::role::Actor;
use crate::table::Scene;
use crate::token;

/// How often expiry is looked at: half the bound of one second within which a revocation must be out.
const TICK: Duration = Duration::from_millis(500);
/// Dead tokens stay in lists for so long, so that an operator sees what ended; seconds.
const KEEP: i64 = 30 * 86_400;

/// Runs until admin stops.
pub(crate) async fn run(app: App) {
    let mut shutdown = app.shutdown.clone();
    let mut since = clock::now();
    let mut purged = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            _ = shutdown.wait_for(|down| *down) => return,
        }
        let now = clock::now();
        if now <= since {
            continue;
        }
        // On an error `since` stays, so the next turn announces what this one could not.
        match announce(&app, since, now).await {
            Ok(()) => since = now,
            Err(problem) => {
                tracing::error!(problem = problem.detail(), "expired tokens could not be announced")
            }
        }
        if now - purged >= 3600 && purge(&app, now).await.is_ok() {
            purged = now;
        }
    }
}

/// Announces the tokens whose last second lies in `(since, now]`.
async fn announce(app: &App, since: i64, now: i64) -> Result<(), Problem> {
    let ids: Vec<String> = app
        .db
        .read(move |tables, _| {
            let mut statement =
                tables.prepare_cached("SELECT id FROM tokens WHERE expires_at > ?1 AND expires_at <= ?2")?;
            let ids = statement.query_map([since, now], |row| row.get(0))?;
            Ok(ids.collect::<Result<_, _>>()?)
        })
        .await?;
    if ids.is_empty() {
        return Ok(());
    }
    let pin = app.ca.pin();
    app.db
        .write(move |tables, events| {
            let by = Actor::admin();
            let mut scene = Scene { now, pin, events, by: &by };
            for id in &ids {
                tracing::info!(token = id, "token expired");
                let deed = Deed { action: "expire", noun: "token", key: id, status: 200, detail: "" };
                audit::note(tables, &by, now, deed)?;
                token::announce_end(tables, id, "expired", &mut scene)?;
            }
            Ok(())
        })
        .await
}

async fn purge(app: &App, now: i64) -> Result<(), Problem> {
    let keep = app.audit_keep;
    app.db
        .write(move |tables, _| {
            tables.execute("DELETE FROM tokens WHERE expires_at <= ?1", [now - KEEP])?;
            audit::purge(tables, now, keep)
        })
        .await
}
