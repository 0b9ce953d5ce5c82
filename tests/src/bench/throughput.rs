//! TCP through a CLOSED agent's link, beside a link without any program.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Options;
use super::row::Row;
use super::setup::{PATIENCE, config, wait_until_attached};
use super::statistics::median;
use crate::daemon::Daemon;
use crate::lab::{Lab, Node, Plan};
use crate::traffic::tcp::{self, TcpPlan, TcpSink};

const ROUNDS: usize = 41;
const STREAM: Duration = Duration::from_millis(500);

/// Measures: one agent behind our programs, another without; all else is equal.
pub(super) fn run(_: &Options) -> Result<Vec<Row>> {
    let lab = Plan::new(2).offloads(true).build()?;
    let daemon = Daemon::start(lab.host(), &config(1))?;
    wait_until_attached(&daemon, 1)?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for index in order {
            let rate = stream(&lab, lab.agent(index))?;
            if index == 0 { ours.push(rate) } else { bare.push(rate) }
        }
    }
    let ratio = median(ours.iter().zip(&bare).map(|(ours, bare)| ours / bare));
    let measured = format!(
        "{:.1} % of bare ({:.1} against {:.1} Gbit/s)",
        ratio * 100.0,
        median(ours) / 1e9,
        median(bare) / 1e9
    );
    let what = "one TCP stream through a CLOSED agent's link";
    Ok(vec![Row::at_least("throughput", what, measured, ratio, 0.95, "× bare")])
}

/// Bits a second that arrive.
fn stream(lab: &Lab, agent: &Node) -> Result<f64> {
    let sink = TcpSink::start(&lab.world().namespace, (lab.world().v4, 0), PATIENCE)?;
    let plan = TcpPlan { flows: 1, bytes_per_flow: u64::MAX, connect_timeout: STREAM, longest: STREAM };
    let start = Instant::now();
    tcp::send(&agent.namespace, sink.address(), plan)?.wait();
    let elapsed = start.elapsed();
    Ok(sink.stop() as f64 * 8.0 / elapsed.as_secs_f64())
}
