//! A laboratory for AgentSec: a network to try it on by hand, the demo, and the bench.

use std::io::Read;
use std::path::PathBuf;

use agentsec_tests::bench;
use agentsec_tests::lab::{Lab, Plan, Topology};
use anyhow::{Result, bail, ensure};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "agentsec-lab", version, about)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show a compromised agent being contained and brought back
    Demo {
        /// Leave the network and the daemon in place afterwards
        #[arg(long)]
        keep: bool,
        /// Tell what happened as JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure on this machine
    Bench {
        /// What to measure; everything if nothing is named
        names: Vec<String>,
        /// Tell the results as JSON
        #[arg(long)]
        json: bool,
        /// Succeed even when a target is missed
        #[arg(long)]
        no_fail: bool,
        /// Another build of the kernel programs to measure in the same run
        #[arg(long, value_name = "OBJECT")]
        against: Option<PathBuf>,
    },
    /// Set up a network with a host, agents and a world, until Enter is pressed
    Lab {
        /// How many agents
        #[arg(long, default_value_t = 3)]
        agents: usize,
        /// Connect them by a bridge instead of routing between them
        #[arg(long)]
        bridged: bool,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Demo { .. } => bail!("there is no demo yet"),
        Verb::Bench { names, json, no_fail, against } => {
            let met = bench::run(&bench::Options { names, json, against })?;
            ensure!(met || no_fail, "a target is missed");
            Ok(())
        }
        Verb::Lab { agents, bridged } => lab(agents, bridged),
    }
}

fn lab(agents: usize, bridged: bool) -> Result<()> {
    let topology = if bridged { Topology::Bridged } else { Topology::Routed };
    let lab = Plan::new(agents).topology(topology).offloads(true).named(true).build()?;
    describe(&lab);
    println!("\nEnter ends it.");
    // End of input ends it as well.
    let _ = std::io::stdin().read(&mut [0])?;
    Ok(())
}

/// What to type to get inside. `ip netns exec` would hide `/sys/fs/bpf`.
fn describe(lab: &Lab) {
    let inside = |name: &str| format!("nsenter --net=/run/netns/{name}");
    println!("host      {}", inside(lab.host().name()));
    for node in lab.agents().iter().chain([lab.world()]) {
        println!("{:<9} {}   # {} {}", node.host_interface, inside(node.namespace.name()), node.v4, node.v6);
    }
}
