//! Names: odd ones, long ones, renames, links, orphans, directories that change while they are read.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, openat, renameat_with};
use rustix::io::Errno;

use crate::harness::{Cluster, Run, Transport, within};

both!(odd_names, renames, links_and_orphans, tmpfile, folders, positions);

fn odd_names(transport: Transport) {
    let cluster = Cluster::start(transport);
    let folder = cluster.path("odd");
    fs::create_dir(&folder).unwrap();
    let mut wanted: BTreeSet<Vec<u8>> = BTreeSet::new();
    // Every byte a name may hold, alone and as 255 of it.
    for byte in (1..=255u8).filter(|byte| *byte != b'/' && *byte != b'.') {
        wanted.insert(vec![byte]);
        wanted.insert(vec![byte; 255]);
    }
    wanted.insert(b"...".to_vec());
    wanted.insert(b".\xff\xfe".to_vec());
    for name in &wanted {
        let path = folder.join(OsString::from_vec(name.clone()));
        fs::write(&path, name)
            .unwrap_or_else(|error| panic!("{:?}: {error}", name.escape_ascii().to_string()));
    }
    let seen = || names(&folder);
    assert_eq!(seen(), wanted);
    cluster.remount();
    assert_eq!(seen(), wanted);
    for name in &wanted {
        assert_eq!(&fs::read(folder.join(OsString::from_vec(name.clone()))).unwrap(), name);
    }
    let long = folder.join(OsString::from_vec(vec![b'x'; 256]));
    assert_eq!(code(File::create(&long)), Errno::NAMETOOLONG);
    assert_eq!(code(fs::metadata(&long)), Errno::NAMETOOLONG);
    let target = format!("/{}", "t".repeat(4094));
    symlink(&target, folder.join("longest")).unwrap();
    assert_eq!(fs::read_link(folder.join("longest")).unwrap(), Path::new(&target));
    fs::remove_dir_all(&folder).unwrap();
    cluster.finish();
}

fn renames(transport: Transport) {
    let cluster = Cluster::start(transport);
    let path = |name: &str| cluster.path(name);
    let rename = |from: &str, to: &str, flags| renameat_with(CWD, path(from), CWD, path(to), flags);
    for name in ["a", "b"] {
        fs::write(path(name), name).unwrap();
    }
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename("a", "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read_to_string(path("a")).unwrap(), "b");
    rename("a", "c", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(rename("a", "b", RenameFlags::EXCHANGE), Err(Errno::NOENT));
    // A file against a full folder, a folder into itself, a folder over a file.
    fs::create_dir_all(path("full/inner")).unwrap();
    fs::create_dir(path("empty")).unwrap();
    fs::write(path("full/inner/file"), "kept").unwrap();
    assert_eq!(rename("empty", "full", RenameFlags::empty()), Err(Errno::NOTEMPTY));
    assert_eq!(rename("full", "full/inner/x", RenameFlags::empty()), Err(Errno::INVAL));
    assert_eq!(rename("full", "c", RenameFlags::empty()), Err(Errno::NOTDIR));
    assert_eq!(rename("c", "full", RenameFlags::empty()), Err(Errno::ISDIR));
    rename("full", "empty", RenameFlags::empty()).unwrap();
    assert_eq!(fs::read_to_string(path("empty/inner/file")).unwrap(), "kept");
    // Link counts of folders follow an exchange with a file, and `..` a move.
    rename("empty/inner", "c", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::metadata(path("empty")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(path("c/..")).unwrap().ino(), fs::metadata(cluster.mnt()).unwrap().ino());
    // The replaced file lives on for who has it open.
    let mut old = File::open(path("b")).unwrap();
    fs::write(path("new"), "new").unwrap();
    fs::rename(path("new"), path("b")).unwrap();
    assert_eq!(read(&mut old), b"a");
    assert_eq!(old.metadata().unwrap().nlink(), 0);
    assert_eq!(fs::read_to_string(path("b")).unwrap(), "new");
    // Two names of one inode: nothing happens, both stay.
    fs::hard_link(path("b"), path("same")).unwrap();
    fs::rename(path("b"), path("same")).unwrap();
    assert!(path("b").exists() && path("same").exists());
    drop(old);
    cluster.finish();
}

fn links_and_orphans(transport: Transport) {
    let cluster = Cluster::start(transport);
    let (first, second) = (cluster.path("first"), cluster.path("second"));
    fs::write(&first, "one").unwrap();
    fs::hard_link(&first, &second).unwrap();
    assert_eq!(fs::metadata(&first).unwrap().nlink(), 2);
    OpenOptions::new().append(true).open(&second).unwrap().write_all(b" two").unwrap();
    assert_eq!(fs::read_to_string(&first).unwrap(), "one two");
    fs::create_dir(cluster.path("folder")).unwrap();
    assert!(fs::hard_link(cluster.path("folder"), cluster.path("x")).is_err());
    // Unlinked and open: reads, writes, truncation, attributes go on; gone with the last close.
    let mut file = OpenOptions::new().read(true).write(true).open(&first).unwrap();
    fs::remove_file(&first).unwrap();
    fs::remove_file(&second).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.set_len(1 << 20).unwrap();
    file.seek(std::io::SeekFrom::Start(1 << 19)).unwrap();
    file.write_all(&[7; 100_000]).unwrap();
    file.sync_all().unwrap();
    file.rewind().unwrap();
    let bytes = read(&mut file);
    assert_eq!((bytes.len(), &bytes[..4], bytes[1 << 19]), (1 << 20, &b"one "[..], 7));
    // An orphan's content is there after the client was away from the server for a while, too.
    cluster.kill_meta();
    cluster.restart();
    file.rewind().unwrap();
    assert_eq!(
        within(std::time::Duration::from_secs(60), "read of an orphan", move || read(&mut file)),
        bytes
    );
    // A folder removed while open: empty, and nothing can be made in it.
    let folder = File::open(cluster.path("folder")).unwrap();
    fs::remove_dir(cluster.path("folder")).unwrap();
    let made = openat(&folder, "x", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600));
    assert_eq!(made.unwrap_err(), Errno::NOENT);
    drop(folder);
    cluster.finish();
}

fn tmpfile(transport: Transport) {
    let cluster = Cluster::start(transport);
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    if transport == Transport::Dev {
        // fuser knows no FUSE_TMPFILE: programs are told so, and make a name first.
        let refused = openat(CWD, cluster.mnt(), flags, Mode::from_raw_mode(0o640)).map(drop);
        assert_eq!(refused, Err(Errno::OPNOTSUPP));
        return cluster.finish();
    }
    let mut file = File::from(openat(CWD, cluster.mnt(), flags, Mode::from_raw_mode(0o640)).unwrap());
    file.write_all(b"nameless").unwrap();
    assert_eq!((file.metadata().unwrap().nlink(), names(cluster.mnt()).len()), (0, 0));
    // open(2): how a program without CAP_DAC_READ_SEARCH names an O_TMPFILE.
    let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    linkat(CWD, &own, CWD, cluster.path("named"), AtFlags::SYMLINK_FOLLOW).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 1);
    drop(file);
    drop(openat(CWD, cluster.mnt(), flags, Mode::from_raw_mode(0o600)).unwrap());
    cluster.remount();
    assert_eq!(fs::read_to_string(cluster.path("named")).unwrap(), "nameless");
    assert_eq!(fs::metadata(cluster.path("named")).unwrap().mode(), 0o100_640);
    // O_EXCL: can never be named.
    let file = openat(CWD, cluster.mnt(), flags | OFlags::EXCL, Mode::from_raw_mode(0o600)).unwrap();
    let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    assert_eq!(linkat(CWD, &own, CWD, cluster.path("never"), AtFlags::SYMLINK_FOLLOW), Err(Errno::NOENT));
    drop(file);
    cluster.finish();
}

fn folders(transport: Transport) {
    let cluster = Cluster::start(transport);
    let folder = cluster.path("folder");
    fs::create_dir(&folder).unwrap();
    let name = |index: usize| folder.join(format!("a name that makes entries longer {index:06}"));
    let count = 5_000;
    for index in 0..count {
        File::create(name(index)).unwrap();
    }
    // Half of them leave and as many others come while the folder is read: the ones that stay are seen once.
    let mut seen = Vec::new();
    for (step, entry) in fs::read_dir(&folder).unwrap().enumerate() {
        seen.push(entry.unwrap().file_name());
        if step < count / 2 {
            fs::remove_file(name(step * 2)).unwrap();
            File::create(name(count + step)).unwrap();
        }
    }
    let unique: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(unique.len(), seen.len(), "an entry was shown twice");
    for index in (1..count).step_by(2) {
        assert!(unique.contains(name(index).file_name().unwrap()), "entry {index} was never shown");
    }
    assert_eq!(names(&folder).len(), count);
    assert_eq!(fs::remove_dir(&folder).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    // Deep and back.
    let deep: PathBuf = (0..60).fold(cluster.path("deep"), |path, level| path.join(format!("level-{level}")));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "deep").unwrap();
    cluster.remount();
    assert_eq!(fs::read_to_string(deep.join("file")).unwrap(), "deep");
    assert_eq!(names(&folder).len(), count);
    fs::remove_dir_all(cluster.path("deep")).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(fs::metadata(cluster.mnt()).unwrap().nlink(), 2);
    cluster.finish();
}

/// `telldir(3)` and `seekdir(3)`: every position that was told stays where it was, whatever comes and goes around it.
fn positions(transport: Transport) {
    let cluster = Cluster::start(transport);
    let script = r#"
        use strict;
        my $dir = shift;
        my $make = sub { open(my $file, '>', "$dir/$_[0]") or die "$_[0]: $!" };
        $make->("stay-$_"), $make->("go-$_") for 1 .. 1500;
        opendir(my $list, $dir) or die;
        my (@at, @name);
        while (1) {
            push @at, telldir($list);
            my $name = readdir($list);
            last unless defined $name;
            push @name, $name;
        }
        die "listed " . @name unless @name == 3002;
        unlink("$dir/go-$_") or die for 1 .. 1500;
        $make->("new-$_") for 1 .. 1500;
        # From positions in any order: the rest of what stays, in the order it had.
        for my $from (map { ($_ * 1117) % 3002 } 1 .. 40) {
            seekdir($list, $at[$from]);
            my @rest;
            while (defined(my $name = readdir($list))) { push @rest, $name if $name =~ /stay/ }
            my @want = grep { /stay/ } @name[$from .. $#name];
            die "from $from: @rest, not @want" unless "@rest" eq "@want";
        }
        rewinddir($list);
        my %seen;
        $seen{$_}++ while defined($_ = readdir($list));
        die "after rewinddir: " . keys(%seen) unless keys(%seen) == 3002 && !grep { $_ != 1 } values %seen;
        print "good";
    "#;
    fs::create_dir(cluster.path("folder")).unwrap();
    std::os::unix::fs::chown(cluster.path("folder"), Some(1001), Some(1001)).unwrap();
    let run = Run::new("perl").args(["-e", script]).arg(cluster.path("folder")).user(1001).folder("/");
    assert_eq!(run.limit(120).ok().out, "good");
    cluster.finish();
}

fn names(folder: &Path) -> BTreeSet<Vec<u8>> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect()
}

fn read(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// The error number of a call that must fail.
pub(crate) fn code<T>(result: std::io::Result<T>) -> Errno {
    match result {
        Ok(_) => panic!("the call succeeded"),
        Err(error) => Errno::from_io_error(&error).unwrap(),
    }
}
