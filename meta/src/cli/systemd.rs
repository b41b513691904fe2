//! `init systemd`: a unit for `start`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Name of the unit.
const UNIT: &str = "flexfs-meta.service";

/// Writes the unit into `folder` and, when `now`, enables and starts it.
///
/// # Errors
/// The unit exists and `force` is not set, the folder cannot be written, or systemctl failed.
pub(super) fn init(folder: &Path, start_flags: &str, force: bool, now: bool) -> Result<()> {
    let path = folder.join(UNIT);
    if path.exists() && !force {
        bail!("{} exists; --force replaces it", path.display());
    }
    if start_flags.contains('\n') {
        bail!("--startFlags must be one line");
    }
    let program = std::env::current_exe().context("find this program's file")?;
    // systemd gives a system service no HOME, where its default folders are.
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    fs::write(&path, unit(&program.display().to_string(), start_flags, &home))
        .with_context(|| format!("write {} (are you root?)", path.display()))?;
    println!("wrote {}", path.display());
    if !now {
        println!("next: systemctl daemon-reload && systemctl enable --now {UNIT}");
        return Ok(());
    }
    for arguments in [&["daemon-reload"][..], &["enable", "--now", UNIT]] {
        let status = Command::new("systemctl").args(arguments).status().context("run systemctl")?;
        anyhow::ensure!(status.success(), "systemctl {} failed", arguments.join(" "));
    }
    Ok(())
}

fn unit(program: &str, start_flags: &str, home: &str) -> String {
    let command = format!("{program} start {start_flags}");
    format!(
        "[Unit]\n\
         Description=flexfs metadata server\n\
         Wants=network-online.target\n\
         After=network-online.target flexfs-admin.service\n\
         \n\
         [Service]\n\
         Environment=HOME={home}\n\
         ExecStart={}\n\
         Restart=always\n\
         RestartSec=1\n\
         TimeoutStopSec=60\n\
         LimitNOFILE=1048576\n\
         LimitMEMLOCK=infinity\n\
         UMask=0077\n\
         NoNewPrivileges=yes\n\
         ProtectSystem=full\n\
         PrivateTmp=yes\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        command.trim_end()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_once_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), "--bindAddr 10.0.0.1:7441", false, false).unwrap();
        let text = fs::read_to_string(dir.path().join(UNIT)).unwrap();
        assert!(text.contains("\nEnvironment=HOME=/"), "its defaults lie below HOME: {text}");
        assert!(text.contains(" start --bindAddr 10.0.0.1:7441\n"), "{text}");
        let error = init(dir.path(), "", false, false).unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        init(dir.path(), "", true, false).unwrap();
        assert!(init(dir.path(), "a\nb", true, false).is_err());
    }
}
