//! Options of a mount: `mount -o`, the helper form of `mount(8)`, lines of `/etc/fstab`, and the arguments a daemon is
//! started with.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use clap::Parser as _;
use flexfs_mount::cli::{fstab, mount8};
use flexfs_mount::config::MountArgs;

/// The command line that `to_args` is for.
#[derive(clap::Parser)]
struct Start {
    #[command(flatten)]
    args: MountArgs,
}

/// The first byte chooses: options, a helper's arguments (split at NUL), or an fstab (the line's texts split at NUL).
pub fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 3 {
        0 => options(rest),
        1 => helper(rest),
        _ => table(rest),
    }
}

/// Options that are taken come back from the arguments that are made of them.
fn options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (options, volume) = text.split_once('\0').unwrap_or((text, "vol"));
    let mut args = MountArgs::new(volume, Path::new("/mnt/dir"));
    if let Err(error) = args.apply_options(options) {
        assert!(!error.is_empty());
        return;
    }
    check(args);
}

fn check(mut args: MountArgs) {
    assert!(args.umask.is_none_or(|umask| umask <= 0o777));
    assert!(!args.flags().ro || args.flags().no_atime);
    let _bounded = (args.mem_bytes(), args.creds_path(), args.log_path());
    if args.make_absolute().is_err() || args.volume.contains('\0') {
        return;
    }
    let line = std::iter::once(OsString::from("mount.flexfs")).chain(args.to_args());
    match Start::try_parse_from(line) {
        Ok(again) => assert_eq!(again.args, args),
        Err(error) => panic!("{args:?} makes arguments that are not taken: {error}"),
    }
}

/// `mount.flexfs SOURCE TARGET -o ...` of any bytes.
fn helper(data: &[u8]) {
    let parts = data.split(|byte| *byte == 0).map(|part| OsString::from_vec(part.to_vec()));
    let args: Vec<OsString> = std::iter::once(OsString::from("mount.flexfs")).chain(parts).collect();
    let is_helper = mount8::is_helper_call(&args);
    assert!(!is_helper || args.len() >= 3);
    if let Ok((parsed, _)) = mount8::parse(&args)
        && is_helper
    {
        assert_eq!(Some(parsed.volume.as_str()), args[1].to_str());
        check(parsed);
    }
}

/// A line has six fields that read back as what they were made of; every other line stays.
fn table(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parts: Vec<&str> = text.split('\0').collect();
    let [before, volume, mount_point, options, ..] = parts.as_slice() else { return };
    if volume.is_empty() || mount_point.is_empty() {
        return;
    }
    let creds = Path::new("/etc/flexfs creds");
    let Ok(line) = fstab::line(volume, Path::new(mount_point), Some(creds), Some(options)) else { return };
    assert!(!line.contains('\n'), "one line: {line:?}");
    let fields: Vec<String> = line.split([' ', '\t']).map(unescape).collect();
    let all = format!("_netdev,nofail,credsFile=/etc/flexfs creds,{options}");
    assert_eq!(fields, [volume, *mount_point, "flexfs", &all, "0", "0"], "{line:?}");
    let escaped = fstab::escape(mount_point);
    let count = |text: &str| text.split_terminator('\n').count();
    match fstab::insert(before, &line, &escaped, false) {
        Ok(after) => {
            assert_eq!(count(&after), count(before) + 1);
            assert!(
                before.split_terminator('\n').all(|old| after.split_terminator('\n').any(|new| new == old)),
                "a line was lost"
            );
            assert!(fstab::insert(&after, &line, &escaped, false).is_err(), "the same line twice");
            let forced = fstab::insert(&after, &line, &escaped, true).expect("a line is replaced");
            assert_eq!(forced, after);
        }
        Err(_) => {
            let forced = fstab::insert(before, &line, &escaped, true).expect("a line is replaced");
            assert_eq!(count(&forced), count(before));
        }
    }
}

/// A field as `getmntent(3)` reads it.
fn unescape(field: &str) -> String {
    let pairs = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    let mut out = String::new();
    let mut rest = field;
    while let Some(c) = rest.chars().next() {
        let known = pairs.iter().find(|(code, _)| rest.starts_with(code));
        let (taken, text) =
            known.map_or_else(|| (c.len_utf8(), None), |(code, text)| (code.len(), Some(*text)));
        out.push_str(text.unwrap_or(&rest[..taken]));
        rest = &rest[taken..];
    }
    out
}
