//! A bundle as the disk and the log together tell it.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::super::Context;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::ledger::{Ledger, Said};
use crate::bundle::Trip;
use crate::bundle::sha256;
use crate::bundle::store::{About, Phase, Store};
use crate::core::time::rfc3339;

/// Whether a bundle's file is what the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// It has the SHA-256 that the log names.
    Matches,
    /// It has another one, or the log names several.
    Differs,
    /// The log does not know it.
    NotInLog,
    /// The log knows it, and there is no file.
    Missing,
    /// It is still being collected.
    Collecting,
}

impl Verdict {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Matches => "matches",
            Self::Differs => "DIFFERS",
            Self::NotInLog => "not in the log",
            Self::Missing => "MISSING",
            Self::Collecting => "being collected",
        }
    }
}

/// A bundle.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Found {
    pub(super) bundle: String,
    #[serde(flatten)]
    pub(super) trip: Trip,
    /// When it was collected.
    pub(super) at: String,
    pub(super) bytes: u64,
    pub(super) sha256: Option<String>,
    pub(super) encrypted: bool,
    /// `complete`, `partial` or `unknown`.
    pub(super) status: String,
    pub(super) parts: Value,
    pub(super) log: Verdict,
    pub(super) file: Option<PathBuf>,
}

/// Every bundle on the disk, and every one that the log knows and that was not removed; oldest first.
pub(super) fn all(context: &Context, ledger: &Ledger) -> Result<Vec<Found>, CliError> {
    let store = Store::of(&context.global.state_dir);
    let (notes, problems) = store.list().map_err(|failure| {
        CliError::new(
            Exit::Refused,
            failure.message,
            Some("run this as root: evidence is readable by its owner only"),
        )
    })?;
    if let Some(problem) = problems.first() {
        eprintln!("agentsec: {problem}");
    }
    let mut found: Vec<Found> = notes.iter().map(|about| of_note(&store, about, ledger)).collect();
    for (id, said) in &ledger.collected {
        if !ledger.removed.contains(id) && found.iter().all(|one| one.bundle != *id) {
            found.push(of_log(&store, id, said));
        }
    }
    found.sort_by(|a, b| (&a.at, &a.bundle).cmp(&(&b.at, &b.bundle)));
    Ok(found)
}

/// A bundle without a note that can be read.
fn of_log(store: &Store, id: &str, said: &Said) -> Found {
    let file = store.archive_of(id);
    let hash = file.as_ref().and_then(|file| fs::read(file).ok()).map(|bytes| sha256(&bytes));
    Found {
        bundle: id.to_owned(),
        trip: said.trip.clone(),
        at: said.at.clone(),
        bytes: said.bytes,
        sha256: said.hashes.first().cloned(),
        encrypted: said.recipients > 0,
        status: said.status.clone(),
        parts: said.parts.clone(),
        log: hash.map_or(Verdict::Missing, |hash| verdict(&hash, Some(said))),
        file,
    }
}

fn of_note(store: &Store, about: &About, ledger: &Ledger) -> Found {
    let file = store.file(about);
    let said = ledger.collected.get(&about.bundle_id);
    let hash = if about.phase == Phase::Collecting {
        None
    } else {
        fs::read(&file).ok().map(|bytes| sha256(&bytes))
    };
    let log = match &hash {
        None if about.phase == Phase::Collecting => Verdict::Collecting,
        None => Verdict::Missing,
        Some(hash) => verdict(hash, said),
    };
    let status = said.map_or_else(|| "unknown".to_owned(), |said| said.status.clone());
    Found {
        bundle: about.bundle_id.clone(),
        trip: about.trip.clone(),
        at: rfc3339(about.at_ns),
        bytes: about.bytes,
        sha256: hash,
        encrypted: about.recipients > 0,
        status,
        parts: serde_json::to_value(&about.parts).unwrap_or_default(),
        log,
        file: Some(file),
    }
}

fn verdict(hash: &str, said: Option<&Said>) -> Verdict {
    match said {
        None => Verdict::NotInLog,
        Some(said) if said.hashes.len() == 1 && said.hashes.contains(hash) => Verdict::Matches,
        Some(_) => Verdict::Differs,
    }
}

/// The one bundle whose id begins so.
pub(super) fn one(context: &Context, ledger: &Ledger, id: &str) -> Result<Found, CliError> {
    let mut fitting: Vec<Found> = all(context, ledger)?;
    fitting.retain(|found| found.bundle.starts_with(id));
    match (fitting.pop(), fitting.len()) {
        (Some(found), 0) => Ok(found),
        (None, _) => {
            let message = format!("there is no bundle {id}");
            Err(CliError::new(
                Exit::NotFound,
                message,
                Some("`agentsec bundle list` shows those that there are"),
            ))
        }
        (Some(_), others) => Err(CliError::new(
            Exit::Usage,
            format!("{} bundles begin with {id}: give more of the id", others + 1),
            None,
        )),
    }
}

/// The bytes of a bundle, with the verdict over exactly these.
pub(super) fn read(found: &Found, ledger: &Ledger) -> Result<(Vec<u8>, Verdict), CliError> {
    let missing =
        || CliError::new(Exit::NotFound, format!("the file of bundle {} is gone", found.bundle), None);
    let path = found.file.as_ref().filter(|_| found.log != Verdict::Collecting).ok_or_else(missing)?;
    let bytes = fs::read(path).map_err(|error| CliError::failure(format!("{}: {error}", path.display())))?;
    let verdict = verdict(&sha256(&bytes), ledger.collected.get(&found.bundle));
    Ok((bytes, verdict))
}
