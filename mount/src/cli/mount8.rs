//! The form `mount(8)` calls its helpers in: `mount.flexfs SOURCE TARGET [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::config::MountArgs;

/// First arguments that are not a volume's name.
const VERBS: [&str; 6] = ["init", "start", "status", "scope", "version", "help"];

/// Whether these arguments are of that form: a volume in place of a verb.
#[must_use]
pub fn is_helper_call(args: &[OsString]) -> bool {
    let Some(first) = args.get(1).and_then(|first| first.to_str()) else { return false };
    args.len() >= 3 && !first.starts_with('-') && !VERBS.contains(&first)
}

/// The settings, and whether nothing is to be done (`-f`).
///
/// # Errors
/// An argument that is missing, unknown or no text, by name.
pub fn parse(args: &[OsString]) -> anyhow::Result<(MountArgs, bool)> {
    let text = |arg: &OsStr| arg.to_str().map(str::to_owned).context("an argument is not UTF-8");
    let [_, source, target, rest @ ..] = args else { bail!("expected a volume and a mount point") };
    let mut parsed = MountArgs::new(&text(source)?, Path::new(target));
    let mut fake = false;
    let mut rest = rest.iter();
    while let Some(arg) = rest.next() {
        let arg = text(arg)?;
        match arg.as_str() {
            "-o" => {
                let options = text(rest.next().context("-o needs options")?)?;
                parsed.apply_options(&options).map_err(anyhow::Error::msg)?;
            }
            "-t" | "-N" => drop(rest.next().with_context(|| format!("{arg} needs a value"))?),
            flags if flags.starts_with('-') && flags[1..].chars().all(|flag| "sfnvrw".contains(flag)) => {
                fake |= flags.contains('f');
                parsed.ro |= flags.contains('r');
                parsed.verbose |= flags.contains('v');
            }
            other => bail!("unknown argument {other:?}"),
        }
    }
    Ok((parsed, fake))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn helper_calls_are_told_apart() {
        assert!(is_helper_call(&args("mount.flexfs vol /mnt -o rw")));
        for line in
            ["mount.flexfs", "mount.flexfs start vol /mnt", "mount.flexfs --help x", "mount.flexfs vol"]
        {
            assert!(!is_helper_call(&args(line)), "{line}");
        }
    }

    #[test]
    fn flags_and_options() {
        let (parsed, fake) =
            parse(&args("mount.flexfs vol /mnt -sv -t fuse.flexfs -o ro,umask=022")).unwrap();
        assert!(parsed.ro && parsed.verbose && !fake && parsed.umask == Some(0o22));
        assert!(parse(&args("mount.flexfs vol /mnt -fn")).unwrap().1);
        for line in
            ["mount.flexfs vol /mnt -o", "mount.flexfs vol /mnt extra", "mount.flexfs vol /mnt -o acls"]
        {
            assert!(parse(&args(line)).is_err(), "{line}");
        }
    }
}
