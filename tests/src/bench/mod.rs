//! What containment costs, measured on this machine.
//!
//! Machines differ and are noisy, so nothing here rests on an absolute time where a comparison is possible: what
//! is compared is measured alternately in one run, and the medians are compared. Each bench makes its own
//! namespaces and its own daemon, and touches nobody else's.

mod bpf;
mod bundle;
mod cgroup;
mod containment;
mod drop;
mod log;
mod object;
mod program;
mod questions;
mod recorder;
mod row;
mod scale;
mod setup;
mod signals;
mod snapshot;
mod statistics;
mod throughput;
mod timing;
mod visit;
mod xdp;
mod yardstick;

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::json;

use row::Row;

/// What to measure and how to tell it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names of benches; empty for all.
    pub names: Vec<String>,
    /// One JSON object instead of lines.
    pub json: bool,
    /// At full size where the default is scaled down.
    pub full: bool,
    /// Another build of the kernel programs to measure in the same run.
    pub against: Option<PathBuf>,
}

type Bench = fn(&Options) -> Result<Vec<Row>>;

/// All benches by name, in the order in which they run.
const BENCHES: [(&str, Bench); 14] = [
    ("program", program::run),
    ("signals", signals::run),
    ("recorder", recorder::run),
    ("cgroup", cgroup::run),
    ("xdp", xdp::run),
    ("containment", containment::run),
    ("drop", drop::run),
    ("throughput", throughput::run),
    ("scale", scale::run),
    ("snapshot", snapshot::run),
    ("log", log::run),
    ("bundle", bundle::run),
    ("questions", questions::run),
    ("files", snapshot::run_many),
];

/// Measures; tells whether every target is met.
pub fn run(options: &Options) -> Result<bool> {
    let names: Vec<_> = BENCHES.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = options.names.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no bench {unknown:?}; there are {}", names.join(", "));
    }
    let mut rows = Vec::new();
    for (name, bench) in BENCHES {
        if options.names.is_empty() || options.names.iter().any(|wanted| wanted == name) {
            let found = bench(options)?;
            if !options.json {
                found.iter().for_each(|row| println!("{}", row.to_text()));
            }
            rows.extend(found);
        }
    }
    let met = rows.iter().all(|row| row.met() != Some(false));
    if options.json {
        let rows: Vec<_> = rows.iter().map(Row::to_json).collect();
        println!("{}", json!({ "rows": rows, "met": met }));
    }
    Ok(met)
}
