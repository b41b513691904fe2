//! The name of what is made.

use clap::Args;

use crate::configure::ask;

/// Given by its place or as a flag, asked for where neither is.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Unique name.
    name: Option<String>,
    /// The same, as a flag.
    #[arg(long = "name", value_name = "NAME", conflicts_with = "name")]
    named: Option<String>,
}

impl Name {
    /// The name; `what` is what a person is asked for.
    pub(crate) fn take(self, what: &str) -> anyhow::Result<String> {
        ask::text(self.name.or(self.named), what, "NAME")
    }
}
