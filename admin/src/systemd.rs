//! `init systemd`: a unit for `start`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;
use flexfs_uring::harden::Service;

/// Name of the unit.
const UNIT: &str = "flexfs-admin.service";
/// When to start it again.
const LINES: &str = "Restart=on-failure\nRestartSec=1\n";

/// What `init systemd` takes.
#[derive(Debug, Args)]
pub(crate) struct Systemd {
    /// Flags of `start` in the unit.
    #[arg(long = "startFlags", default_value = "", allow_hyphen_values = true)]
    pub(crate) start_flags: String,
    /// Run it as this user, who must own its folder and key files [default: root, without its capabilities].
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Replace a unit that exists.
    #[arg(long)]
    force: bool,
    /// Enable and start it at once.
    #[arg(long)]
    now: bool,
    /// Folder of the units.
    #[arg(long = "unitFolder", default_value = "/etc/systemd/system")]
    unit_folder: PathBuf,
}

/// What the flags of `start` come to.
#[derive(Debug)]
pub(crate) struct Start {
    /// Folder of the database and the CA.
    pub(crate) folder: PathBuf,
    /// Files that are only read.
    pub(crate) files: Vec<PathBuf>,
    /// Where it listens.
    pub(crate) port: u16,
}

/// Writes the unit of a server that starts with `start` and, when `--now`, enables and starts it.
///
/// # Errors
/// The unit exists and there is no `--force`, its user could not use the server's folder, the unit cannot be written, or
/// systemctl failed.
pub(crate) fn init(wanted: &Systemd, start: Start) -> anyhow::Result<()> {
    let path = wanted.unit_folder.join(UNIT);
    if path.exists() && !wanted.force {
        bail!("{} exists; --force replaces it", path.display());
    }
    let program = std::env::current_exe().context("find this program's file")?;
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    let service = Service {
        description: "flexfs admin server",
        after: "network-online.target",
        program: &program,
        arguments: &wanted.start_flags,
        home: &home,
        lines: LINES,
        user: wanted.user.as_deref(),
        folders: &[start.folder],
        files: &start.files,
        ports: &[start.port],
    };
    service.prepare()?;
    fs::write(&path, service.text()).with_context(|| format!("write {} (are you root?)", path.display()))?;
    println!("wrote {}", path.display());
    if !wanted.now {
        println!("next: systemctl daemon-reload && systemctl enable --now {UNIT}");
        return Ok(());
    }
    println!(
        "starting it, until it serves; `systemctl status {UNIT}` and `journalctl -u {UNIT}` tell how it goes"
    );
    for arguments in [&["daemon-reload"][..], &["enable", "--now", UNIT]] {
        let status = Command::new("systemctl").args(arguments).status().context("run systemctl")?;
        anyhow::ensure!(status.success(), "systemctl {} failed", arguments.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_once_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        let write = |flags: &str, force| {
            let wanted = Systemd {
                start_flags: flags.to_owned(),
                user: None,
                force,
                now: false,
                unit_folder: dir.path().to_owned(),
            };
            init(&wanted, Start { folder: dir.path().join("data"), files: Vec::new(), port: 7440 })
        };
        write("--bindAddr 10.0.0.1:7440", false).unwrap();
        let text = fs::read_to_string(dir.path().join(UNIT)).unwrap();
        assert!(text.contains("\nEnvironment=HOME=/"), "its defaults lie below HOME: {text}");
        assert!(text.contains(" start --bindAddr 10.0.0.1:7440\n"), "{text}");
        assert!(
            text.contains(&format!("\nReadWritePaths={}\n", dir.path().join("data").display())),
            "{text}"
        );
        assert!(write("", false).unwrap_err().to_string().contains("--force"));
        write("", true).unwrap();
        let text = fs::read_to_string(dir.path().join(UNIT)).unwrap();
        assert!(text.contains(" start\nRestart"), "{text}");
    }
}
