//! The bound on our own mistakes: many automatic trips by one cause are more likely a bad limit than an attack
//! on every agent at once, and in either case somebody should look.

use super::settings::GuardSettings;
use std::collections::{BTreeMap, VecDeque};

/// What to do about a trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Trips by this cause in the window, this one included, when that has just become too many.
    pub alert: Option<u32>,
    /// Hold this trip in shadow.
    pub shadow: bool,
}

/// Counts automatic trips by cause.
#[derive(Clone, Debug)]
pub struct Guard {
    settings: GuardSettings,
    /// Monotonic nanoseconds of the latest trips, at most one more than are ordinary.
    trips: BTreeMap<String, VecDeque<u64>>,
    /// When each cause last alerted.
    alerted: BTreeMap<String, u64>,
}

impl Guard {
    /// A guard that has seen nothing.
    #[must_use]
    pub fn new(settings: GuardSettings) -> Self {
        Self { settings, trips: BTreeMap::new(), alerted: BTreeMap::new() }
    }

    /// New bounds; what was counted stays.
    pub fn configure(&mut self, settings: GuardSettings) {
        self.settings = settings;
    }

    /// Counts an automatic trip by `cause`.
    pub fn count(&mut self, now_ns: u64, cause: &str) -> Advice {
        let GuardSettings { trips: ordinary, window_ns, hold_in_shadow } = self.settings;
        let trips = self.trips.entry(cause.to_owned()).or_default();
        trips.push_back(now_ns);
        while trips.len() > ordinary as usize + 1
            || trips.front().is_some_and(|at| now_ns.saturating_sub(*at) > window_ns)
        {
            trips.pop_front();
        }
        if trips.len() <= ordinary as usize {
            return Advice { alert: None, shadow: false };
        }
        let quiet = self.alerted.get(cause).is_none_or(|at| now_ns.saturating_sub(*at) > window_ns);
        if quiet {
            self.alerted.insert(cause.to_owned(), now_ns);
        }
        Advice { alert: quiet.then_some(trips.len() as u32), shadow: hold_in_shadow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: GuardSettings = GuardSettings { trips: 2, window_ns: 100, hold_in_shadow: true };

    #[test]
    fn more_trips_than_ordinary_alert_once_and_are_held() {
        let mut guard = Guard::new(SETTINGS);
        let ordinary = Advice { alert: None, shadow: false };
        assert_eq!(guard.count(0, "risk"), ordinary);
        assert_eq!(guard.count(10, "risk"), ordinary);
        assert_eq!(guard.count(15, "max_volume"), ordinary, "another cause has its own count");
        assert_eq!(guard.count(20, "risk"), Advice { alert: Some(3), shadow: true });
        assert_eq!(guard.count(30, "risk"), Advice { alert: None, shadow: true });
        assert_eq!(guard.count(500, "risk"), ordinary, "the window has passed");
    }
}
