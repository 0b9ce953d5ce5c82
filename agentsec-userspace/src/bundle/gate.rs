//! Makes those wait who are about to destroy evidence (who kill an agent's processes), until it is kept or their patience is
//! over. Packets and the breaker never come here.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Nothing was being collected.
    NotNeeded,
    /// The evidence is kept; it took so long.
    Kept(Duration),
    /// It still was not after so long.
    GaveUp(Duration),
}

/// Of whom evidence is being collected.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    collecting: BTreeMap<String, u32>,
    waiting: u32,
    patience: Duration,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long anybody waits at most.
    pub fn set_patience(&self, patience: Duration) {
        self.state().patience = patience;
    }

    /// Collecting of an agent's evidence begins; it lasts until what is returned is dropped.
    #[must_use]
    pub fn close(&self, agent: &str) -> Closed {
        *self.state().collecting.entry(agent.to_owned()).or_default() += 1;
        Closed { gate: self.clone(), agent: agent.to_owned() }
    }

    /// Waits until no evidence of anybody is being collected, but not longer than `patience`. Whether that is so.
    #[must_use]
    pub fn wait_for_all(&self, patience: Duration) -> bool {
        let is_collecting = |state: &mut State| !state.collecting.is_empty();
        let waited = self.shared.1.wait_timeout_while(self.state(), patience, is_collecting);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Waits until no evidence of `agent` is being collected.
    #[must_use]
    pub fn wait(&self, agent: &str) -> Waited {
        let begun = Instant::now();
        let mut state = self.state();
        if !state.collecting.contains_key(agent) {
            return Waited::NotNeeded;
        }
        state.waiting += 1;
        let patience = state.patience;
        let is_collecting = |state: &mut State| state.collecting.contains_key(agent);
        let (mut state, timeout) = self
            .shared
            .1
            .wait_timeout_while(state, patience, is_collecting)
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        drop(state);
        if timeout.timed_out() { Waited::GaveUp(begun.elapsed()) } else { Waited::Kept(begun.elapsed()) }
    }
}

/// Keeps the gate closed for an agent.
#[derive(Debug)]
pub struct Closed {
    gate: Gate,
    agent: String,
}

impl Drop for Closed {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        if let Some(count) = state.collecting.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                state.collecting.remove(&self.agent);
            }
        }
        drop(state);
        self.gate.shared.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn who_destroys_waits_for_every_bundle_of_that_agent_and_for_no_other() {
        let gate = Gate::default();
        gate.set_patience(Duration::from_secs(60));
        let (first, second) = (gate.close("a"), gate.close("a"));
        assert_eq!(gate.wait("b"), Waited::NotNeeded);
        let waiting = thread::spawn({
            let gate = gate.clone();
            move || gate.wait("a")
        });
        while gate.state().waiting == 0 {
            thread::yield_now();
        }
        drop(first);
        thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished(), "one is still being collected");
        drop(second);
        assert!(matches!(waiting.join().unwrap(), Waited::Kept(_)));
        assert_eq!(gate.wait("a"), Waited::NotNeeded);
    }

    #[test]
    fn patience_ends() {
        let gate = Gate::default();
        gate.set_patience(Duration::from_millis(10));
        let _closed = gate.close("a");
        assert!(matches!(gate.wait("a"), Waited::GaveUp(waited) if waited >= Duration::from_millis(10)));
    }
}
