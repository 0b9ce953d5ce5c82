//! What operators ask for.

use super::agent::{Agent, Why, tripped_json};
use super::command::{Command, Done, Refusal};
use super::guard::Guard;
use super::input::Request;
use super::names::{mode_name, state_name};
use super::persist;
use super::time::Time;
use super::trip;
use super::tripped::{By, Tripped};
use agentsec_common::policy::{Mode, State};

/// Carries out `request` for one agent.
pub(super) fn carry_out(
    agent: &mut Agent,
    now: Time,
    request: &Request,
    by: &str,
    guard: &mut Guard,
    out: &mut Vec<Command>,
) -> Result<Done, Refusal> {
    match request {
        Request::Quarantine { reason, hold, .. } => quarantine(agent, now, reason, *hold, by, out),
        Request::Release { force, .. } => Ok(release(agent, now, *force, by, guard, out)),
        Request::Shadow { off: false, .. } => Ok(set_mode(agent, now, Mode::Shadow, by, guard, out)),
        Request::Exempt { off: false, .. } => Ok(set_mode(agent, now, Mode::Exempt, by, guard, out)),
        Request::Shadow { .. } | Request::Exempt { .. } if agent.settings.never_isolate => {
            Err(Refusal::NeverIsolated)
        }
        Request::Shadow { .. } if agent.breaker.mode == Mode::Exempt => Err(Refusal::Exempt),
        Request::Exempt { .. } if agent.breaker.mode == Mode::Shadow => Ok(unchanged(agent)),
        Request::Shadow { .. } | Request::Exempt { .. } => {
            Ok(set_mode(agent, now, Mode::Enforce, by, guard, out))
        }
    }
}

fn quarantine(
    agent: &mut Agent,
    now: Time,
    reason: &str,
    hold: bool,
    by: &str,
    out: &mut Vec<Command>,
) -> Result<Done, Refusal> {
    if agent.settings.never_isolate {
        return Err(Refusal::NeverIsolated);
    }
    if agent.breaker.mode == Mode::Exempt {
        return Err(Refusal::Exempt);
    }
    if agent.pending.is_some() || agent.breaker.state == State::Open {
        return Ok(quarantine_more(agent, now, reason, hold, by, out));
    }
    let tripped = Tripped {
        by: By::Operator,
        at_wall_ns: now.wall_ns,
        cause: "operator".into(),
        reason: reason.to_owned(),
        terms: agent.contributions(now),
        packet: None,
    };
    let incident = persist::incident(&agent.id, now, agent.breaker.epoch);
    let why = Why::new("QUARANTINE", by, reason);
    agent.apply(now, out, why, |breaker, settings| {
        breaker.hold = hold;
        breaker.trip(now, tripped, incident, false, &settings.breaker)
    });
    Ok(changed(agent))
}

/// A quarantine of an agent that is OPEN: one reason more, and perhaps a hold. It begins no epoch, unless the
/// guard held the agent in shadow, which an operator's word ends.
fn quarantine_more(
    agent: &mut Agent,
    now: Time,
    reason: &str,
    hold: bool,
    by: &str,
    out: &mut Vec<Command>,
) -> Done {
    let settings = agent.settings.breaker;
    let breaker = &mut agent.breaker;
    if let Some(tripped) = &mut breaker.tripped {
        tripped.reason = format!("{}; {by}: {reason}", tripped.reason);
    }
    if let Some(drafted) = agent.pending.as_mut().and_then(|pending| pending.drafted.as_mut()) {
        drafted.tripped.reason = format!("{}; {by}: {reason}", drafted.tripped.reason);
        drafted.shadow = false;
    }
    let held = hold && !breaker.hold;
    breaker.hold |= hold;
    if held && breaker.state == State::Open {
        breaker.set_open_deadline(now, &settings);
    }
    if let Some(mode) = breaker.shadowed_from {
        agent.apply(now, out, Why::new("ENFORCE", by, reason), |breaker, settings| {
            breaker.set_mode(mode, &settings.breaker)
        });
        return changed(agent);
    }
    let text = if held { "was OPEN already; now held" } else { "was OPEN already; the reason is added" };
    Done { changed: held, text: text.into() }
}

fn release(
    agent: &mut Agent,
    now: Time,
    force: bool,
    by: &str,
    guard: &mut Guard,
    out: &mut Vec<Command>,
) -> Done {
    if agent.breaker.mode == Mode::Exempt {
        return unchanged(agent);
    }
    let unrecorded = trip::settle(agent, now, guard, out);
    let (action, reason) = if force {
        ("CLOSE", "released by force, without a probe")
    } else {
        ("PROBE", "released, on probation first")
    };
    let why = with_unrecorded(Why::new(action, by, reason), unrecorded);
    let applied = agent.apply(now, out, why, |breaker, settings| {
        let settings = &settings.breaker;
        if force { breaker.close(settings) } else { breaker.probe(now, settings) }
    });
    if applied { changed(agent) } else { unchanged(agent) }
}

fn set_mode(
    agent: &mut Agent,
    now: Time,
    mode: Mode,
    by: &str,
    guard: &mut Guard,
    out: &mut Vec<Command>,
) -> Done {
    if agent.breaker.mode == mode && agent.breaker.shadowed_from.is_none() {
        return unchanged(agent);
    }
    // An exempt agent is CLOSED: a trip that waits is decided over with it. Other modes leave it waiting.
    let unrecorded = if mode == Mode::Exempt { trip::settle(agent, now, guard, out) } else { None };
    let (action, reason) = match mode {
        Mode::Enforce => ("ENFORCE", "enforcement is on"),
        Mode::Shadow => ("SHADOW", "judged without being enforced"),
        Mode::Exempt => ("EXEMPT", "neither judged nor enforced"),
    };
    let why = with_unrecorded(Why::new(action, by, reason), unrecorded);
    let applied = agent.apply(now, out, why, |breaker, settings| breaker.set_mode(mode, &settings.breaker));
    if applied { changed(agent) } else { unchanged(agent) }
}

/// Says in the operator's event that the trip it decides over may not have an event of its own.
fn with_unrecorded<'a>(mut why: Why<'a>, unrecorded: Option<Tripped>) -> Why<'a> {
    if let Some(tripped) = unrecorded {
        why.more.insert("unrecorded_trip".into(), true.into());
        why.more.insert("trip".into(), tripped_json(&tripped));
    }
    why
}

fn changed(agent: &Agent) -> Done {
    Done { changed: true, text: format!("is now {}", describe(agent)) }
}

fn unchanged(agent: &Agent) -> Done {
    Done { changed: false, text: format!("is {} already", describe(agent)) }
}

fn describe(agent: &Agent) -> String {
    let (state, mode) = (state_name(agent.breaker.state), mode_name(agent.breaker.mode));
    let hold = if agent.breaker.hold { ", held" } else { "" };
    match agent.breaker.mode {
        Mode::Enforce => format!("{state}{hold}"),
        _ => format!("{state}{hold} in mode {mode}: nothing is dropped"),
    }
}
