//! What the command line knows of every noun.

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::{account, block_store, meta_store, provider, region, volume, volume_token};
use crate::configure::print::Column;
use crate::configure::rest::encode;

/// A body under construction.
pub(crate) type Fields = Map<String, Value>;

/// Puts a field into a body when it was given.
pub(crate) fn set(fields: &mut Fields, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        fields.insert(key.to_owned(), value.into());
    }
}

/// A noun named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Noun {
    /// Who may configure.
    #[value(alias = "accounts")]
    Account,
    /// Who runs the machines.
    #[value(alias = "providers")]
    Provider,
    /// Where they stand.
    #[value(alias = "regions")]
    Region,
    /// Where blocks live.
    #[value(alias = "block-stores")]
    BlockStore,
    /// A metadata server.
    #[value(alias = "meta-stores")]
    MetaStore,
    /// What can be mounted.
    #[value(alias = "volumes")]
    Volume,
    /// What opens a volume.
    #[value(alias = "volume-tokens")]
    VolumeToken,
}

impl Noun {
    /// Its path and looks.
    pub(crate) const fn view(self) -> &'static View {
        match self {
            Self::Account => &account::VIEW,
            Self::Provider => &provider::VIEW,
            Self::Region => &region::VIEW,
            Self::BlockStore => &block_store::VIEW,
            Self::MetaStore => &meta_store::VIEW,
            Self::Volume => &volume::VIEW,
            Self::VolumeToken => &volume_token::VIEW,
        }
    }
}

/// Path and looks of a noun.
#[derive(Debug)]
pub(crate) struct View {
    /// Singular, for texts.
    pub(crate) noun: &'static str,
    /// Plural, as in the path.
    pub(crate) path: &'static str,
    /// What people call one: `name or id`.
    pub(crate) key: &'static str,
    /// Fields in order.
    pub(crate) columns: &'static [Column],
}

impl View {
    /// Path of the list.
    pub(crate) fn all(&self) -> String {
        format!("/v1/configure/{}", self.path)
    }

    /// Path of one object. The parts of a key of two (`provider/code`) are parts of the path.
    pub(crate) fn one(&self, key: &str) -> String {
        let parts: Vec<String> = key.split('/').map(encode).collect();
        format!("/v1/configure/{}/{}", self.path, parts.join("/"))
    }
}
