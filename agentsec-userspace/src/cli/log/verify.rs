//! `log verify`.

use super::{cannot, public_key};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::progress::Entries;
use crate::cli::style::{Style, Tone, harmless};
use crate::cli::units::count;
use crate::cli::{Context, Outcome};
use crate::record::evidence::check::{Finding, Kept, Report, check_heard};
use crate::record::evidence::tiles::TileStore;
use crate::record::evidence::{LOG_NAME, key};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A checkpoint of this log that was kept elsewhere, or a file with several; may be given more than once
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// The log's public key, or a file with it, from where this host cannot change it
    #[arg(long, value_name = "KEY|FILE")]
    key: Option<String>,
}

impl Args {
    pub(in crate::cli) fn run(self, context: &Context) -> Outcome {
        let directory = context.global.state_dir.join(LOG_NAME);
        let failed = |error: anyhow::Error| cannot("the log in", &directory, &error);
        let key = match &self.key {
            Some(given) => public_key(given)?,
            None => key::read_public(&directory).map_err(failed)?,
        };
        let kept = self.kept()?;
        let mut progress = Entries::of(context, "checking the log");
        let mut heard = |done, all| progress.tell(done, all);
        let report = check_heard(&TileStore::new(&directory), &key, &kept, &mut heard).map_err(failed)?;
        drop(progress);
        if context.output.json {
            context.output.object(&report)?;
        } else {
            context.output.text(&render(&report, self.key.is_some(), context.output.style))?;
        }
        Ok(if report.is_clean() { Exit::Ok } else { Exit::Unhealthy })
    }

    fn kept(&self) -> Result<Vec<Kept>, CliError> {
        let mut kept = Vec::new();
        for path in &self.checkpoint {
            let text =
                std::fs::read_to_string(path).map_err(|error| cannot("reading", path, &error.into()))?;
            let notes = notes(&text);
            if notes.is_empty() {
                return Err(CliError::failure(format!("{}: there is no checkpoint in it", path.display())));
            }
            let from = path.display().to_string();
            kept.extend(notes.into_iter().map(|signed| Kept { from: from.clone(), signed }));
        }
        Ok(kept)
    }
}

/// The notes in a text, one after the other. A note is lines, an empty one, and lines of signatures.
fn notes(text: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = String::new();
    let mut is_signed = false;
    for line in text.split_inclusive('\n') {
        let is_signature = line.starts_with("— ");
        if is_signed && !is_signature {
            notes.push(std::mem::take(&mut note));
        }
        if note.is_empty() && line.trim().is_empty() {
            is_signed = false;
            continue;
        }
        is_signed = is_signature;
        note.push_str(line);
    }
    if !note.trim().is_empty() {
        notes.push(note);
    }
    notes
}

fn render(report: &Report, is_key_given: bool, style: Style) -> String {
    let total = report.signed + report.waiting;
    let mut text = format!("{}: {} entries\n", harmless(&report.origin), count(total));
    let mut line = |name: &str, entries: u64, what: &str| {
        if entries > 0 {
            text.push_str(&format!("  {name:13} {:>12}  {what}\n", count(entries)));
        }
    };
    line("anchored", report.anchored, "covered by a checkpoint that was kept elsewhere");
    let own = report.signed.saturating_sub(report.anchored);
    line("self-attested", own, "signed by this host only: whoever is root here could have rewritten them");
    line("waiting", report.waiting, "not under a checkpoint yet");
    line("removed", report.removed, "of the anchored or attested: gone by retention, their hashes are here");
    if !is_key_given {
        text.push_str("  the key was taken from this host; `--key` with one kept elsewhere proves more\n");
    }
    for Finding { what, entry, file, detail } in &report.findings {
        let what = serde_json::to_value(what).unwrap_or_default();
        let what = what.as_str().unwrap_or_default().replace('_', " ");
        let entry = entry.map(|entry| format!(" entry {entry}")).unwrap_or_default();
        let name = style.paint(Tone::Bad, &format!("{what}{entry}"));
        text.push_str(&format!("{name}: {}: {}\n", harmless(file), harmless(detail)));
    }
    let verdict = match (report.is_clean(), report.first_bad()) {
        (true, _) => style.paint(Tone::Good, "nothing is wrong"),
        (false, Some(entry)) => style.paint(Tone::Bad, &format!("the first bad entry is {entry}")),
        (false, None) => style.paint(Tone::Bad, "the entries are right, something else is not"),
    };
    text + &verdict + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::evidence::note::Signer;

    #[test]
    fn notes_are_taken_apart_however_they_were_put_together() {
        let signer = Signer::new("agentsec/host/1", &[7; 32]).unwrap();
        let (one, two) = (signer.checkpoint(3, &[1; 32]), signer.checkpoint(4, &[2; 32]));
        let witnessed = format!("{two}— witness AAAAAAAAAA==\n");
        for text in [format!("{one}{witnessed}"), format!("\n{one}\n\n{witnessed}\n")] {
            assert_eq!(notes(&text), [one.clone(), witnessed.clone()]);
        }
        assert_eq!(notes("\n\n"), Vec::<String>::new());
        assert_eq!(notes("no note"), ["no note"]);
    }
}
