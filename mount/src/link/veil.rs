//! Encryption of what calls carry in words, where they leave and where answers come in: names, symlink targets, values of
//! extended attributes. Everything above works with what programs wrote, everything below with what the server sees. Blocks
//! are encrypted where they are made (`data::pack`) and opened where they arrive (`store`).

use flexfs_wire::attr::{Attr, S_IFLNK, S_IFMT};
use flexfs_wire::cipher::{Cipher, TEXT_EXTRA_BYTES};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::lease::{Keep, Recall};
use flexfs_wire::message::{Reply, Request};

/// Attributes that the server must read, for it applies them: access control lists.
const READ_BY_SERVER: &[u8] = b"system.posix_acl_";

/// What is to be opened in a call's answer.
#[derive(Debug)]
pub enum Opening {
    /// Attributes at most.
    Attributes,
    /// Names of this directory.
    Names(Ino),
    /// The target of this symlink.
    Target(Ino),
    /// The value of this inode's attribute.
    Value(Ino, Vec<u8>),
}

/// Encrypts what a request carries, and says what its answer will.
pub fn seal(cipher: &Cipher, request: &mut Request) -> Opening {
    match request {
        Request::Lookup { parent, name }
        | Request::LookupToOpen { parent, name }
        | Request::Link { parent, name, .. }
        | Request::Remove { parent, name, .. } => {
            *name = cipher.seal_name(parent.ino, name);
        }
        Request::Make { parent, name, make } => {
            if let Some(name) = name {
                *name = cipher.seal_name(parent.ino, name);
            }
            if !make.target.is_empty() {
                make.target = cipher.seal_target(make.ino, &make.target);
            }
        }
        Request::Rename { parent, name, new_parent, new_name, .. } => {
            *name = cipher.seal_name(parent.ino, name);
            *new_name = cipher.seal_name(new_parent.ino, new_name);
        }
        Request::SetXattr { node, name, value, .. } if !name.starts_with(READ_BY_SERVER) => {
            *value = cipher.seal_value(node.ino, name, value);
        }
        Request::ReadDir { node, .. } => return Opening::Names(node.ino),
        Request::ReadAhead { node, first, .. } => {
            if let Some(first) = first {
                *first = cipher.seal_name(node.ino, first);
            }
            return Opening::Names(node.ino);
        }
        Request::ReadLink { node } => return Opening::Target(node.ino),
        Request::GetXattr { node, name } if !name.starts_with(READ_BY_SERVER) => {
            return Opening::Value(node.ino, name.clone());
        }
        _ => {}
    }
    Opening::Attributes
}

/// Decrypts an answer.
///
/// # Errors
/// `EIO`: something in it was not made with this volume's key in its place; logged. Nobody is shown half a directory.
pub fn open(cipher: &Cipher, opening: &Opening, reply: &mut Reply) -> Result<(), Errno> {
    match reply {
        Reply::Entry(entry) | Reply::Found { entry, .. } => shorten(&mut entry.attr),
        Reply::Attr(attr) | Reply::Opened { attr, .. } | Reply::Copied { attr, .. } => shorten(attr),
        Reply::Entries { entries, .. } | Reply::Ahead { entries, .. } => {
            let Opening::Names(dir) = opening else { return Err(Errno::EPROTO) };
            for entry in entries {
                entry.name = cipher
                    .open_name(*dir, &entry.name)
                    .map_err(|error| tampered(*dir, "a name in this directory", &error))?;
                if let Some(found) = &mut entry.entry {
                    shorten(&mut found.attr);
                }
            }
        }
        Reply::Bytes(bytes) => match opening {
            Opening::Target(link) => {
                *bytes = cipher
                    .open_target(*link, bytes)
                    .map_err(|error| tampered(*link, "the target of this symlink", &error))?;
            }
            Opening::Value(ino, name) => {
                *bytes = cipher
                    .open_value(*ino, name, bytes)
                    .map_err(|error| tampered(*ino, "an extended attribute of this inode", &error))?;
            }
            Opening::Attributes | Opening::Names(_) => {}
        },
        Reply::Done
        | Reply::StatFs(_)
        | Reply::Layout(_)
        | Reply::Segments(_)
        | Reply::Pages { .. }
        | Reply::Locked(_)
        | Reply::Granted(_)
        | Reply::Inodes { .. } => {}
    }
    Ok(())
}

/// Decrypts the names in recalls. A name that cannot be read stands for all of its directory.
pub fn open_recalls(cipher: &Cipher, recalls: &mut [Recall]) {
    for recall in recalls {
        let Some(sealed) = recall.name.take() else { continue };
        match cipher.open_name(recall.ino, &sealed) {
            Ok(name) => recall.name = Some(name),
            Err(error) => {
                tampered(recall.ino, "a name that is recalled", &error);
                recall.keep = Keep::Nothing;
            }
        }
    }
}

/// A symlink is as long as its target, which the server knows encrypted.
fn shorten(attr: &mut Attr) {
    if attr.mode & S_IFMT == S_IFLNK {
        attr.size = attr.size.saturating_sub(TEXT_EXTRA_BYTES as u64);
    }
}

fn tampered(ino: Ino, what: &str, error: &dyn std::error::Error) -> Errno {
    tracing::error!(%ino, what, %error, "the metadata server's answer is not of this volume's clients");
    Errno::EIO
}

#[cfg(test)]
mod tests {
    use flexfs_wire::cipher::VolumeKey;
    use flexfs_wire::message::{DirEntry, XattrMode};
    use flexfs_wire::name::Name;
    use flexfs_wire::seal::Node;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_goes_out_comes_back() {
        let cipher = Cipher::new(&VolumeKey::random());
        let dir = Node::unsealed(Ino(5));
        let mut lookup = Request::Lookup { parent: dir, name: name("a") };
        seal(&cipher, &mut lookup);
        let Request::Lookup { name: sealed, .. } = lookup else { panic!() };
        let entry = |name| DirEntry { name, ino: Ino(6), kind: 0, cookie: 3, entry: None };
        let mut listing = Request::ReadDir { node: dir, cookie: 0, bytes_max: 100, plus: false };
        let opening = seal(&cipher, &mut listing);
        let mut reply = Reply::Entries { entries: vec![entry(sealed.clone())], eof: true };
        assert_eq!(open(&cipher, &opening, &mut reply), Ok(()));
        assert_eq!(reply, Reply::Entries { entries: vec![entry(name("a"))], eof: true });
        // The same name, put into another directory.
        let mut reply = Reply::Entries { entries: vec![entry(sealed.clone())], eof: true };
        assert_eq!(open(&cipher, &Opening::Names(Ino(7)), &mut reply), Err(Errno::EIO));
        let recall = |name| Recall { id: 1, ino: Ino(5), keep: Keep::All, name };
        let mut recalls = [recall(Some(sealed)), recall(Some(name("foreign"))), recall(None)];
        open_recalls(&cipher, &mut recalls);
        assert_eq!(recalls[0], recall(Some(name("a"))));
        assert_eq!(recalls[1], Recall { keep: Keep::Nothing, ..recall(None) });
        assert_eq!(recalls[2], recall(None));
    }

    #[test]
    fn access_lists_stay_readable_and_values_do_not() {
        let cipher = Cipher::new(&VolumeKey::random());
        for (attribute, kept) in [("system.posix_acl_access", true), ("user.a", false), ("security.x", false)]
        {
            let (name, value) = (attribute.as_bytes().to_vec(), b"value".to_vec());
            let node = Node::unsealed(Ino(5));
            let mut set = Request::SetXattr { node, name: name.clone(), value, mode: XattrMode::Any };
            seal(&cipher, &mut set);
            let Request::SetXattr { value, .. } = set else { panic!() };
            assert_eq!(value == b"value", kept, "{attribute}");
            let opening = seal(&cipher, &mut Request::GetXattr { node, name });
            let mut reply = Reply::Bytes(value);
            open(&cipher, &opening, &mut reply).unwrap();
            assert_eq!(reply, Reply::Bytes(b"value".to_vec()));
        }
    }
}
