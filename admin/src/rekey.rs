//! The key of an encrypted volume, fetched and put anew: whoever may change a volume may do both, which
//! `configure.flexfs volume rekey` does.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use flexfs_wire::cipher::WrappedKey;
use rusqlite::Connection;

use crate::app::App;
use crate::fields::{Fields, need};
use crate::noun::Volume;
use crate::problem::Problem;
use crate::rest::{Body, Id, change, found, note};
use crate::rights;
use crate::role::{Actor, Verb};
use crate::table;
use crate::token;
use crate::wrapped_key::{self, FIELD};

fn read(tables: &Connection, volume: &str) -> Result<WrappedKey, Problem> {
    let sql = "SELECT wrapped_key FROM volumes WHERE id = ?1";
    let key = tables.query_row(sql, [volume], |row| token::wrapped_key(row, 0))?;
    key.ok_or_else(|| Problem::conflict("this volume is not encrypted"))
}

/// `GET /v1/configure/volumes/{id}/key`.
pub(crate) async fn show(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Id(id): Id,
) -> Result<Json<WrappedKey>, Problem> {
    // It can be guessed at: who only reads has no business with it.
    rights::check::<Volume>(&actor, Verb::Update)?;
    app.db
        .read(move |tables, _| {
            let volume = table::resolve::<Volume>(tables, &id)?;
            rights::check_this::<Volume>(&actor, tables, &volume)?;
            read(tables, &volume).map(Json)
        })
        .await
}

/// `PUT /v1/configure/volumes/{id}/key`: `wrappedKey`, and as `was` the one it was made of, so that of two changes at once
/// one fails.
pub(crate) async fn replace(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Id(id): Id,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    rights::check::<Volume>(&actor, Verb::Update)?;
    let mut fields = Fields::parse(&body)?;
    let new = need(FIELD, wrapped_key::field(&mut fields)?)?;
    let was = need("was", fields.object::<WrappedKey>("was")?)?;
    fields.finish()?;
    change(&app, actor, move |tables, scene| {
        let volume = found::<Volume>(tables, scene, &id)?;
        if read(tables, &volume)? != was {
            return Err(Problem::conflict("the key was changed meanwhile: fetch it and try again"));
        }
        tables.execute(
            "UPDATE volumes SET wrapped_key = ?2 WHERE id = ?1",
            (&volume, wrapped_key::to_column(&new)),
        )?;
        note::<Volume>(tables, scene, Verb::Update, &volume, br#"{"wrappedKey":"changed"}"#)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
