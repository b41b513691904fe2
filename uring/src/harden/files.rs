//! Files and ports in reach, by landlock(7).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use super::process::Reach;

/// Version of landlock whose rules are known here (Linux 6.12); older kernels hold what they can of it.
const KNOWN: ABI = ABI::V6;
/// Read by the C library (resolver, users, time zone), by the runtime (processors, limits), and for backtraces.
const READ: [&str; 8] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/proc",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/run/systemd/resolve",
];
/// Where a resolver whose answer does not fit into a datagram asks again.
const DNS_PORT: u16 = 53;

/// Limits this thread and those it starts to `reach`; says what is held, or why nothing is.
pub(super) fn restrict(reach: &Reach) -> String {
    match rules(reach).and_then(RulesetCreated::restrict_self) {
        Ok(status) => match status.ruleset {
            RulesetStatus::FullyEnforced => "files, ports, signals".to_owned(),
            RulesetStatus::PartiallyEnforced => "as far as this kernel knows it (files)".to_owned(),
            RulesetStatus::NotEnforced => "not in this kernel".to_owned(),
        },
        Err(error) => format!("refused ({error})"),
    }
}

fn rules(reach: &Reach) -> Result<RulesetCreated, RulesetError> {
    let (all, read) = (AccessFs::from_all(KNOWN), AccessFs::from_read(KNOWN) & !AccessFs::Execute);
    let mut rules = Ruleset::default()
        .handle_access(all)?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    let folders = reach.folders.iter().map(|folder| (folder.as_path(), all & !AccessFs::Execute));
    let fixed = READ.iter().map(|path| (Path::new(path), read));
    let around: Vec<_> = reach.files.iter().flat_map(|file| folders_of(file)).collect();
    let around = around.iter().map(|folder| (folder.as_path(), read));
    let null = [(Path::new("/dev/null"), AccessFs::from_file(KNOWN) & !AccessFs::Execute)];
    let random = [(Path::new("/dev/urandom"), AccessFs::ReadFile.into())];
    for (path, access) in folders.chain(fixed).chain(around).chain(null).chain(random) {
        // What is not there needs no rule.
        if let Ok(place) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(place, access))?;
        }
    }
    for &port in &reach.ports {
        rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    if !reach.ports.is_empty() {
        rules = rules.add_rule(NetPort::new(DNS_PORT, AccessNet::ConnectTcp))?;
    }
    Ok(rules)
}

/// The folder that names a file, and the one that holds it when that name is a symlink (certbot's are).
fn folders_of(file: &Path) -> impl Iterator<Item = PathBuf> {
    let held = file.canonicalize().ok();
    [Some(file.to_owned()), held].into_iter().flatten().filter_map(|file| match file.parent()? {
        folder if folder.as_os_str().is_empty() => Some(PathBuf::from(".")),
        folder => Some(folder.to_owned()),
    })
}
