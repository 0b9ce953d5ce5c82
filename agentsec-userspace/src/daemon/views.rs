//! Answers of the API, made from the core's views and the kernel's words.

use agentsec_common::agent::Slot;
use agentsec_common::endpoint::EndpointKind;
use agentsec_common::maps::LAYOUT_VERSION;
use agentsec_common::policy;
use agentsec_common::profile::{NO_LIMIT, Profile};
use anyhow::Result;

use crate::api::views::{
    AgentStatus, Attachment, AttachmentKind, AttachmentStatus, Classes, Contributions, DaemonStatus,
    Direction, EndpointCounts, EventCounts, Explanation, Limits, PACKET_SOCKETS_DENIED, PacketView, Risk,
    Status, StrayPackets, TotalCounts, Trip, WouldDrop, protocol_name,
};
use crate::api::{Refusal, Request, RequestError, Timestamp};
use crate::clock;
use crate::core::view::{AgentView, TrafficView};
use crate::core::{Draft, EventKind, Input, Place, Time, tripped};
use crate::kernel::hook::Hook;
use crate::record::writer::Counts;

use super::Daemon;
use super::roster::{Key, Member, Progress, Seat};

impl Daemon {
    /// Answers one request. Whoever asked may have gone meanwhile, which is their matter.
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Status { reply } => drop(reply.send(self.status())),
            Request::Endpoints { agent, reply } => drop(reply.send(self.endpoints_of(&agent))),
            Request::Explain { agent, reply } => drop(reply.send(self.explain(&agent))),
            Request::Recorder { agent, reply } => drop(reply.send(self.recorded(&agent))),
            Request::Operate { operation, by, reply } => drop(reply.send(self.operate(operation, by))),
            Request::Report { agent, report, by, reply } => {
                drop(reply.send(self.report(&agent, &report, &by)));
            }
            Request::Reload { by, reply } => drop(reply.send(self.reload(&by))),
            Request::Settle { reply } => {
                self.settle_state();
                self.log.after(move |kept| {
                    let _ = reply.send(kept);
                });
            }
            Request::Refused(refusal) => self.refused(&refusal),
        }
    }

    fn status(&mut self) -> Status {
        let now = clock::now();
        let observations = self.observe_all(now);
        self.handle(now, Input::Observed(observations));
        let views = self.engine.views(now);
        let mut agents: Vec<AgentStatus> =
            views.iter().filter_map(|view| self.agent_status(now, view)).collect();
        agents.sort_by(|a, b| a.id.cmp(&b.id));
        let daemon = self.daemon_status(now, &agents);
        Status { agents, daemon }
    }

    fn agent_status(&self, now: Time, view: &AgentView) -> Option<AgentStatus> {
        let member = self.roster.get(view.slot)?;
        let counters = self.kernel.collector.counters(view.slot).unwrap_or_default();
        let ledger = self.kernel.collector.ledger(view.slot);
        Some(AgentStatus {
            id: view.id.clone(),
            state: policy::State::from(view.state).into(),
            mode: policy::Mode::from(view.mode).into(),
            risk: Risk(view.risk_milli),
            contributions: contributions(view.contributions),
            epoch: view.epoch,
            outbound: direction(view.outbound),
            inbound: direction(view.inbound),
            attachments: attachments(member, |key| self.hook_of(view.slot, key)),
            tripped: view.tripped.as_ref().map(|tripped| Trip {
                by: by_name(tripped.by).to_owned(),
                at: tripped.at.parse().unwrap_or_default(),
                reason: tripped.reason.clone(),
                risk: Risk(tripped.risk_milli),
                contributions: contributions(tripped.contributions),
            }),
            profile: view.profile.clone(),
            tags: view.tags.clone(),
            slot: view.slot,
            trips: ledger.trip_seq as u32,
            hold: view.hold,
            next: Some(next(view, member)).filter(|next| !next.is_empty()),
            signals: self.signals(now, view, member, &ledger),
            limits: limits(&member.settings.profile),
            would_drop: WouldDrop { bytes: view.would_drop_bytes, packets: view.would_drop_packets },
            classes: Classes::from(counters.classes),
            endpoints: EndpointCounts {
                opened: self.live_endpoints(view.slot, EndpointKind::Opened),
                accepted: self.live_endpoints(view.slot, EndpointKind::Accepted),
                overflow: ledger.endpoint_overflow,
            },
            uncovered: member.uncovered.iter().cloned().collect(),
            totals: TotalCounts {
                requests: view.totals.requests,
                anomalous_requests: view.totals.anomalous_requests,
                responses: view.totals.responses,
            },
            lost: view.losses.into(),
        })
    }

    fn event_counts(&self) -> EventCounts {
        let Counts { written, queued, lost } = self.log.counts();
        EventCounts { written, queued, lost }
    }

    fn daemon_status(&mut self, now: Time, agents: &[AgentStatus]) -> DaemonStatus {
        let strays = self.kernel.collector.strays().map(StrayPackets::from).unwrap_or_default();
        let mut status = DaemonStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: Timestamp(self.started.wall_ns / 1_000_000),
            uptime_s: (now.mono_ns - self.started.mono_ns) / 1_000_000_000,
            config: self.options.config.display().to_string(),
            interval_ms: self.config.daemon.interval_ns / 1_000_000,
            layout: LAYOUT_VERSION,
            pin_path: self.options.pin_path.display().to_string(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().into(),
            strays,
            events: self.event_counts(),
            bundles: self.bundles.counts,
            anchors: self.outside.anchor_states(),
            samples_read: self.samples.read,
            samples_cut: self.samples.cut,
            alerts: self.alerts.clone(),
            packet_sockets: self.cgroups.packet_sockets.as_ref().map(|denied| match denied {
                Ok(()) => PACKET_SOCKETS_DENIED.to_owned(),
                Err(error) => format!(
                    "not denied to agents known by their cgroup ({error}): take CAP_NET_RAW from them, or \
                     restrict their address families"
                ),
            }),
            ..DaemonStatus::default()
        };
        for agent in agents {
            status.agents_by_state.add(agent.state);
            let pending = |attachment: &&Attachment| attachment.status != AttachmentStatus::Attached;
            status.attachments_pending += agent.attachments.iter().filter(pending).count() as u32;
        }
        status
    }

    /// The hook at which our programs see an agent.
    fn hook_of(&self, slot: Slot, key: Key) -> &'static str {
        match key {
            Key::Interface(ifindex) => self.kernel.links.attached_by(Hook::Interface { slot, ifindex }),
            Key::Address(prefix) => {
                let by = self.kernel.links.attached_by(Hook::Link { ifindex: prefix.ifindex });
                match (self.kernel.links.has_xdp(prefix.ifindex), by) {
                    (true, "clsact") => "xdp+clsact",
                    (true, _) => "xdp+tcx",
                    (false, by) => by,
                }
            }
            Key::Cgroup(_) => "cgroup_skb",
        }
    }

    pub(super) fn slot(&self, agent: &str) -> Result<Slot, RequestError> {
        self.roster.slot_of(agent).ok_or_else(|| RequestError::no_agent(agent))
    }

    fn explain(&mut self, agent: &str) -> Result<Explanation, RequestError> {
        let slot = self.slot(agent)?;
        let now = clock::now();
        let observed = self.observe(now, slot).into_iter().collect();
        self.handle(now, Input::Observed(observed));
        let (Some(view), Some(explanation)) = (self.engine.view(now, slot), self.engine.explain(now, slot))
        else {
            return Err(RequestError::no_agent(agent));
        };
        let status = self.agent_status(now, &view).ok_or_else(|| RequestError::no_agent(agent))?;
        let why = std::iter::once(explanation.summary).chain(explanation.because);
        let why = why.chain(whereabouts(&status.attachments)).collect();
        let at = status.tripped.as_ref().map_or(Timestamp(now.wall_ns / 1_000_000), |trip| trip.at);
        Ok(Explanation {
            agent: agent.to_owned(),
            state: status.state,
            mode: status.mode,
            tripped: status.tripped,
            why,
            packet: explanation.packet.map(|packet| packet_view(&packet, at)),
            settings: explanation.would_change,
            next: vec![explanation.next].into_iter().filter(|next| !next.is_empty()).collect(),
        })
    }

    /// Somebody who may not has tried to speak to the socket: an agent, perhaps.
    fn refused(&mut self, refusal: &Refusal) {
        let now = clock::now();
        let data = serde_json::json!({
            "violation_type": "control_api_refused",
            "severity": "high",
            "policy_violated": "operators only, in the daemon's own namespaces",
            "attempted_action": "connect to the operator socket",
            "context": {
                "pid": refusal.pid, "uid": refusal.uid, "gid": refusal.gid, "cgroup": refusal.cgroup,
                "reason": refusal.reason, "count": refusal.count,
            },
            "risk_score": null,
        });
        self.record(now, Draft::daemon(now, EventKind::SecurityViolation, data));
    }
}

/// What happens next, in words.
fn next(view: &AgentView, member: &Member) -> String {
    match member.is_configured {
        true => view.next.clone(),
        false => "no longer configured: contained until it is released".to_owned(),
    }
}

/// Every place of an agent, those included that are not there.
fn attachments(member: &Member, hooks: impl Fn(Key) -> &'static str) -> Vec<Attachment> {
    let seated = |(key, seat): (&Key, &Seat)| {
        let (status, error, hook) = match &seat.progress {
            Progress::Attached => (AttachmentStatus::Attached, None, Some(hooks(*key).to_owned())),
            Progress::Failed(error) => (AttachmentStatus::Failed, Some(error.clone()), None),
        };
        let ifindex = match key {
            Key::Interface(ifindex) => Some(*ifindex),
            Key::Address(prefix) => Some(prefix.ifindex),
            Key::Cgroup(_) => None,
        };
        Attachment { status, error, hook, ifindex, remark: seat.remark.clone(), ..attachment(&seat.place) }
    };
    let missing = member.missing().map(attachment);
    member.seats.iter().map(seated).chain(missing).collect()
}

/// Where an agent's packets are seen, and where they are not, one sentence each.
fn whereabouts(attachments: &[Attachment]) -> Vec<String> {
    let (attached, not): (Vec<_>, Vec<_>) =
        attachments.iter().partition(|attachment| attachment.status == AttachmentStatus::Attached);
    let at = |attachment: &&Attachment| match &attachment.hook {
        Some(hook) => format!("{} ({hook})", attachment.target()),
        None => attachment.target(),
    };
    let seen = attached.iter().map(at).collect::<Vec<_>>().join(", ");
    let unseen = not.iter().map(|attachment| {
        let why = attachment.error.as_deref().unwrap_or(attachment.status.name());
        format!("not attached to {} ({why}): nothing is counted or dropped there", attachment.target())
    });
    let remarks = attachments
        .iter()
        .filter_map(|attachment| Some(format!("{}: {}", attachment.target(), attachment.remark.as_ref()?)));
    let seen = (!seen.is_empty()).then(|| format!("its packets are seen at {seen}"));
    seen.into_iter().chain(unseen).chain(remarks).collect()
}

/// A place that is not there.
fn attachment(place: &Place) -> Attachment {
    let blank = Attachment { status: AttachmentStatus::Missing, ..Attachment::default() };
    match place.clone() {
        Place::Interface(name) => {
            Attachment { kind: AttachmentKind::Interface, interface: Some(name), ..blank }
        }
        Place::Cgroup(path) => Attachment { kind: AttachmentKind::Cgroup, cgroup: Some(path), ..blank },
        Place::Address { prefix, link } => Attachment {
            kind: AttachmentKind::Address,
            address: Some(prefix),
            interface: Some(link),
            ..blank
        },
    }
}

fn contributions(terms: tripped::Contributions) -> Contributions {
    Contributions {
        auth: Risk(terms.auth),
        volume: Risk(terms.volume),
        endpoints: Risk(terms.endpoints),
        deviation: Risk(terms.deviation),
        requests: Risk(terms.requests),
        anomalous: Risk(terms.anomalous),
        extra: Risk(terms.extra),
    }
}

fn direction(traffic: TrafficView) -> Direction {
    Direction {
        bytes: traffic.bytes,
        packets: traffic.packets,
        dropped_bytes: traffic.dropped_bytes,
        dropped_packets: traffic.dropped_packets,
    }
}

fn limits(profile: &Profile) -> Limits {
    let limit = |value: u32| (value != u32::MAX).then_some(value);
    Limits {
        max_volume: (profile.max_volume != NO_LIMIT).then_some(profile.max_volume),
        max_unusual_endpoints: limit(profile.max_unusual_endpoints),
        max_auth_failures: limit(profile.max_auth_failures_centi).map(|n| n / 100),
        max_variance_ms: limit(profile.max_deviation_100us).map(|ticks| f64::from(ticks) / 10.0),
        quarantine_threshold: Risk(profile.quarantine_threshold),
    }
}

fn packet_view(packet: &tripped::Packet, at: Timestamp) -> PacketView {
    PacketView {
        at,
        direction: packet.direction.clone(),
        protocol: protocol_name(packet.protocol).into_owned(),
        remote: packet.remote.clone(),
        remote_port: packet.remote_port,
        local_port: packet.local_port,
        bytes: packet.bytes.into(),
    }
}

fn by_name(by: tripped::By) -> &'static str {
    match by {
        tripped::By::Kernel => "kernel",
        tripped::By::Daemon => "daemon",
        tripped::By::Operator => "operator",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_says_where_an_agent_is_seen_and_where_it_is_not() {
        let link = Place::Address { prefix: "10.1.2.3".into(), link: "br0".into() };
        let there = Attachment {
            status: AttachmentStatus::Attached,
            hook: Some("tcx".into()),
            remark: Some("half of it is elsewhere".into()),
            ..attachment(&link)
        };
        let gone = attachment(&Place::Cgroup("a.slice/b.service".into()));
        let said = [
            "its packets are seen at 10.1.2.3 on br0 (tcx)",
            "not attached to a.slice/b.service (missing): nothing is counted or dropped there",
            "10.1.2.3 on br0: half of it is elsewhere",
        ];
        assert_eq!(whereabouts(&[there, gone]), said);
        assert_eq!(whereabouts(&[]), [""; 0]);
    }
}
