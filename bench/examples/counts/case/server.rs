//! The namespace machine over the engine in memory, on a volume of a thousand inodes.

use std::hint::black_box;

use flexfs_meta::engine::memory::Memory;
use flexfs_wire::attr::{S_IFREG, SetAttr};
use flexfs_wire::message::{Inline, Make, Request, Write};
use flexfs_wire::seal::Node;

use super::Case;
use crate::volume::{Volume, name_of};

/// Directories.
const DIRS: usize = 10;
/// Files in each.
const FILES: usize = 100;
/// Calls of an operation.
const CALLS: u64 = 500;

/// Makes the request of a number, and what must be there for it.
type Prepare = fn(&mut Volume<Memory>, u64) -> Request;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case { name: "namespace/lookup", calls: CALLS, prepare: || apply(lookup) },
        Case { name: "namespace/getattr", calls: CALLS, prepare: || apply(get_attr) },
        Case { name: "namespace/create", calls: CALLS, prepare: || apply(create) },
        Case { name: "namespace/unlink", calls: CALLS, prepare: || apply(unlink) },
        Case { name: "namespace/rename", calls: CALLS, prepare: || apply(rename) },
        Case { name: "namespace/chmod", calls: CALLS, prepare: || apply(chmod) },
        Case { name: "namespace/write-4k-inline", calls: CALLS, prepare: || apply(write) },
        Case { name: "namespace/write-16-extents", calls: CALLS, prepare: || apply(write_extents) },
        Case { name: "namespace/readdirplus-100", calls: CALLS, prepare: || apply(list) },
    ]
}

/// Prepares the requests of both runs, then calls them.
fn apply(prepare: Prepare) -> Box<dyn FnMut()> {
    let mut volume = Volume::fill(Memory::eager(), DIRS, FILES);
    let requests: Vec<Request> = (0..2 * CALLS).map(|number| prepare(&mut volume, number)).collect();
    let mut next = 0;
    Box::new(move || {
        for _ in 0..CALLS {
            drop(black_box(volume.call(&requests[next])));
            next += 1;
        }
    })
}

fn index(number: u64, count: usize) -> usize {
    usize::try_from(number % count as u64).unwrap()
}

fn dir(volume: &Volume<Memory>, number: u64) -> Node {
    Node::unsealed(volume.dirs[index(number, DIRS)])
}

fn file(volume: &Volume<Memory>, number: u64) -> Node {
    Node::unsealed(volume.files[index(number * 331, DIRS * FILES)])
}

fn lookup(volume: &mut Volume<Memory>, number: u64) -> Request {
    let name = name_of(&format!("file-{}", index(number * 31, FILES)));
    Request::Lookup { parent: dir(volume, number), name }
}

fn get_attr(volume: &mut Volume<Memory>, number: u64) -> Request {
    Request::GetAttr { node: file(volume, number) }
}

fn temporary(number: u64) -> String {
    format!("temporary-{number:06}")
}

fn create(volume: &mut Volume<Memory>, number: u64) -> Request {
    let ino = volume.ino();
    let make = Make { ino, mode: S_IFREG | 0o644, umask: 0o022, rdev: 0, target: Vec::new(), open: false };
    Request::Make { parent: dir(volume, number), name: Some(name_of(&temporary(number))), make }
}

fn unlink(volume: &mut Volume<Memory>, number: u64) -> Request {
    let parent = dir(volume, number);
    volume.make(parent.ino, &temporary(number), S_IFREG | 0o644);
    Request::Remove { parent, name: name_of(&temporary(number)), dir: false }
}

fn rename(volume: &mut Volume<Memory>, number: u64) -> Request {
    let parent = dir(volume, number);
    volume.make(parent.ino, &temporary(number), S_IFREG | 0o644);
    Request::Rename {
        parent,
        name: name_of(&temporary(number)),
        new_parent: dir(volume, number + 1),
        new_name: name_of(&format!("moved-{number:06}")),
        flags: 0,
    }
}

fn chmod(volume: &mut Volume<Memory>, number: u64) -> Request {
    let change = SetAttr { mode: Some(0o640), ..SetAttr::default() };
    Request::SetAttr { node: file(volume, number), change }
}

fn write(volume: &mut Volume<Memory>, number: u64) -> Request {
    let inline = Some(Inline { offset: 0, bytes: vec![7; 4_096] });
    Request::Write { node: file(volume, number), write: Write { inline, ..Write::default() } }
}

/// The second run lays its extents over those of the first.
fn write_extents(volume: &mut Volume<Memory>, number: u64) -> Request {
    let node = file(volume, number);
    volume.write_extents(node)
}

fn list(volume: &mut Volume<Memory>, number: u64) -> Request {
    Request::ReadDir { node: dir(volume, number), cookie: 0, bytes_max: 128 << 10, plus: true }
}
