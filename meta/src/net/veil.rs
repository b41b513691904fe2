//! What an encrypted volume takes in words and bytes, and what a plain one: looked at where requests come in, so that a client
//! with a fault, or of another mind about the volume, stores nothing that the others cannot read.

use flexfs_wire::block::Index;
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::{NAME_BYTES_MAX, SYMLINK_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use flexfs_wire::message::{Request, Write};
use flexfs_wire::name::Name;

/// Why a request is refused: `EINVAL` for what is plain on an encrypted volume; on a plain one the lengths that programs know,
/// for what travels may be longer.
pub(super) fn refused(encrypted: bool, request: &Request) -> Option<Errno> {
    let mut names = request.names().into_iter().flatten().map(|(_, name)| name);
    if let Request::Write { write: Write { carried: Some(carried), .. }, .. } = request
        && !is_block_of(encrypted, &carried.bytes)
    {
        return Some(Errno::EINVAL);
    }
    if encrypted {
        let inline = matches!(request, Request::Write { write, .. } if write.inline.is_some());
        return (inline || !names.all(Name::is_sealed)).then_some(Errno::EINVAL);
    }
    match request {
        Request::Make { make, .. } if make.target.len() > SYMLINK_BYTES_MAX => Some(Errno::ENAMETOOLONG),
        Request::SetXattr { value, .. } if value.len() > XATTR_VALUE_BYTES_MAX => Some(Errno::E2BIG),
        _ => names.any(|name| name.as_bytes().len() > NAME_BYTES_MAX).then_some(Errno::ENAMETOOLONG),
    }
}

/// Whether these bytes are one block, and of a volume of this kind.
fn is_block_of(encrypted: bool, bytes: &[u8]) -> bool {
    Index::parse(bytes)
        .is_ok_and(|index| index.stored_bytes() as usize == bytes.len() && index.is_encrypted() == encrypted)
}

#[cfg(test)]
mod tests {
    use flexfs_wire::block::seal;
    use flexfs_wire::id::{BlockId, Ino};
    use flexfs_wire::message::{Carried, Inline};
    use flexfs_wire::seal::Node;
    use flexfs_wire::settings::Compression;

    use super::*;

    fn lookup(name: &[u8]) -> Request {
        Request::Lookup { parent: Node::unsealed(Ino(1)), name: Name::sealed(name).unwrap() }
    }

    #[test]
    fn names_are_of_the_volumes_kind() {
        assert_eq!(refused(true, &lookup(b"plain.txt")), Some(Errno::EINVAL));
        assert_eq!(refused(true, &lookup(b"0123456789abcdefghijk-_")), None);
        assert_eq!(refused(false, &lookup(&[b'x'; 255])), None);
        assert_eq!(refused(false, &lookup(&[b'x'; 256])), Some(Errno::ENAMETOOLONG));
    }

    #[test]
    fn no_plain_bytes_come_to_an_encrypted_volume() {
        let inline = Some(Inline { offset: 0, bytes: vec![1] });
        let request =
            Request::Write { node: Node::unsealed(Ino(2)), write: Write { inline, ..Write::default() } };
        assert_eq!(refused(true, &request), Some(Errno::EINVAL));
        assert_eq!(refused(false, &request), None);
    }

    #[test]
    fn a_block_that_comes_along_is_one_and_of_the_volumes_kind() {
        let mut plain = Vec::new();
        seal(b"some bytes", Compression::None, &mut plain).unwrap();
        let carrying = |bytes: &[u8]| {
            let carried = Some(Carried { block: BlockId(7), bytes: bytes.to_vec() });
            Request::Write { node: Node::unsealed(Ino(2)), write: Write { carried, ..Write::default() } }
        };
        assert_eq!(refused(false, &carrying(&plain)), None);
        assert_eq!(refused(true, &carrying(&plain)), Some(Errno::EINVAL), "a plain one");
        for wrong in [&b""[..], b"no block", &plain[..plain.len() - 1], &[&plain[..], b"x"].concat()] {
            assert_eq!(refused(false, &carrying(wrong)), Some(Errno::EINVAL));
        }
    }
}
