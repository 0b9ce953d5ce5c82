//! One segment of an established connection, again and again.

use std::os::fd::AsFd;

use agentsec_common::maps::{PROGRAM_INBOUND, PROGRAM_OUTBOUND};
use agentsec_common::policy::State;
use anyhow::{Result, ensure};

use super::super::object::{Expected, Object};
use super::super::program::{frame, stop};
use super::super::row::Row;
use super::super::timing::{Rounds, Subject, alternate};
use super::super::yardstick::{self, By, Layer, NEXT, SHOT};
use super::{MINIMAL_TARGET, NONE_TARGET};

pub(super) fn rows() -> Result<Vec<Row>> {
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
    // The minimal program looks up a source address, which is the agent's on its way out.
    let (outbound, frame) = (frame(&stop, false), frame(&stop, program == PROGRAM_INBOUND));
    let bare = yardstick::empty(Layer::Frame)?;
    let of = |program, verdict| Subject { program, frame: &frame, verdict };
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
