//! What the signals of connections cost: response times, failed authentications, requests.

use agentsec_common::maps::{PROGRAM_INBOUND, PROGRAM_OUTBOUND};
use agentsec_common::policy::State;
use anyhow::{Result, ensure};

use super::Options;
use super::object::{Expected, Object};
use super::program::{frame, stop};
use super::row::Row;
use super::timing::{Rounds, Subject, alternate};
use super::yardstick::{self, By, Layer, NEXT, SHOT};
use std::os::fd::AsFd;

/// Against the same packets without these signals.
const NONE_TARGET: f64 = 1.5;
/// Against the minimal program.
const MINIMAL_TARGET: f64 = 3.0;

/// Measures.
pub(super) fn run(_options: &Options) -> Result<Vec<Row>> {
    let mut rows = established(PROGRAM_OUTBOUND, "outbound")?;
    rows.extend(established(PROGRAM_INBOUND, "inbound")?);
    Ok(rows)
}

fn established(program: &'static str, way: &str) -> Result<Vec<Row>> {
    let bytes = agentsec::kernel::OBJECT;
    let mut none = Object::load(bytes, 1, State::Closed, Expected::Everything)?;
    let mut all = Object::load(bytes, 1, State::Closed, Expected::EverythingFollowed)?;
    let stop = stop(0, 0);
    let minimal = yardstick::minimal(Layer::Frame, By::Source, &[stop.source.into()])?;
    let frame = frame(&stop, program == PROGRAM_INBOUND);
    let bare = yardstick::empty(Layer::Frame)?;
    let of = |program, verdict| Subject { program, frame: &frame, verdict };
    let outbound = super::program::frame(&stop, false);
    let rounds = alternate([
        of(bare.as_fd(), NEXT),
        Subject { program: minimal.as_fd(), frame: &outbound, verdict: SHOT },
        of(none.program(program)?, NEXT),
        of(all.program(program)?, NEXT),
    ])?;
    for object in [&mut none, &mut all] {
        ensure!(object.counted(1)? == (Rounds::<4>::packets(), 0), "not every packet passed");
        object.ensure_untripped(1)?;
    }
    let against_none = rounds.of(|[_, _, none, all]| all / none);
    let against_minimal = rounds.of(|[_, minimal, _, all]| all / minimal);
    let net = |value: fn(&[f64; 4]) -> f64| rounds.of(value);
    let times = format!(
        "{:.0} against {:.0} ns, the minimal program {:.0} ns, net of the loop",
        net(|[bare, _, _, all]| all - bare),
        net(|[bare, _, none, _]| none - bare),
        net(|[bare, minimal, _, _]| minimal - bare),
    );
    Ok(vec![
        Row::at_most(
            "signals",
            format!("an established CLOSED flow, {way}, all signals against none"),
            format!("{against_none:.2}× ({times})"),
            against_none,
            NONE_TARGET,
            "×",
        ),
        Row::at_most(
            "signals",
            format!("the same against the minimal program, {way}"),
            format!("{against_minimal:.2}×"),
            against_minimal,
            MINIMAL_TARGET,
            "×",
        ),
    ])
}
