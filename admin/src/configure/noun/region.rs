//! Regions on the command line; their key is `provider/code`.

use clap::Args;

use super::{Fields, View, set};
use crate::configure::ask;
use crate::configure::print::{Look, column};

/// Looks.
pub(crate) const VIEW: View = View {
    noun: "region",
    path: "regions",
    key: "Region as provider/code",
    columns: &[
        column("id", Look::Plain),
        column("provider", Look::Plain),
        column("code", Look::Plain),
        column("name", Look::Plain),
    ],
};

/// A new region.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Short name, unique with its provider.
    code: Option<String>,
    /// The same, as a flag.
    #[arg(long = "code", value_name = "CODE", conflicts_with = "code")]
    coded: Option<String>,
    /// Code of the provider.
    #[arg(long)]
    provider: Option<String>,
    /// Full name [default: the code].
    #[arg(long)]
    name: Option<String>,
}

impl Create {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        set(&mut fields, "provider", Some(ask::text(self.provider, "Code of the provider", "--provider")?));
        set(&mut fields, "code", Some(ask::text(self.code.or(self.coded), "Code of the region", "CODE")?));
        set(&mut fields, "name", self.name);
        Ok(fields)
    }
}

/// Changes of a region.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Key, provider/code.
    pub(crate) key: Option<String>,
    /// Full name.
    #[arg(long)]
    name: Option<String>,
}

impl Update {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        set(&mut fields, "name", self.name);
        Ok(fields)
    }
}
