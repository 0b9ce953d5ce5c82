//! Builds the kernel programs, then what carries and drives them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::step::Progress;
use crate::toolchain::{BPF_TARGET, BpfTools};
use crate::workspace;

/// Tells the daemon's build script where the kernel programs are.
pub const OBJECT_VARIABLE: &str = "AGENTSEC_BPF_OBJECT";

/// How userspace is built; the kernel programs are always optimized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// For tests.
    Dev,
    /// For demo, bench and use.
    Release,
}

/// What came out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Binaries {
    /// The daemon.
    pub agentsec: Option<PathBuf>,
    /// The program behind demo, bench and the tests' fixtures.
    pub lab: Option<PathBuf>,
    /// The programs made of `tests/tests`, by name.
    pub tests: Vec<(String, PathBuf)>,
}

/// Builds the kernel programs and returns the object's path, which is always the same.
pub fn kernel_object(progress: &Progress, tools: &BpfTools) -> Result<PathBuf> {
    progress.run("build: kernel programs", &mut tools.cargo("build"))?;
    let built = workspace::bpf_dir().join(BPF_TARGET).join("bpf/agentsec-ebpf");
    let object = workspace::bpf_object();
    copy_if_changed(&built, &object)?;
    Ok(object)
}

/// Builds the daemon and the lab, always together: alone, they would select other features and be built again.
pub fn daemon_and_lab(progress: &Progress, profile: Profile, object: &Path) -> Result<Binaries> {
    let what = ["--package", "agentsec", "--package", "agentsec-tests", "--bins"];
    userspace(progress, "build: agentsec, agentsec-lab", profile, object, &what)
}

/// Builds all programs and all tests at once, with the features that `cargo test` gives them, so that it builds no more.
pub fn tests(progress: &Progress, object: &Path) -> Result<Binaries> {
    userspace(progress, "build: agentsec, agentsec-lab, tests", Profile::Dev, object, &["--bins", "--tests"])
}

fn userspace(
    progress: &Progress,
    label: &str,
    profile: Profile,
    object: &Path,
    what: &[&str],
) -> Result<Binaries> {
    let mut command = workspace::cargo();
    command.arg("build").args(what).arg("--message-format=json-render-diagnostics");
    if profile == Profile::Release {
        command.arg("--release");
    }
    command.env(OBJECT_VARIABLE, object);
    Ok(parse_messages(&progress.read(label, &mut command)?))
}

/// Leaves the file's time alone when its bytes are the same, so that cargo does not rebuild what includes it.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let unfinished = to.with_extension("o.new");
    std::fs::write(&unfinished, new).with_context(|| format!("cannot write {}", unfinished.display()))?;
    std::fs::rename(&unfinished, to).with_context(|| format!("cannot write {}", to.display()))
}

/// Of the package whose tests use real kernels.
const TESTS_MANIFEST: &str = "tests/Cargo.toml";

fn parse_messages(messages: &str) -> Binaries {
    let mut binaries = Binaries::default();
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let Some(path) = message["executable"].as_str().map(PathBuf::from) else { continue };
        let Some(name) = message["target"]["name"].as_str() else { continue };
        if message["profile"]["test"] == true {
            // Unit tests are of the kind that they test; agentsec-common's own files in `tests` touch no kernel.
            let ours = message["manifest_path"].as_str().is_some_and(|path| path.ends_with(TESTS_MANIFEST));
            if ours && message["target"]["kind"][0] == "test" {
                binaries.tests.push((name.to_owned(), path));
            }
            continue;
        }
        match name {
            "agentsec" => binaries.agentsec = Some(path),
            "agentsec-lab" => binaries.lab = Some(path),
            _ => {}
        }
    }
    binaries.tests.sort();
    binaries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_cargos_messages_and_tests_are_not_taken_for_them() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"agentsec"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","target":{"name":"agentsec"},"profile":{"test":false},"executable":"/t/debug/agentsec"}
{"reason":"compiler-artifact","target":{"name":"agentsec"},"profile":{"test":true},"executable":"/t/debug/deps/agentsec-1"}
{"reason":"compiler-artifact","manifest_path":"/x/tests/Cargo.toml","target":{"name":"kernel_y","kind":["test"]},"profile":{"test":true},"executable":"/t/y-1"}
{"reason":"compiler-artifact","manifest_path":"/x/agentsec-common/Cargo.toml","target":{"name":"z","kind":["test"]},"profile":{"test":true},"executable":"/t/z-1"}
{"reason":"build-finished","success":true}
"#;
        let expected = Binaries {
            agentsec: Some("/t/debug/agentsec".into()),
            lab: None,
            tests: vec![("kernel_y".into(), "/t/y-1".into())],
        };
        assert_eq!(parse_messages(messages), expected);
    }

    #[test]
    fn an_unchanged_object_keeps_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("built"), dir.path().join("object.o"));
        let modified = |path: &Path| std::fs::metadata(path).unwrap().modified().unwrap();
        std::fs::write(&from, "one").unwrap();
        copy_if_changed(&from, &to).unwrap();
        let long_ago = std::time::UNIX_EPOCH;
        std::fs::File::options().write(true).open(&to).unwrap().set_modified(long_ago).unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(modified(&to), long_ago);
        std::fs::write(&from, "two").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "two");
        assert_ne!(modified(&to), long_ago);
    }
}
