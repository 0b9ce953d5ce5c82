//! What everybody talks to.
//!
//! A resolver or a gateway is talked to by each agent, compromised or not, so that an agent talks to it says nothing.
//! The weight of an edge would be the inverse of how many agents have it; this rule is the two-valued form of that, so
//! that it can be said in one sentence and each exclusion can be listed: what is talked to by at least [`FEWEST`]
//! agents and by at least a share of all agents is *common*.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// With fewer clients nothing is common, however few agents there are.
pub const FEWEST: usize = 5;

/// How many clients each service has.
#[derive(Debug)]
pub struct Clients<S> {
    counts: HashMap<S, usize>,
    threshold: usize,
}

impl<S: Copy + Eq + Hash> Clients<S> {
    /// Counts the different clients of each service. `share_percent` of `agents` make a service common.
    pub fn count(pairs: impl Iterator<Item = (u32, S)>, agents: usize, share_percent: u8) -> Self {
        let mut different = HashSet::new();
        let mut counts = HashMap::new();
        for pair in pairs {
            if different.insert(pair) {
                *counts.entry(pair.1).or_default() += 1;
            }
        }
        let threshold = (agents * usize::from(share_percent)).div_ceil(100).max(FEWEST);
        Self { counts, threshold }
    }

    /// How many agents talk to it.
    pub fn of(&self, service: S) -> usize {
        self.counts.get(&service).copied().unwrap_or(0)
    }

    /// Whether everybody talks to it.
    pub fn is_common(&self, service: S) -> bool {
        self.of(service) >= self.threshold
    }
}
