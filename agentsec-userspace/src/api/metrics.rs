//! `GET /metrics`: the status as Prometheus text.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::recovery::tiers::Freshness;

use super::views::{AgentStatus, DaemonStatus, Mode, State, Status};

/// The content type of what [`render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The status in Prometheus's text format, every name prefixed `agentsec_`, and how new each agent's snapshots are.
#[must_use]
pub fn render(status: &Status, snapshots: &BTreeMap<String, Freshness>) -> String {
    let mut page = Page(String::new());
    daemon(&mut page, &status.daemon);
    circuits(&mut page, &status.agents);
    traffic(&mut page, &status.agents);
    signals(&mut page, &status.agents);
    freshness(&mut page, snapshots);
    page.0
}

fn freshness(page: &mut Page, snapshots: &BTreeMap<String, Freshness>) {
    page.family("snapshots", "gauge", "Snapshots of the agent's state.");
    for (agent, fresh) in snapshots {
        page.sample("snapshots", &[("agent", agent)], fresh.snapshots);
    }
    let seconds = |ns: u64| ns as f64 / 1e9;
    page.family("snapshot_timestamp_seconds", "gauge", "When the agent's newest snapshot was finished.");
    for (agent, fresh) in snapshots {
        for (which, ns) in [("newest", fresh.newest_ns), ("newest_verified", fresh.verified_ns)] {
            if let Some(ns) = ns {
                page.sample("snapshot_timestamp_seconds", &[("agent", agent), ("which", which)], seconds(ns));
            }
        }
    }
}

fn daemon(page: &mut Page, daemon: &DaemonStatus) {
    page.family("build_info", "gauge", "Always 1; the version is a label.");
    page.sample("build_info", &[("version", &daemon.version), ("kernel", &daemon.kernel)], 1);
    page.family("uptime_seconds", "gauge", "Time since the daemon started.");
    page.sample("uptime_seconds", &[], daemon.uptime_s);
    page.family("agents", "gauge", "Agents by state.");
    let counts = daemon.agents_by_state;
    for (state, count) in
        [(State::Closed, counts.closed), (State::HalfOpen, counts.half_open), (State::Open, counts.open)]
    {
        page.sample("agents", &[("state", state.name())], count);
    }
    page.family("attachments_pending", "gauge", "Attachments that are still being worked on.");
    page.sample("attachments_pending", &[], daemon.attachments_pending);
    page.family("stray_packets_total", "counter", "Packets dropped because no known agent owns them.");
    page.sample("stray_packets_total", &[("cause", "unidentified")], daemon.strays.unidentified_packets);
    page.sample("stray_packets_total", &[("cause", "unpoliced")], daemon.strays.unpoliced_packets);
    page.family("events_total", "counter", "Forensic events by what became of them.");
    page.sample("events_total", &[("outcome", "written")], daemon.events.written);
    page.sample("events_total", &[("outcome", "lost")], daemon.events.lost);
    page.family("bundles_total", "counter", "Evidence bundles by what became of them.");
    for (outcome, count) in [
        ("collected", daemon.bundles.collected),
        ("partial", daemon.bundles.partial),
        ("failed", daemon.bundles.failed),
        ("removed", daemon.bundles.removed),
    ] {
        page.sample("bundles_total", &[("outcome", outcome)], count);
    }
    page.family("bundles_waiting", "gauge", "Evidence bundles that wait for room on the disk.");
    page.sample("bundles_waiting", &[], daemon.bundles.waiting);
    anchors(page, daemon);
    page.family("samples_total", "counter", "Samples of answers that were read.");
    page.sample("samples_total", &[], daemon.samples_read);
    page.family("samples_cut_total", "counter", "Samples of which something could not be read.");
    page.sample("samples_cut_total", &[], daemon.samples_cut);
    page.family("events_queued", "gauge", "Forensic events waiting to be written.");
    page.sample("events_queued", &[], daemon.events.queued);
}

fn anchors(page: &mut Page, daemon: &DaemonStatus) {
    page.family("anchor_entries", "gauge", "Entries of the log that the checkpoint at an anchor covers.");
    for (name, state) in &daemon.anchors {
        let entries = state.anchored.as_ref().map_or(0, |anchored| anchored.size);
        page.sample("anchor_entries", &[("anchor", name)], entries);
    }
    page.family("anchor_failures", "gauge", "Attempts to reach an anchor that have failed since one worked.");
    for (name, state) in &daemon.anchors {
        page.sample("anchor_failures", &[("anchor", name)], state.failures);
    }
    page.family("anchor_contradicted", "gauge", "1 for an anchor that the log contradicts.");
    for (name, state) in &daemon.anchors {
        page.sample("anchor_contradicted", &[("anchor", name)], u8::from(state.contradicted));
    }
}

fn circuits(page: &mut Page, agents: &[AgentStatus]) {
    page.family("agent_state", "gauge", "1 for the state that the agent is in.");
    for agent in agents {
        for state in [State::Closed, State::HalfOpen, State::Open] {
            let labels = [("agent", agent.id.as_str()), ("state", state.name())];
            page.sample("agent_state", &labels, u8::from(agent.state == state));
        }
    }
    page.family("agent_mode", "gauge", "1 for the mode that the agent is in.");
    for agent in agents {
        for mode in [Mode::Enforce, Mode::Shadow, Mode::Exempt] {
            let labels = [("agent", agent.id.as_str()), ("mode", mode.name())];
            page.sample("agent_mode", &labels, u8::from(agent.mode == mode));
        }
    }
    page.each(agents, "agent_risk", "gauge", "Composite risk, 0 to 1.", |agent| agent.risk);
    page.family("agent_risk_contribution", "gauge", "What each term adds to the risk.");
    for agent in agents {
        for (term, risk) in agent.contributions.named() {
            page.sample("agent_risk_contribution", &[("agent", &agent.id), ("term", term)], risk);
        }
    }
    page.each(agents, "agent_epoch", "gauge", "Transitions of the agent's circuit.", |agent| agent.epoch);
    page.each(agents, "agent_trips_total", "counter", "Trips by the kernel.", |agent| agent.trips);
    page.each(agents, "agent_held", "gauge", "1 while an operator holds it.", |agent| u8::from(agent.hold));
}

fn traffic(page: &mut Page, agents: &[AgentStatus]) {
    page.family("agent_packets_total", "counter", "Packets by direction and verdict.");
    for_each_count(agents, |labels, packets, _| page.sample("agent_packets_total", labels, packets));
    page.family("agent_bytes_total", "counter", "Wire bytes by direction and verdict.");
    for_each_count(agents, |labels, _, bytes| page.sample("agent_bytes_total", labels, bytes));
    page.each(agents, "agent_would_drop_packets_total", "counter", "Passed by shadow mode.", |agent| {
        agent.would_drop.packets
    });
    page.each(agents, "agent_would_drop_bytes_total", "counter", "Passed by shadow mode.", |agent| {
        agent.would_drop.bytes
    });
    page.family("agent_frames_total", "counter", "Frames judged, by what they are.");
    for agent in agents {
        for (class, frames) in agent.classes.named() {
            page.sample("agent_frames_total", &[("agent", &agent.id), ("class", class)], frames);
        }
    }
}

fn for_each_count(agents: &[AgentStatus], mut sample: impl FnMut(&[(&str, &str)], u64, u64)) {
    for agent in agents {
        for (direction, counts) in [("outbound", agent.outbound), ("inbound", agent.inbound)] {
            for (verdict, packets, bytes) in [
                ("passed", counts.packets, counts.bytes),
                ("dropped", counts.dropped_packets, counts.dropped_bytes),
            ] {
                let labels = [("agent", agent.id.as_str()), ("direction", direction), ("verdict", verdict)];
                sample(&labels, packets, bytes);
            }
        }
    }
}

fn signals(page: &mut Page, agents: &[AgentStatus]) {
    page.each(agents, "agent_volume_bytes", "gauge", "Wire bytes in the window.", |agent| {
        agent.signals.volume
    });
    page.each(agents, "agent_unusual_endpoints", "gauge", "Untypical endpoints in the window.", |agent| {
        agent.signals.unusual_endpoints
    });
    page.each(agents, "agent_auth_failures", "gauge", "Failed authentications in the window.", |agent| {
        agent.signals.auth_failures
    });
    page.each(agents, "agent_response_deviation_seconds", "gauge", "Response time deviation.", |agent| {
        agent.signals.deviation_ms / 1000.0
    });
    answers(page, agents);
    page.family("agent_endpoints", "gauge", "Endpoints known, by who opens.");
    for agent in agents {
        page.sample(
            "agent_endpoints",
            &[("agent", &agent.id), ("direction", "open")],
            agent.endpoints.opened,
        );
        page.sample(
            "agent_endpoints",
            &[("agent", &agent.id), ("direction", "accept")],
            agent.endpoints.accepted,
        );
    }
    page.each(
        agents,
        "agent_endpoint_overflow_total",
        "counter",
        "Endpoints that found the list full.",
        |agent| agent.endpoints.overflow,
    );
    page.each(agents, "agent_flows", "gauge", "Connections that are followed.", |agent| agent.signals.flows);
    page.family("agent_lost_total", "counter", "What the kernel could not count or tell.");
    for agent in agents {
        for (what, count) in agent.lost.named() {
            page.sample("agent_lost_total", &[("agent", &agent.id), ("what", what)], count);
        }
    }
}

/// Requests, and how they are answered.
fn answers(page: &mut Page, agents: &[AgentStatus]) {
    page.family(
        "agent_auth_failures_total",
        "counter",
        "Failed authentications seen by the kernel, by kind.",
    );
    for agent in agents {
        for (kind, count) in agent.signals.auth.named() {
            page.sample("agent_auth_failures_total", &[("agent", &agent.id), ("kind", kind)], count);
        }
    }
    page.family("agent_response_seconds", "gauge", "Response times of the last one to two windows.");
    for agent in agents {
        let times = &agent.signals.response_time;
        for (quantile, ms) in [("0.5", times.p50_ms), ("0.99", times.p99_ms)] {
            if let Some(ms) = ms {
                let labels = [("agent", agent.id.as_str()), ("quantile", quantile)];
                page.sample("agent_response_seconds", &labels, ms / 1000.0);
            }
        }
    }
    page.each(agents, "agent_responses_total", "counter", "Response times measured.", |agent| {
        agent.totals.responses
    });
    page.each(agents, "agent_requests_total", "counter", "Requests.", |agent| agent.totals.requests);
    page.each(agents, "agent_anomalous_requests_total", "counter", "Anomalous requests.", |agent| {
        agent.totals.anomalous_requests
    });
    page.each(agents, "agent_requests", "gauge", "Requests in the window.", |agent| agent.signals.requests);
    page.each(agents, "agent_anomalous_requests", "gauge", "Anomalous requests in the window.", |agent| {
        agent.signals.anomalous_requests
    });
}

/// A page of metrics under construction.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a `String` cannot fail.
        let _ = writeln!(self.0, "# HELP agentsec_{name} {help}\n# TYPE agentsec_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.0, "agentsec_{name}");
        for (index, (label, text)) in labels.iter().enumerate() {
            let opening = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{opening}{label}=\"{}\"", escaped(text));
        }
        let closing = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{closing} {value}");
    }

    fn each<V: std::fmt::Display>(
        &mut self,
        agents: &[AgentStatus],
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&AgentStatus) -> V,
    ) {
        self.family(name, kind, help);
        for agent in agents {
            self.sample(name, &[("agent", &agent.id)], value(agent));
        }
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::views::tests::one_agent;

    fn fresh() -> BTreeMap<String, Freshness> {
        let fresh = Freshness { snapshots: 3, newest_ns: Some(1_700_000_000_500_000_000), verified_ns: None };
        BTreeMap::from([("crawler".into(), fresh)])
    }

    #[test]
    fn the_page_has_the_numbers_of_the_status() {
        let page = render(&one_agent(), &fresh());
        for line in [
            "agentsec_agents{state=\"OPEN\"} 1",
            "agentsec_agent_state{agent=\"crawler\",state=\"OPEN\"} 1",
            "agentsec_agent_risk{agent=\"crawler\"} 0.700",
            "agentsec_agent_bytes_total{agent=\"crawler\",direction=\"outbound\",verdict=\"dropped\"} 4200000",
            "agentsec_agent_response_deviation_seconds{agent=\"crawler\"} 0.0125",
            "agentsec_uptime_seconds 90",
            "agentsec_samples_total 11",
            "agentsec_bundles_total{outcome=\"collected\"} 2",
            "agentsec_agent_auth_failures_total{agent=\"crawler\",kind=\"http_401\"} 2",
            "agentsec_agent_response_seconds{agent=\"crawler\",quantile=\"0.99\"} 0.13025",
            "agentsec_agent_requests_total{agent=\"crawler\"} 90",
            "agentsec_agent_anomalous_requests{agent=\"crawler\"} 1",
            "agentsec_agent_responses_total{agent=\"crawler\"} 80",
            "agentsec_snapshots{agent=\"crawler\"} 3",
            "agentsec_snapshot_timestamp_seconds{agent=\"crawler\",which=\"newest\"} 1700000000.5",
            "agentsec_agent_flows{agent=\"crawler\"} 3",
            "agentsec_agent_lost_total{agent=\"crawler\",what=\"flows\"} 7",
        ] {
            assert!(page.lines().any(|found| found == line), "no `{line}` in\n{page}");
        }
    }

    #[test]
    fn every_sample_belongs_to_the_family_before_it() {
        let mut family = String::new();
        for line in render(&one_agent(), &fresh()).lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap().to_owned();
            } else if !line.starts_with('#') {
                assert_eq!(line.split(['{', ' ']).next().unwrap(), family);
            }
        }
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let mut status = one_agent();
        status.agents[0].id = "a\"} 1\nevil\\".into();
        assert!(render(&status, &fresh()).contains(r#"{agent="a\"} 1\nevil\\"}"#));
    }
}
