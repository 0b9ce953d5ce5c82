//! `bundle list`.

use serde_json::json;

use super::super::exit::Exit;
use super::super::style::{Style, Tone, harmless};
use super::super::table::{Cell, Table};
use super::super::units::{bytes, count};
use super::super::{Context, Outcome};
use super::found::{self, Found, Verdict};
use super::ledger::Ledger;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only those of this agent
    #[arg(long)]
    agent: Option<String>,
    /// Only those of this incident
    #[arg(long)]
    incident: Option<String>,
}

impl Args {
    pub(in crate::cli) fn run(self, context: &Context) -> Outcome {
        let ledger = Ledger::read(&context.global.state_dir)?;
        let wants = |trip: &crate::bundle::Trip| {
            self.agent.as_ref().is_none_or(|agent| *agent == trip.agent)
                && self.incident.as_ref().is_none_or(|incident| Some(incident) == trip.incident.as_ref())
        };
        let mut found = found::all(context, &ledger)?;
        found.retain(|found| wants(&found.trip));
        let mut without = ledger.without();
        without.retain(|(trip, _)| wants(trip));
        if context.output.json {
            let without: Vec<_> =
                without.iter().map(|(trip, why)| json!({ "trip": trip, "why": why })).collect();
            context
                .output
                .object(&json!({ "bundles": found, "without": without, "flawed_events": ledger.flawed }))?;
        } else {
            let mut text = table(&found, context.output.style);
            for (trip, why) in without {
                let why = why.unwrap_or("the log does not say why");
                let line = format!("! no bundle of {}'s trip at {}: {why}", trip.agent, trip.tripped_at);
                text.push_str(&context.output.style.paint(Tone::Warning, &harmless(&line)));
                text.push('\n');
            }
            if ledger.flawed > 0 {
                let line = format!("! {} events are not intact, and do not count\n", count(ledger.flawed));
                text.push_str(&context.output.style.paint(Tone::Bad, &line));
            }
            context.output.text(&text)?;
        }
        let is_sound =
            |found: &Found| matches!(found.log, Verdict::Matches | Verdict::Collecting | Verdict::NotInLog);
        Ok(if found.iter().all(is_sound) { Exit::Ok } else { Exit::Unhealthy })
    }
}

fn table(found: &[Found], style: Style) -> String {
    if found.is_empty() {
        return "no bundles\n".into();
    }
    let mut table = Table::new(&[
        "BUNDLE",
        "TIME",
        "AGENT",
        "INCIDENT",
        "SIZE",
        "PARTS",
        "ENCRYPTED",
        "LOG",
        "LATE",
        "REASON",
    ]);
    for one in found {
        table.row([
            Cell::new(&one.bundle).tone(Tone::Strong),
            Cell::new(one.at.get(..19).unwrap_or(&one.at)),
            Cell::new(&one.trip.agent),
            Cell::new(one.trip.incident.as_deref().unwrap_or_default()),
            Cell::number(bytes(one.bytes)),
            parts(one),
            Cell::new(if one.encrypted { "yes" } else { "" }),
            Cell::new(one.log.words()).tone(tone(one.log)),
            Cell::new(if one.trip.late.is_some() { "late" } else { "" }).tone(Tone::Warning),
            Cell::new(&one.trip.reason),
        ]);
    }
    table.render(style)
}

/// `11`, or `9 of 11` if some lack something.
fn parts(one: &Found) -> Cell {
    let all: Vec<&str> =
        one.parts.as_object().into_iter().flatten().filter_map(|(_, status)| status.as_str()).collect();
    let lacking = all.iter().filter(|status| matches!(**status, "partial" | "failed")).count();
    match (all.len(), lacking) {
        (0, _) => Cell::new("unknown").tone(Tone::Warning),
        (all, 0) => Cell::new(format!("{all} complete")).tone(Tone::Good),
        (all, lacking) => Cell::new(format!("{} of {all} complete", all - lacking)).tone(Tone::Warning),
    }
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Matches => Tone::Good,
        Verdict::Differs | Verdict::Missing => Tone::Bad,
        Verdict::NotInLog | Verdict::Collecting => Tone::Warning,
    }
}
