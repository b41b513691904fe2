//! `POST /v1/certificates/meta`: a metadata server's key is signed for its role.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use flexfs_wire::token::TokenKind;

use crate::app::App;
use crate::auth::{Peer, authenticate};
use crate::clock;
use crate::problem::Problem;
use crate::rest::Body;

/// Takes a certificate signing request (PEM), answers the chain (PEM): leaf, then the cluster's CA.
///
/// Only the public key of the request counts; names and times are admin's to say.
pub(crate) async fn sign_meta(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    let server = authenticate(&app, TokenKind::Meta, &headers, peer).await?;
    let csr = std::str::from_utf8(&body)
        .map_err(|_| Problem::request("the body must be a certificate signing request in PEM"))?;
    let chain = app
        .ca
        .sign_meta(csr, &server.owner, clock::wall())
        .map_err(|error| Problem::request(format!("the certificate signing request was refused: {error}")))?;
    tracing::info!(meta_store = server.owner, token = %server.token, "certificate issued");
    metrics::counter!("flexfs_admin_certificates_total").increment(1);
    Ok(([(header::CONTENT_TYPE, "application/pem-certificate-chain")], chain).into_response())
}
