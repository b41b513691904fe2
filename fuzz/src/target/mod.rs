//! One file a target: `run` takes any bytes, must not panic, and asserts what must hold of what it parsed.

pub mod block;
pub mod configure;
pub mod creds;
pub mod dedup;
pub mod extents;
pub mod frame;
pub mod init;
pub mod link;
pub mod message;
pub mod namespace;
pub mod option;
pub mod pin;
pub mod record;
pub mod request;
pub mod rest;
pub mod scope;
pub mod sealed;
pub mod session;
pub mod token;

/// A target's function.
pub type Run = fn(&[u8]);

/// Every target with its name, as in `fuzz_targets`, `seeds`, `findings` and `dictionaries`.
pub const TARGETS: &[(&str, Run)] = &[
    ("block", block::run),
    ("configure", configure::run),
    ("creds", creds::run),
    ("dedup", dedup::run),
    ("extents", extents::run),
    ("frame", frame::run),
    ("init", init::run),
    ("link", link::run),
    ("message", message::run),
    ("namespace", namespace::run),
    ("option", option::run),
    ("pin", pin::run),
    ("record", record::run),
    ("request", request::run),
    ("rest", rest::run),
    ("scope", scope::run),
    ("sealed", sealed::run),
    ("session", session::run),
    ("token", token::run),
];
