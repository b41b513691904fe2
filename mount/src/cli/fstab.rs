//! `init fstab`: a line in `/etc/fstab` (fstab(5)).

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::config::MountArgs;

/// Where `mount(8)` looks for its helpers.
const HELPER: &str = "/sbin/mount.flexfs";

/// Arguments of `init fstab`.
#[derive(Debug, clap::Args)]
pub(super) struct InitFstab {
    /// Name of the volume.
    volume: String,
    /// Directory to mount it on; made if it is not there.
    mount_point: PathBuf,
    /// Credentials file [default: ~/.flexfs/mount/creds/VOLUME].
    #[arg(long = "credsFile")]
    creds_file: Option<PathBuf>,
    /// Further options, as in ro,transport=dev.
    #[arg(long = "mountOptions")]
    mount_options: Option<String>,
    /// Replace the line of this mount point.
    #[arg(long)]
    force: bool,
    /// Another file than /etc/fstab.
    #[arg(long, default_value = "/etc/fstab", hide = true)]
    file: PathBuf,
}

impl InitFstab {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mount_point = std::path::absolute(&self.mount_point)?;
        let creds_file = self.creds_file.as_deref().map(std::path::absolute).transpose()?;
        let line = line(&self.volume, &mount_point, creds_file.as_deref(), self.mount_options.as_deref())?;
        let before = match fs::read_to_string(&self.file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("read {}", self.file.display()))?,
        };
        let after = insert(&before, &line, &escape(&mount_point.to_string_lossy()), self.force)
            .with_context(|| self.file.display().to_string())?;
        fs::create_dir_all(&mount_point).with_context(|| format!("make {}", mount_point.display()))?;
        replace(&self.file, &after).with_context(|| format!("write {}", self.file.display()))?;
        println!("{}: {line}", self.file.display());
        if !Path::new(HELPER).exists() {
            println!(
                "note: mount(8) looks for its helper at {HELPER}, which is missing; copy or link this program there"
            );
        }
        Ok(())
    }
}

/// The line for a mount.
///
/// # Errors
/// Options that no mount would take.
pub fn line(
    volume: &str,
    mount_point: &Path,
    creds: Option<&Path>,
    options: Option<&str>,
) -> anyhow::Result<String> {
    if volume.starts_with('#') {
        bail!("no volume's name begins with '#', and the line would be a comment: {volume:?}");
    }
    let mut all = "_netdev,nofail".to_owned();
    if let Some(creds) = creds {
        all = format!("{all},credsFile={}", creds.display());
    }
    if let Some(options) = options {
        all = format!("{all},{options}");
    }
    // A mistake is better found now than at the next boot.
    MountArgs::new(volume, mount_point).apply_options(&all).map_err(anyhow::Error::msg)?;
    Ok(format!("{} {} flexfs {} 0 0", escape(volume), escape(&mount_point.to_string_lossy()), escape(&all)))
}

/// The file with the line in it: at its end, or with `force` in place of the line of the same mount point.
///
/// # Errors
/// There is one already, and no `force`.
pub fn insert(before: &str, line: &str, mount_point: &str, force: bool) -> anyhow::Result<String> {
    // Not `lines()`, which would take a carriage return off other people's lines.
    let mut lines: Vec<&str> = before.split_terminator('\n').collect();
    let is_ours = |line: &&str| {
        // Blanks and tabs, and no others: a name may hold any other character that counts as white space somewhere.
        let mut fields = line.split([' ', '\t']).filter(|field| !field.is_empty()).peekable();
        fields.peek().is_some_and(|first| !first.starts_with('#')) && fields.nth(1) == Some(mount_point)
    };
    match lines.iter().position(is_ours) {
        Some(_) if !force => bail!("there is a line for {mount_point} already; replace it with --force"),
        Some(index) => lines[index] = line,
        None => lines.push(line),
    }
    Ok(lines.join("\n") + "\n")
}

/// Fields are separated by blanks, so blanks in them are octal.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' ' => escaped.push_str("\\040"),
            '\t' => escaped.push_str("\\011"),
            '\n' => escaped.push_str("\\012"),
            '\\' => escaped.push_str("\\134"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A new file over the old one, with its mode: a machine must not be left with half of it.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mode = fs::metadata(path).map_or(0o644, |meta| meta.permissions().mode() & 0o7777);
    let fresh = path.with_extension("flexfs-new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&fresh)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_and_replaced() {
        let line = line("vol", Path::new("/mnt/a b"), Some(Path::new("/c")), Some("ro")).unwrap();
        assert_eq!(line, "vol /mnt/a\\040b flexfs _netdev,nofail,credsFile=/c,ro 0 0");
        let before = "# /dev/x /mnt/a\\040b ext4 defaults 0 0\n/dev/y / ext4 defaults 0 1";
        let after = insert(before, &line, "/mnt/a\\040b", false).unwrap();
        assert_eq!(after, format!("{before}\n{line}\n"));
        assert!(insert(&after, &line, "/mnt/a\\040b", false).is_err());
        assert_eq!(insert(&after, &line, "/mnt/a\\040b", true).unwrap(), after);
        assert!(super::line("vol", Path::new("/m"), None, Some("bogus")).is_err());
        assert!(super::line("#vol", Path::new("/m"), None, None).is_err(), "a comment");
    }

    #[test]
    fn only_blanks_and_tabs_part_fields() {
        let mount_point = "/mnt/a\r\u{a0}b";
        let line = line("vol", Path::new(mount_point), None, None).unwrap();
        let after = insert("", &line, mount_point, false).unwrap();
        assert!(insert(&after, &line, mount_point, false).is_err());
        assert!(insert(&format!("\t{line}\n"), &line, mount_point, false).is_err());
        assert!(insert(&format!(" #{line}\n"), &line, mount_point, false).is_ok());
        assert_eq!(insert("a\r\n\r", &line, mount_point, false).unwrap(), format!("a\r\n\r\n{line}\n"));
    }

    #[test]
    fn the_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let init = |force| InitFstab {
            volume: "vol".to_owned(),
            mount_point: dir.path().join("mnt"),
            creds_file: None,
            mount_options: None,
            force,
            file: dir.path().join("fstab"),
        };
        init(false).run().unwrap();
        assert!(dir.path().join("mnt").is_dir());
        assert!(init(false).run().is_err());
        init(true).run().unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("fstab")).unwrap().lines().count(), 1);
    }
}
