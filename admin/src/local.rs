//! The API without a socket: requests in, answers out, in one process. What a listener adds (TLS, time limits of a
//! connection) is not here.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use axum::response::Response;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::app::App;
use crate::auth::Peer;
use crate::ca::Ca;
use crate::db::Db;
use crate::used::Used;
use crate::{init, rest};

/// Largest answer taken, bytes: a full page of volumes is far below.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The content type, empty without one.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

/// The API of one folder.
pub struct Api {
    router: axum::Router,
    runtime: Runtime,
    _stop: watch::Sender<bool>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// Makes an empty cluster in a folder, as `admin.flexfs init` does; gives the text of the first account's token.
///
/// # Errors
/// The folder holds a cluster already, or cannot be written.
pub fn create(folder: &Path, account: &str) -> anyhow::Result<String> {
    let ca = Ca::create(folder, crate::clock::wall())?;
    let mut tables = Db::create(&init::db_file(folder))?;
    let minted = init::add_account(&mut tables, &ca, account)?;
    tables.close().map_err(|(_, error)| error)?;
    Ok(minted.0.to_string())
}

impl Api {
    /// Opens a folder that [`create`] or `admin.flexfs init` made.
    ///
    /// # Errors
    /// There is no cluster in it, or it cannot be read.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let (stop, shutdown) = watch::channel(false);
        let app = App {
            db: Db::open(&init::db_file(folder))?,
            ca: Arc::new(Ca::load(folder)?),
            used: Arc::new(Used::default()),
            audit_keep: crate::audit::KEEP_MIN,
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            shutdown,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let peer = Peer(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Ok(Self { router: rest::router(app).layer(Extension(peer)), runtime, _stop: stop })
    }

    /// Sends one request and takes its whole answer.
    ///
    /// # Errors
    /// Method, target or token cannot be put into an HTTP request; the answer is longer than can be.
    pub fn call(&self, method: &str, target: &str, token: &str, body: &[u8]) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(target);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::from(body.to_vec())).context("no HTTP request")?;
        let service = TowerToHyperService::new(self.router.clone());
        self.runtime.block_on(async {
            let answered: Result<Response, Infallible> = service.call(request).await;
            let Ok(response) = answered;
            let content_type = response.headers().get(header::CONTENT_TYPE);
            let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
            Ok(Answer {
                status: response.status().as_u16(),
                content_type: content_type.to_owned(),
                body: to_bytes(response.into_body(), ANSWER_BYTES_MAX).await?.to_vec(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noun_is_made_and_listed() {
        let dir = tempfile::tempdir().unwrap();
        let token = create(dir.path(), "first").unwrap();
        let api = Api::open(dir.path()).unwrap();
        let made = api.call("POST", "/v1/configure/providers", &token, br#"{"code":"aws"}"#).unwrap();
        assert_eq!(made.status, 200, "{}", String::from_utf8_lossy(&made.body));
        let list = api.call("GET", "/v1/configure/providers", &token, b"").unwrap();
        assert!(String::from_utf8_lossy(&list.body).contains("aws"));
        assert_eq!(api.call("GET", "/v1/configure/providers", "", b"").unwrap().status, 401);
    }
}
