//! What the flight recorder adds to a packet: off, one in sixteen, and always.

use std::os::fd::AsFd;

use agentsec_common::flow::FlowKey;
use agentsec_common::maps::{FLOW_CAPACITY, PROGRAM_INBOUND, PROGRAM_OUTBOUND, RECORDER_DEPTH_LOG2};
use agentsec_common::policy::State;
use agentsec_common::recorder::{DATA_BYTES, Orders};
use anyhow::{Result, ensure};

use super::Options;
use super::object::{Expected, Object};
use super::program::{frame, stop};
use super::row::Row;
use super::timing::{Rounds, Subject, alternate};
use super::yardstick::{self, By, Layer, NEXT, SHOT};

/// What "always" adds, against one look-up of a connection.
const TARGET: f64 = 1.0;
const KEY_WORDS: usize = size_of::<FlowKey>() / 8;

/// Measures.
pub(super) fn run(_: &Options) -> Result<Vec<Row>> {
    let mut rows = one_way(PROGRAM_OUTBOUND, "outbound")?;
    rows.extend(one_way(PROGRAM_INBOUND, "inbound")?);
    Ok(rows)
}

const fn orders(one_in: u16, payload: bool) -> Orders {
    Orders {
        recorder: 0,
        on: true,
        payload,
        snap_bytes: DATA_BYTES as u8,
        depth_log2: RECORDER_DEPTH_LOG2 as u8,
        one_in,
        generation: 0,
    }
}

/// An established connection, whose packets all take the same way; the difference is the recorder's.
fn one_way(program: &'static str, way: &str) -> Result<Vec<Row>> {
    let load = |orders: Option<Orders>| -> Result<Object> {
        let bytes = agentsec::kernel::OBJECT;
        let mut object = Object::load(bytes, 1, State::Closed, Expected::EverythingFollowed)?;
        orders.map_or(Ok(()), |orders| object.record(0, orders))?;
        Ok(object)
    };
    let mut off = load(None)?;
    let mut sampled = load(Some(orders(16, false)))?;
    let mut always = load(Some(orders(1, false)))?;
    let mut payload = load(Some(orders(1, true)))?;
    let stop = stop(0, 0);
    let (outbound, frame) = (frame(&stop, false), frame(&stop, program == PROGRAM_INBOUND));
    let minimal = yardstick::minimal(Layer::Frame, By::Source, &[stop.source.into()])?;
    let look_up = yardstick::one_long_look_up::<KEY_WORDS>(Layer::Frame, FLOW_CAPACITY)?;
    let short = yardstick::one_look_up(Layer::Frame, FLOW_CAPACITY)?;
    let bare = yardstick::empty(Layer::Frame)?;
    let of = |program, frame, verdict| Subject { program, frame, verdict };
    let rounds = alternate([
        of(bare.as_fd(), &frame, NEXT),
        of(short.as_fd(), &frame, NEXT),
        of(look_up.as_fd(), &frame, NEXT),
        of(minimal.as_fd(), &outbound, SHOT),
        of(off.program(program)?, &frame, NEXT),
        of(sampled.program(program)?, &frame, NEXT),
        of(always.program(program)?, &frame, NEXT),
        of(payload.program(program)?, &frame, NEXT),
    ])?;
    let packets = Rounds::<8>::packets();
    ensure!(off.recorded(0)? == 0, "what is off has recorded");
    ensure!(
        always.recorded(0)? == packets && payload.recorded(0)? == packets,
        "not every packet is recorded"
    );
    let share = sampled.recorded(0)? as f64 / packets as f64;
    ensure!((0.9..1.1).contains(&(share * 16.0)), "one in {:.1} is recorded", 1.0 / share);
    for object in [&mut off, &mut sampled, &mut always, &mut payload] {
        object.ensure_untripped(1)?;
    }
    let look_up = rounds.of(|times| times[2] - times[0]);
    let added = |index: usize| rounds.of(|times| (times[index] - times[4]) / (times[2] - times[0]));
    let told = |index: usize| {
        let ns = rounds.of(|times| times[index] - times[4]);
        format!("{:.2}× ({ns:.0} ns against {look_up:.0} ns)", added(index))
    };
    let net = |index: usize| rounds.of(|times| times[index] - times[0]);
    Ok(vec![
        Row::at_most(
            "recorder",
            format!("always adds, {way}, against a look-up of a connection"),
            told(6),
            added(6),
            TARGET,
            "×",
        ),
        Row::information("recorder", format!("always with payload adds, {way}"), told(7)),
        Row::information("recorder", format!("one in 16 adds, {way}"), told(5)),
        Row::information(
            "recorder",
            format!("net of the loop, {way}"),
            format!(
                "off {:.0}, one in 16 {:.0}, always {:.0}, with payload {:.0} ns; the minimal program {:.0}, a \
                 look-up of 8 bytes {:.0} ns",
                net(4),
                net(5),
                net(6),
                net(7),
                net(3),
                net(1),
            ),
        ),
    ])
}
