//! Where the daemon's binary is.

use std::env;
use std::path::{Path, PathBuf};

/// The binary named by `AGENTSEC_BIN`, else the newest that this workspace has built.
///
/// # Panics
/// When there is none.
pub(super) fn find() -> PathBuf {
    if let Some(path) = env::var_os("AGENTSEC_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "AGENTSEC_BIN is {}, which is no file", path.display());
        return path;
    }
    let built = candidates().into_iter().filter(|path| path.is_file());
    let newest = built.max_by_key(|path| path.metadata().and_then(|about| about.modified()).ok());
    newest.expect("there is no agentsec binary: run `cargo xtask test`, or set AGENTSEC_BIN")
}

fn candidates() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    ["debug", "release"].map(|profile| target.join(profile).join("agentsec")).to_vec()
}
