//! `log verify`.

use super::{cannot, public_key};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::progress::Entries;
use crate::cli::style::{Style, Tone, harmless};
use crate::cli::units::count;
use crate::cli::{Context, Outcome};
use crate::record::anchor::{Standing, Trusted, WitnessKey, newest_trusted};
use crate::record::evidence::check::{Finding, Report, What, check_heard};
use crate::record::evidence::note::PublicKey;
use crate::record::evidence::tiles::TileStore;
use crate::record::evidence::{EvidenceSource, LOG_NAME, key};
use crate::record::retention::accounted_for;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A checkpoint of this log that was kept elsewhere, or a file with several; may be given more than once
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// Key of a witness whose cosignature under such a checkpoint counts; may be given more than once
    #[arg(long, value_name = "KEY", requires = "checkpoint")]
    witness: Vec<String>,
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
        let trusted = self.trusted(&key)?;
        let mut progress = Entries::of(context, "checking the log");
        let mut heard = |done, all| progress.tell(done, all);
        let store = TileStore::new(&directory);
        let mut report = check_heard(&store, &key, &trusted.kept, &mut heard).map_err(failed)?;
        drop(progress);
        if report.removed > 0 {
            let log = EvidenceSource::in_state(&context.global.state_dir);
            match accounted_for(&log) {
                Ok(accounted) => report.findings.extend(unaccounted(&report, accounted)),
                Err(error) => report.findings.push(untold(&error)),
            }
        }
        let standing = trusted.standing(&report);
        let set_aside = set_aside(&context.global.state_dir);
        if context.output.json {
            context.output.object(&Told { report: &report, cosigned: standing.cosigned, set_aside })?;
        } else {
            let rest = Rest { set_aside: &set_aside, is_key_given: self.key.is_some() };
            context.output.text(&render(&report, &standing, &rest, context.output.style))?;
        }
        Ok(if report.is_clean() { Exit::Ok } else { Exit::Unhealthy })
    }

    /// What the checkpoints that were given vouch for.
    fn trusted(&self, key: &PublicKey) -> Result<Trusted, CliError> {
        let mut files = Vec::new();
        for path in &self.checkpoint {
            let text =
                std::fs::read_to_string(path).map_err(|error| cannot("reading", path, &error.into()))?;
            files.push((path.display().to_string(), text));
        }
        let witness = |given: &String| {
            WitnessKey::parse(given).map_err(|_| {
                let message = format!(
                    "--witness {given}: it is not a witness's key (NAME+HASH+BASE64, cosignature/v1)"
                );
                CliError::new(Exit::Usage, message, None)
            })
        };
        let witnesses = self.witness.iter().map(witness).collect::<Result<Vec<_>, _>>()?;
        newest_trusted(&files, key, &witnesses).map_err(|error| CliError::failure(error.to_string()))
    }
}

/// Entries that are gone and of which no event says that retention let them go.
fn unaccounted(report: &Report, accounted: u64) -> Option<Finding> {
    let entry = report.first_removed_from(accounted)?;
    let detail = format!("it is gone, and the log's events account for the entries before {accounted} only");
    Some(Finding { what: What::Missing, entry: Some(entry), file: "removed".into(), detail })
}

/// The events that would account for what is gone cannot be read.
fn untold(error: &std::io::Error) -> Finding {
    let detail = format!("whether the log accounts for what is gone cannot be told: {error}");
    Finding { what: What::Damaged, entry: None, file: "removed".into(), detail }
}

/// The logs beside this one that could not be continued.
fn set_aside(state_dir: &Path) -> Vec<String> {
    // Who may read the log may read the directory; if not, there is nothing to tell.
    let listed = std::fs::read_dir(state_dir).into_iter().flatten().flatten();
    let prefix = format!("{LOG_NAME}.aside");
    let names = listed.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<String> = names.filter(|name| name.starts_with(&prefix)).collect();
    found.sort_unstable();
    found
}

/// The report, for machines.
#[derive(serde::Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// Of the anchored entries, those that a witness has vouched for.
    cosigned: u64,
    /// Logs beside this one, which are not checked here.
    set_aside: Vec<String>,
}

/// What the report itself does not say.
struct Rest<'a> {
    set_aside: &'a [String],
    is_key_given: bool,
}

fn render(report: &Report, standing: &Standing, rest: &Rest<'_>, style: Style) -> String {
    let total = report.signed + report.waiting;
    let mut text = format!("{}: {} entries\n", harmless(&report.origin), count(total));
    let mut line = |name: &str, entries: u64, what: &str| {
        if entries > 0 {
            text.push_str(&format!("  {name:13} {:>12}  {what}\n", count(entries)));
        }
    };
    line("anchored", report.anchored, "covered by a checkpoint that was kept elsewhere");
    line("cosigned", standing.cosigned, "of these, a witness vouches for them");
    let own = report.signed.saturating_sub(report.anchored);
    if report.attested {
        line(
            "self-attested",
            own,
            "signed by this host only: whoever is root here could have rewritten them",
        );
    } else {
        line("unattested", own, "claimed by a checkpoint that is not signed by the log's key");
    }
    line("waiting", report.waiting, "not under a checkpoint yet");
    line("removed", report.removed, "of the anchored or attested: gone by retention, their hashes are here");
    if !rest.is_key_given {
        text.push_str("  the key was taken from this host; `--key` with one kept elsewhere proves more\n");
    }
    for name in rest.set_aside {
        text.push_str(&format!("  {name}: a log that could not be continued; it is not checked here\n"));
    }
    for Finding { what, entry, file, detail } in &report.findings {
        let what = serde_json::to_value(what).unwrap_or_default();
        let what = what.as_str().unwrap_or_default().replace('_', " ");
        let entry = entry.map(|entry| format!(" entry {entry}")).unwrap_or_default();
        let name = style.paint(Tone::Bad, &format!("{what}{entry}"));
        text.push_str(&format!("{name}: {}: {}\n", harmless(file), harmless(detail)));
    }
    if report.more > 0 {
        text.push_str(&format!("and {} more\n", count(report.more)));
    }
    let verdict = match (report.is_clean(), report.first_bad()) {
        (true, _) => style.paint(Tone::Good, "nothing is wrong"),
        (false, Some(entry)) => style.paint(Tone::Bad, &format!("the first bad entry is {entry}")),
        (false, None) if !report.attested && report.anchored < report.signed.max(1) => {
            style.paint(Tone::Bad, "nothing says which entries are right: the log's own checkpoint does not")
        }
        (false, None) => style.paint(Tone::Bad, "the entries are right, something else is not"),
    };
    text + &verdict + "\n"
}
