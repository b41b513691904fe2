//! Who does something, and in what role.

use rusqlite::{Connection, OptionalExtension};

use crate::problem::Problem;

/// Roles of accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Everything.
    Admin,
    /// Its volumes, as they are, and their tokens.
    VolumeAdmin,
    /// Sees everything but secrets, the audit log too, and changes nothing.
    Auditor,
}

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Read,
    Create,
    Update,
    Delete,
    Rotate,
}

/// Who does something.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    /// Id of the account.
    pub(crate) account: String,
    /// Its name.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) role: Role,
    /// Id of the token that was presented.
    pub(crate) token: String,
    /// Where the request came from.
    pub(crate) peer: String,
}

impl Role {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Admin, "admin"), (Self::VolumeAdmin, "volume-admin"), (Self::Auditor, "auditor")];

    /// As in tables and bodies.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(role, _)| *role == self).map_or("admin", |(_, name)| name)
    }

    /// The role of that name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(role, _)| *role)
    }
}

impl Verb {
    /// As the audit log has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Rotate => "rotate",
        }
    }
}

impl Actor {
    /// Admin itself, by nobody's request.
    pub(crate) fn admin() -> Self {
        Self {
            account: String::new(),
            name: String::new(),
            role: Role::Admin,
            token: String::new(),
            peer: String::new(),
        }
    }

    /// The holder of a token of this account.
    pub(crate) fn find(
        tables: &Connection,
        account: String,
        token: String,
        peer: String,
    ) -> Result<Self, Problem> {
        let found = tables
            .prepare_cached("SELECT name, role FROM accounts WHERE id = ?1")?
            .query_row([&account], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
            .optional()?;
        let (name, role) = found.ok_or_else(|| Problem::unauthorized("this account was deleted just now"))?;
        // What an older program does not know permits nothing but to look.
        let role = Role::parse(&role).unwrap_or(Role::Auditor);
        Ok(Self { account, name, role, token, peer })
    }

    /// The account whose volumes are all that it sees.
    pub(crate) fn bound_to(&self) -> Option<&str> {
        (self.role == Role::VolumeAdmin).then_some(self.account.as_str())
    }

    /// The refusal of something that its role does not permit.
    pub(crate) fn refused(&self, verb: Verb, noun: &str) -> Problem {
        Problem::forbidden(format!(
            "account {:?} has the role {}, which may not {} a {noun}: ask an account of role admin",
            self.name,
            self.role.name(),
            verb.name()
        ))
    }
}

/// SQL for the volumes of an account; the number of its parameter follows.
pub(crate) const VOLUMES_OF: &str = "(SELECT volume FROM account_volumes WHERE account = ?";
