//! Entries, positions, link counts, the tree.

use std::collections::{BTreeSet, HashSet};

use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::name::Name;

use super::facts::{Facts, InodeFacts, each};
use super::report::Report;
use crate::engine::Store;
use crate::engine::key::{self, Tag};
use crate::namespace::record::{COOKIE_FIRST, Cookie, Dentry, decode};

/// Entries by name: directory and inode exist, the kind is right, the position leads back.
pub(super) fn check_entries(store: &impl Store, facts: &mut Facts, report: &mut Report) -> Result<(), Errno> {
    let mut positions: Vec<(Ino, Vec<u8>, Dentry)> = Vec::new();
    each(store, Tag::Dentry, &mut |row, value| {
        let dir = Ino(key::number(row, 1).unwrap_or(0));
        let name = key::rest(row, 1);
        let shown = name.escape_ascii();
        report.entries += 1;
        report.check(Name::sealed(name).is_ok(), || format!("directory {dir}: \"{shown}\" is not a name"));
        let Ok(dentry) = decode::<Dentry>(value) else {
            report.problem(|| format!("directory {dir}: entry \"{shown}\" cannot be read"));
            return;
        };
        count_entry(facts, report, dir, name, &dentry);
        positions.push((dir, name.to_vec(), dentry));
    })?;
    for (dir, name, dentry) in positions {
        let row = store.get(&key::cookie(dir, dentry.cookie))?;
        let back = row.and_then(|row| decode::<Cookie>(&row).ok());
        let agrees = back.is_some_and(|back| {
            back.ino == dentry.ino && back.kind == dentry.kind && back.name.as_bytes() == name
        });
        report.check(agrees, || {
            format!(
                "directory {dir}: entry \"{}\" is not at its position {}",
                name.escape_ascii(),
                dentry.cookie
            )
        });
    }
    Ok(())
}

fn count_entry(facts: &mut Facts, report: &mut Report, dir: Ino, name: &[u8], dentry: &Dentry) {
    let shown = name.escape_ascii();
    let mut is_subdir = false;
    match facts.inodes.get_mut(&dentry.ino) {
        Some(child) => {
            child.links += 1;
            is_subdir = child.inode.is_dir();
            report.check(child.inode.kind() == dentry.kind, || {
                format!("directory {dir}: entry \"{shown}\" has another kind than inode {}", dentry.ino)
            });
            let is_unknown = !is_subdir && (child.inode.parent.0 == 0 || child.inode.nlink > 1);
            report.check(is_unknown || child.inode.parent == dir, || {
                format!("inode {}: its parent is {dir}, not {}", dentry.ino, child.inode.parent)
            });
        }
        None => report.problem(|| {
            format!("directory {dir}: \"{shown}\" names inode {}, which is not there", dentry.ino)
        }),
    }
    match facts.inodes.get_mut(&dir) {
        Some(parent) if parent.inode.is_dir() => {
            parent.entries += 1;
            parent.subdirs += u32::from(is_subdir);
            let range = COOKIE_FIRST..parent.inode.next_cookie;
            report.check(range.contains(&dentry.cookie), || {
                format!("directory {dir}: entry \"{shown}\" has position {} out of {range:?}", dentry.cookie)
            });
        }
        Some(_) => report.problem(|| format!("inode {dir} is no directory but has an entry \"{shown}\"")),
        None => report.problem(|| format!("entry \"{shown}\" of directory {dir}, which is not there")),
    }
}

/// Entries by position: as many as by name, which point at them.
pub(super) fn check_cookies(store: &impl Store, facts: &Facts, report: &mut Report) -> Result<(), Errno> {
    let mut found = 0u64;
    each(store, Tag::Cookie, &mut |row, value| {
        found += 1;
        let dir = Ino(key::number(row, 1).unwrap_or(0));
        report
            .check(decode::<Cookie>(value).is_ok(), || format!("directory {dir}: a position cannot be read"));
    })?;
    let entries: u64 = facts.inodes.values().map(|dir| dir.entries).sum();
    // Each entry was found at its own position, so that more positions are positions of nothing.
    report.check(found == entries, || format!("{found} positions for {entries} entries"));
    Ok(())
}

/// Link counts, directory sizes, orphans.
pub(super) fn check_links(store: &impl Store, facts: &Facts, report: &mut Report) -> Result<(), Errno> {
    let mut orphans = BTreeSet::new();
    each(store, Tag::Orphan, &mut |row, _| {
        orphans.insert(Ino(key::number(row, 1).unwrap_or(0)));
    })?;
    report.orphans = orphans.len() as u64;
    for ino in &orphans {
        let nameless = facts.inodes.get(ino).is_some_and(|facts| facts.inode.nlink == 0);
        report
            .check(nameless, || format!("inode {ino} is listed as an orphan but has a name or is not there"));
    }
    for (ino, facts) in &facts.inodes {
        check_inode_links(*ino, facts, orphans.contains(ino), report);
    }
    Ok(())
}

fn check_inode_links(ino: Ino, facts: &InodeFacts, is_orphan: bool, report: &mut Report) {
    let InodeFacts { inode, links, entries, subdirs, .. } = facts;
    report.check(inode.nlink > 0 || is_orphan, || format!("inode {ino} has no name and is no orphan"));
    if !inode.is_dir() {
        report.check(inode.nlink == *links, || {
            format!("inode {ino}: link count {}, names {links}", inode.nlink)
        });
        return;
    }
    let names_wanted = u32::from(inode.nlink > 0 && ino != Ino::ROOT);
    report.check(*links == names_wanted, || format!("directory {ino} has {links} names"));
    let nlink_wanted = if inode.nlink == 0 { 0 } else { 2 + subdirs };
    report.check(inode.nlink == nlink_wanted, || {
        format!("directory {ino}: link count {}, subdirectories {subdirs}", inode.nlink)
    });
    report
        .check(inode.size == *entries, || format!("directory {ino}: size {}, entries {entries}", inode.size));
}

/// Every directory that is no orphan leads up to the root.
pub(super) fn check_tree(facts: &Facts, report: &mut Report) {
    let mut rooted: HashSet<Ino> = HashSet::from([Ino::ROOT]);
    for (ino, start) in &facts.inodes {
        if !start.inode.is_dir() || start.inode.nlink == 0 {
            continue;
        }
        let mut path = Vec::new();
        let mut on_path = HashSet::new();
        let mut at = *ino;
        while !rooted.contains(&at) {
            let Some(dir) = facts.inodes.get(&at).filter(|dir| dir.inode.is_dir() && on_path.insert(at))
            else {
                report.problem(|| format!("directory {ino} does not lead up to the root"));
                break;
            };
            path.push(at);
            at = dir.inode.parent;
        }
        rooted.extend(path);
    }
}
