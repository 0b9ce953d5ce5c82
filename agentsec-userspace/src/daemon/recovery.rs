//! The loop's side of recovery: it says how the agents are, records what it is told, and puts on probation who is
//! back.

use serde_json::Value;
use tokio::sync::mpsc;

use agentsec_common::policy;

use crate::clock;
use crate::core::{Draft, Input, Place, Request, Target, Time};
use crate::kernel::cgroups::Tree;
use crate::recovery::service::Paths;
use crate::recovery::{AgentNow, Service, Told, World};

use super::Daemon;
use super::roster::Member;

impl Daemon {
    /// Starts recovery beside the loop. Containment does not depend on it: what fails is told.
    pub(super) fn start_recovery(&mut self) -> mpsc::UnboundedReceiver<Told> {
        let paths = Paths {
            state_dir: self.options.state_dir.clone(),
            evidence: self.bundles.gate(),
            cgroups: Tree::find().ok().map(|tree| tree.mount().to_owned()),
        };
        match Service::start(paths, self.world(clock::now())) {
            Ok((service, told)) => {
                self.recovery = Some(service);
                told
            }
            Err(error) => {
                self.complain("recovery", &anyhow::Error::new(error));
                mpsc::unbounded_channel().1
            }
        }
    }

    /// Says how the agents are now.
    pub(super) fn publish_recovery(&mut self, now: Time) {
        // Before recovery hears of a trip, it has to find the gate closed.
        self.order_bundles();
        if let Some(service) = &self.recovery {
            service.publish(self.world(now));
        }
    }

    fn world(&self, now: Time) -> World {
        let agents = self.roster.iter().filter_map(|(slot, member)| {
            let recovery = self.config.agents.get(&member.id)?.recovery.clone()?;
            let view = self.engine.view(now, slot)?;
            let tripped =
                view.tripped.as_ref().and_then(|trip| trip.at.parse::<crate::api::Timestamp>().ok());
            let now = AgentNow {
                recovery,
                state: policy::State::from(view.state),
                risk_milli: view.risk_milli,
                hold: view.hold,
                incident: view.incident,
                tripped_ns: tripped.map(|at| at.0.saturating_mul(1_000_000)),
                cgroup: cgroup_of(member),
            };
            Some((member.id.clone(), now))
        });
        World {
            common: self.config.recovery.clone(),
            memory: crate::recovery::memory::home(&self.options.run_dir),
            agents: agents.collect(),
        }
    }

    /// Takes one thing that recovery tells.
    pub(super) fn hear(&mut self, told: Told) {
        let now = clock::now();
        match told {
            Told::Event { agent, kind, data } => {
                let view = self.roster.slot_of(&agent).and_then(|slot| self.engine.view(now, slot));
                let correlation_id = view.and_then(|view| view.incident);
                let agent_id = Some(agent).filter(|agent| !agent.is_empty());
                self.record(now, Draft { agent_id, correlation_id, ..Draft::daemon(now, kind, data) });
            }
            // Who no longer waits for it needs no answer.
            Told::Heard(heard) => drop(heard.send(())),
            Told::Release { agent, by } => {
                let request = Request::Release { target: Target::Agent(agent), force: false };
                for (agent, outcome) in self.handle(now, Input::Operator { request, by }) {
                    if let Err(refusal) = outcome {
                        let data = Value::from(format!("`{agent}` is restored, but: {refusal}"));
                        let data =
                            serde_json::json!({ "what": "no_probation_after_recovery", "error": data });
                        self.record(now, Draft::daemon(now, crate::core::EventKind::Alert, data));
                    }
                }
                self.save();
                self.publish_recovery(now);
            }
        }
    }
}

/// The cgroup in which an agent was found.
fn cgroup_of(member: &Member) -> Option<String> {
    member.seats.values().find_map(|seat| match &seat.place {
        Place::Cgroup(path) => Some(path.clone()),
        _ => None,
    })
}
