//! Debian's own kernels, unpacked and never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::step::Progress;
use crate::workspace;

/// A kernel to boot: the newest of its series that Debian ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kernel {
    /// Debian 12's: no TCX.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's, and in Debian 12's backports and security updates.
    #[value(name = "6.12")]
    V6_12,
}

/// All of them, oldest first.
pub const ALL: [Kernel; 2] = [Kernel::V6_1, Kernel::V6_12];

impl Kernel {
    /// As `--kernel` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The packages of this kernel begin with this.
    fn prefix(self) -> String {
        format!("linux-image-{}.", self.name())
    }

    /// Packages without content that depend on the newest kernel of a series: the release's own, and one that names
    /// the series.
    fn metas(self) -> [String; 2] {
        ["linux-image-cloud-amd64".into(), format!("linux-image-{}-cloud-amd64", self.name())]
    }
}

/// An unpacked kernel package.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// What qemu boots.
    pub image: PathBuf,
    /// Directory of its modules: `lib/modules/<release>`.
    pub modules: PathBuf,
}

/// Where everything about the guests of one kernel is kept.
pub fn directory(kernel: Kernel) -> PathBuf {
    workspace::root().join("target/vm").join(kernel.name())
}

/// Downloads and unpacks the newest package of a kernel, unless it is here; without a network, the newest that is.
pub fn fetch(progress: &Progress, kernel: Kernel) -> Result<Unpacked> {
    let directory = directory(kernel);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let found = match newest(progress, kernel) {
        Ok(package) => download(progress, kernel, &package, &directory),
        Err(error) => Err(error),
    };
    let unpacked = match (found, cached(&directory, kernel)) {
        (Ok(unpacked), _) => unpacked,
        (Err(error), Some(cached)) => {
            progress.note(&format!("vm: taking {}, which is here ({error:#})", cached.display()));
            cached
        }
        (Err(error), None) => return Err(error),
    };
    open(&unpacked)
}

/// The name of the newest package, by the meta packages' dependencies.
fn newest(progress: &Progress, kernel: Kernel) -> Result<String> {
    for attempt in 0..2 {
        for meta in kernel.metas() {
            let label = format!("vm: look for Linux {}", kernel.name());
            let mut ask = workspace::command("apt-cache");
            ask.args(["depends", "--important", &meta]);
            let answer = progress.read(&label, &mut ask).unwrap_or_default();
            if let Some(package) = dependency(&answer, &kernel.prefix()) {
                return Ok(package);
            }
        }
        if attempt == 0 {
            // One unreachable list of many is common and need not matter.
            let _ = progress.run("vm: apt-get update", workspace::command("apt-get").arg("update"));
        }
    }
    bail!(
        "no package {}* is offered here: {} lead elsewhere (the guests' kernels come from Debian 12)",
        kernel.prefix(),
        kernel.metas().join(" and ")
    )
}

/// The first dependency with this beginning that `apt-cache depends` tells.
fn dependency(answer: &str, prefix: &str) -> Option<String> {
    let packages = answer.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    packages.map(str::trim).find(|package| package.starts_with(prefix)).map(str::to_owned)
}

fn download(progress: &Progress, kernel: Kernel, package: &str, directory: &Path) -> Result<PathBuf> {
    let unpacked = directory.join(package);
    if unpacked.is_dir() {
        return Ok(unpacked);
    }
    let packed = tempfile::Builder::new().prefix("package").tempdir_in(directory)?;
    let mut get = workspace::command("apt-get");
    get.args(["download", package]).current_dir(packed.path());
    progress.run(&format!("vm: download Linux {} ({package})", kernel.name()), &mut get)?;
    let files = fs::read_dir(packed.path())?.flatten().map(|entry| entry.path());
    let deb = files.into_iter().find(|path| path.extension().is_some_and(|is| is == "deb"));
    let deb = deb.with_context(|| format!("apt-get download {package} left no package"))?;
    let contents = packed.path().join("contents");
    let mut unpack = workspace::command("dpkg-deb");
    unpack.arg("-x").arg(&deb).arg(&contents);
    progress.run(&format!("vm: unpack Linux {}", kernel.name()), &mut unpack)?;
    // Under its name only once it is whole.
    fs::rename(&contents, &unpacked).with_context(|| format!("cannot make {}", unpacked.display()))?;
    Ok(unpacked)
}

/// The package that was unpacked last.
fn cached(directory: &Path, kernel: Kernel) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&kernel.prefix()))
    };
    entries.filter(ours).max_by_key(|path| path.metadata().and_then(|about| about.modified()).ok())
}

fn open(unpacked: &Path) -> Result<Unpacked> {
    let image = only(&unpacked.join("boot"), "vmlinuz-")?;
    Ok(Unpacked { image, modules: only(&unpacked.join("lib/modules"), "")? })
}

fn only(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let found = entries.flatten().map(|entry| entry.path()).find(named);
    found.with_context(|| format!("there is no {prefix}* in {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_package_leads_to_the_kernel_of_its_series_and_to_no_other() {
        let answer = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-99-cloud-amd64\n";
        let found = dependency(answer, &Kernel::V6_1.prefix());
        assert_eq!(found.as_deref(), Some("linux-image-6.1.0-99-cloud-amd64"));
        assert_eq!(dependency(answer, &Kernel::V6_12.prefix()), None);
        let newer = "x\n  Depends: linux-image-6.12.1+deb13-cloud-amd64\n";
        assert_eq!(dependency(newer, &Kernel::V6_1.prefix()), None, "6.12 is not of the series 6.1");
    }

    #[test]
    fn every_kernel_is_asked_for_by_its_name() {
        for kernel in ALL {
            assert_eq!(Kernel::from_str(kernel.name(), false), Ok(kernel));
        }
    }
}
