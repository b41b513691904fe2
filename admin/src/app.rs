//! What every handler of the API shares.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use crate::ca::Ca;
use crate::db::Db;
use crate::used::Used;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    /// The tables.
    pub(crate) db: Arc<Db>,
    /// The cluster's CA.
    pub(crate) ca: Arc<Ca>,
    /// Last uses of tokens.
    pub(crate) used: Arc<Used>,
    /// How long rows of the audit log are kept, seconds.
    pub(crate) audit_keep: i64,
    /// Renders the metrics.
    pub(crate) metrics: PrometheusHandle,
    /// Turns true when admin stops.
    pub(crate) shutdown: watch::Receiver<bool>,
}
