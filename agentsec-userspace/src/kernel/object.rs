//! The BPF object in this binary.

use anyhow::{Context, Result};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};

use agentsec_common::maps::{PROGRAM_INBOUND, PROGRAM_OUTBOUND};

use super::layout::{Capacities, shapes};
use super::pins::Pins;

/// The object as built by `cargo xtask build`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agentsec-ebpf.o"));

/// Loads maps, re-using pinned ones, and programs.
pub(super) fn load(pins: &Pins, capacities: &Capacities) -> Result<Ebpf> {
    let shapes = shapes(capacities);
    let mut loader = EbpfLoader::new();
    for shape in &shapes {
        loader.map_max_entries(shape.name, shape.entries);
        loader.map_pin_path(shape.name, pins.map(shape.name));
    }
    let mut object = loader.load(OBJECT).context("the kernel refuses the maps")?;
    for name in [PROGRAM_OUTBOUND, PROGRAM_INBOUND] {
        classifier(&mut object, name)?
            .load()
            .with_context(|| format!("the kernel refuses the program {name}"))?;
    }
    Ok(object)
}

/// A program of the object.
pub(super) fn classifier<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program =
        object.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))?;
    program.try_into().with_context(|| format!("{name} is not a classifier"))
}
