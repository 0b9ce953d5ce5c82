//! What the signals of connections cost: response times, failed authentications, requests.

mod established;
mod live;
mod new_flows;

use anyhow::Result;

use super::Options;
use super::row::Row;

/// Against the same packets without these signals.
const NONE_TARGET: f64 = 1.5;
/// Against the minimal program.
const MINIMAL_TARGET: f64 = 3.0;

/// Measures.
pub(super) fn run(_: &Options) -> Result<Vec<Row>> {
    let mut rows = established::rows()?;
    rows.extend(live::rows()?);
    rows.extend(new_flows::rows()?);
    Ok(rows)
}
