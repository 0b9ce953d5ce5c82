//! `explain`: why an agent is in its state, and what would change it.

use std::fmt::Write;

use super::exit::Exit;
use super::style::{self, Style, Tone, harmless};
use super::units::{ago, bytes};
use super::{Context, Outcome};
use crate::api::Timestamp;
use crate::api::client::escaped;
use crate::api::views::{Explanation, PacketView};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which
    agent: String,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let path = format!("/v1/agents/{}/explain", escaped(&self.agent));
        let explanation: Explanation = context.client.get(&path).await?;
        if context.output.json {
            context.output.object(&explanation)?;
        } else {
            context.output.text(&render(&explanation, Timestamp::now(), context.output.style))?;
        }
        Ok(Exit::Ok)
    }
}

fn render(explanation: &Explanation, now: Timestamp, style: Style) -> String {
    let state = style.paint(style::of_state(explanation.state), explanation.state.name());
    let mode = style.paint(style::of_mode(explanation.mode), explanation.mode.name());
    let mut text = format!("{} is {state}, {mode}\n", harmless(&explanation.agent));
    if let Some(trip) = &explanation.tripped {
        // Writing to a `String` cannot fail.
        let (by, reason) = (harmless(&trip.by), harmless(&trip.reason));
        let _ = writeln!(text, "tripped by {by} {} ({}): {reason}", ago(trip.at, now), trip.at);
    }
    section(&mut text, style, "why", explanation.why.iter().cloned());
    section(&mut text, style, "packet", explanation.packet.iter().map(packet));
    section(&mut text, style, "settings", explanation.settings.iter().cloned());
    section(&mut text, style, "next", explanation.next.iter().cloned());
    text
}

fn packet(packet: &PacketView) -> String {
    let remote = match packet.remote_port {
        0 => packet.remote.clone(),
        port if packet.remote.contains(':') => format!("[{}]:{port}", packet.remote),
        port => format!("{}:{port}", packet.remote),
    };
    let local =
        if packet.local_port == 0 { String::new() } else { format!(", local port {}", packet.local_port) };
    let size = bytes(packet.bytes);
    format!("{} {} with {remote}{local}, {size}, at {}", packet.direction, packet.protocol, packet.at)
}

fn section(text: &mut String, style: Style, title: &str, lines: impl Iterator<Item = String>) {
    for (index, line) in lines.enumerate() {
        let margin = format!("{:9}", if index == 0 { title } else { "" });
        text.push_str(&format!("{} {}\n", style.paint(Tone::Dim, &margin), harmless(&line)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::views::tests::tripped_agent;
    use crate::api::views::{Mode, State};

    #[test]
    fn an_explanation_reads_from_cause_to_remedy() {
        let explanation = Explanation {
            agent: "crawler".into(),
            state: State::Open,
            mode: Mode::Enforce,
            tripped: tripped_agent().tripped,
            why: vec!["volume 10.0 MiB reached max_volume".into(), "risk 0.700".into()],
            packet: Some(PacketView {
                at: Timestamp(1_700_000_000_123),
                direction: "outbound".into(),
                protocol: "tcp".into(),
                remote: "2001:db8::1".into(),
                remote_port: 443,
                local_port: 50_000,
                bytes: 1514,
            }),
            settings: vec!["profiles.web.max_volume is 10MiB".into()],
            next: vec!["probes in 12 s".into()],
        };
        let expected = "\
crawler is OPEN, enforce
tripped by kernel 1 min ago (2023-11-14T22:13:20.123Z): volume limit
why       volume 10.0 MiB reached max_volume
          risk 0.700
packet    outbound tcp with [2001:db8::1]:443, local port 50000, 1.5 KiB, at 2023-11-14T22:13:20.123Z
settings  profiles.web.max_volume is 10MiB
next      probes in 12 s
";
        assert_eq!(render(&explanation, Timestamp(1_700_000_060_123), Style::default()), expected);
    }
}
