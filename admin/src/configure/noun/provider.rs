//! Providers on the command line.

use clap::Args;

use super::{Fields, View, set};
use crate::configure::ask;
use crate::configure::print::{Look, column};

/// Looks.
pub(crate) const VIEW: View = View {
    noun: "provider",
    path: "providers",
    key: "Code of the provider",
    columns: &[column("code", Look::Plain), column("name", Look::Plain)],
};

/// A new provider.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Unique short name.
    code: Option<String>,
    /// The same, as a flag.
    #[arg(long = "code", value_name = "CODE", conflicts_with = "code")]
    coded: Option<String>,
    /// Full name [default: the code].
    #[arg(long)]
    name: Option<String>,
}

impl Create {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        set(&mut fields, "code", Some(ask::text(self.code.or(self.coded), "Code of the provider", "CODE")?));
        set(&mut fields, "name", self.name);
        Ok(fields)
    }
}

/// Changes of a provider.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Code.
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
