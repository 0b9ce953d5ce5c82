//! Why an agent is in its state, in words.

use super::agent::Agent;
use super::draft::centi;
use super::names::{mode_name, state_name};
use super::time::Time;
use super::tripped::{By, Contributions, Packet};
use super::view;
use agentsec_common::policy::{Mode, State};
use agentsec_common::profile::{NO_LIMIT, Profile};
use serde::Serialize;

/// Why an agent is in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The agent.
    pub id: String,
    /// One sentence: state and mode, and since when and by whom.
    pub summary: String,
    /// The term or limit that did it, or what counts now, one sentence each.
    pub because: Vec<String>,
    /// The packet or endpoint that did it.
    pub packet: Option<Packet>,
    /// Settings that would change it, one sentence each.
    pub would_change: Vec<String>,
    /// What happens next if nobody does anything.
    pub next: String,
}

pub(super) fn of(agent: &Agent, now: Time) -> Explanation {
    let view = view::of(agent, now);
    let mut because: Vec<String> = view.tripped.iter().map(|tripped| tripped.reason.clone()).collect();
    because.extend(view.tripped.iter().filter_map(at_the_trip));
    because.extend(terms(agent, now));
    let packet = view.tripped.as_ref().and_then(|tripped| tripped.packet.clone());
    let cause = view.tripped.as_ref().map(|tripped| tripped.cause.as_str());
    let counted = view.tripped.as_ref().map(|tripped| tripped.contributions).unwrap_or_default();
    Explanation {
        id: agent.id.clone(),
        summary: summary(agent, &view),
        because,
        packet: packet
            .or_else(|| agent.last_untypical.clone().filter(|_| agent.contributions(now).endpoints > 0)),
        would_change: settings(agent, cause, counted),
        next: view.next,
    }
}

fn summary(agent: &Agent, view: &view::AgentView) -> String {
    let (state, mode) = (state_name(agent.state_in_force()), mode_name(agent.breaker.mode));
    let dropping = match (agent.breaker.mode, agent.state_in_force()) {
        (Mode::Enforce, State::Open) => "everything is dropped",
        (Mode::Enforce, State::HalfOpen) => "only typical endpoints are reachable",
        _ => "nothing is dropped",
    };
    let since = view.tripped.as_ref().map_or_else(String::new, |tripped| {
        let who = match tripped.by {
            By::Kernel => "the kernel",
            By::Daemon => "the daemon",
            By::Operator => "an operator",
        };
        format!("; opened by {who} at {}", tripped.at)
    });
    format!("{state} in mode {mode}: {dropping}{since}")
}

/// The score at the moment of the trip: the windows have started again since.
fn at_the_trip(tripped: &view::TrippedView) -> Option<String> {
    let Contributions { auth, volume, endpoints, deviation, requests, anomalous, extra } =
        tripped.contributions;
    let named = [
        ("auth", auth),
        ("volume", volume),
        ("endpoints", endpoints),
        ("deviation", deviation),
        ("requests", requests),
        ("anomalous", anomalous),
        ("extra", extra),
    ];
    let share = |milli: u16| f64::from(milli) / 1000.0;
    let counted = named.iter().filter(|(_, milli)| *milli > 0);
    let terms: Vec<String> = counted.map(|(name, milli)| format!("{name} {}", share(*milli))).collect();
    (!terms.is_empty())
        .then(|| format!("risk {} at the trip: {}", share(tripped.risk_milli), terms.join(" + ")))
}

/// One sentence for each term that counts now.
fn terms(agent: &Agent, now: Time) -> Vec<String> {
    let profile = &agent.settings.profile;
    let signals = agent.signals(now);
    let Contributions { auth, volume, endpoints, deviation, requests, anomalous, extra } =
        agent.contributions(now);
    let share = |milli: u16| f64::from(milli) / 1000.0;
    let mut terms = Vec::new();
    let mut term = |milli: u16, text: String| {
        if milli > 0 {
            terms.push(format!("{text} (adds {} now)", share(milli)));
        }
    };
    term(
        auth,
        format!(
            "{} failed authentications, more than {}",
            centi(signals.auth_failures_centi),
            centi(profile.anomalous_auth_failures_centi)
        ),
    );
    term(volume, format!("{} bytes in the window, more than {}", signals.volume, profile.anomalous_volume));
    term(
        endpoints,
        format!(
            "{} unusual endpoints beside {} typical ones",
            signals.unusual_endpoints, profile.typical_endpoints
        ),
    );
    term(
        deviation,
        format!(
            "response times deviate by {} µs, more than {} µs",
            us(signals.deviation_100us),
            us(profile.anomalous_deviation_100us)
        ),
    );
    term(
        requests,
        format!("{} requests in the window, more than {}", signals.requests, profile.anomalous_rate),
    );
    term(
        anomalous,
        format!(
            "{} anomalous requests, more than {}",
            signals.anomalous_requests, profile.anomalous_requests
        ),
    );
    term(extra, "added by the daemon's own signals".into());
    terms
}

/// The thresholds of the terms that counted.
fn thresholds(name: &str, profile: &Profile, counted: Contributions) -> Vec<String> {
    let mut thresholds = Vec::new();
    let mut threshold = |milli: u16, text: String| {
        if milli > 0 {
            thresholds.push(format!("profiles.{name}.{text}"));
        }
    };
    let failures = centi(profile.anomalous_auth_failures_centi);
    threshold(
        counted.auth,
        format!("auth_failures is {failures}, and auth_weights say what each kind counts"),
    );
    threshold(
        counted.volume,
        format!("expected_volume and volume_ratio allow {} bytes", profile.anomalous_volume),
    );
    threshold(counted.endpoints, "typical says which endpoints are not unusual".into());
    let (normal, most) = (us(profile.normal_response_100us), us(profile.anomalous_deviation_100us));
    threshold(
        counted.deviation,
        format!("response_time_deviation is {most} µs, from a response_time of {normal} µs"),
    );
    threshold(
        counted.requests,
        format!(
            "expected_requests_per_minute and requests_ratio allow {} in the window",
            profile.anomalous_rate
        ),
    );
    threshold(counted.anomalous, format!("anomalous_requests is {}", profile.anomalous_requests));
    thresholds
}

/// Microseconds of units of 100 µs.
fn us(ticks: u32) -> u64 {
    u64::from(ticks) * 100
}

fn settings(agent: &Agent, cause: Option<&str>, counted: Contributions) -> Vec<String> {
    let profile = &agent.settings.profile;
    let name = &agent.settings.profile_name;
    let mut settings = match cause {
        Some("max_volume") if profile.max_volume != NO_LIMIT => {
            vec![format!("profiles.{name}.limits.max_volume is {} bytes", profile.max_volume)]
        }
        Some("max_unusual_endpoints") => vec![
            format!("profiles.{name}.limits.max_unusual_endpoints is {}", profile.max_unusual_endpoints),
            format!("endpoints under profiles.{name}.typical are not unusual"),
        ],
        Some("max_auth_failures") => {
            let limit = centi(profile.max_auth_failures_centi);
            vec![
                format!("profiles.{name}.limits.max_auth_failures is {limit}"),
                format!("profiles.{name}.auth_weights say what each kind counts"),
            ]
        }
        Some("max_variance") => vec![
            format!("profiles.{name}.limits.max_variance is {} µs", us(profile.max_deviation_100us)),
            format!("profiles.{name}.response_time is {} µs", us(profile.normal_response_100us)),
        ],
        Some("risk") => vec![
            format!(
                "profiles.{name}.quarantine_threshold is {}",
                f64::from(profile.quarantine_threshold) / 1000.0
            ),
            format!("profiles.{name}.weights say what each term adds"),
        ],
        Some("probe_violation") => vec![
            format!("profiles.{name}.probe.violations is {}", profile.probe_violations),
            format!("endpoints under profiles.{name}.typical are allowed on probation"),
        ],
        _ => Vec::new(),
    };
    if cause == Some("risk") {
        settings.extend(thresholds(name, profile, counted));
    }
    if agent.settings.never_isolate {
        settings.push("breaker.never_isolate lists the agent".into());
    }
    if agent.breaker.shadowed_from.is_some() {
        settings.push("breaker.guard.hold_in_shadow holds it in shadow: too many trips by one cause".into());
    }
    if agent.state_in_force() == State::Open && agent.breaker.deadline_ns.is_none() && !agent.breaker.hold {
        settings.push("breaker.auto_probe is off".into());
    }
    settings
}
