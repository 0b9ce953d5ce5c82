//! `chain`: how far a compromise came.

mod dot;
mod mermaid;
#[cfg(test)]
mod tests;
mod text;

use super::error::CliError;
use super::exit::Exit;
use super::units::since;
use super::{Context, Outcome};
use crate::api::Timestamp;
use crate::api::client::escaped;
use crate::record::ask::ask;
use crate::record::chain::{self, Chain, Earlier, Fact, PLACES, SIGNS, Settings, Story, TYPES, read, within};
use crate::record::evidence::{EvidenceSource, LOG_NAME};
use crate::record::index::Files;
use crate::record::query::EventQuery;

/// An agent was compromised for so long before its first sign of it, unless told otherwise.
const LOOK_BACK_MS: u64 = 3_600_000;
/// Signs that are further apart are of different compromises, unless told otherwise.
const QUIET_MS: u64 = 24 * LOOK_BACK_MS;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where it begins
    #[arg(long)]
    agent: String,
    /// The agent counts as compromised from this time on, or for so long; if not given, an hour before the first sign
    /// after the latest day without any
    #[arg(long, value_name = "TIME", value_parser = since)]
    from: Option<Timestamp>,
    /// Nothing after this time, in the same notations
    #[arg(long, value_name = "TIME", value_parser = since)]
    to: Option<Timestamp>,
    /// Per cent of all agents that make what they talk to a common service, which is listed and not followed
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    common: u8,
    /// How to show it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A timeline
    Text,
    /// One object
    Json,
    /// A Mermaid flowchart
    Mermaid,
    /// A Graphviz digraph
    Dot,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            let message = format!("--to: {to} is not after {from}, which `--from` says");
            return Err(CliError::new(Exit::Usage, message, None));
        }
        let log = Log::of(context);
        let to = self.to.unwrap_or(Timestamp(u64::MAX));
        let (from, earlier) = match self.from {
            Some(from) => (from, None),
            None => latest_compromise(log.signs_of(&self.agent, to).await?),
        };
        let mut story = Story::default();
        log.tell(&mut story, from, to).await?;
        let last = self.to.unwrap_or_else(Timestamp::now);
        let settings = Settings { agent: self.agent, from, to: last, common_percent: self.common };
        let mut chain = chain::find(&story, &settings).ok_or_else(|| {
            let message = format!("the log says nothing about {} in that time", settings.agent);
            CliError::new(Exit::NotFound, message, Some("`--from` and `--to` choose another time"))
        })?;
        chain.earlier_signs = earlier;
        let format = if context.output.json { Format::Json } else { self.format };
        match format {
            Format::Json => context.output.object(&chain)?,
            format => context.output.text(&render(&chain, format, context))?,
        }
        Ok(Exit::Ok)
    }
}

/// From when on an agent counts as compromised that has shown signs at these times, and what it has shown before.
/// Without a sign it may have been compromised all the time.
fn latest_compromise(mut signs: Vec<u64>) -> (Timestamp, Option<Earlier>) {
    signs.sort_unstable();
    let quiet = signs.windows(2).rposition(|pair| pair[1] - pair[0] > QUIET_MS);
    let (before, latest) = signs.split_at(quiet.map_or(0, |place| place + 1));
    let from = latest.first().map_or(0, |first| first.saturating_sub(LOOK_BACK_MS));
    let earlier =
        before.first().map(|first| Earlier { count: before.len() as u64, since: Timestamp(*first) });
    (Timestamp(from), earlier)
}

fn render(chain: &Chain, format: Format, context: &Context) -> String {
    match format {
        Format::Mermaid => mermaid::render(chain),
        Format::Dot => dot::render(chain),
        Format::Text | Format::Json => text::render(chain, context.output.style),
    }
}

/// The log: its files, if they may be read, else through the daemon.
enum Log<'a> {
    Files { source: EvidenceSource, index: Files },
    Daemon(&'a Context),
}

impl<'a> Log<'a> {
    fn of(context: &'a Context) -> Self {
        let state = &context.global.state_dir;
        if std::fs::read_dir(state.join(LOG_NAME)).is_ok() {
            Self::Files { source: EvidenceSource::in_state(state), index: Files::in_state(state) }
        } else {
            Self::Daemon(context)
        }
    }

    /// When an agent has shown signs of a compromise.
    async fn signs_of(&self, agent: &str, to: Timestamp) -> Result<Vec<u64>, CliError> {
        let types = SIGNS.map(str::to_owned).to_vec();
        let query = EventQuery { agent: Some(agent.into()), types, ..EventQuery::default() };
        let mut signs = Vec::new();
        self.ask(&query, |fact| {
            if let Fact::Mark(noticed) = fact
                && noticed.at <= to.0
            {
                signs.push(noticed.at);
            }
        })
        .await?;
        Ok(signs)
    }

    async fn tell(&self, story: &mut Story, from: Timestamp, to: Timestamp) -> Result<(), CliError> {
        let places = EventQuery { types: PLACES.map(str::to_owned).to_vec(), ..EventQuery::default() };
        self.ask(&places, |fact| story.tell(fact)).await?;
        if let Self::Files { source, index } = self {
            return chain::gather(source, index, (from, to), story).map_err(|error| unreadable(&error));
        }
        let types = TYPES.map(str::to_owned).to_vec();
        let since = Some(chain::begin_of_history(from));
        let query = EventQuery { types, since, ..EventQuery::default() };
        self.ask(&query, |fact| {
            if let Some(fact) = within(fact, from, to) {
                story.tell(fact);
            }
        })
        .await
    }

    async fn ask(&self, query: &EventQuery, mut each: impl FnMut(Fact)) -> Result<(), CliError> {
        match self {
            Self::Files { source, index } => {
                let tell = |line: &[u8]| read(line).into_iter().for_each(&mut each);
                ask(source, index, query, tell).map_err(|error| unreadable(&error))
            }
            Self::Daemon(context) => {
                let mut pieces = context.client.stream(&path(query)).await?;
                let mut partial = Vec::new();
                while let Some(piece) = pieces.next().await? {
                    partial.extend_from_slice(&piece);
                    let Some(end) = partial.iter().rposition(|&byte| byte == b'\n') else { continue };
                    let rest = partial.split_off(end + 1);
                    let lines = std::mem::replace(&mut partial, rest);
                    lines.split(|&byte| byte == b'\n').flat_map(read).for_each(&mut each);
                }
                Ok(())
            }
        }
    }
}

fn path(query: &EventQuery) -> String {
    let agent = query.agent.iter().map(|agent| format!("&agent={}", escaped(agent))).collect::<String>();
    let since =
        query.since.iter().map(|since| format!("&since={}", escaped(&since.to_string()))).collect::<String>();
    format!("/v1/events?type={}{agent}{since}", escaped(&query.types.join(",")))
}

fn unreadable(error: &std::io::Error) -> CliError {
    CliError::failure(format!("reading the log: {error}"))
}
