//! POSIX access control lists, as the kernel puts them into extended attributes (`linux/posix_acl_xattr.h`):
//! version 2 as u32, then entries of tag u16, permissions u16, id u32, all little-endian.
//!
//! The rules are those of `fs/posix_acl.c`: inheritance on creation, `chmod` of an inode that has a list, and the mode
//! that a new list brings. The checks themselves are the client kernel's.

use flexfs_wire::errno::Errno;

/// The list that is checked.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The list that new entries of a directory inherit.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Whether an extended attribute of this name is a list.
pub(crate) fn is_list(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// A list in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

impl Acl {
    /// Parses an attribute. `None`: a list without entries, which removes one.
    ///
    /// # Errors
    /// `EINVAL` when it is not a list: unknown tags, entries missing, double or out of order.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Errno> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let (version, rest) = bytes.split_first_chunk::<4>().ok_or(Errno::EINVAL)?;
        let (entries, tail) = rest.as_chunks::<8>();
        if u32::from_le_bytes(*version) != VERSION || !tail.is_empty() {
            return Err(Errno::EINVAL);
        }
        let entries: Vec<Entry> = entries
            .iter()
            .map(|[a, b, c, d, id @ ..]| Entry {
                tag: u16::from_le_bytes([*a, *b]),
                perm: u16::from_le_bytes([*c, *d]),
                id: u32::from_le_bytes(*id),
            })
            .collect();
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Self(entries);
        if acl.is_valid() { Ok(Some(acl)) } else { Err(Errno::EINVAL) }
    }

    /// As an attribute.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend_from_slice(&entry.tag.to_le_bytes());
            bytes.extend_from_slice(&entry.perm.to_le_bytes());
            bytes.extend_from_slice(&entry.id.to_le_bytes());
        }
        bytes
    }

    /// The list and the mode of something made in a directory with this default list (`posix_acl_create_masq`).
    /// The list is `None` when the mode says it all.
    pub(super) fn inherit(mut self, mode: u32) -> (Option<Self>, u32) {
        for (tag, shift) in [(USER_OBJ, 6), (self.group_tag(), 3), (OTHER, 0)] {
            if let Some(entry) = self.entry(tag) {
                entry.perm &= bits(mode, shift);
            }
        }
        let mode = (mode & !0o777) | self.mode();
        (self.is_more_than_mode().then_some(self), mode)
    }

    /// The list after a `chmod` (`__posix_acl_chmod_masq`).
    pub(super) fn chmod(mut self, mode: u32) -> Self {
        for (tag, shift) in [(USER_OBJ, 6), (self.group_tag(), 3), (OTHER, 0)] {
            if let Some(entry) = self.entry(tag) {
                entry.perm = bits(mode, shift);
            }
        }
        self
    }

    /// The nine permission bits that the list stands for (`posix_acl_equiv_mode`).
    pub(super) fn mode(&self) -> u32 {
        let group = self.group_tag();
        let perm =
            |tag| self.0.iter().find(|entry| entry.tag == tag).map_or(0, |entry| u32::from(entry.perm & 7));
        perm(USER_OBJ) << 6 | perm(group) << 3 | perm(OTHER)
    }

    /// Whether somebody who is neither root nor of root's group has all of these rights to an inode of root's with this list and
    /// group: a named user, a group, or everybody else (`posix_acl_permission`).
    pub(super) fn grants_without_root(&self, gid: u32, wanted: u32) -> bool {
        let mask = self.0.iter().find(|entry| entry.tag == MASK).map_or(7, |entry| entry.perm);
        self.0.iter().any(|entry| {
            let perm = match entry.tag {
                USER | GROUP if entry.id != 0 => entry.perm & mask,
                GROUP_OBJ if gid != 0 => entry.perm & mask,
                OTHER => entry.perm,
                _ => return false,
            };
            u32::from(perm) & wanted == wanted
        })
    }

    /// Whether it says more than nine bits can.
    pub(super) fn is_more_than_mode(&self) -> bool {
        self.0.iter().any(|entry| matches!(entry.tag, USER | GROUP | MASK))
    }

    fn group_tag(&self) -> u16 {
        if self.0.iter().any(|entry| entry.tag == MASK) { MASK } else { GROUP_OBJ }
    }

    fn entry(&mut self, tag: u16) -> Option<&mut Entry> {
        self.0.iter_mut().find(|entry| entry.tag == tag)
    }

    /// `posix_acl_valid`: tags ascend, the three base entries are there once, named ones need a mask.
    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let known = |entry: &Entry| {
            matches!(entry.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER) && entry.perm <= 7
        };
        let named = count(USER) + count(GROUP);
        self.0.iter().all(known)
            && self.0.is_sorted_by_key(|entry| entry.tag)
            && [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1)
            && count(MASK) <= 1
            && (named == 0 || count(MASK) == 1)
    }
}

fn bits(mode: u32, shift: u32) -> u16 {
    u16::try_from((mode >> shift) & 7).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Acl {
        Acl(entries.iter().map(|(tag, perm, id)| Entry { tag: *tag, perm: *perm, id: *id }).collect())
    }

    #[test]
    fn parses_what_it_writes_and_refuses_nonsense() {
        let acl = list(&[(USER_OBJ, 7, 0), (USER, 5, 1000), (GROUP_OBJ, 5, 0), (MASK, 5, 0), (OTHER, 0, 0)]);
        assert_eq!(Acl::parse(&acl.bytes()), Ok(Some(acl.clone())));
        assert_eq!(Acl::parse(&[]), Ok(None));
        assert_eq!(Acl::parse(&acl.bytes()[..11]), Err(Errno::EINVAL));
        let no_mask = list(&[(USER_OBJ, 7, 0), (USER, 5, 1000), (GROUP_OBJ, 5, 0), (OTHER, 0, 0)]);
        assert_eq!(Acl::parse(&no_mask.bytes()), Err(Errno::EINVAL));
    }

    #[test]
    fn inheritance_and_chmod_follow_the_mask() {
        let acl = list(&[(USER_OBJ, 7, 0), (USER, 7, 1000), (GROUP_OBJ, 5, 0), (MASK, 7, 0), (OTHER, 5, 0)]);
        let (made, mode) = acl.clone().inherit(0o100_640);
        assert_eq!(mode, 0o100_640);
        let made = made.unwrap();
        assert_eq!((made.mode(), made.0[3].perm, made.0[2].perm), (0o640, 4, 5));
        assert_eq!(made.chmod(0o777).mode(), 0o777);
        let plain = list(&[(USER_OBJ, 6, 0), (GROUP_OBJ, 4, 0), (OTHER, 4, 0)]);
        assert_eq!(plain.inherit(0o777), (None, 0o644));
    }
}
