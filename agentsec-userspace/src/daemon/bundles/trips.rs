//! Which events are trips.

use serde_json::Value;

use crate::bundle::Trip;
use crate::core::{Draft, EventKind};

/// The trip of an event, with its data. An operator's decision over a trip that has no event of its own is one as well.
pub(super) fn of(draft: &Draft) -> Option<(Trip, Value)> {
    if draft.kind != EventKind::ContainmentAction {
        return None;
    }
    let data = &draft.data;
    let tripped = match data["action_type"].as_str() {
        Some("QUARANTINE") => &data["tripped"],
        _ if data["unrecorded_trip"] == true => &data["trip"],
        _ => return None,
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let late =
        (data["found_at_start"] == true).then(|| "the daemon did not run when the kernel tripped".to_owned());
    let trip = Trip {
        agent: draft.agent_id.clone()?,
        incident: draft.correlation_id.clone(),
        tripped_at: text(&tripped["at"]),
        by: text(&tripped["by"]),
        reason: text(&tripped["reason"]),
        late,
    };
    Some((trip, data.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Time;
    use serde_json::json;

    fn draft(kind: EventKind, data: Value) -> Draft {
        Draft {
            agent_id: Some("a".into()),
            correlation_id: Some("i".into()),
            ..Draft::daemon(Time::default(), kind, data)
        }
    }

    #[test]
    fn trips_are_told_from_other_changes_of_a_circuit() {
        let tripped = json!({ "at": "2026-01-01T00:00:00.000000000Z", "by": "kernel", "reason": "risk" });
        let trip = of(&draft(
            EventKind::ContainmentAction,
            json!({ "action_type": "QUARANTINE", "tripped": tripped, "found_at_start": true }),
        ));
        let trip = trip.unwrap().0;
        assert!(trip.is("a", Some("i"), "2026-01-01T00:00:00.000000000Z"));
        assert_eq!((trip.by.as_str(), trip.reason.as_str(), trip.late.is_some()), ("kernel", "risk", true));
        let unrecorded = json!({ "action_type": "PROBE", "unrecorded_trip": true, "trip": tripped });
        let found = of(&draft(EventKind::ContainmentAction, unrecorded)).unwrap().0;
        assert_eq!((found.tripped_at, found.late), (trip.tripped_at, None));
        for (kind, action) in [
            (EventKind::ContainmentAction, "PROBE"),
            (EventKind::ContainmentAction, "EMERGENCY_RECOVERY"),
            (EventKind::Evidence, "QUARANTINE"),
        ] {
            assert!(
                of(&draft(kind, json!({ "action_type": action, "tripped": tripped }))).is_none(),
                "{action}"
            );
        }
    }
}
