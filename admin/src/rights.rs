//! What an account may do. Decided here, for every handler.

use rusqlite::Connection;

use crate::problem::Problem;
use crate::role::{Actor, Role, VOLUMES_OF, Verb};
use crate::table::Noun;

/// Whether the role permits this to any object of the kind.
pub(crate) fn check<N: Noun>(by: &Actor, verb: Verb) -> Result<(), Problem> {
    let may = match by.role {
        Role::Admin => true,
        Role::Auditor => verb == Verb::Read,
        Role::VolumeAdmin => match (N::VOLUME, N::IS_VOLUME) {
            (None, _) => false,
            (Some(_), true) => matches!(verb, Verb::Read | Verb::Update),
            (Some(_), false) => true,
        },
    };
    if may { Ok(()) } else { Err(by.refused(verb, N::NOUN)) }
}

/// Whether it may do that to this one. Who may not is not told that it is there.
pub(crate) fn check_this<N: Noun>(by: &Actor, tables: &Connection, key: &str) -> Result<(), Problem> {
    let (Some(account), Some(volume)) = (by.bound_to(), N::VOLUME) else { return Ok(()) };
    let sql = format!("SELECT 1 FROM {} WHERE {} = ?1 AND {volume} IN {VOLUMES_OF}2)", N::FROM, N::KEY);
    let found = tables.prepare_cached(&sql)?.exists([key, account])?;
    if found { Ok(()) } else { Err(Problem::missing(N::NOUN, key)) }
}
