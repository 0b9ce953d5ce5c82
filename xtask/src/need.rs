//! What building and testing need, what each thing is for, and the command that brings it.

use std::fmt;

use crate::facts::{BPFFS, Facts};
use crate::toolchain::{DEBIAN_PREFIX, DEBIAN_TOOLCHAIN, Way};

/// The LLVM of Debian's compiler, which the linker's must match.
pub const DEBIAN_LLVM: u32 = 22;

/// What is about to be done; each includes the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Compile.
    Build,
    /// Compile and lint.
    Check,
    /// Tests, demo and bench, which drive real traffic through the running kernel.
    Test,
    /// Everything: tests on other kernels, in guests.
    Vm,
}

/// A program that tests, demo and bench run.
pub struct Tool {
    /// What is run.
    pub program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const fn tool(program: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool { program, package, purpose }
}

/// The programs that tests, demo and bench run.
pub const TOOLS: [Tool; 19] = [
    tool("ip", "iproute2", "namespaces and veth pairs for the tests, the demo and the bench"),
    tool("bpftool", "bpftool", "an independent look at the kernel's programs and maps in tests"),
    tool("nft", "nftables", "the firewall that the bench compares with"),
    tool("xdp-filter", "xdp-tools", "the filter before the stack that the bench compares with"),
    tool("iperf3", "iperf3", "traffic for tests and bench"),
    tool("tshark", "tshark", "reading the captured packets in tests with another's code"),
    tool("ethtool", "ethtool", "switching segmentation offload on and off in tests"),
    tool("curl", "curl", "requests of agents in tests and demo, and to the daemon's socket"),
    tool("restic", "restic", "snapshots: what the daemon runs, and an independent look at what it stored"),
    tool("age", "age", "another's look at encrypted evidence bundles in tests"),
    tool("rclone", "rclone", "an append-only server of snapshots in tests"),
    tool(
        "sqlite3",
        "sqlite3",
        "the index of events, read by another build of SQLite, and the state of an agent in tests",
    ),
    tool("go", "golang-go", "the reference implementation of Merkle logs and signed notes, in tests"),
    tool(
        "/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog/tlog.go",
        "golang-golang-x-mod-dev",
        "the same: its source",
    ),
    tool("ps", "procps", "processes and sysctls in tests"),
    tool("losetup", "mount", "disks that fail, in tests"),
    tool("mkfs.ext4", "e2fsprogs", "the same: their file systems"),
    tool("fsfreeze", "util-linux", "disks that hang, in tests"),
    tool("faketime", "faketime", "a wall clock that steps under a daemon, in tests"),
];

/// The programs that guests are made of and made with.
pub const VM_TOOLS: [Tool; 5] = [
    tool("qemu-system-x86_64", "qemu-system-x86", "emulating machines for other kernels"),
    tool("busybox", "busybox-static", "the guests' shell and commands"),
    tool("dpkg-deb", "dpkg", "unpacking the guests' kernels"),
    tool("xz", "xz-utils", "unpacking the guests' modules"),
    tool("strip", "binutils", "test programs that fit into a guest's memory"),
];

/// One thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What is missing.
    pub what: String,
    /// What it is for.
    pub purpose: &'static str,
    /// What brings it.
    pub remedy: Remedy,
}

/// What brings a missing thing, in the order in which remedies are applied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// Nothing that we could do.
    ByHand(&'static str),
    /// A Debian package.
    Package(&'static str),
    /// A nightly toolchain with the standard library's source.
    Nightly,
    /// Clippy for that toolchain.
    NightlyClippy(String),
    /// Debian's compiler, made known to rustup.
    Link,
    /// The BPF linker, built against Debian's LLVM or as its authors ship it.
    Linker {
        /// Build it against Debian's LLVM.
        debian: bool,
    },
    /// The BPF file system.
    Bpffs,
    /// Packages of Python in an environment of their own, below the target directory.
    Python {
        /// Name of the environment's directory.
        name: &'static str,
        /// What pip is told to install: packages with their versions, or files of those.
        packages: &'static [&'static str],
    },
}

/// The environment with the published schema of OCSF.
pub const OCSF: Remedy =
    Remedy::Python { name: "ocsf", packages: &["ocsf-json-schema==1.2.0", "jsonschema==4.26.0"] };

/// The environment with the object store of the tests, which has object locks (moto).
pub const OBJECT_STORE: Remedy =
    Remedy::Python { name: "object-store", packages: &["--requirement", "tests/object-store.txt"] };

impl Remedy {
    /// The environment and the words of the command.
    pub fn command(&self) -> (Vec<(String, String)>, Vec<String>) {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut env = Vec::new();
        let command = match self {
            Self::ByHand(_) => Vec::new(),
            Self::Package(name) => apt_install(&[name]),
            Self::Nightly => {
                words("rustup toolchain install nightly --profile minimal --component rust-src,clippy")
            }
            Self::NightlyClippy(name) => words(&format!("rustup component add clippy --toolchain {name}")),
            Self::Link => words(&format!("rustup toolchain link {DEBIAN_TOOLCHAIN} {DEBIAN_PREFIX}")),
            Self::Linker { debian: true } => {
                env.push(("LLVM_PREFIX".into(), format!("/usr/lib/llvm-{DEBIAN_LLVM}")));
                words(&format!(
                    "cargo install bpf-linker --version ^0.13 --locked --no-default-features --features llvm-{DEBIAN_LLVM}"
                ))
            }
            Self::Linker { debian: false } => words("cargo install bpf-linker"),
            Self::Bpffs => words(&format!("mount -t bpf bpf {BPFFS}")),
            Self::Python { name, packages } => {
                let home = crate::workspace::python_dir(name).display().to_string();
                // Brackets are the shell's own.
                let quoted: Vec<String> = packages.iter().map(|package| format!("'{package}'")).collect();
                let install =
                    format!("{home}/bin/pip install --disable-pip-version-check {}", quoted.join(" "));
                let ready = crate::workspace::python_ready(name).display().to_string();
                // A half-made environment is made anew, and one that is whole says so.
                let script = format!("python3 -m venv --clear {home} && {install} && touch {ready}");
                vec!["sh".to_owned(), "-c".to_owned(), script]
            }
        };
        (env, command)
    }

    /// Why it cannot be applied here.
    pub fn obstacle(&self, facts: &Facts) -> Option<&'static str> {
        match self {
            Self::ByHand(_) => Some("xtask cannot do this"),
            Self::Package(_) if !facts.apt => Some("there is no apt-get here"),
            Self::Package(_) | Self::Bpffs if !facts.root => Some("needs root"),
            _ => None,
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::ByHand(text) = self {
            return f.write_str(text);
        }
        let (env, words) = self.command();
        for (name, value) in env {
            write!(f, "{name}={value} ")?;
        }
        f.write_str(&words.join(" "))
    }
}

/// The command that installs Debian packages.
pub fn apt_install(packages: &[&str]) -> Vec<String> {
    let fixed = ["apt-get", "install", "--yes", "--no-install-recommends"];
    fixed.iter().chain(packages).map(|&word| word.to_owned()).collect()
}

/// What is missing for a scope; nothing if it can begin.
pub fn missing(facts: &Facts, scope: Scope) -> Vec<Need> {
    let mut needs = Vec::new();
    compiler(facts, &mut needs);
    if scope >= Scope::Check {
        clippy(facts, &mut needs);
    }
    if scope >= Scope::Test {
        tools(facts, &TOOLS, &mut needs);
        if !facts.bpffs {
            push(
                &mut needs,
                &format!("the BPF file system at {BPFFS}"),
                "pinned maps and links",
                Remedy::Bpffs,
            );
        }
        let has_packages = facts.ocsf && facts.object_store;
        if !has_packages && !facts.python {
            let purpose = "packages of Python that tests use";
            push(&mut needs, "Python's venv", purpose, Remedy::Package("python3-venv"));
        }
        if !facts.ocsf {
            push(&mut needs, "the published schema of OCSF", "checking exported events in tests", OCSF);
        }
        if !facts.object_store {
            let purpose = "an object store with locks that keeps snapshots in tests";
            push(&mut needs, "target/object-store", purpose, OBJECT_STORE);
        }
    }
    if scope >= Scope::Vm {
        tools(facts, &VM_TOOLS, &mut needs);
    }
    needs
}

fn tools(facts: &Facts, tools: &[Tool], needs: &mut Vec<Need>) {
    for tool in tools.iter().filter(|tool| facts.absent_tools.contains(&tool.program)) {
        push(needs, tool.program, tool.purpose, Remedy::Package(tool.package));
    }
}

fn push(needs: &mut Vec<Need>, what: &str, purpose: &'static str, remedy: Remedy) {
    needs.push(Need { what: what.to_owned(), purpose, remedy });
}

fn compiler(facts: &Facts, needs: &mut Vec<Need>) {
    if !facts.rustup {
        let how = Remedy::ByHand("install rustup as its home page says, then run this again");
        push(needs, "rustup", "choosing the compiler of the kernel programs", how);
    }
    let debian = facts.way() == Way::Debian;
    if debian {
        debian_compiler(facts, needs);
    } else if facts.nightly.is_none() {
        let purpose = "compiling the kernel programs, with a `core` of its own making";
        push(needs, "a nightly toolchain with rust-src", purpose, Remedy::Nightly);
    }
    if facts.linker.is_none() {
        push(needs, "bpf-linker", "linking the kernel programs into one object", Remedy::Linker { debian });
    }
}

fn debian_compiler(facts: &Facts, needs: &mut Vec<Need>) {
    if !facts.debian_compiler {
        let purpose = "compiling the kernel programs";
        push(needs, "Debian's rustc", purpose, Remedy::Package("rustc-web"));
        push(needs, "Debian's cargo", purpose, Remedy::Package("cargo-web"));
        push(needs, "Rust's core for BPF", purpose, Remedy::Package("libstd-rust-web-dev-bpf"));
    }
    if facts.linker.is_none() && !facts.debian_llvm {
        push(needs, "LLVM's headers and library", "building bpf-linker", Remedy::Package("llvm-22-dev"));
    }
    if !facts.debian_linked {
        let what = format!("the rustup toolchain {DEBIAN_TOOLCHAIN}");
        push(needs, &what, "calling Debian's compiler beside the others", Remedy::Link);
    }
}

fn clippy(facts: &Facts, needs: &mut Vec<Need>) {
    let remedy = match facts.way() {
        _ if facts.bpf_clippy => return,
        Way::Debian => Remedy::Package("rust-web-clippy"),
        Way::Ordinary(_) if facts.nightly.is_none() => return,
        Way::Ordinary(name) => Remedy::NightlyClippy(name),
    };
    push(needs, "clippy for the kernel programs", "linting them", remedy);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::Toolchain;

    fn bare_debian() -> Facts {
        let absent_tools = TOOLS.iter().chain(&VM_TOOLS).map(|tool| tool.program).collect();
        Facts { root: true, apt: true, bookworm: true, rustup: true, absent_tools, ..Facts::default() }
    }

    fn complete_debian() -> Facts {
        Facts {
            debian_compiler: true,
            debian_linked: true,
            debian_llvm: true,
            bpf_clippy: true,
            linker: Some("/bin/bpf-linker".into()),
            absent_tools: Vec::new(),
            bpffs: true,
            ocsf: true,
            python: true,
            object_store: true,
            ..bare_debian()
        }
    }

    fn remedies(facts: &Facts, scope: Scope) -> Vec<Remedy> {
        missing(facts, scope).into_iter().map(|need| need.remedy).collect()
    }

    #[test]
    fn a_bare_debian_gets_everything_to_build() {
        let expected = [
            Remedy::Package("rustc-web"),
            Remedy::Package("cargo-web"),
            Remedy::Package("libstd-rust-web-dev-bpf"),
            Remedy::Package("llvm-22-dev"),
            Remedy::Link,
            Remedy::Linker { debian: true },
        ];
        assert_eq!(remedies(&bare_debian(), Scope::Build), expected);
    }

    #[test]
    fn tests_need_more_than_building() {
        let facts = bare_debian();
        let test = remedies(&facts, Scope::Test);
        assert!(test.starts_with(&remedies(&facts, Scope::Build)));
        assert!(test.contains(&Remedy::Package("rust-web-clippy")));
        assert!(test.contains(&Remedy::Package("iproute2")));
        assert!(test.contains(&Remedy::Bpffs));
    }

    #[test]
    fn guests_need_more_than_tests_on_this_kernel() {
        let qemu = Remedy::Package("qemu-system-x86");
        assert!(remedies(&bare_debian(), Scope::Vm).contains(&qemu));
        assert!(!remedies(&bare_debian(), Scope::Test).contains(&qemu));
    }

    #[test]
    fn a_complete_machine_needs_nothing() {
        assert_eq!(missing(&complete_debian(), Scope::Vm), []);
    }

    #[test]
    fn a_linker_that_is_there_spares_llvms_headers() {
        let facts = Facts { debian_llvm: false, ..complete_debian() };
        assert_eq!(missing(&facts, Scope::Test), []);
    }

    #[test]
    fn a_nightly_with_source_needs_nothing_of_debian() {
        let nightly = Some(Toolchain { name: "nightly".into(), path: "/rustup/nightly".into() });
        let facts = Facts { nightly, ..bare_debian() };
        assert_eq!(remedies(&facts, Scope::Build), [Remedy::Linker { debian: false }]);
        assert!(remedies(&facts, Scope::Check).contains(&Remedy::NightlyClippy("nightly".into())));
    }

    #[test]
    fn elsewhere_rustup_brings_the_compiler() {
        let facts = Facts { rustup: true, ..Facts::default() };
        assert_eq!(remedies(&facts, Scope::Check), [Remedy::Nightly, Remedy::Linker { debian: false }]);
    }

    #[test]
    fn packages_and_mounts_are_roots() {
        let user = Facts { root: false, ..bare_debian() };
        let stranger = Facts { apt: false, ..bare_debian() };
        assert_eq!(Remedy::Package("curl").obstacle(&user), Some("needs root"));
        assert_eq!(Remedy::Bpffs.obstacle(&user), Some("needs root"));
        assert_eq!(Remedy::Package("curl").obstacle(&stranger), Some("there is no apt-get here"));
        assert_eq!(Remedy::Link.obstacle(&user), None);
        assert_eq!(Remedy::Package("curl").obstacle(&bare_debian()), None);
    }

    #[test]
    fn a_remedy_reads_as_the_command_that_it_is() {
        let linker = Remedy::Linker { debian: true }.to_string();
        assert!(linker.starts_with("LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker "), "{linker}");
        let package = Remedy::Package("curl").to_string();
        assert_eq!(package, "apt-get install --yes --no-install-recommends curl");
    }
}
