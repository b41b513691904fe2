//! What a local cluster has at admin: made when missing, found when there.

use std::path::Path;

use anyhow::{Context as _, bail};
use flexfs_wire::cipher::{VolumeKey, WrappedKey};
use flexfs_wire::creds::{AdminAddr, Creds};
use flexfs_wire::creds_file;
use flexfs_wire::token::{Secret, Token, TokenKind};
use serde_json::{Value, json};

use super::state::Settings;
use crate::configure::noun::{Fields, Noun};
use crate::configure::rest::{Rest, RestError};
use crate::configure::text::show_size;

/// Name of the provider, the region, the stores: there is one of each.
const LOCAL: &str = "local";

/// What a new volume is to be.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Bytes.
    pub(crate) block_size: Option<u64>,
    /// Its clients encrypt, and this is the secret.
    pub(crate) secret: Option<Secret<String>>,
}

/// Makes sure that admin knows the cluster, and that meta and mount have credentials.
pub(crate) fn ensure(
    rest: &Rest,
    settings: &Settings,
    wanted: Wanted,
    meta_creds: &Path,
    mount_creds: &Path,
) -> anyhow::Result<()> {
    let addr = AdminAddr::parse(&format!("127.0.0.1:{}", settings.admin_port))?;
    found_or_made(rest, Noun::Provider, LOCAL, json!({ "code": LOCAL }))?;
    let region = format!("{LOCAL}/{LOCAL}");
    found_or_made(rest, Noun::Region, &region, json!({ "provider": LOCAL, "code": LOCAL }))?;
    found_or_made(rest, Noun::BlockStore, LOCAL, json!({ "name": LOCAL, "region": region }))?;

    let address = format!("127.0.0.1:{}", settings.meta_port);
    let body = json!({ "name": LOCAL, "address": address, "region": region });
    let (store, fresh) = found_or_made(rest, Noun::MetaStore, LOCAL, body)?;
    if store["address"] != address.as_str() {
        rest.put(&Noun::MetaStore.view().one(LOCAL), object(json!({ "address": address }))?)?;
    }
    if !keep(meta_creds, TokenKind::Meta, &addr)? {
        let made = match fresh {
            Some(made) => made,
            // Made by an `up` that was cut off before it wrote the credentials, or they were deleted: a new token.
            None => {
                let path = format!("{}/rotate", Noun::MetaStore.view().one(LOCAL));
                rest.post(&path, object(json!({ "overlapSeconds": 0 }))?)?
            }
        };
        store_creds(meta_creds, TokenKind::Meta, &addr, &made, None)?;
    }

    let mut body = json!({ "name": settings.volume, "metaStore": LOCAL, "blockStore": LOCAL });
    if let Some(size) = wanted.block_size {
        body["blockSize"] = Value::from(size);
    }
    if let Some(secret) = &wanted.secret {
        let wrapped = WrappedKey::wrap(&VolumeKey::random(), secret.expose())?;
        body["wrappedKey"] = serde_json::to_value(wrapped)?;
    }
    let (volume, fresh) = found_or_made(rest, Noun::Volume, &settings.volume, body)?;
    check_block_size(&volume, wanted.block_size)?;
    let encrypted = volume["encryption"].as_bool().unwrap_or(false);
    if wanted.secret.is_some() && !encrypted {
        bail!(
            "the volume {} exists and is not encrypted, which cannot be changed: leave --secretFile out, or start another \
             cluster with --stateDir",
            settings.volume
        );
    }
    if !keep(mount_creds, TokenKind::Volume, &addr)? {
        if encrypted && wanted.secret.is_none() {
            bail!("the volume {} is encrypted: give its secret with --secretFile", settings.volume);
        }
        let made = match fresh {
            Some(made) => made,
            None => {
                let body = json!({ "volume": settings.volume, "notes": "made by configure.flexfs up" });
                rest.post(&Noun::VolumeToken.view().all(), object(body)?)?
            }
        };
        store_creds(mount_creds, TokenKind::Volume, &addr, &made, wanted.secret)?;
    }
    Ok(())
}

/// Rewrites the address in configure's own credentials when admin moved to another port.
pub(crate) fn keep(path: &Path, kind: TokenKind, addr: &AdminAddr) -> anyhow::Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let creds = creds_file::load(kind, path)?;
    if creds.admin_addr != *addr {
        creds_file::store(path, &Creds { admin_addr: addr.clone(), ..creds })?;
    }
    Ok(true)
}

/// The object, and the answer to its creation when it is new.
fn found_or_made(rest: &Rest, noun: Noun, key: &str, body: Value) -> anyhow::Result<(Value, Option<Value>)> {
    let view = noun.view();
    match rest.get(&view.one(key)) {
        Ok(found) => Ok((found, None)),
        Err(RestError::Refused { status: 404, .. }) => {
            let made = rest
                .post(&view.all(), object(body)?)
                .with_context(|| format!("make the {} {key}", view.noun))?;
            Ok((made.clone(), Some(made)))
        }
        Err(error) => Err(error).with_context(|| format!("look for the {} {key}", view.noun)),
    }
}

fn check_block_size(volume: &Value, wanted: Option<u64>) -> anyhow::Result<()> {
    let is = volume["blockSize"].as_u64();
    match (wanted, is) {
        (Some(wanted), Some(is)) if wanted != is => bail!(
            "the volume {} exists with blocks of {}, and a block size cannot be changed: leave --block-size out, or \
             start another cluster with --stateDir",
            volume["name"].as_str().unwrap_or_default(),
            show_size(is)
        ),
        _ => Ok(()),
    }
}

fn store_creds(
    path: &Path,
    kind: TokenKind,
    addr: &AdminAddr,
    made: &Value,
    secret: Option<Secret<String>>,
) -> anyhow::Result<()> {
    let text = made["token"].as_str().context("admin made no token")?;
    let token = Token::parse_kind(kind, text)?;
    Ok(creds_file::store(path, &Creds { admin_addr: addr.clone(), token, secret })?)
}

fn object(value: Value) -> anyhow::Result<Fields> {
    match value {
        Value::Object(fields) => Ok(fields),
        other => bail!("a body is an object, not {other}"),
    }
}
