//! What observations and notices tell besides trips: deadlines, drops, losses, new endpoints, violations.

use super::address::from_address;
use super::agent::{Agent, Why};
use super::command::Command;
use super::draft::{Draft, EventKind, centi, milli};
use super::guard::Guard;
use super::persist;
use super::time::Time;
use super::trip;
use super::tripped::{By, Packet, Tripped, cause_name};
use agentsec_common::auth::AuthKind;
use agentsec_common::counters::Counters;
use agentsec_common::flow::FlowKey;
use agentsec_common::notice::{Notice, NoticeKind};
use agentsec_common::policy::{Mode, State};
use agentsec_common::risk;
use serde_json::{Value, json};

/// Least time between two events of drops or of losses of one agent, nanoseconds.
pub(super) const QUIET_NS: u64 = 5_000_000_000;

/// Trips on slow signals: those that the kernel sees with its next packet, if there is one. What the kernel sees
/// by itself is left to it, because it knows the packet.
pub(super) fn judge(agent: &mut Agent, now: Time, guard: &mut Guard, out: &mut Vec<Command>) {
    if agent.pending.is_some() || agent.breaker.state == State::Open || agent.breaker.mode == Mode::Exempt {
        return;
    }
    let profile = agent.settings.profile;
    let signals = agent.signals(now);
    let seen = agent.latest.as_ref().map(|l| l.signals).unwrap_or_default();
    let Some(cause) = risk::judge(&signals, &profile).filter(|_| risk::judge(&seen, &profile).is_none())
    else {
        return;
    };
    let terms = agent.contributions(now);
    let tripped = Tripped {
        by: By::Daemon,
        at_wall_ns: now.wall_ns,
        cause: cause_name(Some(cause)).into(),
        reason: trip::reason(Some(cause), &signals, terms, &profile),
        terms,
        packet: None,
    };
    let advice = guard.count(now.mono_ns, &tripped.cause);
    if let Some(trips) = advice.alert {
        out.push(Command::Record(trip::alert(agent, now, &tripped, trips, advice.shadow)));
    }
    if advice.shadow {
        let why =
            Why::new("SHADOW", "daemon", "the guard holds further trips by this cause in shadow").automated();
        agent.apply(now, out, why, |breaker, _| breaker.hold_in_shadow());
    }
    let incident = persist::incident(&agent.id, now, agent.breaker.epoch);
    let why = Why::new("QUARANTINE", "daemon", tripped.reason.clone()).automated();
    agent.apply(now, out, why, |breaker, settings| {
        breaker.trip(now, tripped, incident, true, &settings.breaker)
    });
}

/// Ends the cool-down or the probe when it is time.
pub(super) fn keep_deadline(agent: &mut Agent, now: Time, out: &mut Vec<Command>) {
    if agent.pending.is_some() || !agent.breaker.is_due(now) {
        return;
    }
    if agent.breaker.state == State::Open {
        let why = Why::new("PROBE", "daemon", "the cool-down has ended").automated();
        agent.apply(now, out, why, |breaker, settings| breaker.probe(now, &settings.breaker));
    } else {
        let why = Why::new("CLOSE", "daemon", "the probe stayed clean").automated();
        agent.apply(now, out, why, |breaker, settings| breaker.close(&settings.breaker));
    }
}

/// Emits what was dropped since the latest such event.
pub(super) fn report_drops(agent: &mut Agent, now: Time, out: &mut Vec<Command>) {
    let Some(counters) = agent.latest.as_ref().map(|latest| latest.counters) else { return };
    let (dropped, would_drop) = (dropped_total(&counters), would_drop_total(&counters));
    let reported = &agent.reported;
    if (dropped, would_drop) == (reported.dropped, reported.would_drop)
        || now.mono_ns < reported.next_drops_ns
    {
        return;
    }
    let since = |now: [u64; 2], then: [u64; 2]| json!({ "packets": now[0].saturating_sub(then[0]), "bytes": now[1].saturating_sub(then[1]) });
    let data = json!({
        "dropped": since(dropped, reported.dropped),
        "would_drop": since(would_drop, reported.would_drop),
        "dropped_total": since(dropped, [0; 2]),
        "packet": agent.last_drop,
    });
    agent.reported.dropped = dropped;
    agent.reported.would_drop = would_drop;
    agent.reported.next_drops_ns = now.mono_ns.saturating_add(QUIET_NS);
    out.push(Command::Record(agent.draft(now, EventKind::Drops, data)));
    agent.last_drop = None;
}

/// Emits what was lost since the latest such event.
pub(super) fn report_losses(agent: &mut Agent, now: Time, out: &mut Vec<Command>) {
    let Some(latest) = &agent.latest else { return };
    let losses = latest.losses;
    let lost = losses.since(&agent.reported.losses);
    if !lost.any() || now.mono_ns < agent.reported.next_loss_ns {
        return;
    }
    agent.reported.losses = losses;
    agent.reported.next_loss_ns = now.mono_ns.saturating_add(QUIET_NS);
    out.push(Command::Record(agent.draft(now, EventKind::Loss, lost.to_json())));
}

/// Takes totals as told: what happened before the daemon looked is not news.
pub(super) fn set_baseline(agent: &mut Agent) {
    if let Some(latest) = &agent.latest {
        agent.reported.dropped = dropped_total(&latest.counters);
        agent.reported.would_drop = would_drop_total(&latest.counters);
        agent.reported.losses = latest.losses;
    }
}

fn dropped_total(counters: &Counters) -> [u64; 2] {
    let [outbound, inbound] = &counters.traffic;
    [outbound.dropped_packets + inbound.dropped_packets, outbound.dropped_bytes + inbound.dropped_bytes]
}

fn would_drop_total(counters: &Counters) -> [u64; 2] {
    [counters.would_drop_packets, counters.would_drop_bytes]
}

/// The event of a notice, if it has one.
pub(super) fn notice(agent: &mut Agent, now: Time, notice: &Notice) -> Option<Draft> {
    let packet = Packet::of_notice(notice);
    let at = Time { mono_ns: notice.at_ns, wall_ns: now.wall_at(notice.at_ns) };
    match NoticeKind::from_byte(notice.kind)? {
        NoticeKind::Trip => None,
        NoticeKind::Drop => {
            agent.last_drop = Some(packet);
            None
        }
        NoticeKind::NewEndpoint => {
            let data = json!({ "packet": packet, "opened_by": opened_by(notice), "typical": false });
            agent.last_untypical = Some(packet);
            Some(agent.draft(at, EventKind::EndpointNew, data))
        }
        NoticeKind::Violation => {
            let data = violation(agent, now, notice, &packet);
            agent.last_untypical = Some(packet);
            Some(agent.draft(at, EventKind::SecurityViolation, data))
        }
        NoticeKind::AuthFailure => {
            let data = failed_authentication(agent, now, notice, &packet)?;
            Some(agent.draft(at, EventKind::SecurityViolation, data))
        }
        NoticeKind::SocketDenied => {
            let data = denied_socket(agent, now, notice);
            Some(agent.draft(at, EventKind::SecurityViolation, data))
        }
    }
}

/// The event of a failed authentication that a sample told.
pub(super) fn refused(agent: &Agent, now: Time, at_ns: u64, flow: &FlowKey, epoch: u32, by: &str) -> Draft {
    let endpoint = format!("{} port {}", from_address(flow.remote), flow.remote_port);
    let data = json!({
        "violation_type": "authentication_failed",
        "severity": "medium",
        "policy_violated": format!("profiles.{}.auth_failures", agent.settings.profile_name),
        "attempted_action": format!("connection with {endpoint}, which was answered with {by}"),
        "context": {
            "kind": "sampled",
            "weight": 1,
            "endpoint": endpoint,
            "local_port": flow.local_port,
            "protocol": flow.protocol(),
            "epoch": epoch,
        },
        "risk_score": milli(agent.contributions(now).total()),
    });
    agent.draft(Time { mono_ns: at_ns, wall_ns: now.wall_at(at_ns) }, EventKind::SecurityViolation, data)
}

/// `None` for a kind that this daemon does not know.
fn failed_authentication(agent: &Agent, now: Time, notice: &Notice, packet: &Packet) -> Option<Value> {
    let kind = AuthKind::from_byte(notice.detail)?;
    let met = match kind {
        AuthKind::Http401 => "was answered with HTTP status 401",
        AuthKind::Http403 => "was answered with HTTP status 403",
        AuthKind::Http407 => "was answered with HTTP status 407",
        AuthKind::TlsAlert => "was refused by a TLS alert",
        AuthKind::Refused => "was refused",
        AuthKind::ResetBeforeData => "was reset before anything was said",
    };
    let profile = &agent.settings.profile;
    let endpoint = format!("{} port {}", packet.remote, packet.remote_port);
    Some(json!({
        "violation_type": "authentication_failed",
        "severity": "medium",
        "policy_violated": format!("profiles.{}.auth_failures", agent.settings.profile_name),
        "attempted_action": format!("connection with {endpoint}, which {met}"),
        "context": {
            "kind": kind.name(),
            "weight": centi(profile.auth_weights_centi[kind as usize].into()),
            "endpoint": endpoint,
            "packet": packet,
            "opened_by": opened_by(notice),
            "epoch": notice.epoch,
        },
        "risk_score": milli(agent.contributions(now).total()),
    }))
}

fn denied_socket(agent: &Agent, now: Time, notice: &Notice) -> Value {
    let family = match notice.protocol {
        17 => "AF_PACKET".to_owned(),
        44 => "AF_XDP".to_owned(),
        other => format!("address family {other}"),
    };
    json!({
        "violation_type": "socket_past_the_ip_stack",
        "severity": "high",
        "policy_violated": "agents known by their cgroup use sockets that the cgroup's programs see",
        "attempted_action": format!("socket({family})"),
        "context": { "enforced": agent.breaker.mode == Mode::Enforce, "epoch": notice.epoch },
        "risk_score": milli(agent.contributions(now).total()),
    })
}

fn opened_by(notice: &Notice) -> &'static str {
    if notice.endpoint_kind == 0 { "agent" } else { "remote" }
}

fn violation(agent: &Agent, now: Time, notice: &Notice, packet: &Packet) -> Value {
    json!({
        "violation_type": "untypical_endpoint_on_probation",
        "severity": "high",
        "policy_violated": format!("profiles.{}.typical", agent.settings.profile_name),
        "attempted_action": format!("{} packet with {} port {}", packet.direction, packet.remote, packet.remote_port),
        "context": { "packet": packet, "opened_by": opened_by(notice), "epoch": notice.epoch },
        "risk_score": milli(agent.contributions(now).total()),
    })
}
