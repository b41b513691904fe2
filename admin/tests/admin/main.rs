//! The real admin.flexfs and configure.flexfs against each other, over TLS on a free port.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests: a failed step is a failed test")]
#![expect(clippy::disallowed_methods, reason = "tests wait, and measure how long it took")]

mod bench;
mod load;
mod nouns;
mod roles;
mod server;
mod tokens;
mod up;
