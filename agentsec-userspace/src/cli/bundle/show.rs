//! `bundle show`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use serde_json::json;

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::style::{Style, Tone, harmless};
use super::super::table::{Cell, Table};
use super::super::units::bytes;
use super::super::{Context, Outcome};
use super::found::{self, Verdict};
use super::ledger::Ledger;
use crate::bundle::archive::{self, Opened};
use crate::bundle::manifest::{Entry, Manifest};
use crate::bundle::{Status, Trip};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The bundle's id, or the beginning of it
    bundle: String,
    /// Write this part, as it is, to the standard output: processes.json, sockets.json, …
    #[arg(long, value_name = "NAME")]
    part: Option<String>,
    /// File with the secret key of age that decrypts it
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

impl Args {
    pub(in crate::cli) fn run(self, context: &Context) -> Outcome {
        let ledger = Ledger::read(&context.global.state_dir)?;
        let found = found::one(context, &ledger, &self.bundle)?;
        let (bytes, verdict) = found::read(&found, &ledger)?;
        let plain = super::opened(bytes, self.identity.as_ref())?;
        let opened = archive::read(&plain).map_err(|flaw| {
            CliError::new(Exit::Unhealthy, format!("bundle {}: {flaw}", found.bundle), None)
        })?;
        match &self.part {
            Some(name) => write_part(&opened, name)?,
            None if context.output.json => {
                context.output.object(&json!({ "log": verdict, "manifest": opened.manifest }))?;
            }
            None => context.output.text(&render(&opened.manifest, verdict, context.output.style))?,
        }
        Ok(match verdict {
            Verdict::Matches => Exit::Ok,
            _ => {
                eprintln!("agentsec: the log: {}", verdict.words());
                Exit::Unhealthy
            }
        })
    }
}

fn write_part(opened: &Opened, name: &str) -> Result<(), CliError> {
    let Some(entry) = opened.manifest.parts.iter().find(|entry| entry.name == name) else {
        let names: Vec<&str> = opened.manifest.parts.iter().map(|entry| entry.name.as_str()).collect();
        let message = format!("there is no part {name}; there are {}", names.join(", "));
        return Err(CliError::new(Exit::NotFound, message, None));
    };
    let Some(content) = opened.parts.get(name) else {
        let message =
            format!("{name} has no content ({}): {}", entry.status.name(), entry.reasons.join("; "));
        return Err(CliError::new(Exit::NotFound, message, None));
    };
    let mut out = std::io::stdout().lock();
    if out.is_terminal() && std::str::from_utf8(content).is_err() {
        let remedy = "send the standard output to a file";
        return Err(CliError::new(Exit::Refused, format!("{name} is not text"), Some(remedy)));
    }
    out.write_all(content)?;
    Ok(out.flush()?)
}

fn render(manifest: &Manifest, verdict: Verdict, style: Style) -> String {
    let Trip { agent, incident, tripped_at, by, reason, late } = &manifest.trip;
    let origin = &manifest.origin;
    let line = |name: &str, text: &str| format!("{name:<10} {}\n", harmless(text));
    let mut text = line("bundle", &manifest.bundle_id);
    text += &line("agent", agent);
    text += &line("incident", incident.as_deref().unwrap_or("none"));
    text += &line("tripped", &format!("{tripped_at} by {by}: {reason}"));
    text += &line("collected", &format!("{} in {} ms", manifest.collected_at, manifest.took_ms));
    if let Some(late) = late {
        text += &line("late", late);
    }
    text += &line("on", &format!("{}, Linux {}, agentsec {}", origin.host, origin.kernel, origin.version));
    text += &line("the log", verdict.words());
    text.push('\n');
    let mut table = Table::new(&["PART", "STATUS", "SIZE", "TOOK", "LACKS"]);
    for part in &manifest.parts {
        table.row(row(part));
    }
    text + &table.render(style)
}

fn row(part: &Entry) -> [Cell; 5] {
    let tone = match part.status {
        Status::Complete => Tone::Good,
        Status::Partial => Tone::Warning,
        Status::Failed => Tone::Bad,
        Status::Unavailable => Tone::Dim,
    };
    [
        Cell::new(&part.name).tone(Tone::Strong),
        Cell::new(part.status.name()).tone(tone),
        Cell::number(bytes(part.bytes)),
        Cell::number(format!("{} ms", part.took_ms)),
        Cell::new(part.reasons.join("; ")),
    ]
}
