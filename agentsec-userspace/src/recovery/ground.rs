//! What a path rests on: links that lead elsewhere, directories that somebody else can change, and mounts.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::error::{Failure, Kind};

/// The most links that are followed, as the kernel has it.
const LINKS: u32 = 40;

/// The real path of a directory. A link on the way is followed only where nobody but root could have made it: whoever
/// can plant one above an agent's directory could have root write elsewhere.
///
/// # Errors
///
/// When there is such a link, or the directory is not there.
pub fn resolve(path: &Path) -> Result<PathBuf, Failure> {
    let (mut real, mut links) = (PathBuf::from("/"), 0);
    let mut rest = steps(path);
    while let Some(step) = rest.pop() {
        if step == ".." {
            real.pop();
            continue;
        }
        let next = real.join(step);
        let failed = |error| Failure::new(Kind::Target, format!("{}: {error}", next.display()));
        if !fs::symlink_metadata(&next).map_err(failed)?.is_symlink() {
            real = next;
            continue;
        }
        links += 1;
        let planted = changeable(&real)?;
        if planted.is_some() || links > LINKS {
            let message = format!(
                "{} goes through the link {}, and somebody else than root can change {}: name the real directory",
                path.display(),
                next.display(),
                planted.unwrap_or(real).display()
            );
            return Err(Failure::new(Kind::Target, message));
        }
        let to = fs::read_link(&next).map_err(failed)?;
        if to.is_absolute() {
            real = PathBuf::from("/");
        }
        rest.extend(steps(&to));
    }
    Ok(real)
}

/// The steps of a path, the first one last.
fn steps(path: &Path) -> Vec<OsString> {
    let steps = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    steps.rev().map(|part| part.as_os_str().to_owned()).collect()
}

/// The first directory from the root down to `path`, which has no links, that somebody else than root can change.
///
/// # Errors
///
/// When one cannot be looked at.
pub fn changeable(path: &Path) -> Result<Option<PathBuf>, Failure> {
    let root = nix::unistd::geteuid().as_raw();
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    for part in above {
        let about = fs::symlink_metadata(part).map_err(Failure::io(part.display()))?;
        if (about.uid() != 0 && about.uid() != root) || about.mode() & 0o022 != 0 {
            return Ok(Some(part.to_owned()));
        }
    }
    Ok(None)
}

/// Whether something can be renamed from one directory into the other: they are on one file system, and seen through
/// one mount of it.
///
/// # Errors
///
/// When one cannot be looked at.
pub fn are_one(one: &Path, other: &Path) -> Result<bool, Failure> {
    let of = |path: &Path| -> io::Result<(u64, String)> {
        let directory = File::open(path)?;
        let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", directory.as_raw_fd()))?;
        let mount = about.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap_or_default();
        Ok((directory.metadata()?.dev(), mount.trim().to_owned()))
    };
    Ok(of(one).map_err(Failure::io(one.display()))? == of(other).map_err(Failure::io(other.display()))?)
}

/// The first mount point below a directory, whose path has no links.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn mounted_below(directory: &Path) -> Result<Option<PathBuf>, Failure> {
    let table = fs::read("/proc/self/mountinfo").map_err(Failure::io("/proc/self/mountinfo"))?;
    let points =
        table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let points = points.map(|point| PathBuf::from(OsString::from_vec(unescaped(point))));
    Ok(points.filter(|point| point != directory && point.starts_with(directory)).min())
}

/// The kernel writes blanks, tabs, ends of line and backslashes as `\` and three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(text.len()), text);
    while let [first, more @ ..] = rest {
        let code = more.get(..3).filter(|_| *first == b'\\').and_then(|code| std::str::from_utf8(code).ok());
        let byte = code.and_then(|code| u8::from_str_radix(code, 8).ok());
        plain.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[3..] } else { more };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn only_a_link_that_nobody_but_root_could_have_made_is_followed() {
        let own = PathBuf::from(format!("/proc/{}", std::process::id()));
        assert_eq!(resolve(Path::new("/proc/self/fd")).unwrap(), own.join("fd"));
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        fs::create_dir(path("real")).unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(resolve(&path("real")).unwrap(), path("real"));
        for (link, to) in [("absolute", path("real")), ("up", "../..".into()), ("circle", "circle".into())] {
            symlink(to, path(link)).unwrap();
            let failure = resolve(&path(link)).unwrap_err();
            assert!(failure.kind == Kind::Target && failure.message.contains("link"), "{failure}");
        }
        assert!(resolve(&path("absent")).is_err());
    }

    #[test]
    fn a_place_that_others_can_change_is_found() {
        let open = tempfile::tempdir().unwrap();
        let inside = open.path().join("inside");
        fs::create_dir(&inside).unwrap();
        fs::set_permissions(open.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(changeable(&inside).unwrap().is_some());
        assert_eq!(changeable(Path::new("/")).unwrap(), None);
    }

    #[test]
    fn mounts_are_told_apart() {
        assert!(are_one(Path::new("/"), Path::new("/")).unwrap());
        assert!(!are_one(Path::new("/"), Path::new("/proc")).unwrap());
        assert!(mounted_below(Path::new("/")).unwrap().is_some());
        assert_eq!(mounted_below(Path::new("/proc/self/task")).unwrap(), None);
        assert_eq!(unescaped(br"/a\040b\134040\9"), br"/a b\040\9");
    }
}
