//! Metrics of admin, described once.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::sync::watch;

/// Installs the recorder of this process.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets(&[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0])?
        .install_recorder()?;
    metrics::describe_counter!("flexfs_admin_requests_total", "Requests by method, path and status.");
    metrics::describe_histogram!(
        "flexfs_admin_request_seconds",
        "Time from a request's head to its answer's head."
    );
    metrics::describe_counter!("flexfs_admin_refusals_total", "Refused tokens by kind and reason.");
    metrics::describe_counter!(
        "flexfs_admin_validations_total",
        "Volume tokens checked for metadata servers."
    );
    metrics::describe_counter!("flexfs_admin_certificates_total", "Certificates issued to metadata servers.");
    metrics::describe_counter!(
        "flexfs_admin_handshake_failures_total",
        "Connections that did not become TLS."
    );
    metrics::describe_gauge!("flexfs_admin_connections", "Open connections.");
    metrics::describe_gauge!("flexfs_admin_event_streams", "Standing streams of metadata servers.");
    Ok(handle)
}

/// Folds samples into buckets, which would pile up where nobody scrapes; until admin stops.
pub(crate) async fn upkeep(handle: PrometheusHandle, mut shutdown: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(5)) => handle.run_upkeep(),
            _ = shutdown.wait_for(|down| *down) => return,
        }
    }
}

/// Counts and times a request. Labels are our own paths, so their number is bounded.
#[expect(clippy::disallowed_methods, reason = "measures its own process")]
pub(crate) async fn count(request: Request, next: Next) -> Response {
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "other".to_owned(), |p| p.as_str().to_owned());
    let method = match request.method().as_str() {
        known @ ("GET" | "POST" | "PUT" | "DELETE") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let start = Instant::now();
    let response = next.run(request).await;
    metrics::histogram!("flexfs_admin_request_seconds", "path" => path.clone())
        .record(start.elapsed().as_secs_f64());
    let status = response.status().as_u16().to_string();
    metrics::counter!("flexfs_admin_requests_total", "path" => path, "method" => method, "status" => status)
        .increment(1);
    response
}
