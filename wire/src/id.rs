//! Numbers that name things.

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
        pub struct $name(pub u64);
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id! {
    /// Number of an inode, never reused in a volume. 0 is nobody, 1 the volume's root.
    Ino
}
id! {
    /// Number of a block, never reused in a volume.
    BlockId
}
id! {
    /// Number of a session, never reused in a volume.
    SessionId
}
id! {
    /// One request of a session, unique in it and stable across reconnects. Given in ascending order.
    RequestId
}
id! {
    /// Position in a volume's history: the engine's commit sequence. 0 stands for "nothing was committed".
    Commit
}
id! {
    /// Raised when a server or session is superseded; the older one is refused.
    Epoch
}

impl Ino {
    /// The volume's root directory.
    pub const ROOT: Self = Self(1);
}

/// A run of numbers granted to a client: `start .. start + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First number.
    pub start: u64,
    /// How many.
    pub count: u64,
}

impl Range {
    /// Whether `number` is in the run.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        number.checked_sub(self.start).is_some_and(|index| index < self.count)
    }
}
