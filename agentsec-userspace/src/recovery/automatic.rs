//! The loop that takes snapshots without being asked, and brings agents back that are configured so.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use agentsec_common::policy::State;

use crate::clock;

use super::error::Kind;
use super::jobs::Standing;
use super::schedule::{self, Turn};
use super::service::{Service, lock};
use super::world::{AgentNow, World};

/// How often the loop looks.
const LOOK: Duration = Duration::from_millis(500);

/// What the loop remembers of an agent.
#[derive(Default)]
struct Memory {
    /// The job of its latest turn, until that has ended.
    job: Option<u64>,
    /// The incident that it was brought back from without being asked: once is enough.
    recovered: Option<String>,
}

/// Looks after everybody for as long as the process lives.
pub(super) fn run(service: &Service) {
    let mut memories: BTreeMap<String, Memory> = BTreeMap::new();
    loop {
        let world = service.world();
        memories.retain(|agent, _| world.agents.contains_key(agent));
        lock(&service.shared().turns).retain(|agent, _| world.agents.contains_key(agent));
        for (agent, now) in &world.agents {
            let memory = memories.entry(agent.clone()).or_default();
            bring_back(service, &world, agent, now, memory);
            take_turn(service, &world, agent, now, memory);
        }
        thread::sleep(LOOK);
    }
}

fn bring_back(service: &Service, world: &World, agent: &str, now: &AgentNow, memory: &mut Memory) {
    let wanted = now.recovery.automatic && now.state == State::Open && !is_held(world, agent);
    let (true, Some(incident)) = (wanted, &now.incident) else { return };
    if memory.recovered.as_ref() == Some(incident) {
        return;
    }
    let begun = service.recover(agent, None, "the automatic loop", true);
    // Who is busy is asked again with the next look.
    if begun.as_ref().is_err_and(|failure| failure.kind == Kind::Locked) {
        return;
    }
    memory.recovered = Some(incident.clone());
    if let Err(failure) = begun {
        let data = serde_json::json!({ "what": "no_automatic_recovery", "error": failure.message });
        service.shared().tell_alert(agent, data);
    }
}

fn take_turn(service: &Service, world: &World, agent: &str, now: &AgentNow, memory: &mut Memory) {
    let Some(interval_ns) = now.recovery.interval_ns else {
        lock(&service.shared().turns).remove(agent);
        return;
    };
    let now_ns = clock::now().mono_ns;
    let chance = fastrand::f64();
    if let Some(number) = memory.job {
        let standing = service.job(number).map(|job| job.standing);
        if standing == Some(Standing::Running) {
            return;
        }
        memory.job = None;
        let went_well = standing == Some(Standing::Done);
        if let Some(turn) = lock(&service.shared().turns).get_mut(agent) {
            *turn = turn.next(went_well, interval_ns, chance, now_ns);
        }
        return;
    }
    let turn = *lock(&service.shared().turns)
        .entry(agent.to_owned())
        .or_insert_with(|| Turn::first(interval_ns, chance, now_ns));
    if turn.due_ns > now_ns || service.is_busy(agent) || !may_all(world, agent) {
        return;
    }
    // Who is busy is asked again with the next look.
    memory.job = service.create(agent, "the automatic loop", true).ok().map(|job| job.job);
}

/// Whether an operator holds anybody in the agent's group: all of them would be let out.
fn is_held(world: &World, agent: &str) -> bool {
    let group = super::plan::order(agent, &world.dependencies());
    group.is_ok_and(|group| group.iter().any(|name| world.agents.get(name).is_some_and(|now| now.hold)))
}

/// Whether nobody in the agent's group may be compromised: their states go into one point.
fn may_all(world: &World, agent: &str) -> bool {
    let Ok(group) = super::plan::order(agent, &world.dependencies()) else { return false };
    group.iter().all(|name| {
        world
            .agents
            .get(name)
            .is_some_and(|now| schedule::may(now.state, now.risk_milli, now.recovery.max_risk_milli).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_brought_back_by_itself_with_somebody_who_is_held() {
        let text = "[agents.db]\ninterface = \"v0\"\nrecovery.directory = \"/db\"\n\
                    [agents.app]\ninterface = \"v1\"\nrecovery.directory = \"/app\"\nrecovery.dependencies = [\"db\"]\n";
        let source = crate::config::Source { name: "test".into(), text: text.into() };
        let config = crate::config::parse(&[source]).unwrap();
        let now = |name: &str, hold| AgentNow {
            recovery: config.agents[name].recovery.clone().unwrap(),
            state: State::Open,
            risk_milli: 0,
            hold,
            incident: None,
            tripped_ns: None,
            cgroup: None,
        };
        for (held, expected) in
            [(None, [false, false]), (Some("db"), [true, true]), (Some("app"), [false, true])]
        {
            let agents = ["db", "app"].map(|name| (name.to_owned(), now(name, held == Some(name))));
            let world = World { agents: agents.into(), ..World::default() };
            assert_eq!(["db", "app"].map(|name| is_held(&world, name)), expected, "{held:?}");
        }
    }
}
