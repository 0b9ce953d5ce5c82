//! What the book remembers beyond a daemon's life: what was told of flows that live. The flows outlive the daemon, and so
//! their numbers; without this, the next daemon would tell all of them again.

use super::Book;
use super::book::Known;
use super::opening::Opening;
use super::record::Told;
use crate::core::time::Time;
use agentsec_common::flow::FlowKey;
use serde::{Deserialize, Serialize};

/// Turns after which what was to be told is in the log.
const TURNS: u64 = 2;

/// What was told of one flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    key: [u32; 6],
    first_seen_ns: u64,
    told_ns: u64,
    told: Told,
    opening: Option<Opening>,
}

/// A copy of what is known, which may be kept once all of it is in the log.
#[derive(Clone, Debug)]
pub(super) struct Copied {
    turn: u64,
    flows: Vec<Remembered>,
}

impl Book {
    /// Copies what was told, if that has changed and no copy waits.
    pub(super) fn copy(&mut self) {
        if self.has_told && self.copied.is_none() {
            self.has_told = false;
            self.copied = Some(Copied { turn: self.turns, flows: self.remembered() });
        }
    }

    /// What is to be kept now, if there is something new. What is kept is in the log already: after a crash some of it may be
    /// told twice, and nothing not at all.
    pub fn take_for_keeping(&mut self) -> Option<Vec<Remembered>> {
        self.copied.take_if(|copied| copied.turn + TURNS <= self.turns).map(|copied| copied.flows)
    }

    /// What was told of each flow that lives, in the order of their keys.
    #[must_use]
    pub fn remembered(&self) -> Vec<Remembered> {
        let was_told = self.known.iter().filter(|(_, known)| known.told != Told::default());
        let mut flows: Vec<Remembered> = was_told
            .map(|(key, known)| Remembered {
                key: key.to_words(),
                first_seen_ns: known.first_seen_ns,
                told_ns: known.told_ns,
                told: known.told,
                opening: known.opening.clone(),
            })
            .collect();
        flows.sort_unstable_by_key(|flow| flow.key);
        flows
    }

    /// Takes up what an earlier book knew.
    pub fn remember(&mut self, now: Time, flows: Vec<Remembered>) {
        self.known.extend(flows.into_iter().map(|flow| {
            let Remembered { key, first_seen_ns, told_ns, told, opening } = flow;
            let known = Known { first_seen_ns, opening, told, told_ns, seen_ns: now.mono_ns };
            (FlowKey::from_words(key), known)
        }));
    }
}
