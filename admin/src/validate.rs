//! Volume tokens: what meta asks about them (`/v1/tokens/validate`) and what mount asks with them
//! (`/v1/volumes/for-token`).

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use flexfs_wire::settings::{Access, ForToken, ValidateAnswer, ValidateRequest};
use flexfs_wire::token::{Token, TokenKind};
use zeroize::Zeroize as _;

use crate::app::App;
use crate::auth::{Peer, authenticate, note_refusal};
use crate::clock;
use crate::problem::Problem;
use crate::rest::Body;
use crate::token::{self, Opening};
use crate::verdict::{self, Refusal};

/// `POST /v1/tokens/validate`: a metadata server presents a client's volume token.
pub(crate) async fn validate(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<ValidateAnswer>, Problem> {
    let server = authenticate(&app, TokenKind::Meta, &headers, peer).await?;
    let mut request: ValidateRequest = serde_json::from_slice(&body).map_err(|error| {
        // Only the position: the text of the error may quote the token.
        Problem::request(format!(
            "the body is no validation request (line {}, column {})",
            error.line(),
            error.column()
        ))
    })?;
    let opened = open(&app, &request.token, Some(request.volume.clone()), Some(server.owner)).await?;
    request.token.zeroize();
    metrics::counter!(
        "flexfs_admin_validations_total", "verdict" => if opened.is_ok() { "accepted" } else { "refused" }
    )
    .increment(1);
    Ok(Json(match opened {
        Ok(opening) => {
            let client: String = request.client.chars().filter(|c| !c.is_control()).take(128).collect();
            tracing::info!(
                token = opening.access.token_id,
                volume = request.volume,
                client,
                "volume token accepted"
            );
            app.used.note(opening.access.token_id.clone(), clock::now(), &client);
            ValidateAnswer::Accepted(Box::new(opening.access))
        }
        Err(refusal) => {
            note_refusal(&refusal, TokenKind::Volume, peer);
            ValidateAnswer::Refused { reason: refusal.reason, text: refusal.text }
        }
    }))
}

/// `GET /v1/volumes/for-token`: a mount asks where its volume is.
pub(crate) async fn for_token(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Json<ForToken>, Problem> {
    // The same words as for every other bearer token; what it opens is looked up after.
    let holder = authenticate(&app, TokenKind::Volume, &headers, peer).await?;
    let opening = app.db.read(move |tables, _| token::opening(tables, holder.token)).await?;
    let opening = opening.ok_or_else(|| Problem::unauthorized("this token was revoked just now"))?;
    let judged = verdict::judge_volume(&opening.target, None, None)
        .and_then(|()| verdict::judge_network(&opening.access.networks, peer.0));
    if let Err(refusal) = judged {
        note_refusal(&refusal, TokenKind::Volume, peer);
        return Err(Problem::unauthorized(refusal.text));
    }
    let Opening { meta_addr, access, wrapped_key: encryption, .. } = opening;
    let Access { settings, scope, flags, .. } = access;
    Ok(Json(ForToken { settings, meta_addr, scope, flags, encryption }))
}

/// What the token `text` opens, or why it does not.
async fn open(
    app: &App,
    text: &str,
    volume: Option<String>,
    meta_store: Option<String>,
) -> Result<Result<Opening, Refusal>, Problem> {
    let token = match verdict::read(TokenKind::Volume, app.ca.pin(), text.trim()) {
        Ok(token) => token,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let now = clock::now();
    app.db
        .read(move |tables, _| {
            let record = token::find(tables, token.id)?;
            if let Err(refusal) = verdict::judge(&token, record.as_ref(), now) {
                log_refusal(&token, &refusal);
                return Ok(Err(refusal));
            }
            let opening = token::opening(tables, token.id)?.ok_or_else(|| {
                Problem::internal("looking up a volume", &"a volume token without a volume")
            })?;
            match verdict::judge_volume(&opening.target, volume.as_deref(), meta_store.as_deref()) {
                Ok(()) => Ok(Ok(opening)),
                Err(refusal) => {
                    log_refusal(&token, &refusal);
                    Ok(Err(refusal))
                }
            }
        })
        .await
}

fn log_refusal(token: &Token, refusal: &Refusal) {
    tracing::warn!(token = %token.id, reason = ?refusal.reason, "volume token refused");
}
