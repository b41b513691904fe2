//! The audit log on the command line.

use clap::Args;
use serde_json::Value;

use crate::configure::noun::View;
use crate::configure::print::{Look, column, detail};
use crate::configure::rest::{Rest, RestError, encode};
use crate::configure::text::{now, parse_duration};

/// Most rows of one answer of admin.
const PAGE: usize = 1_000;

/// Looks.
pub(crate) const VIEW: View = View {
    noun: "row of the audit log",
    path: "audit",
    key: "Number of the row",
    columns: &[
        column("at", Look::Time),
        column("account", Look::Plain),
        column("peer", Look::Plain),
        column("action", Look::Plain),
        column("noun", Look::Plain),
        column("key", Look::Plain),
        column("status", Look::Plain),
        column("detail", Look::Plain),
        detail("token", Look::Plain),
        detail("id", Look::Plain),
    ],
};

/// Which rows.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Only what was done since so long ago: 24h, 7d.
    #[arg(long, value_parser = parse_duration)]
    since: Option<i64>,
    /// Most rows.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Only of this account, by its name then.
    #[arg(long)]
    account: Option<String>,
    /// Only with this token, by its id.
    #[arg(long)]
    token: Option<String>,
    /// Only from this address.
    #[arg(long)]
    peer: Option<String>,
    /// create, update, delete, rotate or expire.
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to this kind of object: volume, "volume token", account.
    #[arg(long)]
    noun: Option<String>,
    /// Only what was done to this one, by its id.
    #[arg(long)]
    key: Option<String>,
}

impl Audit {
    /// The newest first.
    pub(crate) fn rows(&self, rest: &Rest) -> Result<Vec<Value>, RestError> {
        let mut rows: Vec<Value> = Vec::new();
        while rows.len() < self.limit {
            let wanted = PAGE.min(self.limit - rows.len());
            let before = rows.last().and_then(|row| row["id"].as_i64());
            let Value::Array(page) = rest.get(&self.path(wanted, before))? else { break };
            let is_last = page.len() < wanted;
            rows.extend(page);
            if is_last {
                break;
            }
        }
        Ok(rows)
    }

    fn path(&self, limit: usize, before: Option<i64>) -> String {
        let mut path = format!("{}?limit={limit}", VIEW.all());
        let numbers = [("before", before), ("since", self.since.map(|ago| now() - ago))];
        for (name, number) in numbers {
            if let Some(number) = number {
                path.push_str(&format!("&{name}={number}"));
            }
        }
        let texts = [
            ("account", &self.account),
            ("token", &self.token),
            ("peer", &self.peer),
            ("action", &self.action),
            ("noun", &self.noun),
            ("key", &self.key),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                path.push_str(&format!("&{name}={}", encode(text)));
            }
        }
        path
    }
}
