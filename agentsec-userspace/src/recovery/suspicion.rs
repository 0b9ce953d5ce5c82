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
/// Of the trip only the wall clock is known, `trip_ns`, and its event is a little later. So it is how much later that
/// counts, on the event's own clocks: what comes out can be compared by the clock of the boot.
///
/// # Errors
///
/// When the log cannot be read.
pub fn first(
    (log, index): (&dyn EventSource, &Files),
    agent: &str,
    incident: &str,
    trip_ns: u64,
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
    let mut begin: Option<Moment> = None;
    let of_incident = EventQuery { correlation: Some(incident.to_owned()), ..EventQuery::default() };
    each(of_incident, &mut |moment| {
        begin = Some(match begin.take() {
            Some(before) => before.or_earlier(moment),
            None => moment,
        });
    })?;
    let Some(begin) = begin else { return Ok(Moment::wall(trip_ns).earlier(lookback_ns)) };
    let mut begin = begin.earlier(begin.wall_ns.saturating_sub(trip_ns));
    let horizon = begin.earlier(lookback_ns);
    let signs = EventQuery { types: SIGNS.map(str::to_owned).to_vec(), ..EventQuery::default() };
    each(signs, &mut |moment| {
        if moment.is_before(&begin) && !moment.is_before(&horizon) {
            begin = moment;
        }
    })?;
    Ok(begin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::evidence::{EvidenceLog, EvidenceSource};
    use serde_json::json;

    const SECOND: u64 = 1_000_000_000;

    fn event(second: u64, agent: &str, kind: &str, incident: Option<&str>) -> String {
        json!({
            "timestamp": crate::core::time::rfc3339(second * SECOND),
            "monotonic_ns": second * SECOND,
            "boot_id": "b",
            "agent_id": agent,
            "event_type": kind,
            "correlation_id": incident,
        })
        .to_string()
    }

    /// When incident `incident` of agent `a` began, which tripped in second 100, by a log of `events`.
    fn found(events: &[String], incident: &str, lookback: u64) -> Moment {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EvidenceLog::open(&directory.path().join("log"), "host").unwrap().log;
        log.append(events, false).unwrap();
        let (source, index) = (EvidenceSource::in_state(directory.path()), Files::in_state(directory.path()));
        first((&source, &index), "a", incident, 100 * SECOND, lookback * SECOND).unwrap()
    }

    fn second(of: &Moment) -> u64 {
        assert_eq!((of.boot_id.as_str(), of.wall_ns), ("b", of.mono_ns), "on both clocks");
        of.mono_ns / SECOND
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
        let began = |lookback| second(&found(&events, "i", lookback));
        assert_eq!(began(5), 95, "the incident's first event");
        assert_eq!(began(30), 70, "an untypical endpoint; another agent's signs do not count");
        assert_eq!(began(90), 10);
        let unknown = found(&events, "unknown", 7);
        assert_eq!(unknown.wall_ns, 93 * SECOND, "the trip, with the lookback for safety");
    }

    #[test]
    fn a_snapshot_from_after_the_trip_is_not_from_before_it_although_the_clock_was_set_back() {
        let late = [event(110, "a", "CONTAINMENT_ACTION", Some("i"))];
        let began = found(&late, "i", 0);
        assert_eq!(second(&began), 100, "its event was written after the trip");
        let at = |wall, mono| Moment { wall_ns: wall * SECOND, mono_ns: mono * SECOND, boot_id: "b".into() };
        assert!(!at(20, 130).is_before(&began), "the clock was set back after the trip");
        assert!(at(500, 90).is_before(&began), "the clock was set back before the trip");
    }
}
