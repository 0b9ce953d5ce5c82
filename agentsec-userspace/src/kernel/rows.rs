//! Which profile rows are free, in use, or on their way out.
//!
//! A row is never changed while a policy refers to it. A retired row is free again only after a grace period,
//! since programs in flight may still read it.

use std::collections::{BTreeMap, BTreeSet};

/// How long a retired row is left alone, in nanoseconds: much longer than any program runs.
const GRACE_NS: u64 = 1_000_000_000;

/// The table of rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    capacity: u32,
    used: BTreeSet<u16>,
    retired: BTreeMap<u16, u64>,
    next: u32,
}

impl Rows {
    /// `capacity` rows, of which those in `used` are referenced by policies of an earlier daemon.
    pub(super) fn new(capacity: u32, used: BTreeSet<u16>) -> Self {
        Self { capacity: capacity.min(1 << 16), used, retired: BTreeMap::new(), next: 0 }
    }

    /// Takes a free row. Rows are used in turn, so that a freed one rests as long as it can.
    pub(super) fn take(&mut self) -> Option<u16> {
        for _ in 0..self.capacity {
            let row = (self.next % self.capacity) as u16;
            self.next = self.next.wrapping_add(1);
            if !self.retired.contains_key(&row) && self.used.insert(row) {
                return Some(row);
            }
        }
        None
    }

    /// Gives back a row that no policy has referred to.
    pub(super) fn give_back(&mut self, row: u16) {
        self.used.remove(&row);
    }

    /// Retires every row in use that is not in `referenced`.
    pub(super) fn retire_all_but(&mut self, referenced: &BTreeSet<u16>, now_ns: u64) {
        let out: Vec<_> = self.used.difference(referenced).copied().collect();
        for row in out {
            self.used.remove(&row);
            self.retired.insert(row, now_ns);
        }
    }

    /// Retired rows whose grace period is over; they are free once they have been cleared.
    pub(super) fn clearable(&self, now_ns: u64) -> Vec<u16> {
        self.retired
            .iter()
            .filter(|(_, since)| now_ns.saturating_sub(**since) >= GRACE_NS)
            .map(|(row, _)| *row)
            .collect()
    }

    /// Frees a retired row.
    pub(super) fn free(&mut self, row: u16) {
        self.retired.remove(&row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_in_use_is_never_given_out_and_a_retired_one_only_after_its_grace() {
        let mut rows = Rows::new(3, BTreeSet::from([1]));
        assert_eq!((rows.take(), rows.take(), rows.take()), (Some(0), Some(2), None));
        rows.retire_all_but(&BTreeSet::from([0]), 10);
        assert_eq!(rows.take(), None, "1 and 2 are retired, not free");
        assert!(rows.clearable(10 + GRACE_NS - 1).is_empty());
        assert_eq!(rows.clearable(10 + GRACE_NS), [1, 2]);
        rows.free(2);
        assert_eq!(rows.take(), Some(2));
    }
}
