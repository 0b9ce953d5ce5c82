//! `recorder`: the latest packets of an agent, to look at or as a file for analysers.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::error::CliError;
use super::exit::Exit;
use super::style::{Style, Tone, harmless};
use super::table::{Cell, Table};
use super::units::{bytes, count};
use super::{Context, Outcome, new_file};
use crate::api::client::escaped;
use crate::api::views::{RecordedPacket, RecorderView};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose
    agent: String,
    /// Write them as pcapng into a new file; `-` is the standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show no more than the latest so many
    #[arg(long, value_name = "COUNT", default_value_t = 40, conflicts_with = "out")]
    limit: usize,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let path = format!("/v1/agents/{}/recorder", escaped(&self.agent));
        if let Some(out) = &self.out {
            let is_output = out == Path::new("-");
            if is_output && io::stdout().is_terminal() {
                let remedy = Some("name a file, or send the standard output somewhere else");
                return Err(CliError::new(Exit::Usage, "pcapng is not for a terminal", remedy));
            }
            let file = fetch(context, &format!("{path}.pcapng")).await?;
            write(out, is_output, &file)?;
            return Ok(Exit::Ok);
        }
        let view: RecorderView = context.client.get(&path).await?;
        if context.output.json {
            context.output.object(&view)?;
        } else {
            context.output.text(&render(&view, self.limit, context.output.style))?;
        }
        Ok(Exit::Ok)
    }
}

async fn fetch(context: &Context, path: &str) -> Result<Vec<u8>, CliError> {
    let mut pieces = context.client.stream(path).await?;
    let mut file = Vec::new();
    while let Some(piece) = pieces.next().await? {
        file.extend_from_slice(&piece);
    }
    Ok(file)
}

fn write(out: &Path, is_output: bool, file: &[u8]) -> Result<(), CliError> {
    if is_output {
        let mut stdout = io::stdout().lock();
        stdout.write_all(file)?;
        return Ok(stdout.flush()?);
    }
    new_file::write(out, file)
}

fn render(view: &RecorderView, limit: usize, style: Style) -> String {
    let agent = harmless(&view.agent);
    let how = match (view.frozen, view.one_in) {
        (true, _) => "its circuit is OPEN, and this is what came before".to_owned(),
        (false, None) => "nothing is recorded".to_owned(),
        (false, Some(1)) => "every packet is recorded".to_owned(),
        (false, Some(one_in)) => format!("one packet in {one_in} is recorded"),
    };
    let what = if view.payload { "first bytes" } else { "headers" };
    let (shown, capacity) = (view.packets.len(), view.capacity);
    let mut text =
        format!("{agent}: {how} ({what}; {shown} of the latest {capacity}, {} ever)\n", count(view.recorded));
    if let Some(kept) = &view.kept {
        text.push_str(&format!("kept in {}\n", harmless(kept)));
    }
    if view.torn > 0 || view.lost > 0 {
        let missing = format!("{} were being written and {} found their place taken", view.torn, view.lost);
        text.push_str(&format!("{}\n", style.paint(Tone::Warning, &missing)));
    }
    let left_out = view.packets.len().saturating_sub(limit);
    if left_out > 0 {
        let note = format!("{left_out} earlier ones are not shown: see --limit and --out");
        text.push_str(&format!("{}\n", style.paint(Tone::Dim, &note)));
    }
    if view.packets.len() > left_out {
        text.push_str(&table(&view.packets[left_out..]).render(style));
    }
    text
}

fn table(packets: &[RecordedPacket]) -> Table {
    let mut table = Table::new(&["TIME", "WAY", "VERDICT", "STATE", "PROTOCOL", "FROM", "TO", "BYTES", ""]);
    for packet in packets {
        let tone = match packet.verdict.as_str() {
            "passed" => Tone::Good,
            "dropped" => Tone::Bad,
            _ => Tone::Warning,
        };
        table.row([
            Cell::new(clock(&packet.at)),
            Cell::new(&packet.direction),
            Cell::new(&packet.verdict).tone(tone),
            Cell::new(packet.state.name()),
            Cell::new(&packet.protocol),
            Cell::new(place(&packet.source, packet.source_port)),
            Cell::new(place(&packet.destination, packet.destination_port)),
            Cell::number(bytes(packet.length.into())),
            Cell::new(if packet.tripped { "tripped" } else { "" }).tone(Tone::Bad),
        ]);
    }
    table
}

/// The time of day, to the microsecond.
fn clock(at: &str) -> &str {
    at.get(11..26).unwrap_or(at)
}

fn place(address: &str, port: u16) -> String {
    match port {
        0 => address.to_owned(),
        port if address.contains(':') => format!("[{address}]:{port}"),
        port => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::views::State;

    fn packet(sequence: u64) -> RecordedPacket {
        RecordedPacket {
            sequence,
            at: "2026-01-02T03:04:05.123456789Z".into(),
            direction: "outbound".into(),
            verdict: "passed".into(),
            state: State::Closed,
            protocol: "tcp".into(),
            source: "10.0.0.2".into(),
            source_port: 40_000,
            destination: "2001:db8::1".into(),
            destination_port: 443,
            length: 66,
            captured: 66,
            ..RecordedPacket::default()
        }
    }

    #[test]
    fn the_latest_packets_are_shown_and_the_one_that_tripped_is_marked() {
        let last = RecordedPacket { verdict: "dropped".into(), tripped: true, ..packet(3) };
        let view = RecorderView {
            agent: "crawler".into(),
            one_in: Some(1),
            capacity: 256,
            frozen: true,
            kept: Some("/s/x.pcapng".into()),
            recorded: 1_003,
            packets: vec![packet(1), packet(2), last],
            ..RecorderView::default()
        };
        let expected = "\
crawler: its circuit is OPEN, and this is what came before (headers; 3 of the latest 256, 1,003 ever)
kept in /s/x.pcapng
1 earlier ones are not shown: see --limit and --out
TIME             WAY       VERDICT  STATE   PROTOCOL  FROM            TO                 BYTES
03:04:05.123456  outbound  passed   CLOSED  tcp       10.0.0.2:40000  [2001:db8::1]:443   66 B
03:04:05.123456  outbound  dropped  CLOSED  tcp       10.0.0.2:40000  [2001:db8::1]:443   66 B  tripped
";
        assert_eq!(render(&view, 2, Style::default()), expected);
    }

    #[test]
    fn a_file_that_is_there_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.pcapng");
        write(&path, false, b"one").unwrap();
        assert!(write(&path, false, b"two").is_err());
        assert_eq!(std::fs::read(path).unwrap(), b"one");
    }
}
