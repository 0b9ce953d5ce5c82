//! `endpoints`: whom an agent talks to.

use super::exit::Exit;
use super::selection::Selection;
use super::style::{Style, Tone};
use super::table::{Cell, Table};
use super::units::{ago, bytes, count, milliseconds};
use super::{Context, Outcome};
use crate::api::Timestamp;
use crate::api::client::escaped;
use crate::api::views::EndpointList;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose
    agent: String,
    #[command(flatten)]
    selection: Selection,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let path = format!("/v1/agents/{}/endpoints", escaped(&self.agent));
        let mut list: EndpointList = context.client.get(&path).await?;
        self.selection.apply(&mut list.endpoints);
        if context.output.json {
            context.output.object(&list)?;
        } else {
            context.output.text(&render(&list, Timestamp::now(), context.output.style))?;
        }
        Ok(Exit::Ok)
    }
}

fn render(list: &EndpointList, now: Timestamp, style: Style) -> String {
    let mut text = if list.endpoints.is_empty() { "none\n".into() } else { table(list, now).render(style) };
    if list.overflow > 0 {
        let missing = format!("{} more found the list full and are not in it", count(list.overflow));
        text.push_str(&style.paint(Tone::Warning, &missing));
        text.push('\n');
    }
    text
}

fn table(list: &EndpointList, now: Timestamp) -> Table {
    let heading = [
        "REMOTE",
        "PORT",
        "PROTOCOL",
        "WHO",
        "TYPICAL",
        "OUT",
        "IN",
        "PACKETS OUT",
        "PACKETS IN",
        "ANSWERS",
        "P50",
        "P99",
        "FIRST",
        "LAST",
    ];
    let mut table = Table::new(&heading);
    for endpoint in &list.endpoints {
        let (typical, tone) = match endpoint.typical {
            Some(true) => ("yes", Tone::Good),
            Some(false) => ("no", Tone::Warning),
            None => ("?", Tone::Dim),
        };
        let port = if endpoint.port == 0 { String::new() } else { endpoint.port.to_string() };
        table.row([
            Cell::new(endpoint.remote.to_string()),
            Cell::number(port),
            Cell::new(&endpoint.protocol),
            Cell::new(endpoint.direction.name()),
            Cell::new(typical).tone(tone),
            Cell::number(bytes(endpoint.outbound.bytes)),
            Cell::number(bytes(endpoint.inbound.bytes)),
            Cell::number(count(endpoint.outbound.packets)),
            Cell::number(count(endpoint.inbound.packets)),
            Cell::number(if endpoint.responses == 0 { String::new() } else { count(endpoint.responses) }),
            Cell::number(milliseconds(endpoint.p50_ms)),
            Cell::number(milliseconds(endpoint.p99_ms)),
            Cell::new(ago(endpoint.first_seen, now)),
            Cell::new(ago(endpoint.last_seen, now)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::views::{EndpointDirection, EndpointTraffic, EndpointView};

    fn endpoint(remote: &str, typical: Option<bool>, sent: u64) -> EndpointView {
        EndpointView {
            remote: remote.parse().unwrap(),
            port: 443,
            protocol: "tcp".into(),
            direction: EndpointDirection::Open,
            typical,
            outbound: EndpointTraffic { bytes: sent, packets: 1 },
            inbound: EndpointTraffic::default(),
            first_seen: Timestamp(0),
            last_seen: Timestamp(59_000),
            responses: 0,
            p50_ms: None,
            p99_ms: None,
            deviation_ms: None,
        }
    }

    #[test]
    fn those_that_have_answered_say_how_fast() {
        let answered = EndpointView {
            responses: 1_234,
            p50_ms: Some(12.3),
            p99_ms: Some(4_560.0),
            ..endpoint("10.0.0.1", Some(true), 10)
        };
        let endpoints = vec![answered, endpoint("10.0.0.2", Some(true), 10)];
        let list = EndpointList { agent: "a".into(), endpoints, overflow: 0 };
        let text = render(&list, Timestamp(60_000), Style::default());
        let expected = "\
REMOTE    PORT  PROTOCOL  WHO   TYPICAL   OUT   IN  PACKETS OUT  PACKETS IN  ANSWERS      P50     P99  FIRST      LAST
10.0.0.1   443  tcp       open  yes      10 B  0 B            1           0    1,234  12.3 ms  4.56 s  1 min ago  1 s ago
10.0.0.2   443  tcp       open  yes      10 B  0 B            1           0                            1 min ago  1 s ago
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_full_list_says_so() {
        let list = EndpointList {
            agent: "a".into(),
            endpoints: vec![endpoint("2001:db8::1", Some(false), 2048)],
            overflow: 1200,
        };
        let text = render(&list, Timestamp(60_000), Style::default());
        let expected = "\
REMOTE       PORT  PROTOCOL  WHO   TYPICAL      OUT   IN  PACKETS OUT  PACKETS IN  FIRST      LAST
2001:db8::1   443  tcp       open  no       2.0 KiB  0 B            1           0  1 min ago  1 s ago
1,200 more found the list full and are not in it
";
        assert_eq!(text, expected);
    }
}
