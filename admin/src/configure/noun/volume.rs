//! Volumes on the command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use flexfs_wire::cipher::{VolumeKey, WrappedKey};

use serde_json::{Value, json};

use super::{Fields, Name, View, set};
use crate::configure::ask;
use crate::configure::print::{Look, column, detail};
use crate::configure::rest::Rest;
use crate::configure::text::{parse_retention, parse_size};

/// Looks.
pub(crate) const VIEW: View = View {
    noun: "volume",
    path: "volumes",
    key: "Name or id of the volume",
    columns: &[
        column("name", Look::Plain),
        column("metaStore", Look::Plain),
        column("blockStore", Look::Plain),
        column("blockSize", Look::Size),
        column("compression", Look::Plain),
        detail("encryption", Look::Plain),
        column("retention", Look::Duration),
        detail("maxBlocks", Look::Limit),
        detail("maxInodes", Look::Limit),
        column("flags", Look::Flags),
        detail("notes", Look::Plain),
        column("id", Look::Plain),
        detail("createdAt", Look::Time),
        column("retiredAt", Look::Time),
    ],
};

/// What can be given at creation and changed later.
#[derive(Debug, Args)]
struct Changes {
    /// none, lz4 or zstd, for data written from now on [default: lz4].
    #[arg(long)]
    compression: Option<String>,
    /// How long blocks without live bytes are kept: 7d, 24h, forever [default: 7d].
    #[arg(long, value_parser = parse_retention, allow_hyphen_values = true)]
    retention: Option<i64>,
    /// Most blocks; 0 = no limit.
    #[arg(long = "maxBlocks")]
    max_blocks: Option<u64>,
    /// Most inodes; 0 = no limit.
    #[arg(long = "maxInodes")]
    max_inodes: Option<u64>,
    /// Flags of every mount: ro,noExec,noSUID,noATime,noACL,rootSquash,umask=0027; "" takes them away.
    #[arg(long)]
    flags: Option<String>,
    /// Your words.
    #[arg(long)]
    notes: Option<String>,
}

impl Changes {
    fn put(self, fields: &mut Fields) {
        set(fields, "compression", self.compression);
        set(fields, "retention", self.retention);
        set(fields, "maxBlocks", self.max_blocks);
        set(fields, "maxInodes", self.max_inodes);
        set(fields, "flags", self.flags);
        set(fields, "notes", self.notes);
    }
}

/// A new volume, with its first token.
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    name: Name,
    /// Name or id of the metadata server.
    #[arg(long = "metaStore", alias = "metaStoreID")]
    meta_store: Option<String>,
    /// Name or id of the block store.
    #[arg(long = "blockStore", alias = "blockStoreID")]
    block_store: Option<String>,
    /// Block size: a power of two from 256K to 8M [default: 4M].
    #[arg(long = "blockSize", alias = "block-size", value_parser = parse_size)]
    block_size: Option<u64>,
    /// Encrypt in the clients, with a secret that no server ever sees.
    #[arg(long)]
    encryption: bool,
    /// File with the secret of an encrypted volume; without it the secret is asked for.
    #[arg(long = "secretFile", requires = "encryption")]
    secret_file: Option<PathBuf>,
    /// Make no first token.
    #[arg(long = "noToken")]
    no_token: bool,
    #[command(flatten)]
    changes: Changes,
}

impl Create {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        set(&mut fields, "name", Some(self.name.take("Name of the volume")?));
        set(
            &mut fields,
            "metaStore",
            Some(ask::text(self.meta_store, "Name of the meta store", "--metaStore")?),
        );
        set(
            &mut fields,
            "blockStore",
            Some(ask::text(self.block_store, "Name of the block store", "--blockStore")?),
        );
        set(&mut fields, "blockSize", self.block_size);
        if self.encryption {
            let secret = ask::new_secret(self.secret_file.as_deref(), "Secret of the volume")?;
            let wrapped = WrappedKey::wrap(&VolumeKey::random(), secret.expose())?;
            set(&mut fields, "wrappedKey", Some(serde_json::to_value(wrapped)?));
        }
        set(&mut fields, "noToken", self.no_token.then_some(true));
        self.changes.put(&mut fields);
        Ok(fields)
    }
}

/// Changes of a volume.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Name or id.
    pub(crate) key: Option<String>,
    /// New name.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    changes: Changes,
}

impl Update {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        set(&mut fields, "name", self.name);
        self.changes.put(&mut fields);
        Ok(fields)
    }
}

/// Another secret for an encrypted volume.
#[derive(Debug, Args)]
pub(crate) struct Rekey {
    /// Name or id of the volume.
    key: Option<String>,
    /// File with the secret of today; without it the secret is asked for.
    #[arg(long = "secretFile")]
    secret_file: Option<PathBuf>,
    /// File with the new secret; without it the secret is asked for.
    #[arg(long = "newSecretFile")]
    new_secret_file: Option<PathBuf>,
}

impl Rekey {
    /// Wraps the volume's key anew, here: neither secret nor key leaves this process. No data is written again; mounts go on,
    /// and new ones need the new secret.
    pub(crate) fn run(self, rest: &Rest) -> anyhow::Result<Value> {
        let name = ask::text(self.key, VIEW.key, "an argument")?;
        let path = format!("{}/key", VIEW.one(&name));
        let was: WrappedKey =
            serde_json::from_value(rest.get(&path)?).context("admin's answer is no wrapped key")?;
        let secret = ask::secret(self.secret_file.as_deref(), "Secret of today")?;
        let key = was.unwrap(secret.expose())?;
        let new = ask::new_secret(self.new_secret_file.as_deref(), "New secret")?;
        let mut body = Fields::new();
        set(&mut body, "wrappedKey", Some(serde_json::to_value(WrappedKey::wrap(&key, new.expose())?)?));
        set(&mut body, "was", Some(serde_json::to_value(was)?));
        rest.put(&path, body)?;
        Ok(json!({ "rekeyed": name }))
    }
}
