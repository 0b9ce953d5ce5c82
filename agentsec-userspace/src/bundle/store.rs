//! The bundles on the disk: `STATE/bundles/ID/`, readable by the daemon's user only, with the archive in one file and a
//! note beside it that says how far it is. The note holds nothing that the log does not say in clear.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::recovery::durable;
use crate::recovery::error::{Failure, Kind};
use crate::whole_file;

use super::part::Status;
use super::trip::Trip;
use super::{DIRECTORY, archive, sha256};

const ABOUT: &str = "about.json";
/// The archive in clear, and encrypted.
const CLEAR: &str = "bundle.tar";
const SEALED: &str = "bundle.tar.age";
const UNFINISHED: &str = "bundle.new";

/// How far a bundle is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is being collected.
    #[default]
    Collecting,
    /// It is on the disk.
    Stored,
    /// Its hash is in the log.
    Logged,
    /// It is about to be removed.
    Removing,
}

/// The note beside a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Names it.
    pub bundle_id: String,
    /// Which trip it is about.
    pub trip: Trip,
    /// When it was ordered, Unix nanoseconds.
    pub at_ns: u64,
    /// How far it is.
    pub phase: Phase,
    /// Name of the archive's file; empty before it is stored.
    pub file: String,
    /// SHA-256 of that file, in hex.
    pub sha256: String,
    /// Its bytes.
    pub bytes: u64,
    /// How many recipients it is encrypted to; 0 in clear.
    pub recipients: usize,
    /// What became of each part; nothing of an encrypted bundle whose daemon was killed before it could say.
    pub parts: BTreeMap<String, Status>,
    /// How long collecting took, milliseconds.
    pub took_ms: u64,
    /// Whether its hash was computed by a later daemon than the one that collected it.
    pub hashed_late: bool,
}

/// What an earlier daemon has left.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Bundles that were never finished, and are gone.
    pub unfinished: Vec<About>,
    /// Bundles that are whole, and whose hash the log may lack.
    pub unlogged: Vec<About>,
    /// Bundles that were about to be removed.
    pub removing: Vec<About>,
    /// The trips of all that are there.
    pub trips: Vec<Trip>,
    /// What could not be read, in words.
    pub problems: Vec<String>,
}

/// The directory of all bundles.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// That of a state directory.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self { root: state_dir.join(DIRECTORY) }
    }

    /// The directory of a bundle. Ids are ours or come from its parent's listing: no other path is made of them.
    fn directory(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// The archive of a bundle.
    #[must_use]
    pub fn file(&self, about: &About) -> PathBuf {
        self.directory(&about.bundle_id).join(&about.file)
    }

    /// Where the archive of a bundle is, by what is there: its note may be damaged.
    #[must_use]
    pub fn archive_of(&self, id: &str) -> Option<PathBuf> {
        let id = uuid::Uuid::parse_str(id).ok()?.to_string();
        [CLEAR, SEALED].map(|name| self.directory(&id).join(name)).into_iter().find(|path| path.is_file())
    }

    fn save(&self, about: &About) -> Result<(), Failure> {
        let directory = self.directory(&about.bundle_id);
        durable::private_directory(&directory)?;
        let note = serde_json::to_vec_pretty(about);
        let note = note.map_err(|error| Failure::new(Kind::Other, format!("{ABOUT}: {error}")))?;
        write_whole(&directory, ABOUT, &note)
    }

    /// Notes that a bundle is being collected.
    ///
    /// # Errors
    ///
    /// When the disk takes no note.
    pub fn begin(&self, about: &About) -> Result<(), Failure> {
        self.save(about)
    }

    /// Stores an archive, whole or not at all: beside, synced, renamed. What is then known of it.
    ///
    /// # Errors
    ///
    /// When the disk does not take it: nothing of it is left.
    pub fn put(&self, about: &About, archive: &[u8]) -> Result<About, Failure> {
        let directory = self.directory(&about.bundle_id);
        let file = if about.recipients == 0 { CLEAR } else { SEALED };
        let stored = About {
            phase: Phase::Stored,
            file: file.to_owned(),
            sha256: sha256(archive),
            bytes: archive.len() as u64,
            ..about.clone()
        };
        durable::private_directory(&directory)?;
        let put = write_whole(&directory, file, archive).and_then(|()| self.save(&stored));
        if let Err(failure) = put {
            // Room for the note, and for others.
            let _ = fs::remove_file(directory.join(file));
            return Err(failure);
        }
        Ok(stored)
    }

    /// Notes how far a bundle is now.
    ///
    /// # Errors
    ///
    /// When there is no such bundle, or the disk takes no note.
    pub fn set_phase(&self, id: &str, phase: Phase) -> Result<About, Failure> {
        let mut about = self.about(id)?;
        if about.phase != phase {
            about.phase = phase;
            self.save(&about)?;
        }
        Ok(about)
    }

    /// Removes a bundle.
    ///
    /// # Errors
    ///
    /// When it stays.
    pub fn remove(&self, id: &str) -> Result<(), Failure> {
        let directory = self.directory(id);
        // The note goes last: as long as it is there, a later daemon knows what this was.
        for name in [UNFINISHED, CLEAR, SEALED, ABOUT] {
            durable::remove(&directory.join(name))?;
        }
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::io(directory.display())(error))
            }
            _ => Ok(()),
        }
    }

    /// The note of a bundle.
    ///
    /// # Errors
    ///
    /// When there is none that can be understood.
    pub fn about(&self, id: &str) -> Result<About, Failure> {
        let path = self.directory(id).join(ABOUT);
        let about: Option<About> = durable::load(&path)?;
        let about = about.filter(|about| about.bundle_id == id && is_file_name(&about.file));
        about.ok_or_else(|| Failure::new(Kind::Other, format!("there is no note in {}", path.display())))
    }

    /// Every bundle with a note, oldest first, and what cannot be understood.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read. One that is not there is empty.
    pub fn list(&self) -> Result<(Vec<About>, Vec<String>), Failure> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
            Err(error) => return Err(Failure::io(self.root.display())(error)),
        };
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_empty = !has_content(&entry.path());
            if uuid::Uuid::parse_str(&name).is_err() || is_empty {
                continue;
            }
            match self.about(&name) {
                Ok(about) => found.push(about),
                Err(failure) => problems.push(failure.message),
            }
        }
        found.sort_by(|a, b| (a.at_ns, &a.bundle_id).cmp(&(b.at_ns, &b.bundle_id)));
        Ok((found, problems))
    }

    /// Puts in order what a daemon that was killed has left: unfinished ones go, finished ones are told.
    #[must_use]
    pub fn sweep(&self) -> Swept {
        let mut swept = Swept::default();
        let (all, problems) = match self.list() {
            Ok(listed) => listed,
            Err(failure) => (Vec::new(), vec![failure.message]),
        };
        swept.problems = problems;
        for about in all {
            // What it was writing: the note says all that counts. What stays is no harm.
            let _ = fs::remove_file(self.directory(&about.bundle_id).join(UNFINISHED));
            match about.phase {
                Phase::Logged => swept.trips.push(about.trip),
                Phase::Removing => swept.removing.push(about),
                Phase::Stored => {
                    swept.trips.push(about.trip.clone());
                    swept.unlogged.push(about);
                }
                Phase::Collecting => match self.adopt(&about) {
                    Some(adopted) => {
                        swept.trips.push(adopted.trip.clone());
                        swept.unlogged.push(adopted);
                    }
                    None => {
                        swept
                            .problems
                            .extend(self.remove(&about.bundle_id).err().map(|failure| failure.message));
                        swept.unfinished.push(about);
                    }
                },
            }
        }
        self.remove_noteless(&mut swept);
        swept
    }

    /// A bundle whose daemon was killed after the archive had its name and before the note said so.
    fn adopt(&self, about: &About) -> Option<About> {
        let directory = self.directory(&about.bundle_id);
        let (file, bytes) = [CLEAR, SEALED]
            .into_iter()
            .find_map(|name| Some((name, fs::read(directory.join(name)).ok()?)))?;
        let parts = archive::read(&bytes).map(|opened| opened.manifest.statuses()).unwrap_or_default();
        let adopted = About {
            phase: Phase::Stored,
            file: file.to_owned(),
            sha256: sha256(&bytes),
            bytes: bytes.len() as u64,
            parts,
            hashed_late: true,
            ..about.clone()
        };
        self.save(&adopted).is_ok().then_some(adopted)
    }

    /// Directories whose note was never written, or not to its end.
    fn remove_noteless(&self, swept: &mut Swept) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            if uuid::Uuid::parse_str(&name).is_ok() && !has_content(&path) {
                swept.problems.extend(
                    fs::remove_dir_all(&path).err().map(|error| format!("{}: {error}", path.display())),
                );
            }
        }
    }
}

/// Whether a bundle's directory has a note or an archive.
fn has_content(directory: &Path) -> bool {
    [ABOUT, CLEAR, SEALED].iter().any(|file| directory.join(file).exists())
}

fn is_file_name(name: &str) -> bool {
    ["", CLEAR, SEALED].contains(&name)
}

fn write_whole(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let written = whole_file::replace_by(&directory.join(name), &directory.join(UNFINISHED), bytes);
    written.map_err(Failure::io(format!("cannot write {}", directory.join(name).display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const ID: &str = "01990000-0000-7000-8000-000000000001";

    fn about() -> About {
        let trip = Trip { agent: "a".into(), ..Trip::default() };
        About { bundle_id: ID.into(), trip, at_ns: 5, ..About::default() }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::of(directory.path());
        (directory, store)
    }

    #[test]
    fn nobody_else_may_read_a_bundle_and_its_hash_is_that_of_the_file() {
        let (_directory, store) = store();
        store.begin(&about()).unwrap();
        let stored = store.put(&About { recipients: 1, ..about() }, b"abc").unwrap();
        let file = store.file(&stored);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap()), mode(&store.root)), (0o600, 0o700, 0o700));
        assert_eq!(stored.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(file.file_name().unwrap(), SEALED);
        assert_eq!(store.list().unwrap().0, [stored]);
    }

    #[test]
    fn a_daemon_killed_at_any_step_leaves_nothing_half_done() {
        // What is there after each step, and what the next daemon makes of it.
        for (step, unfinished, unlogged, left) in [
            ("directory", 0, 0, 0),
            ("note", 1, 0, 0),
            ("half", 1, 0, 0),
            ("renamed", 0, 1, 1),
            ("stored", 0, 1, 1),
            ("logging", 0, 1, 1),
            ("logged", 0, 0, 1),
        ] {
            let (_directory, store) = store();
            let path = store.directory(ID);
            fs::create_dir_all(&path).unwrap();
            if step != "directory" {
                store.begin(&about()).unwrap();
            }
            match step {
                "half" => fs::write(path.join(UNFINISHED), "ab").unwrap(),
                "renamed" => fs::write(path.join(CLEAR), "abc").unwrap(),
                "stored" | "logging" | "logged" => drop(store.put(&about(), b"abc").unwrap()),
                _ => {}
            }
            if step == "logging" {
                fs::write(path.join(UNFINISHED), "{").unwrap();
            }
            if step == "logged" {
                store.set_phase(ID, Phase::Logged).unwrap();
            }
            let swept = store.sweep();
            assert_eq!((swept.unfinished.len(), swept.unlogged.len()), (unfinished, unlogged), "{step}");
            assert_eq!(swept.problems, Vec::<String>::new(), "{step}");
            let count = fs::read_dir(&store.root).unwrap().count();
            assert_eq!((count, swept.trips.len()), (left, left), "{step}");
            assert!(!path.join(UNFINISHED).exists(), "{step}");
            if step == "renamed" {
                assert!(swept.unlogged[0].hashed_late && swept.unlogged[0].sha256 == sha256(b"abc"));
            }
        }
    }

    #[test]
    fn a_removal_that_was_announced_is_found_and_finished() {
        let (_directory, store) = store();
        store.put(&about(), b"abc").unwrap();
        store.set_phase(ID, Phase::Removing).unwrap();
        let swept = store.sweep();
        assert_eq!((swept.removing.len(), swept.trips.len()), (1, 0));
        store.remove(ID).unwrap();
        store.remove(ID).unwrap();
        assert_eq!(fs::read_dir(&store.root).unwrap().count(), 0);
    }

    #[test]
    fn a_note_that_names_another_file_or_is_nonsense_is_a_problem_and_no_path() {
        let (_directory, store) = store();
        store.save(&About { file: "../../etc/passwd".into(), ..about() }).unwrap();
        assert!(store.about(ID).is_err());
        fs::write(store.directory(ID).join(ABOUT), "{").unwrap();
        let (found, problems) = store.list().unwrap();
        assert_eq!((found.len(), problems.len()), (0, 1));
        fs::create_dir(store.root.join("no-bundle")).unwrap();
        assert_eq!(store.list().unwrap().1.len(), 1, "what has another name is somebody else's");
    }
}
