//! One agent's snapshots: taking them, reading them again, and laying them out for being restored.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::config::recovery::{AgentRecovery, RecoveryConfig, StateSource};
use crate::whole_file;

use super::catalogue::{Catalogue, Record};
use super::child::{self, Bounds, Cancel, ChildError};
use super::durable;
use super::error::{Failure, Kind};
use super::key;
use super::memory::Memory;
use super::moment::Moment;
use super::restic::{self, Progress, Restic, Stored};
use super::staging::{self, Target};

/// Names of the directory and the file that hold state which is no directory itself.
const STREAM_DIRECTORY: &str = "state";
const STREAM_FILE: &str = "content";

/// The most that can be handed over, bytes: it is in memory at once.
pub const HANDED_BYTES: usize = 256 << 20;

/// What a snapshot is taken for.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Names what is taken together.
    pub point: String,
    /// The snapshots that it has to fit, by agent.
    pub depends: BTreeMap<String, String>,
    /// Whether the agent is frozen.
    pub frozen: bool,
    /// Who asks.
    pub by: String,
}

/// One agent's snapshots.
#[derive(Clone, Debug)]
pub struct Store {
    /// The agent.
    pub agent: String,
    /// How it is brought back.
    pub spec: AgentRecovery,
    /// Its repository.
    pub restic: Restic,
    /// Where copies go.
    pub copy_to: Option<String>,
    /// Where what is recent is in memory, if anywhere.
    pub memory: Option<Memory>,
    /// What we know of it.
    directory: PathBuf,
    /// Where restored state waits.
    pub(super) staging: PathBuf,
}

/// Directory of everything about recovery below the daemon's state directory.
#[must_use]
pub fn home(state_dir: &Path) -> PathBuf {
    state_dir.join("recovery")
}

impl Store {
    /// The store of `agent`, in which nothing is touched yet.
    ///
    /// # Errors
    ///
    /// When the environment file cannot be used.
    pub fn new(
        agent: &str,
        spec: &AgentRecovery,
        common: &RecoveryConfig,
        state_dir: &Path,
    ) -> Result<Self, Failure> {
        let environment = match &common.environment_file {
            Some(path) => restic::environment(path)?,
            None => BTreeMap::new(),
        };
        let below = |base: &str| format!("{}/{agent}", base.trim_end_matches('/'));
        let default = || below(&state_dir.join("snapshots").to_string_lossy());
        let repository = spec
            .repository
            .clone()
            .or_else(|| common.repository.as_deref().map(below))
            .unwrap_or_else(default);
        let home = home(state_dir);
        Ok(Self {
            agent: agent.to_owned(),
            spec: spec.clone(),
            restic: Restic {
                program: common.program.clone(),
                repository,
                key_file: common.key_file.clone().unwrap_or_else(|| state_dir.join("snapshot.key")),
                cache: home.join("cache"),
                environment,
                deadline: Duration::from_nanos(common.timeout_ns),
                nice: false,
            },
            copy_to: common.copy_to.as_deref().map(below),
            memory: None,
            directory: home.join("agents").join(agent),
            staging: home.join(staging::HOME),
        })
    }

    /// The same with what is recent in memory, below `home` if that is given.
    #[must_use]
    pub fn in_memory(mut self, home: Option<&Path>, common: &RecoveryConfig) -> Self {
        self.memory = home.zip(common.memory_bytes).map(|(home, most)| Memory::new(home, &self.agent, most));
        self
    }

    /// Path of a file about this agent.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What we know of its snapshots.
    ///
    /// # Errors
    ///
    /// When the catalogue is spoilt.
    pub fn catalogue(&self) -> Result<Catalogue, Failure> {
        let mut catalogue = Catalogue::open(&self.directory)?;
        if let Some(memory) = &self.memory {
            memory.mark(&mut catalogue.records);
        }
        Ok(catalogue)
    }

    /// Makes key, directories and repository, as far as they are not there.
    ///
    /// # Errors
    ///
    /// When one cannot be made.
    pub fn prepare(&self, cancel: &Cancel) -> Result<(), Failure> {
        durable::private_directory(&self.directory)?;
        if !self.restic.key_file.exists() && self.was_used() {
            let message = format!(
                "the key file {} is gone, and there are snapshots that were made with it: put its copy back",
                self.restic.key_file.display()
            );
            return Err(Failure::new(Kind::Key, message));
        }
        key::ensure(&self.restic.key_file)?;
        if let Some(why) = self.is_gone()? {
            return Err(Failure::new(Kind::NoRepository, why));
        }
        if self.restic.is_local() {
            durable::private_directory(Path::new(&self.restic.repository))?;
        }
        if self.has_snapshots()? { Ok(()) } else { self.restic.ensure(cancel) }
    }

    /// What to do if its repository is a directory of this machine that ought to be there, and is not: a disk that is not
    /// mounted, most likely. A new one in its place would have all snapshots taken for lost.
    ///
    /// # Errors
    ///
    /// When the catalogue is spoilt.
    pub fn is_gone(&self) -> Result<Option<String>, Failure> {
        let is_there = !self.restic.is_local() || Path::new(&self.restic.repository).join("config").is_file();
        let message = || {
            format!(
                "there is no repository in {}, where snapshots are: mount its disk, or put it back; to begin anew, move \
                 {} away",
                self.restic.shown(),
                self.file("catalogue.json").display()
            )
        };
        Ok((!is_there && self.has_snapshots()?).then(message))
    }

    /// Whether its repository has snapshots, as far as we know: then it is never made anew.
    fn has_snapshots(&self) -> Result<bool, Failure> {
        Ok(self.catalogue()?.records.iter().any(|record| !record.missing))
    }

    /// Whether any agent has a catalogue: then there has been a key.
    fn was_used(&self) -> bool {
        let agents = self.directory.parent().map(fs::read_dir);
        let mut agents = agents.into_iter().flatten().flatten().flatten();
        agents.any(|agent| agent.path().join("catalogue.json").exists())
    }

    /// Takes a snapshot. It is in the catalogue once it is in the repository, and not yet verified.
    /// Its tree may not be known yet: [`Self::compare`] and [`Self::verify`] read it.
    ///
    /// # Errors
    ///
    /// When the state could not be read completely or be stored; then there is no snapshot.
    pub fn create(
        &self,
        wish: &Wish,
        now: &dyn Fn() -> Moment,
        cancel: &Cancel,
        progress: Progress<'_>,
    ) -> Result<Record, Failure> {
        self.prepare(cancel)?;
        // A spoilt catalogue is no reason to read everything first.
        let mut catalogue = self.catalogue()?;
        let started = now();
        let (parent, name) = self.source(cancel)?;
        let mut tags = vec![format!("agent:{}", self.agent), format!("point:{}", wish.point)];
        tags.extend(wish.depends.iter().map(|(agent, id)| format!("depends:{agent}={id}")));
        self.note_unfinished(|points| points.insert(wish.point.clone()))?;
        let stored = self.restic.backup(&parent, &name, &tags, cancel, progress);
        let finished = now();
        if self.restic.is_local() && stored.as_ref().is_err_and(|failure| failure.kind == Kind::NoSpace) {
            // What was stored of it fills the disk that the forensic log may be on, and nobody else would remove it.
            let _ = self.restic.prune(cancel);
        }
        if matches!(self.spec.source, StateSource::Command(_)) {
            staging::clear(&parent)?;
        }
        let (short, written) = stored?;
        let (id, tree) = self.restic.identify(&short, cancel)?;
        let record = Record {
            id,
            tree,
            point: wish.point.clone(),
            started,
            finished,
            files: written.files,
            bytes: written.bytes,
            added: written.added,
            frozen: wish.frozen,
            vanished: written.vanished,
            depends: wish.depends.clone(),
            by: wish.by.clone(),
            ..Record::default()
        };
        catalogue.records.push(record.clone());
        catalogue.save()?;
        self.note_unfinished(|points| points.remove(&wish.point))?;
        Ok(record)
    }

    /// Notes the points of which the repository may have a snapshot and the catalogue has none, because the daemon was
    /// killed between the two.
    fn note_unfinished<T>(&self, change: impl FnOnce(&mut BTreeSet<String>) -> T) -> Result<T, Failure> {
        let path = self.file("unfinished.json");
        let before: BTreeSet<String> = durable::load(&path)?.unwrap_or_default();
        let mut points = before.clone();
        let changed = change(&mut points);
        match points.is_empty() {
            true => durable::remove(&path)?,
            false if points != before => durable::save(&path, &points)?,
            false => {}
        }
        Ok(changed)
    }

    /// Has the repository forget what was stored of snapshots that came to nothing; what else of `strangers` is there.
    fn forget_unfinished(&self, strangers: Vec<Stored>, cancel: &Cancel) -> Result<Vec<Stored>, Failure> {
        let points = self.note_unfinished(|points| points.clone())?;
        let is_ours = |stored: &Stored| {
            stored
                .tags
                .iter()
                .filter_map(|tag| tag.strip_prefix("point:"))
                .any(|point| points.contains(point))
        };
        let (ours, mut others): (Vec<Stored>, Vec<Stored>) = strangers.into_iter().partition(is_ours);
        let ids: Vec<String> = ours.iter().map(|stored| stored.id.clone()).collect();
        if !ids.is_empty() && self.restic.forget(&ids, false, cancel).is_err() {
            // A store that lets nothing be removed keeps them: they are told as what they are to anybody else.
            others.extend(ours);
        }
        self.note_unfinished(BTreeSet::clear)?;
        Ok(others)
    }

    /// Parent and name of the directory to be stored.
    fn source(&self, cancel: &Cancel) -> Result<(PathBuf, OsString), Failure> {
        let directory = match &self.spec.source {
            StateSource::Directory(directory) => {
                let unfit = |why: String| Failure::new(Kind::Source, why);
                // What could not change places with what is restored is known before it is needed.
                let target = Target::of(directory).map_err(|failure| unfit(failure.message))?;
                if !target.exists()? {
                    return Err(unfit(format!("{} is not there", directory.display())));
                }
                self.check_apart(&target.path())?;
                target.path()
            }
            StateSource::Command(words) => self.spool(words, cancel)?,
            StateSource::Handed => {
                let directory = self.file("handed").join(STREAM_DIRECTORY);
                if !directory.join(STREAM_FILE).is_file() {
                    let message = format!("`{}` has handed over no state yet", self.agent);
                    return Err(Failure::new(Kind::Source, message));
                }
                directory
            }
        };
        match (directory.parent(), directory.file_name()) {
            (Some(parent), Some(name)) => Ok((parent.to_owned(), name.to_owned())),
            _ => Err(Failure::new(Kind::Source, format!("{} has no name", directory.display()))),
        }
    }

    /// A state must hold nothing of ours: a snapshot would hold its own repository, and a recovery put it back.
    fn check_apart(&self, directory: &Path) -> Result<(), Failure> {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let repository = Path::new(&self.restic.repository);
        let ours = [repository, &self.restic.key_file, &self.directory];
        match ours.into_iter().find(|ours| real(ours).starts_with(real(directory))) {
            None => Ok(()),
            Some(ours) => {
                let message =
                    format!("{} is no state of an agent's: {} is in it", directory.display(), ours.display());
                Err(Failure::new(Kind::Source, message))
            }
        }
    }

    /// Writes a command's output into a directory of its own. What ends badly is no state: half of it is not kept.
    fn spool(&self, words: &[String], cancel: &Cancel) -> Result<PathBuf, Failure> {
        let spool = self.file("spool");
        staging::clear(&spool)?;
        self.spool_into(&spool, words, cancel).inspect_err(|_| {
            // It may have filled the disk. What stays is removed the next time.
            let _ = staging::clear(&spool);
        })
    }

    fn spool_into(&self, spool: &Path, words: &[String], cancel: &Cancel) -> Result<PathBuf, Failure> {
        let directory = spool.join(STREAM_DIRECTORY);
        durable::private_directory(&directory)?;
        let file = File::create(directory.join(STREAM_FILE)).map_err(Failure::io(spool.display()))?;
        // It ends with the daemon: nobody would read what it still says.
        let words_that_end = child::ending_with_us().into_iter().chain(words.iter().map(String::as_str));
        let mut command = operators_command(words_that_end);
        command.stdin(Stdio::null());
        let ended = child::copy(&mut command, self.bounds(cancel), self.spec.max_state_bytes, file);
        let failed = |why: &dyn std::fmt::Display| {
            Failure::new(Kind::Command, format!("the command {} that tells the state {why}", words[0]))
        };
        let ended = ended.map_err(|error| match error {
            ChildError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Failure::io(format!("keeping what {} tells of the state", words[0]))(error)
            }
            error => failed(&error),
        })?;
        if ended.status.success() {
            return Ok(directory);
        }
        Err(failed(&format!("failed ({}): {}", ended.status, ended.said)))
    }

    /// Keeps state that was handed over, for the next snapshot.
    ///
    /// # Errors
    ///
    /// When this agent hands over none, it is too long, or cannot be written.
    pub fn hand_over(&self, state: &[u8]) -> Result<(), Failure> {
        if self.spec.source != StateSource::Handed {
            let message = format!("the state of `{}` is not handed over, by its configuration", self.agent);
            return Err(Failure::new(Kind::Source, message));
        }
        if state.len() as u64 > self.spec.max_state_bytes {
            let message = format!("more than max_state, which is {} bytes", self.spec.max_state_bytes);
            return Err(Failure::new(Kind::Source, message));
        }
        // One at a time, or two would write into the same file.
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = self.file("handed").join(STREAM_DIRECTORY);
        durable::private_directory(&directory)?;
        let path = directory.join(STREAM_FILE);
        whole_file::replace_by(&path, &self.file("handed").join("new"), state)
            .map_err(Failure::io(path.display()))
    }

    /// Reads every byte of a snapshot again and notes what came of it.
    ///
    /// # Errors
    ///
    /// When anything is missing or changed, which is noted too; or when it could not be found out.
    pub fn verify(
        &self,
        id: &str,
        now: &dyn Fn() -> Moment,
        cancel: &Cancel,
        progress: Progress<'_>,
    ) -> Result<Record, Failure> {
        let mut catalogue = self.catalogue()?;
        let record = catalogue.find(id)?.clone();
        let found = self.restic.verify(&record.id, record.tree.as_deref(), record.bytes, cancel, progress);
        let result = found.and_then(|found| {
            let message = format!(
                "snapshot {} has {} files of {} bytes, and was made with {} of {}",
                record.id, found.files, found.bytes, record.files, record.bytes
            );
            // A file with several names is counted once when it is stored and with each name when it is read.
            if found.files < record.files || found.bytes < record.bytes {
                return Err(Failure::new(Kind::Damaged, message));
            }
            Ok(found.tree)
        });
        let verified = now().wall_ns;
        catalogue.update(&record.id, |record| match &result {
            Ok(tree) => {
                record.tree = Some(tree.clone());
                (record.verified_ns, record.damaged, record.missing) = (Some(verified), None, false);
            }
            Err(failure) if failure.kind == Kind::Damaged => record.damaged = Some(failure.message.clone()),
            Err(failure) if failure.kind == Kind::NoSnapshot => record.missing = true,
            Err(_) => {}
        });
        catalogue.save()?;
        result?;
        catalogue.find(&record.id).cloned()
    }

    /// Notes that what was taken since an incident began may be the attacker's: an earlier state, `restored`, has been put
    /// in its place. No later incident takes it for clean.
    ///
    /// # Errors
    ///
    /// When the catalogue cannot be read or written.
    pub fn suspect(&self, incident: &str, since: &Moment, restored: &str) -> Result<(), Failure> {
        let mut catalogue = self.catalogue()?;
        for record in &mut catalogue.records {
            if record.id != restored && !record.finished.is_before(since) {
                record.suspect.get_or_insert_with(|| incident.to_owned());
            }
        }
        catalogue.save()
    }

    /// Compares the catalogue with the repository; snapshots that we never made. What a snapshot that came to nothing has
    /// left there is forgotten.
    ///
    /// # Errors
    ///
    /// When one of the two cannot be read.
    pub fn compare(&self, cancel: &Cancel) -> Result<Vec<Stored>, Failure> {
        let mut catalogue = self.catalogue()?;
        let strangers = catalogue.compare(&self.restic.snapshots(None, cancel)?);
        catalogue.save()?;
        self.forget_unfinished(strangers, cancel)
    }

    /// Hands the content of a laid-out stream to the command that puts it back.
    ///
    /// # Errors
    ///
    /// When there is none, or the command fails.
    pub fn feed(&self, laid_out: &Path, cancel: &Cancel) -> Result<(), Failure> {
        let path = laid_out.join(STREAM_FILE);
        let content = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|error| Failure::new(Kind::Damaged, format!("{}: {error}", path.display())))?;
        // It ends with the daemon: the next one begins it anew, and two at once would spoil the state.
        let words = child::ending_with_us().into_iter().chain(self.spec.restore.iter().map(String::as_str));
        let mut command = operators_command(words);
        command.stdin(content);
        self.end(command, &self.spec.restore, cancel)
    }

    /// Runs one of the agent's commands; one of no words does nothing.
    ///
    /// # Errors
    ///
    /// When it fails or hangs.
    pub fn command(&self, words: &[String], cancel: &Cancel) -> Result<(), Failure> {
        if words.is_empty() {
            return Ok(());
        }
        let mut command = operators_command(words.iter().map(String::as_str));
        command.stdin(Stdio::null());
        self.end(command, words, cancel)
    }

    fn end(&self, mut command: Command, words: &[String], cancel: &Cancel) -> Result<(), Failure> {
        let shown = words.join(" ");
        let ended = child::detached(&mut command, self.bounds(cancel), &self.file("command.log"))
            .map_err(|error| Failure::new(Kind::Command, format!("`{shown}` {error}")))?;
        if ended.status.success() {
            return Ok(());
        }
        Err(Failure::new(Kind::Command, format!("`{shown}` failed ({}): {}", ended.status, ended.said)))
    }

    fn bounds<'a>(&self, cancel: &'a Cancel) -> Bounds<'a> {
        let deadline = Duration::from_nanos(self.spec.command_timeout_ns);
        Bounds { deadline, cancel, hear: &child::keep }
    }
}

/// A command as configured: with no environment but the ordinary search path.
fn operators_command<'a>(words: impl IntoIterator<Item = &'a str>) -> Command {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir("/").env_clear();
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}
