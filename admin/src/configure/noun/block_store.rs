//! Block stores on the command line.

use clap::Args;

use super::{Fields, Name, View, set};
use crate::configure::print::{Look, column, detail};

/// Looks.
pub(crate) const VIEW: View = View {
    noun: "block store",
    path: "block-stores",
    key: "Name or id of the block store",
    columns: &[
        column("name", Look::Plain),
        column("kind", Look::Plain),
        column("region", Look::Plain),
        detail("path", Look::Plain),
        detail("endpoint", Look::Plain),
        detail("bucket", Look::Plain),
        detail("prefix", Look::Plain),
        column("id", Look::Plain),
        column("createdAt", Look::Time),
        column("notes", Look::Plain),
    ],
};

/// A new block store.
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    name: Name,
    /// hosted (by the metadata server), file or s3; only hosted is served in this release [default: hosted].
    #[arg(long)]
    kind: Option<String>,
    /// Region, provider/code.
    #[arg(long)]
    region: Option<String>,
    /// Directory of a file store.
    #[arg(long)]
    path: Option<String>,
    /// Address of an s3 store.
    #[arg(long)]
    endpoint: Option<String>,
    /// Bucket of an s3 store.
    #[arg(long)]
    bucket: Option<String>,
    /// Prefix of all keys in an s3 store.
    #[arg(long)]
    prefix: Option<String>,
    /// Your words.
    #[arg(long)]
    notes: Option<String>,
}

impl Create {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        set(&mut fields, "name", Some(self.name.take("Name of the block store")?));
        set(&mut fields, "kind", self.kind);
        set(&mut fields, "region", self.region);
        set(&mut fields, "path", self.path);
        set(&mut fields, "endpoint", self.endpoint);
        set(&mut fields, "bucket", self.bucket);
        set(&mut fields, "prefix", self.prefix);
        set(&mut fields, "notes", self.notes);
        Ok(fields)
    }
}

/// Changes of a block store.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Name or id.
    pub(crate) key: Option<String>,
    /// New name.
    #[arg(long)]
    name: Option<String>,
    /// Region, provider/code.
    #[arg(long)]
    region: Option<String>,
    /// Your words.
    #[arg(long)]
    notes: Option<String>,
}

impl Update {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        set(&mut fields, "name", self.name);
        set(&mut fields, "region", self.region);
        set(&mut fields, "notes", self.notes);
        Ok(fields)
    }
}
