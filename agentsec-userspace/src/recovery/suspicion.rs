//! When an incident began: not with the trip, but with the first event that belongs to it.

use serde::Deserialize;

use crate::record::entries::EventSource;
use crate::record::evidence::EvidenceSource;

use super::moment::Moment;

/// The most of the log's end that is read.
const LOG_ENTRIES: u64 = 100_000;

/// An event, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    timestamp: crate::api::Timestamp,
    #[serde(deserialize_with = "crate::record::event::exact")]
    monotonic_ns: u64,
    boot_id: String,
    agent_id: Option<String>,
    event_type: String,
    correlation_id: Option<String>,
}

impl Seen {
    fn moment(&self) -> Moment {
        Moment {
            wall_ns: self.timestamp.0.saturating_mul(1_000_000),
            mono_ns: self.monotonic_ns,
            boot_id: self.boot_id.clone(),
        }
    }

    /// Kinds that make an agent suspicious although nothing has tripped yet.
    fn is_suspicious(&self) -> bool {
        matches!(self.event_type.as_str(), "SECURITY_VIOLATION" | "ENDPOINT_NEW")
    }
}

/// The first suspicious event of an agent's incident: the incident's first, or a violation or untypical endpoint of
/// the agent's up to `lookback_ns` before that. Without any event of the incident: the trip, `lookback_ns` earlier.
#[must_use]
pub fn first(events: &[Seen], agent: &str, incident: &str, trip: &Moment, lookback_ns: u64) -> Moment {
    let mut own: Vec<&Seen> =
        events.iter().filter(|event| event.agent_id.as_deref() == Some(agent)).collect();
    own.sort_by_key(|event| (event.timestamp.0, event.monotonic_ns));
    let earliest = |a: Moment, b: Moment| if b.is_before(&a) { b } else { a };
    let of_incident = own.iter().filter(|event| event.correlation_id.as_deref() == Some(incident));
    let Some(begin) = of_incident.map(|event| event.moment()).reduce(earliest) else {
        return trip.earlier(lookback_ns);
    };
    let begin = earliest(begin, trip.clone());
    let horizon = begin.earlier(lookback_ns);
    own.iter()
        .filter(|event| event.is_suspicious())
        .map(|event| event.moment())
        .filter(|moment| !moment.is_before(&horizon))
        .fold(begin, earliest)
}

/// The events at the end of the log. Lines that are none are passed over: what matters less than a wrong answer is
/// told by `log verify`.
///
/// # Errors
///
/// When the log cannot be read.
pub fn read(log: &EvidenceSource) -> std::io::Result<Vec<Seen>> {
    let first = log.size()?.saturating_sub(LOG_ENTRIES);
    let lines = log.entries_from(first)?.map_while(Result::ok);
    Ok(lines.filter_map(|(_, line)| serde_json::from_slice(&line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(second: u64, agent: &str, kind: &str, incident: Option<&str>) -> Seen {
        Seen {
            timestamp: crate::api::Timestamp(second * 1000),
            monotonic_ns: second * 1_000_000_000,
            boot_id: "b".into(),
            agent_id: Some(agent.into()),
            event_type: kind.into(),
            correlation_id: incident.map(str::to_owned),
        }
    }

    fn moment(second: u64) -> Moment {
        Moment { wall_ns: second * 1_000_000_000, mono_ns: second * 1_000_000_000, boot_id: "b".into() }
    }

    #[test]
    fn an_incident_begins_with_the_first_sign_and_not_with_the_trip() {
        let events = [
            event(10, "a", "ENDPOINT_NEW", None),
            event(60, "b", "SECURITY_VIOLATION", None),
            event(70, "a", "ENDPOINT_NEW", None),
            event(80, "a", "AGENT_ATTACHED", None),
            event(95, "a", "DROPS", Some("i")),
            event(100, "a", "CONTAINMENT_ACTION", Some("i")),
        ];
        let found = |lookback: u64| {
            first(&events, "a", "i", &moment(100), lookback * 1_000_000_000).mono_ns / 1_000_000_000
        };
        assert_eq!(found(5), 95, "the incident's first event");
        assert_eq!(found(30), 70, "an untypical endpoint before it; another agent's signs do not count");
        assert_eq!(found(90), 10);
        let unknown = first(&events, "a", "other", &moment(100), 7_000_000_000);
        assert_eq!(unknown, moment(93), "nothing is known of it: the trip, with the lookback for safety");
        let late = [event(110, "a", "CONTAINMENT_ACTION", Some("i"))];
        assert_eq!(
            first(&late, "a", "i", &moment(100), 1).mono_ns / 1_000_000_000,
            100,
            "written after the trip"
        );
    }
}
