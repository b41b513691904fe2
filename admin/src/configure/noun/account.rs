//! Accounts on the command line.

use clap::Args;

use super::{Fields, Name, View, set};
use crate::configure::print::{Look, column};

/// Looks.
pub(crate) const VIEW: View = View {
    noun: "account",
    path: "accounts",
    key: "Name or id of the account",
    columns: &[
        column("name", Look::Plain),
        column("id", Look::Plain),
        column("createdAt", Look::Time),
        column("notes", Look::Plain),
        column("tokens", Look::Tokens),
    ],
};

/// A new account, with its first token.
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    name: Name,
    /// Your words.
    #[arg(long)]
    notes: Option<String>,
}

impl Create {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        set(&mut fields, "name", Some(self.name.take("Name of the account")?));
        set(&mut fields, "notes", self.notes);
        Ok(fields)
    }
}

/// Changes of an account.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Name or id.
    pub(crate) key: Option<String>,
    /// New name.
    #[arg(long)]
    name: Option<String>,
    /// Your words.
    #[arg(long)]
    notes: Option<String>,
}

impl Update {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        set(&mut fields, "name", self.name);
        set(&mut fields, "notes", self.notes);
        Ok(fields)
    }
}
