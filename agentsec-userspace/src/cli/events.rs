//! `events`: the forensic log, as it was and as it grows.

use serde_json::{Map, Value};

use super::error::CliError;
use super::exit::Exit;
use super::style::{Style, Tone, harmless};
use super::units::since;
use super::{Context, Outcome};
use crate::api::Timestamp;
use crate::api::client::escaped;
use crate::api::event_log::{EndpointFilter, EventQuery, events};
use crate::record::evidence::EvidenceSource;
use crate::record::index::Files;
use crate::record::query::event_type;
use futures::StreamExt as _;

#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// Keep waiting for new ones
    #[arg(long, short)]
    follow: bool,
    /// Only about this agent
    #[arg(long)]
    agent: Option<String>,
    /// Only of this type, or of several with commas between
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = event_type)]
    types: Vec<String>,
    /// Only since this time (2026-01-31T12:00:00Z), or for so long (90s, 10m, 2h, 1d)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Only before this time (in the same notations)
    #[arg(long, value_name = "TIME", value_parser = since)]
    until: Option<Timestamp>,
    /// Only with this id: of an incident, a flow (Community ID), a trace, or as an application reported it
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
    /// Only with this endpoint: 192.0.2.7, 192.0.2.7:443, 2001:db8::7 or [2001:db8::7]:443
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    endpoint: Option<EndpointFilter>,
    /// Read the log in the state directory itself, also when no daemon runs
    #[arg(long)]
    offline: bool,
    /// Of those already written, only the N latest
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        self.query().check().map_err(|wrong| CliError::new(Exit::Usage, wrong, None))?;
        if self.offline {
            let state = &context.global.state_dir;
            let mut pieces =
                std::pin::pin!(events(EvidenceSource::in_state(state), Files::in_state(state), self.query()));
            while let Some(piece) = pieces.next().await {
                show(
                    context,
                    &piece.map_err(|error| CliError::failure(format!("reading the log: {error}")))?,
                )?;
            }
            return Ok(Exit::Ok);
        }
        let mut pieces = context.client.stream(&self.path()).await?;
        let mut partial = Vec::new();
        while let Some(piece) = pieces.next().await? {
            partial.extend_from_slice(&piece);
            let Some(end) = partial.iter().rposition(|&byte| byte == b'\n') else { continue };
            let rest = partial.split_off(end + 1);
            show(context, &std::mem::replace(&mut partial, rest))?;
        }
        Ok(Exit::Ok)
    }

    fn query(&self) -> EventQuery {
        EventQuery {
            follow: self.follow,
            since: self.since,
            until: self.until,
            agent: self.agent.clone(),
            types: self.types.clone(),
            correlation: self.correlation.clone(),
            endpoint: self.endpoint,
            limit: self.limit,
        }
    }

    fn path(&self) -> String {
        let mut parameters = Vec::new();
        if self.follow {
            parameters.push("follow=true".to_owned());
        }
        parameters.extend(self.agent.iter().map(|agent| format!("agent={}", escaped(agent))));
        if !self.types.is_empty() {
            parameters.push(format!("type={}", escaped(&self.types.join(","))));
        }
        parameters.extend(self.since.iter().map(|since| format!("since={}", escaped(&since.to_string()))));
        parameters.extend(self.until.iter().map(|until| format!("until={}", escaped(&until.to_string()))));
        parameters.extend(self.correlation.iter().map(|id| format!("correlation={}", escaped(id))));
        parameters.extend(self.endpoint.iter().map(|one| format!("endpoint={}", escaped(&one.to_string()))));
        parameters.extend(self.limit.iter().map(|limit| format!("limit={limit}")));
        let separator = if parameters.is_empty() { "" } else { "?" };
        format!("/v1/events{separator}{}", parameters.join("&"))
    }
}

/// JSON lines go out as they came: they are what was recorded, byte for byte.
fn show(context: &Context, lines: &[u8]) -> Result<(), CliError> {
    let text = String::from_utf8_lossy(lines);
    if context.output.json {
        return context.output.text(&text);
    }
    let lines = text.lines().map(|line| render(line, context.output.style));
    context.output.text(&lines.collect::<String>())
}

/// Time, type, agent, and then the event's data as `name=value`; the envelope's ids and hash are for `--json`.
fn render(line: &str, style: Style) -> String {
    let Ok(mut event) = serde_json::from_str::<Map<String, Value>>(line) else {
        return harmless(line) + "\n";
    };
    let mut take = |name: &str| match event.remove(name) {
        Some(Value::String(text)) => harmless(&text),
        Some(Value::Null) | None => "-".into(),
        Some(other) => other.to_string(),
    };
    let (at, kind, agent) = (take("timestamp"), take("event_type"), take("agent_id"));
    let tone = match kind.as_str() {
        "SECURITY_VIOLATION" => Tone::Bad,
        "CONTAINMENT_ACTION" => Tone::Warning,
        _ => Tone::Plain,
    };
    let data = match event.remove("event_data") {
        Some(Value::Object(data)) => data,
        _ => Map::new(),
    };
    let rest: Vec<String> = data
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| format!("{name}={}", field(value)))
        .collect();
    let (at, kind) = (style.paint(Tone::Dim, &milliseconds(&at)), style.paint(tone, &format!("{kind:20}")));
    format!("{at}  {kind}  {agent:12}  {}", harmless(&rest.join(" "))).trim_end().to_owned() + "\n"
}

/// A time without what people do not read of its fraction.
fn milliseconds(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, fraction)) if fraction.len() > 4 && fraction.is_ascii() => {
            format!("{seconds}.{}Z", &fraction[..3])
        }
        _ => time.to_owned(),
    }
}

fn field(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains([' ', '"', '=']) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let line = r#"{"timestamp":"2026-01-01T00:00:00.000000007Z","event_type":"CONTAINMENT_ACTION","agent_id":"crawler","event_id":"x","event_data":{"epoch":3,"reason":"a limit","by":"kernel","to":null}}"#;
        let shown = render(line, Style::default());
        let expected = "2026-01-01T00:00:00.000Z  CONTAINMENT_ACTION    crawler       by=kernel epoch=3 reason=\"a limit\"\n";
        assert_eq!(shown, expected);
        assert_eq!(render("not\u{1b} json", Style::default()), "not\u{fffd} json\n");
    }

    #[test]
    fn what_is_asked_is_in_the_path() {
        let all = Args::default();
        assert_eq!(all.path(), "/v1/events");
        let some = Args {
            follow: true,
            agent: Some("a&b".into()),
            types: vec!["X".into(), "Y".into()],
            since: Some(Timestamp(0)),
            until: Some(Timestamp(1)),
            correlation: Some("1:a+b=".into()),
            endpoint: "[2001:db8::7]:443".parse().ok(),
            limit: Some(3),
            offline: false,
        };
        let expected = concat!(
            "/v1/events?follow=true&agent=a%26b&type=X%2CY&since=1970-01-01T00%3A00%3A00.000Z",
            "&until=1970-01-01T00%3A00%3A00.001Z&correlation=1%3Aa%2Bb%3D&endpoint=%5B2001%3Adb8%3A%3A7%5D%3A443&limit=3"
        );
        assert_eq!(some.path(), expected);
    }
}
