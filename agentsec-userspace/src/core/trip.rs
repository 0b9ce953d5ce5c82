//! From the kernel's trip to its acknowledgement.
//!
//! The kernel has opened the circuit already. Its word stays as it is, which keeps the trip in force, until the
//! event is on the disk; then the acknowledged sequence and OPEN are stored in one word. A daemon that dies in
//! between finds the trip again, and a full disk only keeps the agent contained.

use super::agent::{Agent, DraftedTrip, PendingTrip, Why, signals_json};
use super::breaker::{Breaker, Transition};
use super::command::Command;
use super::draft::{EventKind, centi};
use super::guard::Guard;
use super::input::Observation;
use super::persist;
use super::time::Time;
use super::tripped::{By, Contributions, Packet, Tripped, cause_name};
use agentsec_common::ledger::TripRecord;
use agentsec_common::policy::{EPOCH_MASK, Mode, State};
use agentsec_common::profile::Profile;
use agentsec_common::risk::{Cause, Signals};
use serde_json::{Value, json};

/// How long an incomplete record is waited for before the trip is recorded without it, nanoseconds.
const RECORD_WAIT_NS: u64 = 2_000_000_000;

/// Looks at the trip sequence of `observed`, and emits the event of a trip that is new.
pub(super) fn observe(
    agent: &mut Agent,
    now: Time,
    observed: &Observation,
    guard: &mut Guard,
    out: &mut Vec<Command>,
) {
    if !agent.breaker.is_ahead(observed.trip_seq) {
        agent.pending = None;
        return;
    }
    let found_at_start = agent.at_start;
    let fresh = PendingTrip { seq: observed.trip_seq, seen_ns: now.mono_ns, found_at_start, drafted: None };
    let known = agent.pending.take().filter(|pending| pending.seq == observed.trip_seq);
    let mut pending = known.unwrap_or(fresh);
    match &mut pending.drafted {
        Some(drafted) if drafted.failed => {
            drafted.failed = false;
            out.push(Command::Record(drafted.draft.clone()));
        }
        Some(_) => {}
        None => {
            let waited = now.mono_ns.saturating_sub(pending.seen_ns) >= RECORD_WAIT_NS;
            if observed.trip.is_some() || waited {
                pending.drafted = Some(draft(agent, now, &pending, observed.trip.as_ref(), guard, out));
            }
        }
    }
    agent.pending = Some(pending);
}

fn draft(
    agent: &Agent,
    now: Time,
    pending: &PendingTrip,
    record: Option<&TripRecord>,
    guard: &mut Guard,
    out: &mut Vec<Command>,
) -> DraftedTrip {
    let cause = record.and_then(|record| Cause::from_byte(record.cause));
    let tripped = tripped(now, record, cause, &agent.settings.profile);
    let advice = guard.count(now.mono_ns, &tripped.cause);
    if let Some(trips) = advice.alert {
        out.push(Command::Record(alert(agent, now, &tripped, trips, advice.shadow)));
    }
    let breaker = &agent.breaker;
    let incident =
        breaker.incident.clone().unwrap_or_else(|| persist::incident(&agent.id, now, breaker.epoch));
    // An operator may have opened or exempted the circuit while the kernel tripped: then it stays as it is.
    let to = if breaker.mode == Mode::Exempt { breaker.state } else { State::Open };
    let steps = u32::from(breaker.state != to);
    let transition = Transition {
        from: (breaker.state, breaker.mode),
        to: (to, breaker.mode),
        epoch: breaker.epoch.wrapping_add(steps) & EPOCH_MASK,
    };
    let mut why = Why::new("QUARANTINE", "kernel", tripped.reason.clone()).automated();
    why.more.insert("trip_seq".into(), pending.seq.into());
    why.more.insert("found_at_start".into(), pending.found_at_start.into());
    if let Some(record) = record {
        why.more.insert("signals".into(), signals_json(&signals_of(record)));
        why.more.insert("risk".into(), super::draft::milli(tripped.terms.total()));
        why.more.insert("contributions".into(), tripped.terms.to_json());
        why.more.insert("packet".into(), serde_json::to_value(&tripped.packet).unwrap_or(Value::Null));
        why.more.insert("tripped_epoch".into(), record.epoch.into());
    }
    let mut draft = agent.containment(now, &transition, why, Some(&tripped));
    draft.correlation_id = Some(incident.clone());
    draft.trip = Some(agent.trip_ref(pending.seq));
    out.push(Command::Record(draft.clone()));
    DraftedTrip { tripped, incident, draft, failed: false, shadow: advice.shadow }
}

pub(super) fn alert(agent: &Agent, now: Time, tripped: &Tripped, trips: u32, shadow: bool) -> super::Draft {
    let data = json!({
        "alert": "many_trips",
        "cause": tripped.cause,
        "trips": trips,
        "held_in_shadow": shadow,
    });
    agent.draft(now, EventKind::Alert, data)
}

fn signals_of(record: &TripRecord) -> Signals {
    Signals {
        volume: record.volume,
        unusual_endpoints: record.unusual_endpoints,
        auth_failures_centi: record.auth_failures_centi,
        requests: record.requests,
        anomalous_requests: record.anomalous_requests,
        deviation_100us: record.deviation_100us,
        extra_milli: record.terms[6],
    }
}

fn tripped(now: Time, record: Option<&TripRecord>, cause: Option<Cause>, profile: &Profile) -> Tripped {
    let Some(record) = record else {
        return Tripped {
            by: By::Kernel,
            at_wall_ns: now.wall_ns,
            cause: cause_name(None).into(),
            reason: "the kernel tripped; its record is incomplete".into(),
            terms: Contributions::default(),
            packet: None,
        };
    };
    let [auth, volume, endpoints, deviation, requests, anomalous, extra, _] = record.terms;
    let terms = Contributions { auth, volume, endpoints, deviation, requests, anomalous, extra };
    Tripped {
        by: By::Kernel,
        at_wall_ns: now.wall_at(record.at_ns),
        cause: cause_name(cause).into(),
        reason: reason(cause, &signals_of(record), terms, profile),
        terms,
        packet: Some(Packet::of_trip(record)),
    }
}

/// A trip's cause in words, with the number and the bound that it crossed.
pub(super) fn reason(
    cause: Option<Cause>,
    signals: &Signals,
    terms: Contributions,
    profile: &Profile,
) -> String {
    match cause {
        Some(Cause::VolumeLimit) => {
            format!("volume of {} bytes exceeds max_volume of {}", signals.volume, profile.max_volume)
        }
        Some(Cause::EndpointLimit) => format!(
            "{} unusual endpoints exceed max_unusual_endpoints of {}",
            signals.unusual_endpoints, profile.max_unusual_endpoints
        ),
        Some(Cause::AuthLimit) => format!(
            "{} failed authentications exceed max_auth_failures of {}",
            centi(signals.auth_failures_centi),
            centi(profile.max_auth_failures_centi)
        ),
        Some(Cause::Risk) => format!(
            "risk of {} exceeds quarantine_threshold of {}",
            f64::from(terms.total()) / 1000.0,
            f64::from(profile.quarantine_threshold) / 1000.0
        ),
        Some(Cause::DeviationLimit) => format!(
            "response times deviate by {} µs, more than max_variance of {} µs",
            u64::from(signals.deviation_100us) * 100,
            u64::from(profile.max_deviation_100us) * 100
        ),
        Some(Cause::ProbeViolation) => "reached for an untypical endpoint while on probation".into(),
        None => "tripped for a reason that this daemon does not know".into(),
    }
}

/// The event of trip `trip_seq` is on the disk: acknowledge it.
pub(super) fn recorded(agent: &mut Agent, now: Time, trip_seq: u32, out: &mut Vec<Command>) {
    let Some(pending) = agent.pending.take_if(|pending| pending.seq == trip_seq && pending.drafted.is_some())
    else {
        return;
    };
    let Some(drafted) = pending.drafted else { return };
    let shadow = drafted.shadow;
    enter(agent, now, trip_seq, drafted);
    if shadow {
        let why =
            Why::new("SHADOW", "daemon", "the guard holds further trips by this cause in shadow").automated();
        if agent.apply(now, out, why, |breaker, _| breaker.hold_in_shadow()) {
            return;
        }
    }
    out.push(agent.set_control());
}

/// The event of trip `trip_seq` was given up: it is emitted again with the next observation.
pub(super) fn record_failed(agent: &mut Agent, trip_seq: u32) {
    if let Some(pending) = agent.pending.as_mut().filter(|pending| pending.seq == trip_seq)
        && let Some(drafted) = &mut pending.drafted
    {
        drafted.failed = true;
    }
}

/// Takes over a pending trip before its event is recorded, because an operator decides over it now. Emits no
/// word: the operator's own does. What is not recorded, for the operator's event.
pub(super) fn settle(
    agent: &mut Agent,
    now: Time,
    guard: &mut Guard,
    out: &mut Vec<Command>,
) -> Option<Tripped> {
    let pending = agent.pending.take()?;
    let drafted = match pending.drafted.clone() {
        Some(drafted) => drafted,
        None => draft(agent, now, &pending, None, guard, out),
    };
    let tripped = drafted.tripped.clone();
    enter(agent, now, pending.seq, drafted);
    Some(tripped)
}

/// The breaker as it will be once a trip that waits is recorded. This is what is saved: a reboot takes the
/// kernel's words with it, and must not close what the kernel had opened.
pub(super) fn foreseen(agent: &Agent, now: Time) -> Breaker {
    let mut breaker = agent.breaker.clone();
    if let Some(pending) = &agent.pending {
        let (tripped, incident) = match &pending.drafted {
            Some(drafted) => (drafted.tripped.clone(), drafted.incident.clone()),
            None => (
                tripped(now, None, None, &agent.settings.profile),
                persist::incident(&agent.id, now, breaker.epoch),
            ),
        };
        _ = breaker.trip(now, tripped, incident, true, &agent.settings.breaker);
    }
    breaker
}

fn enter(agent: &mut Agent, now: Time, trip_seq: u32, drafted: DraftedTrip) {
    let settings = agent.settings.breaker;
    let DraftedTrip { tripped, incident, .. } = drafted;
    _ = agent.breaker.trip(now, tripped, incident, true, &settings);
    agent.breaker.acknowledge(trip_seq);
}
