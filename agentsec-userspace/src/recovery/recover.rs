//! Carries a plan out: lay out, stop, put in place, start. Everything that can fail slowly comes before anything is
//! touched; what has been touched is undone when a later step fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::config::recovery::StateSource;

use super::child::Cancel;
use super::durable;
use super::error::{Failure, Kind};
use super::freeze::{self, Frozen};
use super::progress::{End, Part, Progress, Way, identity_of};
use super::staging::{self, Target};
use super::store::Store;

/// One agent, as recovery deals with it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its snapshots and commands.
    pub store: Store,
    /// Its cgroup's directory, if it has one.
    pub cgroup: Option<PathBuf>,
}

impl Subject {
    /// What can be known before anything is done: whether something stops it, and its state can be put in place.
    ///
    /// # Errors
    ///
    /// When it cannot be brought back as it is.
    pub fn check(&self, agent: &str) -> Result<(), Failure> {
        if self.store.spec.stop.is_empty() && self.cgroup.is_none() {
            let message =
                format!("nothing stops `{agent}`: it has neither agents.{agent}.recovery.stop nor a cgroup");
            return Err(Failure::new(Kind::Target, message));
        }
        match &self.store.spec.source {
            StateSource::Directory(directory) => self.store.place(&Target::of(directory)?, agent).map(drop),
            _ => Ok(()),
        }
    }
}

/// A recovery at work.
pub struct Recovery<'a> {
    /// Directory of everything about recovery.
    pub home: &'a Path,
    /// Everybody in the plan.
    pub subjects: &'a BTreeMap<String, Subject>,
    /// How far it has come.
    pub progress: Progress,
    /// Ends it while nothing is in place yet.
    pub cancel: &'a Cancel,
    /// Called before anything of an agent's is killed.
    pub before_stop: &'a (dyn Fn(&str) + Sync),
    /// Told what is being done.
    pub tell: &'a mut (dyn FnMut(String) + Send),
}

impl<'a> Recovery<'a> {
    /// Brings everybody in the plan back, or leaves everything as it was.
    ///
    /// # Errors
    ///
    /// Why it was left as it was; or, if undoing failed too, what is left.
    pub fn run(&mut self) -> Result<(), Failure> {
        self.check()?;
        for step in self.progress.plan.steps.clone() {
            self.progress.parts.entry(step.agent).or_default();
        }
        self.progress.save(self.home)?;
        let done = self.lay_out().and_then(|()| self.stop()).and_then(|()| self.place());
        if let Err(failure) = done {
            return Err(self.undo(failure));
        }
        self.finish()
    }

    /// Takes an interrupted recovery up. Whether it went on to the end, or was undone.
    ///
    /// # Errors
    ///
    /// When neither is possible.
    pub fn resume(&mut self) -> Result<Way, Failure> {
        let way = self.progress.way(Part::is_in_place);
        match way {
            Way::Forward => {
                // Who was not stopped yet may have been started again by somebody.
                self.stop()?;
                self.place()?;
                self.finish()?;
            }
            Way::Back => {
                let interrupted = Failure::new(Kind::Cancelled, "interrupted");
                let failure = self.undo(interrupted.clone());
                if failure != interrupted {
                    return Err(failure);
                }
            }
        }
        Ok(way)
    }

    /// What can be known before anything is done.
    fn check(&self) -> Result<(), Failure> {
        for step in &self.progress.plan.steps {
            self.subject(&step.agent)?.check(&step.agent)?;
        }
        Ok(())
    }

    /// Lays every snapshot out beside its target. restic checks each piece: a snapshot that is damaged fails here.
    fn lay_out(&mut self) -> Result<(), Failure> {
        for step in self.progress.plan.steps.clone() {
            let store = &self.subject(&step.agent)?.store;
            (self.tell)(format!("reading snapshot {} of {}", super::plan::short(&step.snapshot), step.agent));
            let target = match &store.spec.source {
                StateSource::Directory(directory) => Target::of(directory)?,
                // A command takes it: it waits among our own files.
                _ => Target::of(&store.file("laid-out"))?,
            };
            let is_directory = matches!(store.spec.source, StateSource::Directory(_));
            let name =
                staging::name_for(&step.agent, std::ffi::OsStr::new(super::plan::short(&step.snapshot)));
            let place = store.place(&target, &name)?;
            self.part(&step.agent).place = Some(place);
            self.progress.save(self.home)?;
            let laid_out = store.lay_out(&step.snapshot, &target, &name, self.cancel)?;
            let part = self.progress.parts.entry(step.agent.clone()).or_default();
            part.identity = if is_directory { identity_of(&laid_out.directory) } else { None };
            part.read_from = laid_out.read_from();
            (part.laid_out, part.place) = (Some(laid_out.directory), Some(laid_out.place));
            part.target = is_directory.then_some(target);
            self.progress.save(self.home)?;
        }
        Ok(())
    }

    /// Stops everybody, dependents first.
    fn stop(&mut self) -> Result<(), Failure> {
        for step in self.progress.plan.steps.clone().into_iter().rev() {
            if self.cancel.is_cancelled() {
                return Err(Failure::new(Kind::Cancelled, "cancelled"));
            }
            self.part(&step.agent).stopped = true;
            self.progress.save(self.home)?;
            (self.tell)(format!("stopping {}", step.agent));
            (self.before_stop)(&step.agent);
            let subject = self.subject(&step.agent)?;
            let store = &subject.store;
            store.command(&store.spec.stop, self.cancel)?;
            // What the command has left, or everything if there is none: frozen first, so that nothing forks away.
            if let Some(cgroup) = subject.cgroup.as_deref().filter(|cgroup| cgroup.exists()) {
                if store.spec.stop.is_empty() {
                    Frozen::new(cgroup, &store.file("frozen"))?.kill()?;
                } else {
                    freeze::kill(cgroup)?;
                }
            }
        }
        Ok(())
    }

    /// Puts every state in place, dependencies first.
    fn place(&mut self) -> Result<(), Failure> {
        for step in self.progress.plan.steps.clone() {
            let part = self.part(&step.agent);
            if part.target.is_some() && part.is_in_place() {
                continue;
            }
            part.placed = true;
            let part = part.clone();
            self.progress.save(self.home)?;
            (self.tell)(format!("putting {} back", step.agent));
            let laid_out =
                part.laid_out.ok_or_else(|| Failure::new(Kind::Other, "nothing has been laid out"))?;
            match &part.target {
                Some(target) => staging::exchange(&laid_out, target).map(drop)?,
                None => self.subject(&step.agent)?.store.feed(&laid_out, self.cancel)?,
            }
        }
        Ok(())
    }

    /// Starts everybody, dependencies first, and keeps what was there before as evidence.
    fn finish(&mut self) -> Result<(), Failure> {
        let mut failed = Vec::new();
        for step in self.progress.plan.steps.clone() {
            (self.tell)(format!("starting {}", step.agent));
            let store = &self.subject(&step.agent)?.store;
            // The state is right; an operator can start it by hand.
            failed.extend(store.command(&store.spec.start, &Cancel::default()).err());
        }
        // Only then: nobody stays stopped because of what cannot be tidied up.
        for step in self.progress.plan.steps.clone() {
            failed.extend(self.keep_replaced(&step.agent).err());
        }
        if failed.is_empty() {
            return self.end(End::Well);
        }
        let failed: Vec<String> = failed.into_iter().map(|failure| failure.message).collect();
        let failure =
            Failure::new(Kind::Command, format!("the state is restored, but: {}", failed.join("; ")));
        self.end(End::Badly(failure.message.clone()))?;
        Err(failure)
    }

    /// Nothing is left to do; whoever tells of it removes the file.
    fn end(&mut self, end: End) -> Result<(), Failure> {
        self.progress.ended = Some(end);
        self.progress.save(self.home)
    }

    /// Keeps what was there before in the place of what an earlier recovery has kept. It may be done again.
    fn keep_replaced(&mut self, agent: &str) -> Result<(), Failure> {
        let kept = self.subject(agent)?.store.file("replaced.json");
        let part = self.part(agent).clone();
        let Some(place) = part.place else { return Ok(()) };
        let evidence = evidence_path(&place);
        if part.target.is_some() && part.laid_out.is_some_and(|path| path.exists()) {
            // One that is spoilt names nothing that could be removed.
            if let Ok(Some(old)) = durable::load::<PathBuf>(&kept) {
                staging::clear(&old)?;
            }
            staging::clear(&evidence)?;
            fs::rename(&place, &evidence).map_err(Failure::io(place.display()))?;
        } else {
            staging::clear(&place)?;
        }
        if evidence.exists() { durable::save(&kept, &evidence) } else { Ok(()) }
    }

    /// Leaves everything as it was; `failure`, with what could not be undone.
    fn undo(&mut self, failure: Failure) -> Failure {
        let mut left = Vec::new();
        for step in self.progress.plan.steps.clone().into_iter().rev() {
            if let Err(problem) = self.undo_one(&step.agent) {
                left.push(format!("{}: {}", step.agent, problem.message));
            }
        }
        let (fed, others): (Vec<String>, Vec<String>) = self
            .progress
            .plan
            .steps
            .iter()
            .map(|step| step.agent.clone())
            .partition(|agent| self.progress.parts.get(agent).is_some_and(Part::is_fed));
        for agent in others {
            let Ok(subject) = self.subject(&agent) else { continue };
            let store = &subject.store;
            if self.progress.parts.get(&agent).is_some_and(|part| part.stopped)
                && let Err(problem) = store.command(&store.spec.start, &Cancel::default())
            {
                left.push(problem.message);
            }
        }
        let mut message = failure.message;
        if !fed.is_empty() {
            message.push_str(&format!(
                "; left stopped, since the restore command had begun and the state is no longer what it was: {}",
                fed.join(", ")
            ));
        }
        if left.is_empty()
            && let Err(problem) = self.end(End::Badly(message.clone()))
        {
            left.push(problem.message);
        }
        if !left.is_empty() {
            message.push_str(&format!("; and could not be undone: {}", left.join("; ")));
        }
        Failure::new(failure.kind, message)
    }

    fn undo_one(&mut self, agent: &str) -> Result<(), Failure> {
        let part = self.part(agent).clone();
        if let (Some(target), Some(laid_out)) = (&part.target, &part.laid_out)
            && part.placed
            && part.is_in_place()
        {
            if laid_out.exists() {
                staging::exchange(laid_out, target)?;
            } else {
                // There was nothing before.
                fs::rename(target.path(), laid_out).map_err(Failure::io(target.path().display()))?;
            }
        }
        match &part.place {
            Some(place) => staging::clear(place),
            None => Ok(()),
        }
    }

    fn subject(&self, agent: &str) -> Result<&'a Subject, Failure> {
        let unknown = || Failure::new(Kind::Other, format!("`{agent}` is no longer recoverable"));
        self.subjects.get(agent).ok_or_else(unknown)
    }

    fn part(&mut self, agent: &str) -> &mut Part {
        self.progress.parts.entry(agent.to_owned()).or_default()
    }
}

fn evidence_path(place: &Path) -> PathBuf {
    let mut path = place.as_os_str().to_owned();
    path.push("-replaced");
    PathBuf::from(path)
}
