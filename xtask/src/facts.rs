//! What this machine has. Probing is cheap enough to be done before every verb.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::toolchain::{Choice, DEBIAN_PREFIX, DEBIAN_TOOLCHAIN, Toolchain, Way, choose, parse_list};
use crate::workspace::{self, find_program};

/// Where maps and links are pinned.
pub const BPFFS: &str = "/sys/fs/bpf";

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// We may install packages and mount file systems.
    pub root: bool,
    /// `apt-get` is here.
    pub apt: bool,
    /// This is the Debian release that packages a BPF-capable compiler.
    pub bookworm: bool,
    /// rustup is here.
    pub rustup: bool,
    /// A toolchain that can build `core`.
    pub nightly: Option<Toolchain>,
    /// Debian's compiler with its BPF library is installed.
    pub debian_compiler: bool,
    /// Debian's compiler is linked into rustup.
    pub debian_linked: bool,
    /// Debian's LLVM, against which the linker is built, is installed.
    pub debian_llvm: bool,
    /// Clippy for the compiler of the kernel programs is installed.
    pub bpf_clippy: bool,
    /// A BPF linker that starts.
    pub linker: Option<PathBuf>,
    /// Programs of [`crate::need::TOOLS`] and [`crate::need::VM_TOOLS`] that are not here.
    pub absent_tools: Vec<&'static str>,
    /// The BPF file system is mounted.
    pub bpffs: bool,
    /// The environment with the schema of OCSF is whole.
    pub ocsf: bool,
    /// The environment with the S3 server is whole.
    pub moto: bool,
}

impl Facts {
    /// Looks at this machine.
    pub fn probe() -> Self {
        let toolchains = toolchains();
        let nightly = toolchains.iter().flatten().find(|toolchain| toolchain.builds_core()).cloned();
        let debian = Toolchain { name: DEBIAN_TOOLCHAIN.into(), path: DEBIAN_PREFIX.into() };
        let usr = |path: &str| debian.path.join(path).is_file();
        let clippy = nightly.as_ref().unwrap_or(&debian).path.join("bin/cargo-clippy").is_file();
        Self {
            root: workspace::is_root(),
            apt: find_program("apt-get").is_some(),
            bookworm: is_bookworm(&std::fs::read_to_string("/etc/os-release").unwrap_or_default()),
            rustup: toolchains.is_some(),
            debian_compiler: usr("bin/rustc") && usr("bin/cargo") && debian.brings_core(),
            debian_linked: toolchains.iter().flatten().any(|toolchain| *toolchain == debian),
            debian_llvm: usr(&format!("lib/llvm-{}/bin/llvm-config", crate::need::DEBIAN_LLVM)),
            bpf_clippy: clippy,
            nightly,
            linker: find_program("bpf-linker").filter(starts),
            absent_tools: crate::need::TOOLS
                .iter()
                .chain(&crate::need::VM_TOOLS)
                .map(|tool| tool.program)
                .filter(|program| find_program(program).is_none())
                .collect(),
            ocsf: workspace::python_ready("ocsf").is_file(),
            moto: workspace::python_ready("moto").is_file(),
            bpffs: mounts_bpffs(&std::fs::read_to_string("/proc/mounts").unwrap_or_default()),
        }
    }

    /// The way to build the kernel programs here.
    pub fn way(&self) -> Way {
        choose(Choice {
            nightly: self.nightly.as_ref(),
            debian_ready: self.debian_compiler,
            debian_possible: self.bookworm && self.apt && self.root,
        })
    }
}

fn toolchains() -> Option<Vec<Toolchain>> {
    let output = Command::new("rustup").args(["toolchain", "list", "--verbose"]).output().ok()?;
    output.status.success().then(|| parse_list(&String::from_utf8_lossy(&output.stdout)))
}

/// Whether the linker runs at all: one that was linked against a removed LLVM does not.
fn starts(linker: &PathBuf) -> bool {
    let mut command = Command::new(linker);
    command.arg("--version").env_remove("LD_LIBRARY_PATH").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_bookworm(os_release: &str) -> bool {
    let has = |wanted: &str| os_release.lines().any(|line| line.replace('"', "") == wanted);
    has("ID=debian") && has("VERSION_ID=12")
}

fn mounts_bpffs(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(BPFFS) && words.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debian_release_is_read_from_os_release() {
        assert!(is_bookworm("NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n"));
        assert!(!is_bookworm("VERSION_ID=\"13\"\nID=debian\n"));
        assert!(!is_bookworm("VERSION_ID=\"12\"\nID=other\nID_LIKE=debian\n"));
        assert!(!is_bookworm(""));
    }

    #[test]
    fn only_a_bpf_file_system_at_its_place_counts() {
        assert!(mounts_bpffs("proc /proc proc rw 0 0\nnone /sys/fs/bpf bpf rw,mode=700 0 0\n"));
        assert!(!mounts_bpffs("none /sys/fs/bpf tmpfs rw 0 0\n"));
        assert!(!mounts_bpffs("none /elsewhere bpf rw 0 0\n"));
    }
}
