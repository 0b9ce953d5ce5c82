//! The parts of a bundle that come from the loop: values at hand, and readers of the kernel's maps that are called beside
//! it.

use std::collections::HashMap;

use agentsec_common::agent::Slot;
use agentsec_common::endpoint::{EndpointKey, EndpointKind};
use agentsec_common::flow::{Flow, FlowKey, Sent, Statuses};
use serde_json::{Value, json};

use crate::bundle::trip::Places;
use crate::bundle::{Order, Paper, Source, Trip, sha256};
use crate::core::address::from_address;
use crate::core::community_id::{DEFAULT_SEED, FlowTuple};
use crate::core::flows::{Untold, endpoint_of};
use crate::core::protocol::protocol_name;
use crate::core::time::rfc3339;
use crate::core::{Place, Time};
use crate::kernel::beside::Beside;
use crate::record::canonical;
use crate::recorder::pcapng_of;

use super::super::Daemon;
use super::super::endpoint_views;
use super::super::roster::Key;

const PROFILE: &str = "profile.json";
const ENDPOINTS: &str = "endpoints.json";
const FLOWS: &str = "flows.json";
const RECORDER: &str = "recorder.pcapng";
/// Parts of an agent that the daemon knows.
const OF_AGENTS: [&str; 4] = [PROFILE, ENDPOINTS, FLOWS, RECORDER];

impl Daemon {
    /// Everything that making a bundle needs. It costs the loop no look into a map.
    pub(super) fn bundle_order(&self, now: Time, trip: Trip, event: Value) -> Order {
        let slot = self.roster.slot_of(&trip.agent);
        let mut sources = vec![self.signals_part(now, slot, event), self.configuration_part()];
        match slot {
            Some(slot) => {
                sources.push(self.profile_part(slot));
                sources.extend(self.map_parts(now, slot));
                sources.push(self.recorder_part(slot));
            }
            None => sources.extend(
                OF_AGENTS.map(|name| Source::unavailable(name, "the agent is no longer known to the daemon")),
            ),
        }
        Order {
            gate: self.bundles.gate.close(&trip.agent),
            trip,
            at: now,
            places: slot.map(|slot| self.places_of(slot)).unwrap_or_default(),
            sources,
            config: self.config.bundles.clone(),
        }
    }

    fn places_of(&self, slot: Slot) -> Places {
        let mut places = Places::default();
        let Some(member) = self.roster.get(slot) else { return places };
        for (key, seat) in &member.seats {
            match (key, &seat.place) {
                (Key::Interface(ifindex), place) => places.interfaces.push((*ifindex, place.to_string())),
                (Key::Cgroup(_), Place::Cgroup(path)) => places.cgroups.push(path.clone()),
                (_, place) => places.addresses.push(place.to_string()),
            }
        }
        places
    }

    /// Why the circuit opened, and how the agent is now.
    fn signals_part(&self, now: Time, slot: Option<Slot>, event: Value) -> Source {
        let view = slot.and_then(|slot| self.engine.view(now, slot));
        let uncovered = slot.and_then(|slot| self.roster.get(slot)).map(|member| &member.uncovered);
        let value = json!({
            "at_trip": event,
            "now": view,
            "now_at": rfc3339(now.wall_ns),
            "uncovered": uncovered,
        });
        Source::value("signals.json", value)
    }

    fn profile_part(&self, slot: Slot) -> Source {
        let name = self.roster.get(slot).map(|member| member.settings.profile_name.as_str());
        let known = name.and_then(|name| Some((name, self.config.profiles.get(name)?)));
        match known {
            Some((name, profile)) => Source::value(PROFILE, super::profile::document(name, profile)),
            None => Source::unavailable(PROFILE, "the configuration in force has no such profile any more"),
        }
    }

    /// The packets before the trip, and the one that tripped.
    fn recorder_part(&self, slot: Slot) -> Source {
        let Some(recording) = self.recording_of(slot) else {
            return Source::unavailable(
                RECORDER,
                "the agent has no recorder: its mode is off, or none was free",
            );
        };
        let about = self.recorders.about().clone();
        let write = move |paper: &Paper| {
            paper.raw(pcapng_of(&recording, &about).map_err(|error| format!("{error:#}"))?);
            Ok(())
        };
        Source { name: RECORDER, write: Box::new(write) }
    }

    /// Which configuration was in force, and on what.
    fn configuration_part(&self) -> Source {
        let sources = serde_json::to_value(&self.config.sources).unwrap_or_default();
        let value = json!({
            "sha256": sha256(canonical::to_string(&sources).as_bytes()),
            "sources": sources,
            "version": env!("CARGO_PKG_VERSION"),
            "layout": agentsec_common::maps::LAYOUT_VERSION,
            "started_at": rfc3339(self.started.wall_ns),
            "took_over": self.kernel.took_over,
            "pin_path": self.options.pin_path,
            "interval_ms": self.config.daemon.interval_ns / 1_000_000,
            "alerts": self.alerts,
        });
        Source::value("configuration.json", value)
    }

    /// Endpoints and connections, read from the kernel's maps beside the loop.
    fn map_parts(&self, now: Time, slot: Slot) -> Vec<Source> {
        let owed: HashMap<EndpointKey, Untold> = self.flows.owed_to(slot).collect();
        let overflow = self.kernel.collector.ledger(slot).endpoint_overflow;
        let part = |name, write: fn(&Paper, &Beside, Known) -> anyhow::Result<()>, known: Known| {
            let maps = self.kernel.collector.beside();
            let write = move |paper: &Paper| {
                let maps = maps.map_err(|error| format!("{error:#}"))?;
                write(paper, &maps, known).map_err(|error| format!("{error:#}"))
            };
            Source { name, write: Box::new(write) }
        };
        let known = Known { now, slot, owed, overflow };
        vec![part(ENDPOINTS, endpoints, known.clone()), part(FLOWS, flows, known)]
    }
}

/// What reading the maps needs to know.
#[derive(Clone)]
struct Known {
    now: Time,
    slot: Slot,
    owed: HashMap<EndpointKey, Untold>,
    overflow: u64,
}

/// Every endpoint, as `agentsec endpoints --json` shows it.
fn endpoints(paper: &Paper, maps: &Beside, known: Known) -> anyhow::Result<()> {
    let Known { now, slot, owed: mut untold, overflow } = known;
    let mut found = Vec::new();
    // First the endpoints: what a connection tells one meanwhile is missed, and not counted twice.
    maps.endpoints(slot, |key, endpoint| found.push((key, endpoint)))?;
    maps.flows(slot, |key, flow| {
        untold.entry(endpoint_of(&key, &flow)).or_default().add(&Untold::of(&flow))
    })?;
    let mut responses = HashMap::new();
    maps.responses(slot, |key, found| {
        responses.insert(key, found);
    })?;
    found.sort_by_key(|(_, endpoint)| std::cmp::Reverse(endpoint.last_seen_ns));
    paper.fact("beyond_the_list", overflow);
    for (key, endpoint) in &found {
        let untold = untold.get(key).copied().unwrap_or_default();
        let view = endpoint_views::view(now, key, endpoint, &untold, responses.get(key));
        if paper.item(serde_json::to_value(view)?).is_none() {
            break;
        }
    }
    Ok(())
}

/// Every connection that is followed, the latest first.
fn flows(paper: &Paper, maps: &Beside, known: Known) -> anyhow::Result<()> {
    let mut found = Vec::new();
    maps.flows(known.slot, |key, flow| found.push((key, flow)))?;
    found.sort_by_key(|(_, flow)| std::cmp::Reverse(flow.last_seen_ns));
    for (key, flow) in &found {
        if paper.item(flow_view(known.now, key, flow)).is_none() {
            break;
        }
    }
    Ok(())
}

fn flow_view(now: Time, key: &FlowKey, flow: &Flow) -> Value {
    let (local, remote) = (from_address(flow.local), from_address(key.remote));
    let is_opened = flow.kind == EndpointKind::Opened as u64;
    let tuple = FlowTuple {
        protocol: key.protocol(),
        source: local,
        destination: remote,
        source_port: key.local_port,
        destination_port: key.remote_port,
    };
    let statuses = Statuses(flow.statuses);
    let passed =
        |direction: usize| json!({ "bytes": flow.bytes[direction], "packets": flow.packets[direction] });
    json!({
        "protocol": protocol_name(key.protocol()),
        "local_address": local,
        "local_port": key.local_port,
        "remote_address": remote,
        "remote_port": key.remote_port,
        "opened_by": if is_opened { "agent" } else { "remote" },
        "community_id": tuple.community_id(DEFAULT_SEED),
        "language": Sent(flow.sent).spoken().name(),
        "outbound": passed(0),
        "inbound": passed(1),
        "first_seen": rfc3339(now.wall_at(flow.first_seen_ns)),
        "last_seen": rfc3339(now.wall_at(flow.last_seen_ns)),
        "responses": flow.responses,
        "response_ns": flow.response_ns,
        "latest_status": Some(statuses.latest()).filter(|status| *status != 0),
        "is_finished": Sent(flow.sent).is_finished() || statuses.is_finished(),
    })
}
