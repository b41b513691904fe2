//! Extended attributes.

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use rustix::fs::{
    XattrFlags, getxattr, getxattr_query, lgetxattr, listxattr, lsetxattr, removexattr, setxattr,
};
use rustix::io::Errno;

use crate::harness::{Cluster, Run, Transport};

both!(attributes);

fn attributes(transport: Transport) {
    let cluster = Cluster::start(transport);
    let path = cluster.path("file");
    fs::write(&path, "x").unwrap();
    let get = |path: &Path, name: &str| {
        let mut value = vec![0; 65_536];
        getxattr(path, name, value.as_mut_slice()).map(|length| value[..length].to_vec())
    };
    assert_eq!(get(&path, "user.a"), Err(Errno::NODATA));
    setxattr(&path, "user.a", b"one", XattrFlags::empty()).unwrap();
    assert_eq!(setxattr(&path, "user.a", b"two", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(setxattr(&path, "user.b", b"two", XattrFlags::REPLACE), Err(Errno::NODATA));
    setxattr(&path, "user.a", b"", XattrFlags::REPLACE).unwrap();
    assert_eq!(get(&path, "user.a").unwrap(), b"");
    // The largest value and the longest name Linux allows, any bytes in both.
    let large: Vec<u8> = (0..65_536u32).map(|at| u8::try_from(at % 253).unwrap()).collect();
    let long = format!("user.{}", "ü".repeat(125));
    assert_eq!(long.len(), 255);
    setxattr(&path, long.as_str(), &large, XattrFlags::empty()).unwrap();
    assert_eq!(get(&path, &long).unwrap(), large);
    let mut short = [0; 10];
    assert_eq!(getxattr(&path, long.as_str(), short.as_mut_slice()), Err(Errno::RANGE));
    assert_eq!(getxattr_query(&path, long.as_str()), Ok(65_536));
    assert_eq!(setxattr(&path, format!("{long}x"), b"", XattrFlags::empty()), Err(Errno::RANGE));
    setxattr(&path, "trusted.flexfs", b"root's", XattrFlags::empty()).unwrap();
    fs::create_dir(cluster.path("folder")).unwrap();
    setxattr(cluster.path("folder"), "user.folder", b"f", XattrFlags::empty()).unwrap();
    // Of a symlink itself only trusted ones: user.* is refused by the kernel.
    std::os::unix::fs::symlink("file", cluster.path("link")).unwrap();
    lsetxattr(cluster.path("link"), "trusted.link", b"l", XattrFlags::empty()).unwrap();
    assert_eq!(lsetxattr(cluster.path("link"), "user.link", b"l", XattrFlags::empty()), Err(Errno::PERM));
    cluster.remount();
    let mut list = vec![0u8; 65_536];
    let length = listxattr(&path, list.as_mut_slice()).unwrap();
    let mut names: Vec<&str> = list[..length]
        .split_inclusive(|byte| *byte == 0)
        .map(|name| CStr::from_bytes_with_nul(name).unwrap().to_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["trusted.flexfs", "user.a", long.as_str()]);
    assert_eq!(get(&path, &long).unwrap(), large);
    assert_eq!(get(&cluster.path("folder"), "user.folder").unwrap(), b"f");
    let mut value = [0; 8];
    assert_eq!(lgetxattr(cluster.path("link"), "trusted.link", value.as_mut_slice()), Ok(1));
    // An ordinary user neither sees nor sets trusted ones, and sets user ones only where he may write.
    let script = "getfattr -m - -d \"$1\" | grep -q trusted || ! setfattr -n user.x -v y \"$1\"";
    Run::shell(script, &[&path]).user(1).folder("/").ok();
    removexattr(&path, "user.a").unwrap();
    assert_eq!(removexattr(&path, "user.a"), Err(Errno::NODATA));
    // Copies and hard links.
    Run::new("cp").args(["--preserve=xattr"]).arg(&path).arg(cluster.path("copy")).ok();
    assert_eq!(get(&cluster.path("copy"), &long).unwrap(), large);
    cluster.finish();
}
