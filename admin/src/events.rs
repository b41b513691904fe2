//! The standing stream to metadata servers: JSON lines of wire's `Event`.
//!
//! Nothing is missed: a stream subscribes and takes its snapshot in one section of the database's lock. The first
//! line is `snapshot` (every valid token of volumes on that server, and the limits it has: sessions of others end), then one
//! `volume-updated` or `volume-retired` for every volume there, then changes in the order of their commits, and `alive`
//! every 2 s. A reader that falls too far behind is cut off and starts again with a snapshot; there is no
//! position to resume from, so none can be wrong.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use flexfs_wire::settings::{Event, TokenLimits};
use hyper::body::Frame;
use rusqlite::Connection;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::app::App;
use crate::problem::Problem;
use crate::token::{limits, settings, settings_columns};

/// Time between two signs of life.
const ALIVE: Duration = Duration::from_secs(2);
/// Changes a stream may lag behind before it is cut off.
const BACKLOG: usize = 1024;
/// Lines waiting for one connection to take them.
const LINES: usize = 16;
/// A connection that takes no line for so long is dead.
const STALLED: Duration = Duration::from_secs(10);

/// A change that somebody out there has to know.
#[derive(Clone, Debug)]
pub(crate) enum Outgoing {
    /// For the metadata server of this id.
    Server {
        /// Id of the meta store.
        meta_store: String,
        /// The line.
        event: Event,
    },
    /// A meta token ended: streams opened with it are closed.
    MetaTokenEnded(String),
}

/// Where changes come together and streams subscribe.
#[derive(Debug)]
pub(crate) struct Hub(broadcast::Sender<Arc<Outgoing>>);

impl Hub {
    pub(crate) fn new() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }

    /// Hands a change to every stream. Never blocks; nobody listening is fine.
    pub(crate) fn publish(&self, change: Outgoing) {
        let _ = self.0.send(Arc::new(change));
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<Outgoing>> {
        self.0.subscribe()
    }
}

/// Opens a stream for a metadata server.
pub(crate) async fn open(app: &App, meta_store: String, token_id: String, now: i64) -> Result<Body, Problem> {
    let store = meta_store.clone();
    let (changes, first) = app
        .db
        .read(move |tables, hub| {
            let changes = hub.subscribe();
            Ok((changes, snapshot(tables, &store, now)?))
        })
        .await?;
    let (lines, body) = mpsc::channel(LINES);
    let stream = Stream { meta_store, token_id, lines, changes };
    tokio::spawn(stream.run(first, app.shutdown.clone()));
    Ok(Body::new(Lines(body)))
}

/// The state of a server's volumes and tokens, as the first lines of its stream.
fn snapshot(tables: &Connection, meta_store: &str, now: i64) -> Result<Vec<Event>, Problem> {
    let valid: Vec<(String, TokenLimits)> = tables
        .prepare_cached(
            "SELECT t.id, t.max_sessions, t.ops_per_second, t.bytes_per_second FROM tokens t JOIN volumes v ON v.id = t.volume
             WHERE v.meta_store = ?1 AND v.retired_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > ?2)",
        )?
        .query_map((meta_store, now), |row| Ok((row.get(0)?, limits(row, 1)?)))?
        .collect::<Result<_, _>>()?;
    let limits = valid.iter().filter(|(_, limits)| !limits.is_none()).cloned().collect();
    let tokens = valid.into_iter().map(|(id, _)| id).collect();
    let mut events = vec![Event::Snapshot { tokens, limits }];
    let mut statement = tables.prepare_cached(concat!(
        "SELECT ",
        settings_columns!(),
        ", v.retired_at IS NOT NULL FROM volumes v WHERE v.meta_store = ?1 ORDER BY v.id",
    ))?;
    let volumes = statement.query_map([meta_store], |row| {
        let settings = settings(row)?;
        let retired: bool = row.get(9)?;
        Ok(if retired { Event::VolumeRetired { id: settings.id } } else { Event::VolumeUpdated { settings } })
    })?;
    for volume in volumes {
        events.push(volume?);
    }
    Ok(events)
}

struct Stream {
    meta_store: String,
    token_id: String,
    lines: mpsc::Sender<Bytes>,
    changes: broadcast::Receiver<Arc<Outgoing>>,
}

impl Stream {
    async fn run(mut self, first: Vec<Event>, mut shutdown: watch::Receiver<bool>) {
        metrics::gauge!("flexfs_admin_event_streams").increment(1);
        tracing::info!(meta_store = self.meta_store, token = self.token_id, "event stream opened");
        let why = tokio::select! {
            why = self.serve(first) => why,
            _ = shutdown.wait_for(|down| *down) => "admin stops",
        };
        tracing::info!(meta_store = self.meta_store, token = self.token_id, why, "event stream closed");
        metrics::gauge!("flexfs_admin_event_streams").decrement(1);
    }

    /// Sends lines until something ends the stream; answers what did.
    async fn serve(&mut self, first: Vec<Event>) -> &'static str {
        for event in first {
            if let Err(why) = self.send(&event).await {
                return why;
            }
        }
        let mut alive = interval_at(Instant::now() + ALIVE, ALIVE);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let change = tokio::select! {
                change = self.changes.recv() => change,
                _ = alive.tick() => match self.send(&Event::Alive).await {
                    Ok(()) => continue,
                    Err(why) => return why,
                },
                () = self.lines.closed() => return "the metadata server hung up",
            };
            match change.as_deref() {
                Ok(Outgoing::Server { meta_store, event }) if *meta_store == self.meta_store => {
                    if let Err(why) = self.send(event).await {
                        return why;
                    }
                }
                Ok(Outgoing::MetaTokenEnded(id)) if *id == self.token_id => return "its meta token ended",
                Ok(Outgoing::Server { .. } | Outgoing::MetaTokenEnded(_)) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return "it fell too far behind",
                Err(broadcast::error::RecvError::Closed) => return "admin stops",
            }
        }
    }

    async fn send(&self, event: &Event) -> Result<(), &'static str> {
        let mut line = serde_json::to_vec(event).expect("events are plain data");
        line.push(b'\n');
        match timeout(STALLED, self.lines.send(line.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("the metadata server hung up"),
            Err(_) => Err("the metadata server takes nothing"),
        }
    }
}

/// A body that is whatever comes out of a channel.
struct Lines(mpsc::Receiver<Bytes>);

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
