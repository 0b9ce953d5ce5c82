//! A laboratory for AgentSec: a network to try it on by hand, the demo, and the bench.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use agentsec_tests::bench;
use agentsec_tests::demo;
use agentsec_tests::lab::{Lab, Plan, Topology};
use agentsec_tests::traffic::alone::{self, Alone};
use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "agentsec-lab", version, about)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show compromised agents being contained by the kernel and brought back
    #[command(after_long_help = demo::HELP)]
    Demo {
        /// Leave the network and the daemon in place afterwards, and say what to try
        #[arg(long)]
        keep: bool,
        /// Print one JSON object instead of the story; --help says what each number means
        #[arg(long)]
        json: bool,
    },
    /// Take down what `demo --keep` left
    Down {
        /// Its name, as the demo printed it
        name: String,
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
        /// At full size where the default is scaled down (questions: ten million events, 8 GB of disk)
        #[arg(long)]
        full: bool,
        /// Another build of the kernel programs to measure in the same run
        #[arg(long, value_name = "OBJECT")]
        against: Option<PathBuf>,
    },
    /// Send or receive, bounded in amount and time, and say so in JSON; for tests
    #[command(hide = true)]
    Traffic(Alone),
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

fn main() -> Result<ExitCode> {
    match Arguments::parse().verb {
        Verb::Demo { keep, json } => return show(demo::Options { keep, json }),
        Verb::Down { name } => demo::down(&name)?,
        Verb::Bench { names, json, no_fail, full, against } => {
            let met = bench::run(&bench::Options { names, json, full, against })?;
            ensure!(met || no_fail, "a target is missed");
        }
        Verb::Traffic(alone) => alone::run(&alone)?,
        Verb::Lab { agents, bridged } => lab(agents, bridged)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The demo; its exit code says whether containment worked, or that somebody interrupted it.
fn show(options: demo::Options) -> Result<ExitCode> {
    match demo::run(options) {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) if error.is::<demo::Interrupted>() => {
            eprintln!("interrupted; everything is cleaned up");
            Ok(ExitCode::from(130))
        }
        Err(error) => Err(error),
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
