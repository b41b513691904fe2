//! `init systemd`: a unit for `start`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use flexfs_uring::harden::Service;

use crate::config::Config;

/// Name of the unit.
const UNIT: &str = "flexfs-meta.service";
/// When to start it again, and what it needs more of than others. It may wait for admin, or read a long journal, before it serves.
const LINES: &str = "\
    Restart=always\n\
    RestartSec=1\n\
    TimeoutStartSec=infinity\n\
    TimeoutStopSec=60\n\
    LimitNOFILE=1048576\n\
    LimitMEMLOCK=infinity\n";

/// What `init systemd` takes.
#[derive(Debug, Args)]
pub(super) struct Systemd {
    /// Flags of `start` in the unit.
    #[arg(long = "startFlags", default_value = "", allow_hyphen_values = true)]
    pub(super) start_flags: String,
    /// Run it as this user, who must own its folders and its credentials file [default: root, without its capabilities].
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

/// Writes the unit of a server that starts with `config` and, when `--now`, enables and starts it.
///
/// # Errors
/// The unit exists and there is no `--force`, its user could not use the server's folders, the unit cannot be written, or
/// systemctl failed.
pub(super) fn init(wanted: &Systemd, config: Config) -> Result<()> {
    let path = wanted.unit_folder.join(UNIT);
    if path.exists() && !wanted.force {
        bail!("{} exists; --force replaces it", path.display());
    }
    if config.user.is_some() {
        bail!(
            "give --user to `init systemd` and not in --startFlags: systemd starts the server as that user"
        );
    }
    let program = std::env::current_exe().context("find this program's file")?;
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    let own = config.own_certificate.map_or_else(Vec::new, |own| vec![own.cert, own.key]);
    let service = Service {
        description: "flexfs metadata server",
        after: "network-online.target flexfs-admin.service",
        program: &program,
        arguments: &wanted.start_flags,
        home: &home,
        lines: LINES,
        user: wanted.user.as_deref(),
        folders: &[config.db_folder, config.cert_folder],
        files: &[&[config.creds_file][..], &own].concat(),
        ports: &[config.bind_addr.port(), config.metrics_addr.port()],
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
        let wanted = |flags: &str, force| Systemd {
            start_flags: flags.to_owned(),
            user: None,
            force,
            now: false,
            unit_folder: dir.path().to_owned(),
        };
        let config = || Config {
            bind_addr: "10.0.0.1:7441".parse().unwrap(),
            metrics_addr: "127.0.0.1:7442".parse().unwrap(),
            db_folder: dir.path().join("data"),
            cert_folder: dir.path().join("data/tls"),
            own_certificate: None,
            creds_file: dir.path().join("creds"),
            cores: 1,
            user: None,
            cut_journals: false,
        };
        init(&wanted("--bindAddr 10.0.0.1:7441", false), config()).unwrap();
        let text = fs::read_to_string(dir.path().join(UNIT)).unwrap();
        assert!(text.contains("\nEnvironment=HOME=/"), "its defaults lie below HOME: {text}");
        assert!(text.contains(" start --bindAddr 10.0.0.1:7441\n"), "{text}");
        assert!(text.contains(&format!("\nReadWritePaths={}", dir.path().join("data").display())), "{text}");
        let error = init(&wanted("", false), config()).unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        init(&wanted("", true), config()).unwrap();
        let other = Config { user: Some("nobody".to_owned()), ..config() };
        assert!(init(&wanted("", true), other).unwrap_err().to_string().contains("--startFlags"));
    }
}
