//! The operations of the namespace as they are measured: what is prepared, what is timed, what is undone. A volume is as
//! large after an operation as it was before.

use flexfs_meta::engine::Store;
use flexfs_wire::attr::{S_IFDIR, S_IFLNK, S_IFREG, SetAttr};
use flexfs_wire::id::Ino;
use flexfs_wire::message::{Inline, Lock, LockFamily, LockKind, Make, Request, Write, XattrMode};
use flexfs_wire::seal::Node;

use crate::volume::{Volume, name_of};

/// Step through the files: no divisor of any volume's size, so that every file has its turn.
const STRIDE: u64 = 7_919;
/// Bytes that are written inline.
const INLINE_BYTES: usize = 4_096;

/// See the module. The number tells operations that are prepared together apart.
pub(crate) struct Operation<S> {
    pub(crate) name: &'static str,
    /// Makes the request, and what must be there for it.
    pub(crate) prepare: fn(&mut Volume<S>, u64) -> Request,
    /// Does it.
    pub(crate) run: fn(&mut Volume<S>, &Request),
    /// Takes it back.
    pub(crate) undo: fn(&mut Volume<S>, u64),
}

type Prepare<S> = fn(&mut Volume<S>, u64) -> Request;
type Undo<S> = fn(&mut Volume<S>, u64);

fn operation<S: Store>(name: &'static str, prepare: Prepare<S>, undo: Undo<S>) -> Operation<S> {
    Operation { name, prepare, run: |volume, request| drop(volume.call(request)), undo }
}

/// All of them.
pub(crate) fn all<S: Store>() -> Vec<Operation<S>> {
    let mut all = reads();
    all.extend(names());
    all.extend(data());
    all.extend(sessions());
    all
}

fn file<S>(volume: &Volume<S>, number: u64) -> Node {
    Node::unsealed(volume.files[index(number * STRIDE, volume.files.len())])
}

fn dir<S>(volume: &Volume<S>, number: u64) -> Node {
    Node::unsealed(volume.dirs[index(number, volume.dirs.len())])
}

fn index(number: u64, count: usize) -> usize {
    usize::try_from(number % count as u64).unwrap()
}

fn temporary(number: u64) -> String {
    format!("temporary-{number}")
}

fn moved(number: u64) -> String {
    format!("moved-{number}")
}

fn nothing<S>(_: &mut Volume<S>, _: u64) {}

fn reads<S: Store>() -> Vec<Operation<S>> {
    vec![
        operation(
            "lookup",
            |volume, number| {
                let place = index(number * STRIDE, volume.files.len());
                let per_dir = volume.files.len() / volume.dirs.len();
                let parent = Node::unsealed(volume.dirs[place / per_dir]);
                Request::Lookup { parent, name: name_of(&format!("file-{}", place % per_dir)) }
            },
            nothing,
        ),
        operation("getattr", |volume, number| Request::GetAttr { node: file(volume, number) }, nothing),
        operation(
            "readdirplus-128k",
            |volume, number| Request::ReadDir {
                node: dir(volume, number),
                cookie: 0,
                bytes_max: 128 << 10,
                plus: true,
            },
            nothing,
        ),
        operation("statfs", |_, _| Request::StatFs, nothing),
        operation(
            "read-layout",
            |volume, number| Request::ReadLayout { node: file(volume, number), start: 0, end: u64::MAX },
            nothing,
        ),
        operation(
            "getxattr",
            |volume, number| {
                let node = file(volume, number);
                set_xattr(volume, number);
                Request::GetXattr { node, name: b"user.name".to_vec() }
            },
            remove_xattr,
        ),
    ]
}

fn make_request<S: Store>(volume: &mut Volume<S>, number: u64, mode: u32, open: bool) -> Request {
    let target = if mode == S_IFLNK | 0o777 { b"../target".to_vec() } else { Vec::new() };
    let make = Make { ino: volume.ino(), mode, umask: 0o022, rdev: 0, target, open };
    Request::Make { parent: dir(volume, number), name: Some(name_of(&temporary(number))), make }
}

fn make<S: Store>(volume: &mut Volume<S>, number: u64, mode: u32) -> Ino {
    let parent = dir(volume, number).ino;
    volume.make(parent, &temporary(number), mode)
}

fn remove_request<S: Store>(volume: &Volume<S>, number: u64, dir: bool) -> Request {
    Request::Remove { parent: self::dir(volume, number), name: name_of(&temporary(number)), dir }
}

fn remove<S: Store>(volume: &mut Volume<S>, number: u64) {
    let request = remove_request(volume, number, false);
    volume.call(&request);
}

fn remove_dir<S: Store>(volume: &mut Volume<S>, number: u64) {
    let request = remove_request(volume, number, true);
    volume.call(&request);
}

fn remove_moved<S: Store>(volume: &mut Volume<S>, number: u64) {
    let parent = dir(volume, number + 1);
    volume.call(&Request::Remove { parent, name: name_of(&moved(number)), dir: false });
}

fn rename_request<S: Store>(volume: &Volume<S>, number: u64) -> Request {
    Request::Rename {
        parent: dir(volume, number),
        name: name_of(&temporary(number)),
        new_parent: dir(volume, number + 1),
        new_name: name_of(&moved(number)),
        flags: 0,
    }
}

fn names<S: Store>() -> Vec<Operation<S>> {
    vec![
        operation("create", |v, number| make_request(v, number, S_IFREG | 0o644, false), remove),
        operation("mkdir", |v, number| make_request(v, number, S_IFDIR | 0o755, false), remove_dir),
        operation("symlink", |v, number| make_request(v, number, S_IFLNK | 0o777, false), remove),
        operation(
            "link",
            |volume, number| Request::Link {
                node: file(volume, number),
                parent: dir(volume, number),
                name: name_of(&temporary(number)),
            },
            remove,
        ),
        operation(
            "unlink",
            |volume, number| {
                make(volume, number, S_IFREG | 0o644);
                remove_request(volume, number, false)
            },
            nothing,
        ),
        operation(
            "rmdir",
            |volume, number| {
                make(volume, number, S_IFDIR | 0o755);
                remove_request(volume, number, true)
            },
            nothing,
        ),
        operation(
            "rename",
            |volume, number| {
                make(volume, number, S_IFREG | 0o644);
                rename_request(volume, number)
            },
            remove_moved,
        ),
        operation(
            "rename-over",
            |volume, number| {
                make(volume, number, S_IFREG | 0o644);
                let parent = dir(volume, number + 1).ino;
                volume.make(parent, &moved(number), S_IFREG | 0o644);
                rename_request(volume, number)
            },
            remove_moved,
        ),
    ]
}

fn change<S: Store>(volume: &Volume<S>, number: u64, change: SetAttr) -> Request {
    Request::SetAttr { node: file(volume, number), change }
}

/// Cuts the file to nothing again, and does the work that this leaves behind.
fn empty<S: Store>(volume: &mut Volume<S>, number: u64) {
    let request = change(volume, number, SetAttr { size: Some(0), ..SetAttr::default() });
    volume.call(&request);
    while volume.ns.background(volume.context.now, 1_024).unwrap() {}
}

fn write_inline<S: Store>(volume: &Volume<S>, number: u64) -> Request {
    let inline = Some(Inline { offset: 0, bytes: vec![7; INLINE_BYTES] });
    Request::Write { node: file(volume, number), write: Write { inline, ..Write::default() } }
}

fn write_extents<S: Store>(volume: &mut Volume<S>, number: u64) -> Request {
    let node = file(volume, number);
    volume.write_extents(node)
}

fn set_xattr_request<S: Store>(volume: &Volume<S>, number: u64) -> Request {
    Request::SetXattr {
        node: file(volume, number),
        name: b"user.name".to_vec(),
        value: vec![7; 64],
        mode: XattrMode::Any,
    }
}

fn set_xattr<S: Store>(volume: &mut Volume<S>, number: u64) {
    let request = set_xattr_request(volume, number);
    volume.call(&request);
}

/// Of a file that several prepared operations share only the first one removes it.
fn remove_xattr<S: Store>(volume: &mut Volume<S>, number: u64) {
    set_xattr(volume, number);
    let request = Request::RemoveXattr { node: file(volume, number), name: b"user.name".to_vec() };
    volume.call(&request);
}

fn data<S: Store>() -> Vec<Operation<S>> {
    vec![
        operation(
            "chmod",
            |v, number| change(v, number, SetAttr { mode: Some(0o640), ..SetAttr::default() }),
            nothing,
        ),
        operation(
            "truncate-inline",
            |volume, number| {
                let request = write_inline(volume, number);
                volume.call(&request);
                change(volume, number, SetAttr { size: Some(100), ..SetAttr::default() })
            },
            empty,
        ),
        operation("setxattr", |volume, number| set_xattr_request(volume, number), remove_xattr),
        operation("write-4k-inline", |volume, number| write_inline(volume, number), empty),
        operation("write-16-extents", write_extents, empty),
        operation(
            "overwrite-16-extents",
            |volume, number| {
                let request = write_extents(volume, number);
                volume.call(&request);
                write_extents(volume, number)
            },
            empty,
        ),
        operation(
            "read-layout-16-extents",
            |volume, number| {
                let request = write_extents(volume, number);
                volume.call(&request);
                Request::ReadLayout { node: file(volume, number), start: 0, end: u64::MAX }
            },
            empty,
        ),
        operation(
            "fallocate",
            |volume, number| Request::Fallocate {
                node: file(volume, number),
                mode: 0,
                offset: 0,
                length: 1 << 20,
            },
            empty,
        ),
        operation(
            "copy-range-16-extents",
            |volume, number| {
                let request = write_extents(volume, number);
                volume.call(&request);
                Request::CopyRange {
                    source: file(volume, number),
                    source_offset: 0,
                    target: file(volume, number + 1),
                    target_offset: 0,
                    length: 1 << 21,
                }
            },
            |volume, number| {
                empty(volume, number);
                empty(volume, number + 1);
            },
        ),
    ]
}

fn lock() -> Lock {
    Lock { family: LockFamily::Posix, kind: LockKind::Write, owner: 9, pid: 77, start: 0, end: u64::MAX }
}

fn unlock<S>(volume: &Volume<S>, number: u64) -> Request {
    Request::Unlock { node: file(volume, number), family: LockFamily::Posix, owner: 9 }
}

fn open_request<S>(volume: &Volume<S>, number: u64) -> Request {
    Request::Open { node: file(volume, number), write: true, truncate: false, kill_privileges: false }
}

fn close_request<S>(volume: &Volume<S>, number: u64) -> Request {
    Request::Close { node: file(volume, number), count: 1 }
}

fn sessions<S: Store>() -> Vec<Operation<S>> {
    vec![
        operation(
            "open",
            |volume, number| open_request(volume, number),
            |volume, number| {
                let request = close_request(volume, number);
                volume.call(&request);
            },
        ),
        operation(
            "close",
            |volume, number| {
                let request = open_request(volume, number);
                volume.call(&request);
                close_request(volume, number)
            },
            nothing,
        ),
        operation(
            "lock",
            |volume, number| Request::Lock { node: file(volume, number), lock: lock(), wait: false },
            |volume, number| {
                let request = unlock(volume, number);
                volume.call(&request);
            },
        ),
        operation(
            "unlock",
            |volume, number| {
                let request = Request::Lock { node: file(volume, number), lock: lock(), wait: false };
                volume.call(&request);
                unlock(volume, number)
            },
            nothing,
        ),
        // The last call of the preparation once more, as after a broken link.
        Operation {
            name: "resend",
            prepare: |volume, _| {
                let request = change(volume, 0, SetAttr { mode: Some(0o640), ..SetAttr::default() });
                volume.call(&request);
                request
            },
            run: |volume, request| {
                let outcome = volume.ns.apply(&volume.context, request);
                assert!(outcome.answer.is_some_and(|answer| answer.result.is_ok()));
            },
            undo: nothing,
        },
    ]
}
