//! configure.flexfs: the operator's command line.
//!
//! `text ask` <- `print rest` <- `noun creds` <- `up` <- `cli`.

mod ask;
mod audit;
pub mod cli;
mod creds;
mod noun;
mod print;
mod rest;
pub mod text;
mod up;
