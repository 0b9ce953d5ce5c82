//! What checkpoints in files vouch for: up to which entry somebody besides this host knows the log.

use super::cosign::{Cosignature, WitnessKey};
use super::history;
use crate::record::evidence::check::{Kept, Report};
use crate::record::evidence::note::{Checkpoint, PublicKey};
use serde::Serialize;

/// The most checkpoints of one history that are compared with the log.
const COMPARED: usize = 1000;

/// What some files vouch for.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    /// The newest checkpoint of this log in them.
    pub newest: Option<Checkpoint>,
    /// The newest one that a witness has cosigned, and its word.
    pub cosigned: Option<(Checkpoint, Cosignature)>,
    /// Checkpoints to compare the log with ([`crate::record::evidence::check::check`]): of a long history some, spread over it.
    pub kept: Vec<Kept>,
    /// Checkpoints of other logs, which say nothing about this one.
    pub others: usize,
}

/// Why a file vouches for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCheckpoint {
    /// Its name.
    pub from: String,
    /// Why.
    pub why: &'static str,
}

impl std::fmt::Display for NoCheckpoint {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.from, self.why)
    }
}

impl std::error::Error for NoCheckpoint {}

/// What `files` (name and text each: a checkpoint, a cosigned one, or an anchor's history of them) vouch for about
/// the log of `key`. A cosignature counts when it is by one of `witnesses`.
///
/// # Errors
///
/// When a file has no checkpoint of this log at all.
pub fn newest_trusted(
    files: &[(String, String)],
    key: &PublicKey,
    witnesses: &[WitnessKey],
) -> Result<Trusted, NoCheckpoint> {
    let mut trusted = Trusted::default();
    for (from, text) in files {
        let fail = |why| NoCheckpoint { from: from.clone(), why };
        let notes = history::notes(text);
        if notes.is_empty() {
            return Err(fail("there is no signed checkpoint in it"));
        }
        let ours: Vec<&str> = notes.iter().copied().filter(|note| origin(note) == Some(key.name())).collect();
        trusted.others += notes.len() - ours.len();
        if ours.is_empty() {
            return Err(fail("its checkpoints are of other logs"));
        }
        trusted.look_at(from, &spread(&ours), key, witnesses);
    }
    Ok(trusted)
}

impl Trusted {
    fn look_at(&mut self, from: &str, notes: &[&str], key: &PublicKey, witnesses: &[WitnessKey]) {
        for note in notes {
            // Also those that are signed by another key: the check says so.
            self.kept.push(Kept { from: from.to_owned(), signed: (*note).to_owned() });
            let Ok(checkpoint) = key.checkpoint(note) else { continue };
            if let Some(cosignature) = cosigned(note, witnesses)
                && self.cosigned.as_ref().is_none_or(|(known, _)| known.size <= checkpoint.size)
            {
                self.cosigned = Some((checkpoint.clone(), cosignature));
            }
            if self.newest.as_ref().is_none_or(|known| known.size <= checkpoint.size) {
                self.newest = Some(checkpoint);
            }
        }
    }

    /// What is anchored and what only this host says, by the report of a check against [`Self::kept`].
    #[must_use]
    pub fn standing(&self, report: &Report) -> Standing {
        let cosigned = self.cosigned.as_ref().map_or(0, |(checkpoint, _)| checkpoint.size);
        let whole = report.signed + report.waiting;
        Standing {
            anchored: report.anchored,
            cosigned: cosigned.min(report.anchored),
            self_attested: whole.saturating_sub(report.anchored),
        }
    }
}

/// How much of a log rests on whose word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Entries that a checkpoint from elsewhere covers.
    pub anchored: u64,
    /// Of these, entries that a witness has vouched for.
    pub cosigned: u64,
    /// Entries for which there is only this host's word.
    pub self_attested: u64,
}

fn cosigned(note: &str, witnesses: &[WitnessKey]) -> Option<Cosignature> {
    let at = note.rfind("\n\n")?;
    let (text, lines) = (&note[..=at], &note[at + 2..]);
    witnesses.iter().find_map(|key| key.find(text, lines).ok().flatten())
}

fn origin(note: &str) -> Option<&str> {
    note.lines().next()
}

/// All, or of very many the newest and others evenly before it.
fn spread<'a>(notes: &[&'a str]) -> Vec<&'a str> {
    let step = notes.len().div_ceil(COMPARED).max(1);
    let mut some: Vec<&str> = notes.iter().rev().step_by(step).copied().collect();
    some.reverse();
    some
}
