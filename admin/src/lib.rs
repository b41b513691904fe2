//! admin.flexfs: the only authority on tokens. Tables in SQLite, REST over TLS, the cluster's CA.
//!
//! `clock problem verdict flags` <- `fields query table token` <- `noun` <- `rest auth validate certificate rekey events` <- `serve` <- `cli`.
//! `configure` is the operator's program and shares the flags' text form only; `local` is the API without a socket.
#![forbid(unsafe_code)]

mod app;
mod audit;
mod auth;
mod ca;
mod certificate;
pub mod cli;
mod clock;
pub mod configure;
mod daemon;
mod db;
mod events;
mod expiry;
mod fields;
pub mod flags;
mod init;
pub mod local;
mod metric;
mod noun;
mod openapi;
pub mod problem;
mod query;
mod rekey;
mod rest;
mod rights;
mod role;
mod serve;
mod shown;
mod systemd;
mod table;
mod token;
mod used;
mod validate;
pub mod verdict;
mod wrapped_key;
