//! Leases: what a session may cache, and how it is taken back.

use serde::{Deserialize, Serialize};

use crate::id::Ino;
use crate::name::Name;

/// Most ids or numbers in one `Recalled` or `GiveBack`.
pub const LEASE_BATCH_MAX: usize = 4_096;

/// What an answer grants: bits of the frame's `leases`.
///
/// A lease lets a session cache without a time limit, in its kernel too, until the server recalls it, the session ends, or
/// the session heard nothing of the server for nearly `LEASE_MS`. Granted with the answer; void when a recall of the
/// same inode came after the call was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leases(pub u8);

impl Leases {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The names of the request's directory, present and absent ones.
    pub const NAMES: Self = Self(1);
    /// Attributes and data of the inode in the answer; in a listing, of every entry that comes with attributes.
    pub const ATTR: Self = Self(2);
    /// No other session has a lease of that file: writes may be kept here, size and mtime are this session's to say.
    pub const EXCLUSIVE: Self = Self(4);
    /// The names of the new directory in the answer, which has none yet.
    pub const BORN: Self = Self(8);
    /// Of a new directory: no other session looks into it without asking, so what is made in it need not be at the
    /// server yet.
    pub const ALONE: Self = Self(16);
    /// All of them.
    pub const ALL: Self = Self(31);

    /// Whether all of `other` is granted.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `self` without `other`.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// `self`, if so.
    #[must_use]
    pub const fn when(self, granted: bool) -> Self {
        if granted { self } else { Self::NONE }
    }
}

/// What a session may keep of an inode it is asked to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// All: only names of the directory are recalled.
    All,
    /// A shared lease: what was written must be at the server, what is cached stays.
    Shared,
    /// Nothing: what was written must be at the server, and nothing of the inode cached.
    Nothing,
}

/// One recall. Answered by its id in `Recalled` when done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// Its number.
    pub id: u64,
    /// The inode.
    pub ino: Ino,
    /// What is left of its lease.
    pub keep: Keep,
    /// A name in this directory that changes: it must not be cached, present or absent. The lease of all others stays.
    pub name: Option<Name>,
}
