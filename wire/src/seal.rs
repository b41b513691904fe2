//! Handles of inodes that a client cannot make up.
//!
//! A scoped client must not name an inode it was never given. Every inode a server hands out carries a
//! keyed hash over (scope root, inode); a request whose hash is wrong is answered ESTALE. The key is the
//! volume's own and stays at meta, so handles survive reconnects and restarts, and two sessions of one
//! scope may share them: they reach the same files.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;
use zeroize::Zeroize;

use crate::id::Ino;

/// An inode as it travels: its number and the proof that it was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Number.
    pub ino: Ino,
    /// Keyed hash; 0 inside meta, where it has been checked or not yet been made.
    pub seal: u64,
}

impl Node {
    /// A node that has no seal yet (server side), or whose seal was checked.
    #[must_use]
    pub fn unsealed(ino: Ino) -> Self {
        Self { ino, seal: 0 }
    }
}

/// Makes and checks seals for one scope of one volume.
pub struct Sealer {
    key: [u8; 16],
    root: Ino,
}

impl Sealer {
    /// `key` is the volume's secret, `root` the root inode of the session's scope.
    #[must_use]
    pub fn new(key: [u8; 16], root: Ino) -> Self {
        Self { key, root }
    }

    /// Root of the scope.
    #[must_use]
    pub fn root(&self) -> Ino {
        self.root
    }

    /// The handle a client may use for `ino`.
    #[must_use]
    pub fn seal(&self, ino: Ino) -> Node {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u64(self.root.0);
        hasher.write_u64(ino.0);
        Node { ino, seal: hasher.finish() }
    }

    /// Whether the client was given this handle.
    #[must_use]
    pub fn verify(&self, node: Node) -> bool {
        self.seal(node.ino).seal == node.seal
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("root", &self.root).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seals_bind_inode_scope_and_key() {
        let sealer = Sealer::new([7; 16], Ino::ROOT);
        let node = sealer.seal(Ino(42));
        assert!(sealer.verify(node));
        assert!(!sealer.verify(Node { ino: Ino(43), seal: node.seal }));
        assert!(!Sealer::new([7; 16], Ino(2)).verify(node));
        assert!(!Sealer::new([8; 16], Ino::ROOT).verify(node));
    }
}
