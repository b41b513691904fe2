//! The text of a systemd unit (systemd.exec(5)) around a server: what a service manager can hold beyond what
//! [`super::give_up`] does, from the first instruction on.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::privilege::User;
use super::process::HardenError;

/// In every unit. `@system-service` lacks io_uring in some versions, and `landlock` in others.
const ALWAYS: &str = "\
    UMask=0077\n\
    LimitCORE=0\n\
    NoNewPrivileges=yes\n\
    ProtectSystem=strict\n\
    PrivateDevices=yes\n\
    ProtectProc=invisible\n\
    ProtectKernelTunables=yes\n\
    ProtectKernelModules=yes\n\
    ProtectKernelLogs=yes\n\
    ProtectControlGroups=yes\n\
    ProtectClock=yes\n\
    ProtectHostname=yes\n\
    RestrictNamespaces=yes\n\
    RestrictRealtime=yes\n\
    RestrictSUIDSGID=yes\n\
    RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK\n\
    LockPersonality=yes\n\
    MemoryDenyWriteExecute=yes\n\
    KeyringMode=private\n\
    RemoveIPC=yes\n\
    SystemCallArchitectures=native\n\
    SystemCallFilter=@system-service io_uring_setup io_uring_enter io_uring_register\n\
    SystemCallFilter=landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp\n\
    SystemCallFilter=~@keyring @obsolete @swap @reboot @module @mount @raw-io @clock @debug\n\
    SystemCallErrorNumber=EPERM\n";
/// Where `ProtectHome=` hides everything.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// Where `PrivateTmp=` does.
const TMP: [&str; 2] = ["/tmp", "/var/tmp"];
/// Ports below this are root's to listen on.
const FREE_PORTS: u16 = 1024;

/// What a server's unit says beside the rest.
#[derive(Debug)]
pub struct Service<'a> {
    /// For `Description=`.
    pub description: &'a str,
    /// Units to be started before.
    pub after: &'a str,
    /// The program's file.
    pub program: &'a Path,
    /// Its arguments, as systemd reads them.
    pub arguments: &'a str,
    /// `HOME`, where its default folders are: systemd gives a system service none.
    pub home: &'a str,
    /// Lines of its own: when to restart, limits.
    pub lines: &'a str,
    /// Whom to run it as; root when none is named.
    pub user: Option<&'a str>,
    /// Folders it reads and writes.
    pub folders: &'a [PathBuf],
    /// Files it only reads.
    pub files: &'a [PathBuf],
    /// Ports it listens on.
    pub ports: &'a [u16],
}

/// Why flags are not written into a unit. The text says what to do.
#[derive(Clone, Copy, Debug, Error)]
#[error("--startFlags: {0}")]
pub struct FlagsError(&'static str);

impl Service<'_> {
    /// Makes folders that are missing, mode 0700, and gives them to the user of the service, who must own what is there.
    /// Looked at by root only: nobody else can write units anyway.
    ///
    /// # Errors
    /// [`HardenError`]
    pub fn prepare(&self) -> Result<(), HardenError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let user = User::find(self.user.unwrap_or("root"))?;
        // A file that is missing is the program's to complain about.
        let files = self.files.iter().filter(|file| file.exists());
        self.folders.iter().chain(files).try_for_each(|path| user.take(path))
    }

    /// The unit's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut command = quoted(self.program);
        command.push_str(" start");
        if !self.arguments.trim().is_empty() {
            command.push(' ');
            command.push_str(self.arguments.trim());
        }
        let folders: Vec<String> = self.folders.iter().map(|folder| quoted(folder)).collect();
        let user = self.user.map(|user| format!("User={user}\n")).unwrap_or_default();
        format!(
            "[Unit]\n\
             Description={}\n\
             Wants=network-online.target\n\
             After={}\n\
             \n\
             [Service]\n\
             Type=notify\n\
             Environment=HOME={}\n\
             ExecStart={command}\n\
             {}\
             {user}{}\
             ProtectHome={}\n\
             PrivateTmp={}\n\
             ReadWritePaths={}\n\
             {ALWAYS}\
             \n\
             [Install]\n\
             WantedBy=multi-user.target\n",
            self.description,
            self.after,
            self.home,
            self.lines,
            self.capabilities(),
            if self.is_below(&HOMES) { "read-only" } else { "yes" },
            if self.is_below(&TMP) { "no" } else { "yes" },
            folders.join(" "),
        )
    }

    /// None, but for a port that only root may listen on.
    fn capabilities(&self) -> &'static str {
        if self.ports.iter().any(|&port| port != 0 && port < FREE_PORTS) {
            "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"
        } else {
            "CapabilityBoundingSet=\n"
        }
    }

    /// Whether it needs something of these folders.
    fn is_below(&self, hidden: &[&str]) -> bool {
        let paths = self.folders.iter().chain(self.files).map(PathBuf::as_path).chain([self.program]);
        paths.into_iter().any(|path| hidden.iter().any(|folder| path.starts_with(folder)))
    }
}

/// A path as one word of a unit.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    if text.contains([' ', '\t', '"', '\\', '\'']) { format!("\"{text}\"") } else { text }
}

/// The words of `--startFlags`, as systemd will see them: blanks part them, quotes hold them together.
///
/// # Errors
/// [`FlagsError`]: quotes that do not end, or a character that systemd takes for something else.
pub fn split_flags(text: &str) -> Result<Vec<String>, FlagsError> {
    if text.contains(['\\', '%', '$', '\n', ';']) {
        return Err(FlagsError("must be one line, without \\ % $ ;, which systemd would replace"));
    }
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(FlagsError("a quote does not end"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn service<'a>(user: Option<&'a str>, folders: &'a [PathBuf], ports: &'a [u16]) -> Service<'a> {
        Service {
            description: "a server",
            after: "network-online.target",
            program: Path::new("/usr/bin/x"),
            arguments: " --flag 1 ",
            home: "/",
            lines: "Restart=always\n",
            user,
            folders,
            files: &[],
            ports,
        }
    }

    #[test]
    fn what_a_unit_holds() {
        let folders = [PathBuf::from("/var/lib/a b"), PathBuf::from("/srv/100%")];
        let text = service(Some("flexfs"), &folders, &[7440]).text();
        for line in [
            "ExecStart=/usr/bin/x start --flag 1",
            "User=flexfs",
            "CapabilityBoundingSet=",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "PrivateTmp=yes",
            "ReadWritePaths=\"/var/lib/a b\" /srv/100%%",
            "NoNewPrivileges=yes",
            "MemoryDenyWriteExecute=yes",
            "LimitCORE=0",
            "Restart=always",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in {text}");
        }
        let home = [PathBuf::from("/home/ann/flexfs")];
        let text = service(None, &home, &[443]).text();
        assert!(text.contains("\nProtectHome=read-only\n") && !text.contains("User="), "{text}");
        assert!(text.contains("\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"), "{text}");
    }

    #[test]
    fn folders_are_made_and_owned() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let folders = [dir.path().join("new/data")];
        service(None, &folders, &[]).prepare().unwrap();
        assert_eq!(folders[0].metadata().unwrap().mode() & 0o777, 0o700);
        let error = service(Some("no such user"), &folders, &[]).prepare().unwrap_err();
        assert!(error.to_string().contains("useradd"), "{error}");
        let error = service(Some("nobody"), &folders, &[]).prepare().unwrap_err();
        assert!(error.to_string().contains("chown -R nobody"), "{error}");
    }

    #[test]
    fn flags_are_words() {
        let split = |text| split_flags(text).unwrap();
        assert_eq!(split(""), Vec::<String>::new());
        assert_eq!(split(" --a  1\t'b c'd \"\" "), ["--a", "1", "b cd", ""]);
        for bad in ["'a", "a\nb", "%h", "$HOME", "a\\b"] {
            assert!(split_flags(bad).is_err(), "{bad}");
        }
    }
}
