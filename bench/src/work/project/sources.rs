//! What projects are made of: prepared once per run, on the local disk, the same for all file systems.
//!
//! ```text
//! tree.tar    the source tree; tree.list  its files, `size<TAB>path` a line
//! tree/       the same, unpacked: what is compared with
//! repo.git    a repository with a part of it
//! crate/      a small crate without dependencies
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::command::output;
use crate::pattern::Random;

/// One in so many files goes into the repository.
const REPO_SHARE: usize = 4;
/// Modules of the small crate.
const CRATE_MODULES: u64 = 40;

/// What was prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sources {
    /// Where.
    pub(crate) folder: PathBuf,
    /// Said in the report.
    pub(crate) tree: String,
}

/// Prepares the tree (at least `files` files where there are so many), the repository and the crate.
pub(crate) fn prepare(folder: &Path, files: usize) -> anyhow::Result<Sources> {
    let tree = folder.join("tree");
    fs::create_dir_all(&tree)?;
    let origin = match registry_sources() {
        Some(crates) => copy_crates(&crates, &tree, files)?,
        None => generate(&tree, files)?,
    };
    let list = listing(&tree)?;
    let bytes: u64 = list.iter().map(|(size, _)| size).sum();
    let lines: String = list.iter().map(|(size, path)| format!("{size}\t{}\n", path.display())).collect();
    fs::write(folder.join("tree.list"), lines)?;
    output(Command::new("tar").arg("-cf").arg(folder.join("tree.tar")).arg("-C").arg(&tree).arg("."))?;
    make_repo(folder, &list).context("make the repository to clone")?;
    make_crate(&folder.join("crate"))?;
    let tree = format!("{origin}: {} files, {:.1} MiB", list.len(), bytes as f64 / (1 << 20) as f64);
    Ok(Sources { folder: folder.to_owned(), tree })
}

/// Unpacked crates of cargo's registry, in the order of their names.
fn registry_sources() -> Option<Vec<PathBuf>> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))?;
    let registries = fs::read_dir(home.join("registry/src")).ok()?;
    let mut crates: Vec<PathBuf> = registries
        .flatten()
        .filter_map(|registry| fs::read_dir(registry.path()).ok())
        .flat_map(|crates| crates.flatten().map(|one| one.path()))
        .filter(|path| path.join("Cargo.toml").exists())
        .collect();
    crates.sort();
    (!crates.is_empty()).then_some(crates)
}

fn copy_crates(crates: &[PathBuf], tree: &Path, files: usize) -> anyhow::Result<String> {
    let (mut copied, mut count) = (0, 0);
    for one in crates {
        if count >= files {
            break;
        }
        let inside = listing(one)?;
        // One crate more must not turn a thousand files into three thousand.
        if inside.len() > files / 2 {
            continue;
        }
        output(Command::new("cp").arg("-r").arg("--").arg(one).arg(tree))?;
        copied += 1;
        count += inside.len();
    }
    Ok(format!("the first {copied} unpacked crates of this machine's cargo registry"))
}

/// Without a registry: folders of 40 text files of 200 bytes to 30 KiB, the same in every run.
fn generate(tree: &Path, files: usize) -> anyhow::Result<String> {
    let mut random = Random::new(3);
    for number in 0..files {
        let folder = tree.join(format!("part-{:03}/src", number / 40));
        fs::create_dir_all(&folder)?;
        let lines = 5 + random.below(900);
        let text: String = (0..lines).map(|_| format!("let x = {:016x};\n", random.next())).collect();
        fs::write(folder.join(format!("file-{number}.rs")), text)?;
    }
    Ok("a generated tree".to_owned())
}

/// All plain files below a folder, with their sizes and relative paths, sorted.
pub(crate) fn listing(root: &Path) -> anyhow::Result<Vec<(u64, PathBuf)>> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path().strip_prefix(root)?.to_owned();
                found.push((entry.metadata()?.len(), path));
            }
        }
    }
    found.sort_by(|one, other| one.1.cmp(&other.1));
    Ok(found)
}

/// `git` with an identity of its own and none of the user's settings.
pub(crate) fn git() -> Command {
    let mut git = Command::new("git");
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
    git.env("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z").env("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z");
    git.args(["-c", "user.name=compare", "-c", "user.email=compare@localhost"]);
    git.args(["-c", "init.defaultBranch=main", "-c", "core.autocrlf=false", "-c", "safe.directory=*"]);
    git.args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"]);
    git
}

fn make_repo(folder: &Path, list: &[(u64, PathBuf)]) -> anyhow::Result<()> {
    let work = folder.join("repo");
    for (_, path) in list.iter().step_by(REPO_SHARE) {
        // Files that would change what git does with the others stay out.
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".git")) {
            continue;
        }
        let target = work.join(path);
        fs::create_dir_all(target.parent().context("a file without a folder")?)?;
        fs::copy(folder.join("tree").join(path), target)?;
    }
    output(git().arg("init").arg("-q").arg(&work))?;
    output(git().arg("-C").arg(&work).args(["add", "-f", "-A"]))?;
    output(git().arg("-C").arg(&work).args(["commit", "-q", "-m", "all"]))?;
    output(git().args(["clone", "-q", "--bare"]).arg(&work).arg(folder.join("repo.git")))?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

fn make_crate(folder: &Path) -> anyhow::Result<()> {
    let source = folder.join("src");
    fs::create_dir_all(&source)?;
    let manifest = "[package]\nname = \"small\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[workspace]\n";
    fs::write(folder.join("Cargo.toml"), manifest)?;
    let mut main = String::new();
    for number in 0..CRATE_MODULES {
        main.push_str(&format!("mod m{number};\n"));
        let text = format!(
            "pub fn sum(values: &[u64]) -> u64 {{\n    let mut seen = std::collections::BTreeMap::new();\n    \
             for value in values {{\n        *seen.entry(value % {}).or_insert(0) += value;\n    }}\n    \
             seen.values().sum()\n}}\n",
            number + 2
        );
        fs::write(source.join(format!("m{number}.rs")), text)?;
    }
    let calls: Vec<String> = (0..CRATE_MODULES).map(|number| format!("m{number}::sum(&values)")).collect();
    main.push_str(&format!(
        "\nfn main() {{\n    let values: Vec<u64> = (0..100).collect();\n    println!(\"{{}}\", {});\n}}\n",
        calls.join(" + ")
    ));
    fs::write(source.join("main.rs"), main)?;
    ensure!(source.join("main.rs").exists(), "the crate was not written");
    Ok(())
}

/// What the crate's program prints.
pub(crate) fn crate_prints() -> String {
    (CRATE_MODULES * (0..100).sum::<u64>()).to_string()
}
