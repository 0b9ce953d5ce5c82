//! Which bundles go: the oldest, but never the newest of an incident that is still open.

use std::collections::{BTreeMap, BTreeSet};

/// A bundle that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// Its agent.
    pub agent: String,
    /// Its incident.
    pub incident: Option<String>,
    /// When it was collected, Unix nanoseconds.
    pub at_ns: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// What may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bundles.
    pub count: usize,
    /// Bytes of all.
    pub bytes: u64,
    /// Age, nanoseconds.
    pub age_ns: Option<u64>,
}

/// Why one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is too old.
    Expired,
    /// There are too many, or they take too much.
    Room,
}

impl Why {
    /// As written in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Room => "room",
        }
    }
}

/// The bundles to remove, oldest first. `open` are the incidents, with their agents, that are not over.
#[must_use]
pub fn removable(
    kept: &[Kept],
    open: &BTreeSet<(String, String)>,
    limits: Limits,
    now_ns: u64,
) -> Vec<(String, Why)> {
    let mut newest: BTreeMap<(&str, &str), &Kept> = BTreeMap::new();
    for bundle in kept {
        let Some(incident) = bundle.incident.as_deref() else { continue };
        let best = newest.entry((&bundle.agent, incident)).or_insert(bundle);
        if (bundle.at_ns, &bundle.id) > (best.at_ns, &best.id) {
            *best = bundle;
        }
    }
    let is_needed = |bundle: &Kept| {
        let Some(incident) = &bundle.incident else { return false };
        open.contains(&(bundle.agent.clone(), incident.clone()))
            && newest
                .get(&(bundle.agent.as_str(), incident.as_str()))
                .is_some_and(|best| best.id == bundle.id)
    };
    let mut oldest_first: Vec<&Kept> = kept.iter().collect();
    oldest_first.sort_by(|a, b| (a.at_ns, &a.id).cmp(&(b.at_ns, &b.id)));
    let (mut count, mut bytes) = (kept.len(), kept.iter().map(|bundle| bundle.bytes).sum::<u64>());
    let mut gone = Vec::new();
    for bundle in oldest_first.into_iter().filter(|bundle| !is_needed(bundle)) {
        let is_old = limits.age_ns.is_some_and(|age| now_ns.saturating_sub(bundle.at_ns) > age);
        let why = if is_old {
            Why::Expired
        } else if count > limits.count || bytes > limits.bytes {
            Why::Room
        } else {
            continue;
        };
        count -= 1;
        bytes -= bundle.bytes;
        gone.push((bundle.id.clone(), why));
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kept(id: u64, incident: &str, bytes: u64) -> Kept {
        Kept { id: format!("{id:04}"), agent: "a".into(), incident: Some(incident.into()), at_ns: id, bytes }
    }

    fn ids(gone: &[(String, Why)]) -> Vec<&str> {
        gone.iter().map(|(id, _)| id.as_str()).collect()
    }

    #[test]
    fn the_oldest_go_but_not_the_newest_of_an_open_incident() {
        let all = [kept(1, "open", 10), kept(2, "open", 10), kept(3, "over", 10), kept(4, "late", 10)];
        let open = BTreeSet::from([("a".to_owned(), "open".to_owned())]);
        let limits = Limits { count: 2, bytes: 1000, age_ns: None };
        assert_eq!(ids(&removable(&all, &open, limits, 100)), ["0001", "0003"]);
        let limits = Limits { count: 9, bytes: 15, age_ns: None };
        assert_eq!(
            ids(&removable(&all, &open, limits, 100)),
            ["0001", "0003", "0004"],
            "that one alone is allowed"
        );
        let limits = Limits { count: 9, bytes: 1000, age_ns: Some(97) };
        assert_eq!(
            removable(&all, &BTreeSet::new(), limits, 100),
            [("0001".into(), Why::Expired), ("0002".into(), Why::Expired)]
        );
    }

    proptest! {
        #[test]
        fn limits_hold_unless_open_incidents_alone_exceed_them(
            all in prop::collection::vec((0_u64..1000, 0_u8..4, 1_u64..100), 0..30),
            open in prop::collection::btree_set(0_u8..4, 0..3), count in 1_usize..20, bytes in 1_u64..1500,
        ) {
            let all: Vec<Kept> = all.iter().enumerate().map(|(at, (time, incident, bytes))| Kept {
                at_ns: *time, ..kept(at as u64, &incident.to_string(), *bytes)
            }).collect();
            let open: BTreeSet<_> = open.iter().map(|incident| ("a".to_owned(), incident.to_string())).collect();
            let limits = Limits { count, bytes, age_ns: None };
            let gone = removable(&all, &open, limits, 1000);
            let left: Vec<&Kept> = all.iter().filter(|one| !ids(&gone).contains(&one.id.as_str())).collect();
            for (_, incident) in &open {
                let of = |set: &[&Kept]| set.iter().filter(|one| one.incident.as_ref() == Some(incident)).map(|one| (one.at_ns, one.id.clone())).max();
                prop_assert_eq!(of(&left), of(&all.iter().collect::<Vec<_>>()));
            }
            let fits = left.len() <= count && left.iter().map(|one| one.bytes).sum::<u64>() <= bytes;
            let is_needed = |one: &&&Kept| {
                let newest = all.iter().filter(|other| other.incident == one.incident).map(|other| (other.at_ns, other.id.clone())).max();
                open.contains(&("a".into(), one.incident.clone().unwrap())) && newest == Some((one.at_ns, one.id.clone()))
            };
            prop_assert!(fits || left.iter().all(|one| is_needed(&one)));
        }
    }
}
