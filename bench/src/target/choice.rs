//! Names of targets, as given on the command line.

use std::path::PathBuf;

use super::contract::{Context, Target};
use super::flexfs::FlexFs;
use super::juicefs::JuiceFs;
use super::local::{Local, fs_type};
use super::null::Null;
use crate::null::Transport;

/// What can be named, with what it is.
pub(crate) const PRESETS: &[(&str, &str)] = &[
    ("ours", "flexfs, FUSE over io_uring"),
    ("ours-dev", "flexfs over /dev/fuse"),
    ("juicefs", "JuiceFS with redis and a local object store"),
    ("ext4", "a folder of the local disk"),
    ("null-uring", "a FUSE server that does nothing, over io_uring"),
    ("null-dev", "the same over /dev/fuse"),
];

/// A preset by its name, or a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice(String);

impl Choice {
    /// Takes a name of [`PRESETS`], or a path, which has a slash.
    ///
    /// # Errors
    /// Neither.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.contains('/') || PRESETS.iter().any(|(name, _)| *name == text) {
            return Ok(Self(text.trim_end_matches('/').to_owned()));
        }
        let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
        Err(format!("no such target; known are {}, and paths with a slash (./here)", names.join(", ")))
    }

    /// As shown.
    pub(crate) fn name(&self) -> &str {
        if self.0.is_empty() { "/" } else { &self.0 }
    }

    /// Whether it is mounted by this program.
    pub(crate) fn mounts(&self) -> bool {
        !self.0.contains('/') && !self.0.is_empty() && self.0 != "ext4"
    }

    /// The target, not started.
    pub(crate) fn target(&self, context: &Context) -> Box<dyn Target> {
        match self.0.as_str() {
            "ours" => Box::new(FlexFs::new(context, Transport::Uring)),
            "ours-dev" => Box::new(FlexFs::new(context, Transport::Dev)),
            "juicefs" => Box::new(JuiceFs::new(context)),
            "null-uring" => Box::new(Null::new(context, Transport::Uring)),
            "null-dev" => Box::new(Null::new(context, Transport::Dev)),
            "ext4" => {
                let about = format!("the local disk, {}", fs_type(&context.scratch));
                Box::new(Local::new(context.scratch.join("local"), about, false))
            }
            _ => {
                // The run's own name, so that leftovers can be told from data.
                let own = context.scratch.file_name().unwrap_or_default();
                let path = PathBuf::from(self.name());
                let about = format!("{} as it is mounted; cold means kernel caches only", fs_type(&path));
                Box::new(Local::new(path.join(own), about, true))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_told_apart() {
        for (name, _) in PRESETS {
            assert_eq!(Choice::parse(name).unwrap().name(), *name);
        }
        assert_eq!(Choice::parse("/mnt/x/").unwrap().name(), "/mnt/x");
        assert_eq!(Choice::parse("/").unwrap().name(), "/");
        let error = Choice::parse("nfs").unwrap_err();
        assert!(error.contains("juicefs") && error.contains("./here"), "{error}");
    }

    #[test]
    fn the_type_of_a_path_comes_from_the_mount_table() {
        assert_eq!(fs_type("/proc/self".as_ref()), "proc");
        assert_ne!(fs_type("/".as_ref()), "unknown");
    }
}
