//! The guest's first and only root directory: programs, their libraries, modules, and the init script.

use std::collections::btree_map::Entry;
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cpio::{self, Files};
use super::guest::MODULES;
use super::kernel::Unpacked;
use crate::workspace::{self, find_program};

/// What tests call besides the daemon.
const TOOLS: [&str; 5] = ["ip", "bridge", "tc", "bpftool", "ethtool"];

/// Directories that the guest mounts something on, or expects to be there.
const DIRECTORIES: [&str; 7] = ["bin", "dev", "proc", "run", "sys", "tmp", "root"];

/// Programs and what they need, the same for every kernel.
pub fn programs(binaries: &[(String, PathBuf)], tests: &[(String, PathBuf)]) -> Result<Files> {
    let mut files = Files::new();
    let shell = find_program("busybox").context("busybox is not here")?;
    add_program(&mut files, "bin/busybox", &shell, false)?;
    for tool in TOOLS {
        let path = find_program(tool).with_context(|| format!("{tool} is not here"))?;
        add_program(&mut files, &format!("usr/sbin/{tool}"), &path, false)?;
    }
    for (name, path) in binaries {
        add_program(&mut files, &format!("usr/bin/{name}"), path, true)?;
    }
    for (name, path) in tests {
        add_program(&mut files, &format!("tests/{name}"), path, true)?;
    }
    Ok(files)
}

/// Writes the image of one kernel.
pub fn write(to: &Path, programs: &Files, unpacked: &Unpacked, init: &str) -> Result<()> {
    let mut files = programs.clone();
    for module in MODULES {
        files.insert(format!("modules/{module}.ko"), read_module(unpacked, module)?);
    }
    files.insert("init".to_owned(), init.as_bytes().to_vec());
    let file = fs::File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    let mut file = BufWriter::new(file);
    cpio::write(&mut file, &files, &DIRECTORIES).with_context(|| format!("cannot write {}", to.display()))
}

/// Adds a program and the shared libraries that it finds on this machine. Without its symbols, if asked: they are nine
/// tenths of what we build, and would have to fit into the guest's memory.
fn add_program(files: &mut Files, name: &str, path: &Path, strip: bool) -> Result<()> {
    let contents = if strip { stripped(path)? } else { read(path)? };
    files.insert(name.to_owned(), contents);
    for library in libraries(path)? {
        let place = library.strip_prefix('/').unwrap_or(&library).to_owned();
        if let Entry::Vacant(vacant) = files.entry(place) {
            vacant.insert(read(Path::new(&library))?);
        }
    }
    Ok(())
}

fn stripped(path: &Path) -> Result<Vec<u8>> {
    let small = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
    let mut strip = workspace::command("strip");
    strip.arg("-o").arg(small.path()).arg(path);
    succeed(&mut strip)?;
    read(small.path())
}

/// Paths of the shared libraries of a program; none of one that is linked statically.
fn libraries(path: &Path) -> Result<Vec<String>> {
    let mut ldd = workspace::command("ldd");
    let output = ldd.arg(path).output().context("cannot start ldd")?;
    let answer = String::from_utf8_lossy(&output.stdout);
    ensure!(!answer.contains("not found"), "{} lacks a library:\n{answer}", path.display());
    Ok(parse_libraries(&answer))
}

/// Lines are `name => /path (address)`, `/path (address)`, or about what is in no file.
fn parse_libraries(answer: &str) -> Vec<String> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    answer.lines().filter_map(path).collect()
}

/// A module, unpacked here if it is packed: the guest's own tools need not know how.
fn read_module(unpacked: &Unpacked, module: &str) -> Result<Vec<u8>> {
    let found = find(&unpacked.modules.join("kernel"), module)
        .with_context(|| format!("{} has no module {module}", unpacked.modules.display()))?;
    if found.extension().is_some_and(|extension| extension == "ko") {
        return read(&found);
    }
    let mut xz = workspace::command("xz");
    succeed(xz.args(["--decompress", "--stdout"]).arg(&found))
}

fn find(directory: &Path, module: &str) -> Option<PathBuf> {
    let is_it = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix(module).is_some_and(|rest| rest == ".ko" || rest == ".ko.xz")
    };
    fs::read_dir(directory)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find_map(|path| if path.is_dir() { find(&path, module) } else { is_it(&path).then_some(path) })
}

fn succeed(command: &mut Command) -> Result<Vec<u8>> {
    let what = crate::step::line(command);
    let output = command.output().with_context(|| format!("cannot start {what}"))?;
    ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_paths_that_ldd_tells() {
        let answer = "\tlinux-vdso.so.1 (0x0)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x1)\n\t/lib64/ld.so (0x2)\n";
        assert_eq!(parse_libraries(answer), ["/lib/x/libc.so.6", "/lib64/ld.so"]);
        assert_eq!(parse_libraries("\tnot a dynamic executable\n"), [""; 0]);
    }

    #[test]
    fn a_program_comes_with_its_libraries() {
        let mut files = Files::new();
        add_program(&mut files, "bin/sh", &find_program("sh").unwrap(), false).unwrap();
        assert!(files.contains_key("bin/sh") && files.keys().any(|name| name.contains("libc.so")));
    }
}
