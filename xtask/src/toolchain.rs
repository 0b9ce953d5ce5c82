//! Which compiler makes the kernel programs, and how it is called.
//!
//! Rust's BPF target has no prebuilt `core`, so there are two ways. The ordinary one is a nightly toolchain with the
//! standard library's source (`rust-src`), which builds `core` itself. Debian packages a compiler with a
//! prebuilt `core` for BPF, which does where rustup can fetch nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace;

/// The name under which Debian's compiler is linked into rustup.
pub const DEBIAN_TOOLCHAIN: &str = "agentsec-bpf";
/// Where Debian's compiler is installed.
pub const DEBIAN_PREFIX: &str = "/usr";
/// The target of the kernel programs.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// A toolchain that rustup knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Its full name, for example `nightly-x86_64-unknown-linux-gnu`.
    pub name: String,
    /// Where it is installed.
    pub path: PathBuf,
}

impl Toolchain {
    /// Whether the standard library can be built with it (`-Z build-std`).
    pub fn builds_core(&self) -> bool {
        let source = self.path.join("lib/rustlib/src/rust/library/core/Cargo.toml");
        self.name.starts_with("nightly") && source.is_file()
    }

    /// Whether it brings a `core` for the BPF target.
    pub fn brings_core(&self) -> bool {
        let lib = self.path.join("lib/rustlib").join(BPF_TARGET).join("lib");
        std::fs::read_dir(lib).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
        })
    }
}

/// How the kernel programs are built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// A nightly toolchain, by name, that builds `core` from its source.
    Ordinary(String),
    /// Debian's packages, linked as [`DEBIAN_TOOLCHAIN`].
    Debian,
}

impl Way {
    /// The toolchain's name.
    pub fn toolchain(&self) -> &str {
        match self {
            Self::Ordinary(name) => name,
            Self::Debian => DEBIAN_TOOLCHAIN,
        }
    }
}

/// What `choose` goes by.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// A toolchain for the ordinary way, if one is installed.
    pub nightly: Option<&'a Toolchain>,
    /// Debian's packages are installed.
    pub debian_ready: bool,
    /// This is the Debian that has those packages, and we may install them.
    pub debian_possible: bool,
}

/// Chooses the way that is there, else the way that can be had with the least asked of the network.
pub fn choose(choice: Choice<'_>) -> Way {
    match choice.nightly {
        Some(toolchain) => Way::Ordinary(toolchain.name.clone()),
        None if choice.debian_ready || choice.debian_possible => Way::Debian,
        None => Way::Ordinary("nightly".to_owned()),
    }
}

/// Reads `rustup toolchain list --verbose`: a name, notes in parentheses, a path.
pub fn parse_list(list: &str) -> Vec<Toolchain> {
    list.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Toolchain> {
    let (name, _) = line.split_once(char::is_whitespace)?;
    let path = line.find('/').map(|start| &line[start..])?;
    Some(Toolchain { name: name.to_owned(), path: PathBuf::from(path.trim_end()) })
}

/// The compiler of the kernel programs and its linker, found and tried.
#[derive(Clone, Debug)]
pub struct BpfTools {
    /// How they are built.
    pub way: Way,
    /// The linker, by absolute path, so that `PATH` does not matter.
    pub linker: PathBuf,
}

impl BpfTools {
    /// `cargo <verb>` for the kernel programs.
    pub fn cargo(&self, verb: &str) -> Command {
        let mut command = workspace::cargo_of(self.way.toolchain());
        command.args([verb, "--package", "agentsec-ebpf", "--target", BPF_TARGET, "--profile", "bpf"]);
        match self.way {
            Way::Ordinary(_) => command.args(["-Z", "build-std=core"]),
            Way::Debian => command.env("RUSTC_BOOTSTRAP", "1"),
        };
        command.arg("--target-dir").arg(workspace::bpf_dir());
        command.env("CARGO_ENCODED_RUSTFLAGS", encoded_rustflags(&self.linker));
        command
    }
}

/// The v3 instruction set has the atomics that return a value; the linker takes it from the compiler.
fn encoded_rustflags(linker: &Path) -> String {
    let linker = format!("linker={}", linker.display());
    ["-C", &linker, "-C", "target-cpu=v3", "-C", "link-arg=--btf", "-C", "debuginfo=2"].join("\x1f")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nightly() -> Toolchain {
        Toolchain { name: "nightly-x86_64-unknown-linux-gnu".into(), path: "/rustup/nightly".into() }
    }

    #[test]
    fn a_nightly_with_the_source_is_always_chosen() {
        let nightly = nightly();
        for debian in [false, true] {
            let choice = Choice { nightly: Some(&nightly), debian_ready: debian, debian_possible: debian };
            assert_eq!(choose(choice), Way::Ordinary(nightly.name.clone()));
        }
    }

    #[test]
    fn debian_is_chosen_when_it_is_there_or_can_be_had() {
        for (debian_ready, debian_possible) in [(true, false), (false, true), (true, true)] {
            let choice = Choice { nightly: None, debian_ready, debian_possible };
            assert_eq!(choose(choice), Way::Debian);
        }
    }

    #[test]
    fn elsewhere_a_nightly_is_to_be_installed() {
        let choice = Choice { nightly: None, debian_ready: false, debian_possible: false };
        assert_eq!(choose(choice), Way::Ordinary("nightly".into()));
    }

    #[test]
    fn the_list_of_toolchains_is_read_with_and_without_notes() {
        let list = "stable-x86_64-unknown-linux-gnu (default) /rustup/stable\n\
                    nightly-x86_64-unknown-linux-gnu (active, default)\t/rustup/nightly\n\
                    agentsec-bpf /usr\n";
        let names: Vec<_> = parse_list(list).into_iter().map(|t| (t.name, t.path)).collect();
        assert_eq!(
            names,
            [
                ("stable-x86_64-unknown-linux-gnu".into(), "/rustup/stable".into()),
                ("nightly-x86_64-unknown-linux-gnu".into(), "/rustup/nightly".into()),
                ("agentsec-bpf".into(), "/usr".into()),
            ]
        );
    }

    #[test]
    fn no_toolchains_is_an_empty_list() {
        assert_eq!(parse_list("no installed toolchains\n"), []);
        assert_eq!(parse_list(""), []);
    }

    #[test]
    fn only_a_nightly_with_source_on_disk_builds_core() {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("lib/rustlib/src/rust/library/core");
        let mut toolchain = Toolchain { path: dir.path().into(), ..nightly() };
        assert!(!toolchain.builds_core());
        std::fs::create_dir_all(&library).unwrap();
        std::fs::write(library.join("Cargo.toml"), "").unwrap();
        assert!(toolchain.builds_core());
        toolchain.name = "stable-x86_64-unknown-linux-gnu".into();
        assert!(!toolchain.builds_core());
    }

    #[test]
    fn only_a_toolchain_with_the_targets_library_brings_core() {
        let dir = tempfile::tempdir().unwrap();
        let lib = dir.path().join("lib/rustlib").join(BPF_TARGET).join("lib");
        let toolchain = Toolchain { name: DEBIAN_TOOLCHAIN.into(), path: dir.path().into() };
        std::fs::create_dir_all(&lib).unwrap();
        assert!(!toolchain.brings_core());
        std::fs::write(lib.join("libcore-0123.rlib"), "").unwrap();
        assert!(toolchain.brings_core());
    }

    #[test]
    fn the_debian_way_needs_no_build_std_and_the_ordinary_way_no_bootstrap() {
        let tools = |way| BpfTools { way, linker: "/bin/bpf-linker".into() };
        let has = |command: &Command, word: &str| command.get_args().any(|arg| arg == word);
        let boot = |command: &Command| {
            command.get_envs().any(|(name, value)| name == "RUSTC_BOOTSTRAP" && value.is_some())
        };
        let debian = tools(Way::Debian).cargo("build");
        assert!(!has(&debian, "build-std=core") && boot(&debian) && has(&debian, DEBIAN_TOOLCHAIN));
        let ordinary = tools(Way::Ordinary("nightly".into())).cargo("build");
        assert!(has(&ordinary, "build-std=core") && !boot(&ordinary) && has(&ordinary, "nightly"));
    }
}
