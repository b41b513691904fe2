//! Meta stores on the command line.

use clap::Args;

use super::{Fields, Name, View, set};
use crate::configure::ask;
use crate::configure::print::{Look, column};

/// Looks.
pub(crate) const VIEW: View = View {
    noun: "meta store",
    path: "meta-stores",
    key: "Name or id of the meta store",
    columns: &[
        column("name", Look::Plain),
        column("address", Look::Plain),
        column("region", Look::Plain),
        column("id", Look::Plain),
        column("createdAt", Look::Time),
        column("notes", Look::Plain),
        column("tokens", Look::Tokens),
    ],
};

/// A new metadata server, with the token for its credentials file.
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    name: Name,
    /// host:port that mounts connect to.
    #[arg(long)]
    address: Option<String>,
    /// Region, provider/code.
    #[arg(long)]
    region: Option<String>,
    /// Your words.
    #[arg(long)]
    notes: Option<String>,
}

impl Create {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        set(&mut fields, "name", Some(self.name.take("Name of the meta store")?));
        set(
            &mut fields,
            "address",
            Some(ask::text(self.address, "Address (host:port) for mounts", "--address")?),
        );
        set(&mut fields, "region", self.region);
        set(&mut fields, "notes", self.notes);
        Ok(fields)
    }
}

/// Changes of a meta store.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Name or id.
    pub(crate) key: Option<String>,
    /// New name.
    #[arg(long)]
    name: Option<String>,
    /// host:port that mounts connect to.
    #[arg(long)]
    address: Option<String>,
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
        set(&mut fields, "address", self.address);
        set(&mut fields, "region", self.region);
        set(&mut fields, "notes", self.notes);
        Ok(fields)
    }
}
