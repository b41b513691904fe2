//! The routes of the API and the handlers that all nouns share.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use flexfs_wire::token::{TokenKind, hide};
use hyper::body::Body as _;
use rusqlite::Transaction;
use serde_json::{Value, json};

use crate::app::App;
use crate::audit::{self, Deed};
use crate::auth::{Peer, authenticate};
use crate::fields::Fields;
use crate::noun::{Account, BlockStore, MetaStore, Provider, Region, Volume, VolumeToken};
use crate::problem::Problem;
use crate::query::Page;
use crate::role::{Actor, Verb};
use crate::table::{self, Created, Noun, Scene};
use crate::token::{self, Grant, Minted, OVERLAP, OVERLAP_MAX};
use crate::{certificate, clock, events, metric, openapi, rekey, rights, validate, wrapped_key};

/// Largest body, bytes; the largest real one is a certificate signing request.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How much of a larger one is read away: who is not heard out sees a broken connection instead of the answer.
const BODY_BYTES_HEARD_MAX: usize = 1024 * 1024;
/// Time from the head of a request to the head of its answer; bounds slow bodies too.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Header of a full page: the value for `?after=` of the next one.
const NEXT: &str = "x-flexfs-next";
/// Longest key of something refused that the audit log keeps, in characters.
const KEY_MAX: usize = 128;

/// All routes.
pub(crate) fn router(app: App) -> Router {
    let configure = Router::new()
        .merge(noun::<Account>("{id}"))
        .merge(noun::<Provider>("{id}"))
        .merge(noun::<Region>("{*id}"))
        .merge(noun::<BlockStore>("{id}"))
        .merge(noun::<MetaStore>("{id}"))
        .merge(noun::<Volume>("{id}"))
        .merge(noun::<VolumeToken>("{id}"))
        .route("/v1/configure/audit", get(audit::list))
        .route("/v1/configure/volumes/{id}/key", get(rekey::show).put(rekey::replace))
        .route("/v1/configure/accounts/{id}/rotate", post(rotate_account))
        .route("/v1/configure/meta-stores/{id}/rotate", post(rotate_meta_store))
        .route("/v1/configure/volume-tokens/{id}/rotate", post(rotate_volume_token))
        .route_layer(from_fn_with_state(app.clone(), require_account));
    configure
        .route("/v1/volumes/for-token", get(validate::for_token))
        .route("/v1/tokens/validate", post(validate::validate))
        .route("/v1/events", get(event_stream))
        .route("/v1/certificates/meta", post(certificate::sign_meta))
        .route("/v1/openapi.json", get(async || Json(openapi::document())))
        .route("/metrics", get(render_metrics))
        .route("/healthz", get(health))
        .method_not_allowed_fallback(async || Problem::no_such_method())
        .fallback(async || Problem::no_such_path())
        .layer(from_fn(limit_time))
        .layer(from_fn(metric::count))
        .with_state(app)
}

fn noun<N: Noun>(id: &str) -> Router<App> {
    let path = format!("/v1/configure/{}", N::PATH);
    Router::new()
        .route(&path, get(list::<N>).post(create::<N>))
        .route(&format!("{path}/{id}"), get(show::<N>).put(update::<N>).delete(delete::<N>))
}

/// A body, read whole within the limit.
pub(crate) struct Body(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let mut body = request.into_body();
        let mut bytes = Vec::new();
        let mut total = 0;
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let frame = frame.map_err(|_| Problem::request("the body could not be read"))?;
            let Ok(data) = frame.into_data() else { continue };
            total += data.len();
            if total <= BODY_BYTES_MAX {
                bytes.extend_from_slice(&data);
            } else if total > BODY_BYTES_HEARD_MAX {
                break;
            }
        }
        if total > BODY_BYTES_MAX { Err(Problem::too_large(BODY_BYTES_MAX)) } else { Ok(Self(bytes.into())) }
    }
}

/// The id or name at the end of a path.
pub(crate) struct Id(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => {
                Err(Problem::field("id", "the id in the path is no UTF-8 text, each byte of it as %XX"))
            }
        }
    }
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::timeout().into_response(),
    }
}

/// Lets only holders of an account token pass, and notes what is refused to them. What is done is noted along with it.
async fn require_account(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let principal = authenticate(&app, TokenKind::Account, &headers, peer).await?;
    let (token, address) = (principal.token.to_string(), peer.0.to_string());
    let actor = app.db.read(move |tables, _| Actor::find(tables, principal.owner, token, address)).await?;
    let (method, path) = (request.method().clone(), hide(request.uri().path()));
    request.extensions_mut().insert(actor.clone());
    let response = next.run(request).await;
    if method != axum::http::Method::GET {
        let status = response.status().as_u16();
        let Actor { account, token, peer, .. } = &actor;
        tracing::info!(target: "audit", %method, path, status, account, token, peer, "change");
        if !response.status().is_success() {
            app.db
                .write(move |tables, _| note_refused(tables, &actor, method.as_str(), &path, status))
                .await?;
        }
    }
    Ok(response)
}

fn note_refused(
    tables: &Transaction<'_>,
    by: &Actor,
    method: &str,
    path: &str,
    status: u16,
) -> Result<(), Problem> {
    let rest = path.strip_prefix("/v1/configure/").unwrap_or(path);
    let (noun, key) = rest.split_once('/').unwrap_or((rest, ""));
    let key: String = key.chars().take(KEY_MAX).collect();
    let action = method.to_ascii_lowercase();
    audit::note(tables, by, clock::now(), Deed { action: &action, noun, key: &key, status, detail: "" })
}

async fn list<N: Noun>(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(pairs) = query.map_err(|_| Problem::request("the query cannot be read"))?;
    rights::check::<N>(&actor, Verb::Read)?;
    let page = Page::parse(pairs, N::FILTERS)?;
    let limit = page.limit as usize;
    let (rows, next) = app
        .db
        .read(move |tables, _| {
            let rows = table::list::<N>(tables, &page, &actor)?;
            let rows: Vec<Value> =
                rows.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(unwritable)?;
            let next = if rows.len() == limit { rows.last().and_then(key_of) } else { None };
            Ok((rows, next))
        })
        .await?;
    let mut response = Json(rows).into_response();
    if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        response.headers_mut().insert(NEXT, next);
    }
    Ok(response)
}

/// The key in an object's JSON: its id, or its code where that is the key.
fn key_of(row: &Value) -> Option<String> {
    row.get("id").or_else(|| row.get("code"))?.as_str().map(str::to_owned)
}

async fn show<N: Noun>(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Id(id): Id,
) -> Result<Response, Problem> {
    rights::check::<N>(&actor, Verb::Read)?;
    let shown = app
        .db
        .read(move |tables, _| {
            let key = table::resolve::<N>(tables, &id)?;
            rights::check_this::<N>(&actor, tables, &key)?;
            table::show::<N>(tables, &key)
        })
        .await?;
    Ok(Json(shown).into_response())
}

async fn create<N: Noun>(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    rights::check::<N>(&actor, Verb::Create)?;
    let fields = Fields::parse(&body)?;
    change(&app, actor, move |tables, scene| {
        let Created { key, minted } = N::create(tables, fields, scene)?;
        // Of a volume that is not its own: nothing was made.
        rights::check_this::<N>(scene.by, tables, &key)?;
        note::<N>(tables, scene, Verb::Create, &key, &body)?;
        if let Some(minted) = minted.as_ref().filter(|minted| minted.id != key) {
            note_token::<N>(tables, scene, &key, minted)?;
        }
        let made = serde_json::to_value(table::show::<N>(tables, &key)?).map_err(unwritable)?;
        Ok(Json(match minted {
            Some(minted) => with_token(made, &minted),
            None => made,
        }))
    })
    .await
}

async fn update<N: Noun>(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Id(id): Id,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    rights::check::<N>(&actor, Verb::Update)?;
    let fields = Fields::parse(&body)?;
    change(&app, actor, move |tables, scene| {
        let key = found::<N>(tables, scene, &id)?;
        N::update(tables, &key, fields, scene)?;
        note::<N>(tables, scene, Verb::Update, &key, &body)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete<N: Noun>(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    rights::check::<N>(&actor, Verb::Delete)?;
    change(&app, actor, move |tables, scene| {
        let key = found::<N>(tables, scene, &id)?;
        N::delete(tables, &key, scene)?;
        note::<N>(tables, scene, Verb::Delete, &key, b"")
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rotate_account(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Id(id): Id,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    // Its own token everybody may renew.
    let own = id == actor.account || id == actor.name;
    if !own {
        rights::check::<Account>(&actor, Verb::Rotate)?;
    }
    rotate::<Account>(&app, actor, id, body, |tables, key, overlap, scene| {
        rotate_owner(tables, TokenKind::Account, key, overlap, scene)
    })
    .await
}

async fn rotate_meta_store(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Id(id): Id,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    rights::check::<MetaStore>(&actor, Verb::Rotate)?;
    rotate::<MetaStore>(&app, actor, id, body, |tables, key, overlap, scene| {
        rotate_owner(tables, TokenKind::Meta, key, overlap, scene)
    })
    .await
}

async fn rotate_volume_token(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Id(id): Id,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    rights::check::<VolumeToken>(&actor, Verb::Rotate)?;
    rotate::<VolumeToken>(&app, actor, id, body, VolumeToken::rotate).await
}

/// A new token; the old ones end after `overlapSeconds`.
async fn rotate<N: Noun>(
    app: &App,
    actor: Actor,
    id: String,
    body: Bytes,
    turn: impl FnOnce(&Transaction<'_>, &str, i64, &mut Scene<'_>) -> Result<Minted, Problem> + Send + 'static,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::parse(&body)?;
    let overlap = fields.number("overlapSeconds", 0, OVERLAP_MAX)?.unwrap_or(OVERLAP);
    fields.finish()?;
    change(app, actor, move |tables, scene| {
        let key = found::<N>(tables, scene, &id)?;
        let minted = turn(tables, &key, overlap, scene)?;
        note::<N>(tables, scene, Verb::Rotate, &key, &body)?;
        note_token::<N>(tables, scene, &key, &minted)?;
        let ends = scene.now + overlap;
        Ok(Json(with_token(json!({ "oldEndsAt": ends }), &minted)))
    })
    .await
}

fn rotate_owner(
    tables: &Transaction<'_>,
    kind: TokenKind,
    owner: &str,
    overlap: i64,
    scene: &mut Scene<'_>,
) -> Result<Minted, Problem> {
    let minted = token::mint(tables, &Grant::plain(kind, owner), scene)?;
    token::retire_others(tables, owner, &minted.id, overlap, scene)?;
    Ok(minted)
}

/// The key of an object that a change names, if whoever asks may change this one.
pub(crate) fn found<N: Noun>(
    tables: &Transaction<'_>,
    scene: &Scene<'_>,
    id: &str,
) -> Result<String, Problem> {
    let key = table::resolve::<N>(tables, id)?;
    rights::check_this::<N>(scene.by, tables, &key)?;
    Ok(key)
}

/// The change goes into the audit log, with the fields of its body.
pub(crate) fn note<N: Noun>(
    tables: &Transaction<'_>,
    scene: &Scene<'_>,
    verb: Verb,
    key: &str,
    body: &[u8],
) -> Result<(), Problem> {
    let detail = shown(body);
    let deed = Deed { action: verb.name(), noun: N::NOUN, key, status: 200, detail: &detail };
    audit::note(tables, scene.by, scene.now, deed)
}

/// A body as the audit log keeps it: keys can be guessed at by whoever reads it, so they are left out.
fn shown(body: &[u8]) -> String {
    match serde_json::from_slice::<Value>(body) {
        Ok(mut fields) if fields.get(wrapped_key::FIELD).is_some() => {
            fields[wrapped_key::FIELD] = Value::from("given");
            fields.to_string()
        }
        _ => String::from_utf8_lossy(body).into_owned(),
    }
}

/// A token that a change made on the way goes into the audit log too, by its id.
fn note_token<N: Noun>(
    tables: &Transaction<'_>,
    scene: &Scene<'_>,
    of: &str,
    minted: &Minted,
) -> Result<(), Problem> {
    let noun = if N::NOUN.ends_with("token") { N::NOUN.to_owned() } else { format!("{} token", N::NOUN) };
    let detail = json!({ "of": of }).to_string();
    let deed =
        Deed { action: Verb::Create.name(), noun: &noun, key: &minted.id, status: 200, detail: &detail };
    audit::note(tables, scene.by, scene.now, deed)
}

/// Runs a change in a transaction, with the time, the cluster and whoever asks at hand.
pub(crate) async fn change<T: Send + 'static>(
    app: &App,
    actor: Actor,
    work: impl FnOnce(&Transaction<'_>, &mut Scene<'_>) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let (now, pin) = (clock::now(), app.ca.pin());
    app.db.write(move |tables, events| work(tables, &mut Scene { now, pin, events, by: &actor })).await
}

/// The one place where a token's text enters an answer.
fn with_token(mut made: Value, minted: &Minted) -> Value {
    made["tokenId"] = Value::from(minted.id.clone());
    made["token"] = Value::from(minted.text.0.as_str());
    made
}

fn unwritable(error: serde_json::Error) -> Problem {
    Problem::internal("writing the answer", &error)
}

async fn event_stream(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let server = authenticate(&app, TokenKind::Meta, &headers, peer).await?;
    let lines = events::open(&app, server.owner, server.token.to_string(), clock::now()).await?;
    // When the stream ends the connection has nothing left to carry.
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CONNECTION, "close")];
    Ok((headers, lines).into_response())
}

async fn render_metrics(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.render()).into_response()
}

async fn health(State(app): State<App>) -> Result<Json<Value>, Problem> {
    app.db.read(|tables, _| Ok(tables.query_row("SELECT 1", [], |_| Ok(()))?)).await?;
    Ok(Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })))
}
