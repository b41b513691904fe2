//! A real meta.flexfs beside a real admin.flexfs, spoken to by a plain rustls client.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests: a failed step is a failed test")]
#![expect(clippy::disallowed_methods, reason = "tests wait, and measure how long it took")]

mod client;

#[path = "cases"]
mod cases {
    mod blocks;
    mod floods;
    mod hostile;
    mod leases;
    mod limits;
    mod locks;
    mod namespace;
    mod process;
    mod restart;
    mod rights;
    mod scopes;
    mod storms;
    mod strangers;
    mod thieves;
}
