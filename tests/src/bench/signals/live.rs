//! Requests and answers of a real client and a real server: every packet does what it does in life, which a segment that is
//! repeated cannot.

use agentsec_common::agent::Direction;
use agentsec_common::policy::State;
use anyhow::{Context, Result};
use aya::sys::{Stats, enable_stats};

use super::super::object::{Expected, Object, Runs};
use super::super::row::Row;
use super::super::setup::PATIENCE;
use super::super::statistics::median;
use crate::lab::Lab;
use crate::servers::http_answer::Answer;
use crate::servers::http_probe::HttpProbe;
use crate::servers::http_server::{Script, ScriptedHttp};

const ROUNDS: usize = 31;
const REQUESTS: usize = 200;

/// One agent without the signals and one with all of them take turns.
pub(super) fn rows() -> Result<Vec<Row>> {
    let lab = Lab::routed(2)?;
    let mut objects = [load(&lab, 0, Expected::Everything)?, load(&lab, 1, Expected::EverythingFollowed)?];
    let script = Script::new([Answer::new(200).body(vec![b'x'; 500])]);
    let server = ScriptedHttp::start(&lab.world().namespace, (lab.world().v4, 0), PATIENCE, script)?;
    let mut clients = (0..2)
        .map(|index| Ok(HttpProbe::connect(&lab.agent(index).namespace, server.address(), PATIENCE)?))
        .collect::<Result<Vec<_>>>()?;
    let _stats = enable_stats(Stats::RunTime).context("asking the kernel to time programs")?;
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let mut taken = [0.0; 2];
        for index in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            let before = objects[index].runs()?;
            clients[index].get_many("/", REQUESTS)?;
            taken[index] = per_run(before, objects[index].runs()?);
        }
        // The first round fills caches.
        if round > 0 {
            rounds.push(taken);
        }
    }
    for object in &mut objects {
        object.ensure_untripped(2)?;
    }
    let ratio = median(rounds.iter().map(|[none, all]| all / none));
    let measured = format!(
        "{ratio:.2}× ({:.0} against {:.0} ns a packet, the kernel's own timing included)",
        median(rounds.iter().map(|[_, all]| *all)),
        median(rounds.iter().map(|[none, _]| *none)),
    );
    let what = "HTTP requests and answers over a real connection, all signals against none";
    Ok(vec![Row::information("signals", what, measured)])
}

/// The programs on the interface of one agent, which is the agent of that slot.
fn load(lab: &Lab, index: usize, expected: Expected) -> Result<Object> {
    let mut object = Object::load(agentsec::kernel::OBJECT, 2, State::Closed, expected)?;
    let interface = format!("agent-{index}");
    lab.host().run(|| -> Result<()> {
        object.own(&interface, index as u32)?;
        object.attach(&interface, Direction::Outbound)?;
        object.attach(&interface, Direction::Inbound)
    })?;
    Ok(object)
}

fn per_run(before: Runs, after: Runs) -> f64 {
    (after.ns - before.ns) as f64 / (after.count - before.count).max(1) as f64
}
