//! What `status` shows of a session.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::session::Session;

/// State and counts of a session's links.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Session number.
    pub session: u64,
    /// The server's epoch.
    pub epoch: u64,
    /// Where the server is.
    pub meta_addr: String,
    /// `up`, `partly up`, `away` or `ended`.
    pub state: &'static str,
    /// Links that stand.
    pub links: usize,
    /// Connections made beyond one for each link.
    pub reconnects: u64,
    /// Calls replayed to restarted servers.
    pub replayed: u64,
    /// How often the server no longer knew the session.
    pub sessions_lost: u64,
    /// Calls without an answer.
    pub in_flight: u64,
    /// Answered calls that are not durable.
    pub unstable: u64,
    /// Changes that programs were told of and that have no answer yet.
    pub behind: u64,
    /// Bytes sent, as sealed.
    pub bytes_sent: u64,
    /// Bytes received, as sealed.
    pub bytes_received: u64,
    /// Calls made.
    pub calls: u64,
    /// Round trip of calls, microseconds, smoothed; the slowest shard's.
    pub rtt_us: u64,
    /// Life without a heartbeat, milliseconds.
    pub lease_ms: u64,
    /// Commits up to here are durable.
    pub durable: u64,
    /// Highest commit answered.
    pub last_commit: u64,
}

impl Figures {
    pub(crate) fn of(session: &Session) -> Self {
        let lanes = &session.lanes;
        let sum = |pick: fn(&super::session::Lane) -> &std::sync::atomic::AtomicU64| -> u64 {
            lanes.iter().map(|lane| pick(lane).load(Ordering::Relaxed)).sum()
        };
        let keys = session.keys();
        let links = session.links_up();
        let state = match (session.ended(), links) {
            (Some(_), _) => "ended",
            (None, 0) => "away",
            (None, up) if up < session.shards() => "partly up",
            (None, _) => "up",
        };
        let reconnects =
            lanes.iter().map(|lane| lane.connects.load(Ordering::Relaxed).saturating_sub(1)).sum();
        Self {
            session: keys.session.0,
            epoch: keys.epoch.0,
            meta_addr: session.addr(),
            state,
            links,
            reconnects,
            replayed: session.replayed.load(Ordering::Relaxed),
            sessions_lost: session.generation(),
            in_flight: sum(|lane| &lane.in_flight),
            unstable: session.unstable_count() as u64,
            behind: session.behind.count() as u64,
            bytes_sent: sum(|lane| &lane.bytes_sent),
            bytes_received: sum(|lane| &lane.bytes_received),
            calls: sum(|lane| &lane.calls),
            rtt_us: lanes.iter().map(|lane| lane.rtt_us.load(Ordering::Relaxed)).max().unwrap_or(0),
            lease_ms: session.granted.lease_ms,
            durable: session.durable().0,
            last_commit: session.last_commit().0,
        }
    }
}
