//! Who may open a volume: admin says so, on the setup path only (design, section 5).

mod admin;
mod cache;
mod certificate;
mod http;
mod own;
mod pool;

pub(crate) use admin::{Admin, Authority};
pub(crate) use certificate::{CertificateError, Identity, Source, renew_forever};
pub use http::AdminError;
pub(crate) use http::AdminHttp;
pub(crate) use own::OwnFiles;
pub(crate) use pool::{Pool, Verdict};
