//! Where restored state waits, and how it takes the place of what is there: in one step, and never through a link.
//!
//! restic writes into a fresh directory that only root can reach, so nobody can plant anything in its way. Only
//! when all of it is there and on the disk does it change places with the target.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat2, renameat2};
use nix::sys::stat::{SFlag, fstatat};
use serde::{Deserialize, Serialize};

use super::durable;
use super::error::{Failure, Kind};
use super::ground;

/// Name of the directory below the state directory where restored state waits.
pub const HOME: &str = "staging";
/// What the names of those begin with that wait beside their target.
const BESIDE: &str = ".agentsec-";
/// Parts an agent's name, which has no such letter, from the number of the process whose directory it is.
const OF_PROCESS: char = '~';

/// A target that was found fit to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its parent, without links.
    pub parent: PathBuf,
    /// Its name there.
    pub name: PathBuf,
}

impl Target {
    /// Judges `path`: absolute, below a directory that exists, and itself absent or a directory that is no link.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn of(path: &Path) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::new(Kind::Target, format!("{} {why}", path.display()));
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            return Err(bad("is not an absolute path without `..`"));
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(bad("cannot be replaced"));
        };
        if !parent.is_dir() {
            return Err(bad("has no parent directory"));
        }
        let target = Self { parent: ground::resolve(parent)?, name: name.into() };
        target.state(&target.open()?)?;
        // It would change places together with the old directory, and be removed with that.
        match ground::mounted_below(&target.path())? {
            Some(mount) => Err(bad(&format!("has something mounted in it, at {}", mount.display()))),
            None => Ok(target),
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// Whether something is there.
    ///
    /// # Errors
    ///
    /// When what is there is no directory.
    pub fn exists(&self) -> Result<bool, Failure> {
        self.state(&self.open()?)
    }

    /// The parent, opened without following any link.
    fn open(&self) -> Result<OwnedFd, Failure> {
        let how = OpenHow::new()
            .flags(OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(nix::fcntl::AT_FDCWD, &self.parent, how).map_err(|error| {
            Failure::new(Kind::Target, format!("{} cannot be opened: {error}", self.parent.display()))
        })
    }

    fn is_mounted(&self, parent: &OwnedFd) -> bool {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_XDEV);
        openat2(parent, &self.name, how).is_err_and(|error| error == Errno::EXDEV)
    }

    fn state(&self, parent: &OwnedFd) -> Result<bool, Failure> {
        let bad = |why: String| Failure::new(Kind::Target, format!("{} {why}", self.path().display()));
        match fstatat(parent, &self.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(bad(format!("cannot be looked at: {error}"))),
            Ok(about) => match SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT {
                SFlag::S_IFDIR if self.is_mounted(parent) => Err(bad(
                    "is a mount point, which cannot change places with another directory: give the state a directory \
                     inside it"
                        .into(),
                )),
                SFlag::S_IFDIR => Ok(true),
                SFlag::S_IFLNK => Err(bad("is a symbolic link, which is not followed".into())),
                _ => Err(bad("is no directory".into())),
            },
        }
    }
}

/// Where a private directory on the file system of `target` will be: below `home` if that is on it, and seen through the
/// same mount, else beside the target, provided that nobody but root can change what is above it.
///
/// # Errors
///
/// When there is no safe place.
pub fn place(home: &Path, target: &Target, name: &str) -> Result<PathBuf, Failure> {
    durable::private_directory(home)?;
    if ground::are_one(home, &target.parent)? {
        Ok(home.join(name))
    } else {
        if let Some(unsafe_part) = ground::changeable(&target.parent)? {
            let message = format!(
                "{} is on another file system or mount than {}, and what is restored cannot wait beside it: somebody else \
                 than root can change {}. Put the daemon's state directory on the agent's file system, or give the \
                 agent's directory a parent that only root can change",
                target.path().display(),
                home.display(),
                unsafe_part.display()
            );
            return Err(Failure::new(Kind::Target, message));
        }
        Ok(target.parent.join(format!("{BESIDE}{name}")))
    }
}

/// Makes the private directory that [`place`] names.
///
/// # Errors
///
/// When there is no safe place, or it cannot be made.
pub fn prepare(home: &Path, target: &Target, name: &str) -> Result<PathBuf, Failure> {
    let place = place(home, target, name)?;
    if let Some(above) = place.parent() {
        clear_abandoned(above)?;
    }
    clear(&place)?;
    fs::DirBuilder::new().mode(0o700).create(&place).map_err(Failure::io(place.display()))?;
    Ok(place)
}

/// Removes a staging directory and all in it.
///
/// # Errors
///
/// When it stays.
pub fn clear(place: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Failure::io(format!("cannot remove {}", place.display()))),
    }
}

/// Removes what processes that are gone have left in `above`: see [`name_of_process`].
fn clear_abandoned(above: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(above).map_err(Failure::io(above.display()))?.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.rsplit_once(OF_PROCESS)?.1.parse::<u32>().ok());
        // One whose number has been given to another process waits for the next time.
        if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists())
            && (above.file_name() == Some(OsStr::new(HOME)) || name.as_bytes().starts_with(BESIDE.as_bytes()))
        {
            clear(&entry.path())?;
        }
    }
    Ok(())
}

/// The one directory that a snapshot consists of, checked: nothing else may have come out of it.
///
/// # Errors
///
/// When it is something else.
pub fn only_directory(place: &Path) -> Result<PathBuf, Failure> {
    let entries: io::Result<Vec<_>> = fs::read_dir(place).and_then(Iterator::collect);
    let entries = entries.map_err(Failure::io(place.display()))?;
    if let [entry] = entries.as_slice()
        && entry.file_type().is_ok_and(|kind| kind.is_dir())
    {
        return Ok(entry.path());
    }
    Err(Failure::new(Kind::Damaged, "the snapshot does not consist of one directory"))
}

/// Puts the directory `restored` in the place of `target`, in one step. Afterwards `restored` is what was there
/// before, if anything was; whether it was.
///
/// # Errors
///
/// When it cannot be done; nothing has changed then.
pub fn exchange(restored: &Path, target: &Target) -> Result<bool, Failure> {
    let (Some(above), Some(name)) = (restored.parent(), restored.file_name()) else {
        return Err(Failure::new(Kind::Other, format!("{} is no place", restored.display())));
    };
    let parent = target.open()?;
    let existed = target.state(&parent)?;
    let from = File::open(above).map_err(Failure::io(above.display()))?;
    // Everything is on the disk before anything points to it.
    nix::unistd::syncfs(&from).map_err(|error| Failure::io(above.display())(error.into()))?;
    let flags = if existed { RenameFlags::RENAME_EXCHANGE } else { RenameFlags::RENAME_NOREPLACE };
    renameat2(&from, Path::new(name), &parent, &target.name, flags).map_err(|error| {
        Failure::new(Kind::Target, format!("{} cannot be replaced: {error}", target.path().display()))
    })?;
    let synced = nix::unistd::fsync(&parent).and_then(|()| nix::unistd::fsync(&from));
    synced.map_err(|error| Failure::io(target.path().display())(error.into()))?;
    Ok(existed)
}

/// Bytes free for root on the file system of `path`.
///
/// # Errors
///
/// When it does not tell.
pub fn free_bytes(path: &Path) -> Result<u64, Failure> {
    let stat = nix::sys::statvfs::statvfs(path).map_err(|error| Failure::io(path.display())(error.into()))?;
    Ok(stat.blocks_free().saturating_mul(stat.fragment_size()))
}

/// Refuses early what would fill the disk.
///
/// # Errors
///
/// When `path` has no room for `bytes`.
pub fn check_room(path: &Path, bytes: u64) -> Result<(), Failure> {
    let free = free_bytes(path)?;
    if free >= bytes {
        return Ok(());
    }
    let message = format!("{} has {free} bytes free, and {bytes} are needed", path.display());
    Err(Failure::new(Kind::NoSpace, message))
}

/// A name for a staging directory that says whose it is.
#[must_use]
pub fn name_for(agent: &str, what: &OsStr) -> String {
    format!("{agent}-{}", what.to_string_lossy())
}

/// A name for a staging directory that only this process uses. If it is killed, the next who needs one removes it.
#[must_use]
pub fn name_of_process(agent: &str) -> String {
    format!("{agent}{OF_PROCESS}{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn home() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn only_a_directory_or_nothing_can_be_replaced() {
        let home = home();
        let path = |name: &str| home.path().join(name);
        fs::create_dir(path("there")).unwrap();
        fs::write(path("file"), "").unwrap();
        symlink("/etc", path("link")).unwrap();
        symlink(path("there"), path("through")).unwrap();
        assert!(Target::of(&path("there")).unwrap().exists().unwrap());
        assert!(!Target::of(&path("absent")).unwrap().exists().unwrap());
        for (bad, why) in [
            (path("link"), "symbolic link"),
            (path("file"), "no directory"),
            (path("there/../file"), "`..`"),
            (path("through/new"), "goes through the link"),
            (path("absent/below"), "no parent"),
            ("relative".into(), "absolute"),
            ("/".into(), "cannot be replaced"),
        ] {
            let failure = Target::of(&bad).unwrap_err();
            assert!(failure.kind == Kind::Target && failure.message.contains(why), "{bad:?}: {failure}");
        }
    }

    #[test]
    fn what_was_there_changes_places_with_what_was_restored() {
        let home = home();
        let (restored, path) = (home.path().join("staged"), home.path().join("state"));
        for (directory, content) in [(&restored, "clean"), (&path, "poisoned")] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("f"), content).unwrap();
        }
        let target = Target::of(&path).unwrap();
        assert!(exchange(&restored, &target).unwrap());
        assert_eq!(fs::read_to_string(path.join("f")).unwrap(), "clean");
        assert_eq!(fs::read_to_string(restored.join("f")).unwrap(), "poisoned");
        fs::remove_dir_all(&path).unwrap();
        assert!(!exchange(&restored, &target).unwrap());
        assert!(!restored.exists() && path.join("f").exists());
    }

    #[test]
    fn a_link_planted_after_the_judgement_is_not_followed() {
        let home = home();
        let (restored, outside) = (home.path().join("staged"), home.path().join("outside"));
        fs::create_dir(&restored).unwrap();
        fs::create_dir(&outside).unwrap();
        let above = home.path().join("agents");
        fs::create_dir(&above).unwrap();
        let target = Target::of(&above.join("state")).unwrap();
        symlink(&outside, above.join("state")).unwrap();
        assert_eq!(exchange(&restored, &target).unwrap_err().kind, Kind::Target, "as the target");
        fs::remove_dir_all(&above).unwrap();
        symlink(&outside, &above).unwrap();
        assert_eq!(exchange(&restored, &target).unwrap_err().kind, Kind::Target, "above the target");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(restored.exists(), "nothing has moved");
    }

    #[test]
    fn a_snapshot_is_one_directory_and_nothing_beside_it() {
        let home = home();
        fs::create_dir(home.path().join("state")).unwrap();
        assert_eq!(only_directory(home.path()).unwrap(), home.path().join("state"));
        fs::write(home.path().join("etc"), "").unwrap();
        assert_eq!(only_directory(home.path()).unwrap_err().kind, Kind::Damaged);
        fs::remove_file(home.path().join("etc")).unwrap();
        fs::remove_dir(home.path().join("state")).unwrap();
        symlink("/etc", home.path().join("state")).unwrap();
        assert_eq!(only_directory(home.path()).unwrap_err().kind, Kind::Damaged);
    }

    #[test]
    fn what_a_killed_process_has_left_is_removed_and_nothing_else() {
        let (home, mut gone) = (home(), std::process::Command::new("/bin/true").spawn().unwrap());
        gone.wait().unwrap();
        let (staging, gone) = (home.path().join(HOME), gone.id());
        let stay =
            [name_of_process("b"), "a-12345678".into(), "a-12345678-replaced".into(), format!("a-{gone}")];
        let left = format!("a{OF_PROCESS}{gone}");
        for name in stay.iter().chain([&left]) {
            fs::create_dir_all(staging.join(name).join("state")).unwrap();
        }
        let elsewhere = home.path().join(&left);
        fs::create_dir(&elsewhere).unwrap();
        let target = Target::of(&home.path().join("state")).unwrap();
        let place = prepare(&staging, &target, "new").unwrap();
        assert!(place.exists() && !staging.join(left).exists());
        assert!(stay.iter().all(|name| staging.join(name).exists()), "what somebody uses or keeps");
        clear_abandoned(home.path()).unwrap();
        assert!(elsewhere.exists(), "beside a target, only what bears our name");
    }

    #[test]
    fn room_is_checked_before_anything_is_written() {
        assert!(check_room(Path::new("/"), 1).is_ok());
        assert_eq!(check_room(Path::new("/"), u64::MAX).unwrap_err().kind, Kind::NoSpace);
    }
}
