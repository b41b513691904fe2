//! What a run has found: saved as JSON, shown as tables and plots.
//!
//! `model machine` <- `summary` <- `aim table plot` <- `save readme`.

mod aim;
mod machine;
mod model;
mod plot;
mod readme;
mod save;
mod summary;
mod table;

pub(crate) use machine::{load, machine, today};
pub(crate) use model::{Cell, FORMAT, Report, RowInfo, TargetInfo};
pub(crate) use readme::{Section, rewrite};
pub(crate) use save::write;
pub(crate) use table::{short, tables};
