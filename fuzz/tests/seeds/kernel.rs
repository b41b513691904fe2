//! Requests of the kernel, as `linux/fuse.h` lays them out, and INIT offers.

use super::Seeds;

pub(crate) fn make(seeds: &mut Seeds) {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let requests: [(&str, u32, Vec<u8>, &[u8]); 21] = [
        ("lookup", 1, Vec::new(), b"file\0"),
        ("symlink", 6, Vec::new(), b"link\0to/there\0"),
        ("mknod", 8, words(&[0o100_644, 0o22]), b"name\0"),
        ("mkdir", 9, words(&[0o755 | 0o22 << 32]), b"dir\0"),
        (
            "setattr",
            4,
            words(&[0x7f, 1, 4096, 0, 1 << 31, 7, 9, 5 | 6 << 32, 7 | 0o644 << 32, 1000, 1000 << 32]),
            b"",
        ),
        ("rename2", 45, words(&[1, 2]), b"old\0new\0"),
        ("rename", 12, words(&[1]), b"old\0new\0"),
        ("link", 13, words(&[77]), b"name\0"),
        ("open", 14, words(&[0o101_002]), b""),
        ("read", 15, words(&[1, 8192, 4096, 0, 0o2]), b""),
        ("readdirplus", 44, words(&[1, 0, 1 << 20, 0, 0]), b""),
        ("write", 16, words(&[1, 8192, 4, 0, 0o2]), b"data"),
        ("setxattr", 21, words(&[4 | 1 << 32, 0]), b"user.a\0data"),
        ("getxattr", 22, words(&[100]), b"user.a\0"),
        ("removexattr", 24, Vec::new(), b"user.a\0"),
        ("setlkw", 33, words(&[1, 2, 0, u64::MAX >> 1, 1 | 99 << 32, 1]), b""),
        ("create", 35, words(&[0o101_102 | 0o644 << 32, 0o22]), b"name\0"),
        ("tmpfile", 51, words(&[0o101_102 | 0o644 << 32, 0o22]), b"/\0"),
        ("fallocate", 43, words(&[1, 0, 4096, 3]), b""),
        ("copy", 47, words(&[1, 0, 5, 2, 4096, 8192, 0]), b""),
        ("batch-forget", 42, words(&[2]), &[1; 32]),
    ];
    for (name, opcode, argument, payload) in requests {
        seeds.put("request", name, request(opcode, 0, &[&argument, payload].concat()));
    }
    seeds.put("request", "extended", request(6, 1, b"link\0to\0EXTENDED"));
    let flags = u64::MAX;
    let init = |minor: u32, flags: u64| {
        let [low, high] = [flags & 0xffff_ffff, flags >> 32];
        let front = [7, u64::from(minor), 131_072, low, high];
        let mut body: Vec<u8> = front.iter().flat_map(|word| word.to_le_bytes()[..4].to_vec()).collect();
        body.resize(64, 0);
        body
    };
    seeds.put("init", "all", init(45, flags));
    seeds.put("init", "old", &init(31, flags)[..16]);
    seeds.put("init", "no-ring", init(40, flags & !(1 << 41)));
}

/// `fuse_in_header` and what follows it.
fn request(opcode: u32, extension_words: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(40 + body.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend_from_slice(&opcode.to_le_bytes());
    for number in [2u64, 1] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for number in [1000u32, 100, 4242] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&extension_words.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(body);
    bytes
}
