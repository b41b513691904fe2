//! Where the other programs are: beside this one, then in `PATH`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Finds `admin`, `meta` or `mount`: under its own name (`meta.flexfs`), or as cargo names it (`meta-flexfs`).
pub(crate) fn find(which: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find this program's file")?;
    let beside = own.parent().map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    for folder in beside.into_iter().chain(std::env::split_paths(&path)) {
        for name in [format!("{which}.flexfs"), format!("{which}-flexfs")] {
            let file = folder.join(name);
            if rustix::fs::access(&file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file() {
                return Ok(file);
            }
        }
    }
    bail!("{which}.flexfs was found neither beside {} nor in PATH: install it there", own.display())
}
