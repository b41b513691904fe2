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
        column("role", Look::Plain),
        column("volumes", Look::Names),
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
    #[command(flatten)]
    rights: Rights,
    /// Your words.
    #[arg(long)]
    notes: Option<String>,
}

/// What an account may do.
#[derive(Debug, Args)]
struct Rights {
    /// admin (all), volume-admin (its volumes and their tokens) or auditor (looks at all, the audit log too).
    #[arg(long, value_parser = ["admin", "volume-admin", "auditor"])]
    role: Option<String>,
    /// Volumes of a volume-admin: names, separated by commas.
    #[arg(long, value_name = "NAME,...")]
    volumes: Option<String>,
}

impl Rights {
    fn put(self, fields: &mut Fields) {
        set(fields, "role", self.role);
        set(fields, "volumes", self.volumes);
    }
}

impl Create {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        set(&mut fields, "name", Some(self.name.take("Name of the account")?));
        self.rights.put(&mut fields);
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
    #[command(flatten)]
    rights: Rights,
    /// Your words.
    #[arg(long)]
    notes: Option<String>,
}

impl Update {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        set(&mut fields, "name", self.name);
        self.rights.put(&mut fields);
        set(&mut fields, "notes", self.notes);
        Ok(fields)
    }
}
