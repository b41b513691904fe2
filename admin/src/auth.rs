//! Who is asking: bearer tokens of requests. The verdict itself is pure and elsewhere.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};
use flexfs_wire::settings::TokenRefusal;
use flexfs_wire::token::{TokenId, TokenKind};

use crate::app::App;
use crate::clock;
use crate::problem::Problem;
use crate::token;
use crate::verdict::{self, Refusal};

/// Address of the peer of a connection; an extension of its requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The holder of a valid token.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// Id of the token.
    pub(crate) token: TokenId,
    /// Id of the account, volume or meta store.
    pub(crate) owner: String,
}

/// Checks the bearer token of a request, which has to be of `kind`.
pub(crate) async fn authenticate(
    app: &App,
    kind: TokenKind,
    headers: &HeaderMap,
    peer: Peer,
) -> Result<Principal, Problem> {
    let principal = match bearer(headers) {
        Some(text) => check(app, kind, text, peer).await?,
        None => Err(Refusal {
            reason: TokenRefusal::Malformed,
            text: format!("{} is needed here, as Authorization: Bearer ...", kind.noun()),
        }),
    };
    let principal = principal.map_err(|refusal| {
        note_refusal(&refusal, kind, peer);
        Problem::unauthorized(refusal.text)
    })?;
    app.used.note(principal.token.to_string(), clock::now(), &peer.0.to_string());
    Ok(principal)
}

async fn check(
    app: &App,
    kind: TokenKind,
    text: &str,
    peer: Peer,
) -> Result<Result<Principal, Refusal>, Problem> {
    let token = match verdict::read(kind, app.ca.pin(), text) {
        Ok(token) => token,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let id = token.id;
    let record = app.db.read(move |tables, _| token::find(tables, id)).await?;
    let verdict = verdict::judge(&token, record.as_ref(), clock::now());
    if let Err(refusal) = &verdict {
        tracing::warn!(token = %id, peer = %peer.0, reason = ?refusal.reason, "token refused");
    }
    Ok(verdict
        .map(|()| Principal { token: id, owner: record.map(|record| record.owner).unwrap_or_default() }))
}

/// Counts a refusal, and logs it with the address, never with the token.
pub(crate) fn note_refusal(refusal: &Refusal, kind: TokenKind, peer: Peer) {
    tracing::debug!(peer = %peer.0, %kind, reason = ?refusal.reason, "refused");
    metrics::counter!(
        "flexfs_admin_refusals_total", "kind" => kind.to_string(), "reason" => format!("{:?}", refusal.reason)
    )
    .increment(1);
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| text.trim())
}
