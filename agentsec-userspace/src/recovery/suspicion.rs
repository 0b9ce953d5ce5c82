//! When an incident began: not with the trip, but with the first event that belongs to it.

use std::io;

use serde::Deserialize;

use crate::record::ask::ask;
use crate::record::entries::EventSource;
use crate::record::index::Files;
use crate::record::query::EventQuery;

use super::moment::Moment;

/// Types of events that make an agent suspicious although nothing has tripped yet.
const SIGNS: [&str; 2] = ["SECURITY_VIOLATION", "ENDPOINT_NEW"];

/// An event, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Seen {
    timestamp: crate::api::Timestamp,
    #[serde(deserialize_with = "crate::record::event::exact")]
    monotonic_ns: u64,
    boot_id: String,
}

impl Seen {
    fn moment(self) -> Moment {
        Moment {
            wall_ns: self.timestamp.0.saturating_mul(1_000_000),
            mono_ns: self.monotonic_ns,
            boot_id: self.boot_id,
        }
    }
}

/// The first suspicious event of an agent's incident, however much was logged since: the incident's first, or a
/// violation or untypical endpoint of the agent's up to `lookback_ns` before that. Without any event of the incident:
/// the trip, `lookback_ns` earlier. Lines that are no events are passed over; `log verify` tells of them.
///
/// # Errors
///
/// When the log cannot be read.
pub fn first(
    (log, index): (&dyn EventSource, &Files),
    agent: &str,
    incident: &str,
    trip: &Moment,
    lookback_ns: u64,
) -> io::Result<Moment> {
    let each = |query: EventQuery, take: &mut dyn FnMut(Moment)| {
        let query = EventQuery { agent: Some(agent.to_owned()), ..query };
        ask(log, index, &query, |line| {
            if let Ok(seen) = serde_json::from_slice::<Seen>(line) {
                take(seen.moment());
            }
        })
    };
    let mut begin = None;
    let of_incident = EventQuery { correlation: Some(incident.to_owned()), ..EventQuery::default() };
    each(of_incident, &mut |moment| begin = Some(earliest(begin.take().unwrap_or(trip.clone()), moment)))?;
    let Some(mut begin) = begin else { return Ok(trip.earlier(lookback_ns)) };
    let horizon = begin.earlier(lookback_ns);
    let signs = EventQuery { types: SIGNS.map(str::to_owned).to_vec(), ..EventQuery::default() };
    each(signs, &mut |moment| {
        if moment.is_before(&begin) && !moment.is_before(&horizon) {
            begin = moment;
        }
    })?;
    Ok(begin)
}

fn earliest(a: Moment, b: Moment) -> Moment {
    if b.is_before(&a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::evidence::{EvidenceLog, EvidenceSource};
    use serde_json::json;

    fn event(second: u64, agent: &str, kind: &str, incident: Option<&str>) -> String {
        json!({
            "timestamp": crate::core::time::rfc3339(second * 1_000_000_000),
            "monotonic_ns": second * 1_000_000_000,
            "boot_id": "b",
            "agent_id": agent,
            "event_type": kind,
            "correlation_id": incident,
        })
        .to_string()
    }

    fn moment(second: u64) -> Moment {
        Moment { wall_ns: second * 1_000_000_000, mono_ns: second * 1_000_000_000, boot_id: "b".into() }
    }

    /// The second in which incident `incident` of agent `a` began, by a log of `events`.
    fn found(events: &[String], incident: &str, lookback: u64) -> u64 {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EvidenceLog::open(&directory.path().join("log"), "host").unwrap().log;
        log.append(events, false).unwrap();
        let (source, index) = (EvidenceSource::in_state(directory.path()), Files::in_state(directory.path()));
        let found = first((&source, &index), "a", incident, &moment(100), lookback * 1_000_000_000).unwrap();
        found.mono_ns / 1_000_000_000
    }

    #[test]
    fn an_incident_begins_with_the_first_sign_and_not_with_the_trip() {
        let mut events = vec![
            event(10, "a", "ENDPOINT_NEW", None),
            event(60, "b", "SECURITY_VIOLATION", None),
            event(70, "a", "ENDPOINT_NEW", None),
            event(80, "a", "AGENT_ATTACHED", None),
            event(95, "a", "DROPS", Some("i")),
            event(100, "a", "CONTAINMENT_ACTION", Some("i")),
        ];
        events.extend((0..2000).map(|_| event(101, "a", "AGENT_INTERACTION", Some("other"))));
        assert_eq!(found(&events, "i", 5), 95, "the incident's first event");
        assert_eq!(found(&events, "i", 30), 70, "an untypical endpoint; another agent's signs do not count");
        assert_eq!(found(&events, "i", 90), 10);
        assert_eq!(found(&events, "unknown", 7), 93, "the trip, with the lookback for safety");
        let late = [event(110, "a", "CONTAINMENT_ACTION", Some("i"))];
        assert_eq!(found(&late, "i", 0), 100, "written after the trip");
    }
}
