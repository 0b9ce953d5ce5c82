//! Recordings that were kept when circuits opened: files that only root reads, whole or not there.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::whole_file;

use super::recording::Recording;

/// How an unfinished file ends.
const UNFINISHED: &str = ".new";
const ENDING: &str = ".pcapng";

/// The directory of kept recordings.
#[derive(Clone, Debug)]
pub struct Kept {
    directory: PathBuf,
}

/// The name of an agent's recording. One recording has one name, whoever keeps it and when, so that it is kept once: it ends
/// with the sequence number of its last packet, which counts since the machine started.
#[must_use]
pub fn name_of(recording: &Recording, boot_id: &str) -> String {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let mut agent = String::new();
    for byte in recording.agent.bytes() {
        match fits(&byte) {
            true => agent.push(char::from(byte)),
            false => agent.push_str(&format!("%{byte:02X}")),
        }
    }
    let last = recording.packets.last().map_or(0, |packet| packet.sequence);
    let boot: String = boot_id.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("{agent}.{boot}.{last}{ENDING}")
}

impl Kept {
    /// The directory below the state directory, made if it is not there; what was left unfinished is removed.
    ///
    /// # Errors
    ///
    /// When it cannot be made or read.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let directory = state_dir.join("recordings");
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.as_os_str().as_encoded_bytes().ends_with(UNFINISHED.as_bytes()) {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { directory })
    }

    /// Where a recording is, if it is kept.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        Some(self.directory.join(name)).filter(|path| path.is_file())
    }

    /// Keeps a recording, durably, and removes the oldest beyond `most` of them.
    ///
    /// # Errors
    ///
    /// When it cannot be written; nothing is left then.
    pub fn keep(&self, name: &str, bytes: &[u8], most: usize) -> io::Result<PathBuf> {
        let path = self.directory.join(name);
        whole_file::replace(&path, bytes)?;
        self.prune(most)?;
        Ok(path)
    }

    /// Removes the recordings that were written before `then`.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read or one cannot be removed.
    pub fn expire(&self, then: SystemTime) -> io::Result<()> {
        let old = self.by_age()?.into_iter().take_while(|(written, _)| *written < then);
        old.into_iter().try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn prune(&self, most: usize) -> io::Result<()> {
        let found = self.by_age()?;
        let surplus = found.len().saturating_sub(most);
        found.into_iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
    }

    /// What is kept, the oldest first.
    fn by_age(&self) -> io::Result<Vec<(SystemTime, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().ends_with(ENDING.as_bytes()) {
                found.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_recording_is_kept_for_root_alone_and_the_oldest_goes_first() {
        let state = tempfile::tempdir().unwrap();
        let kept = Kept::open(state.path()).unwrap();
        for (age, name) in ["a.0.1.pcapng", "b.0.1.pcapng", "c.0.1.pcapng"].into_iter().enumerate() {
            let path = kept.keep(name, b"x", 2).unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
            let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age as u64);
            fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
        }
        let found = |name| kept.find(name).is_some();
        assert_eq!(
            [found("a.0.1.pcapng"), found("b.0.1.pcapng"), found("c.0.1.pcapng")],
            [false, true, true]
        );
        kept.expire(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(2)).unwrap();
        let found = |name| kept.find(name).is_some();
        assert_eq!([found("b.0.1.pcapng"), found("c.0.1.pcapng")], [false, true], "what is older goes");
    }

    #[test]
    fn what_a_crash_has_left_goes_at_the_next_start() {
        let state = tempfile::tempdir().unwrap();
        Kept::open(state.path()).unwrap();
        let left = state.path().join("recordings/a.0.1.pcapng.new");
        fs::write(&left, "half").unwrap();
        Kept::open(state.path()).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn a_name_stays_in_its_directory_and_is_the_same_each_time() {
        let recording = Recording { agent: "../web@1".into(), ..Recording::default() };
        let name = name_of(&recording, "0123-4567-89ab");
        assert_eq!(name, "%2E%2E%2Fweb%401.01234567.0.pcapng");
        assert_eq!(name, name_of(&recording, "0123-4567-89ab"));
    }
}
