//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};

/// A program of this workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The daemon, `agentsec`.
    Daemon,
    /// `agentsec-lab`, for what has to be done by a process of its own.
    Lab,
}

impl Program {
    /// The binary named by `AGENTSEC_BIN` or `AGENTSEC_LAB`, else the newest that this workspace has built.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn find(self) -> PathBuf {
        let (name, variable) = match self {
            Self::Daemon => ("agentsec", "AGENTSEC_BIN"),
            Self::Lab => ("agentsec-lab", "AGENTSEC_LAB"),
        };
        if let Some(path) = env::var_os(variable) {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "{variable} is {}, which is no file", path.display());
            return path;
        }
        let built = candidates(name).into_iter().filter(|path| path.is_file());
        let newest = built.max_by_key(|path| path.metadata().and_then(|about| about.modified()).ok());
        newest
            .unwrap_or_else(|| panic!("there is no {name} binary: run `cargo xtask test`, or set {variable}"))
    }
}

fn candidates(name: &str) -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    ["debug", "release"].map(|profile| target.join(profile).join(name)).to_vec()
}
