//! The chain as a timeline.

use crate::api::Timestamp;
use crate::cli::style::{Style, Tone, harmless};
use crate::cli::units::{bytes, count};
use crate::record::chain::{Chain, Earlier, Excluded, Hop, Moment, Outflow};

/// Excluded services and reasons shown, at most; the JSON has all.
const SHOWN: usize = 10;

/// One line of the timeline and what is under it.
struct Line {
    at: Timestamp,
    /// What comes first at one time.
    order: u8,
    tone: Tone,
    label: &'static str,
    text: String,
    details: Vec<String>,
}

pub(super) fn render(chain: &Chain, style: Style) -> String {
    let mut lines: Vec<Line> = Vec::new();
    lines.extend(chain.initial_compromise.iter().map(|moment| of_moment(moment, 0, "compromise", Tone::Bad)));
    lines.extend(chain.lateral_movement.iter().map(of_hop));
    lines.extend(chain.exfiltration.iter().map(of_outflow));
    lines.extend(chain.containment.iter().map(|moment| of_moment(moment, 3, "containment", Tone::Good)));
    lines.sort_by_key(|line| (line.at, line.order));
    let agent = harmless(&chain.agent);
    let mut text =
        format!("from {agent}, taken as compromised from {} on, until {}\n\n", chain.from, chain.to);
    if let Some(Earlier { count: earlier, since }) = chain.earlier_signs {
        let signs = count(earlier);
        text.push_str(&format!("{signs} earlier signs, since {since}: `--from` takes them in\n"));
    }
    if chain.initial_compromise.is_empty() {
        text.push_str("no sign of a compromise of its own is in the log in that time\n");
    }
    for line in lines {
        let label = style.paint(line.tone, &format!("{:16}", line.label));
        text.push_str(&format!("{}  {label}  {}\n", line.at, harmless(&line.text)));
        for detail in line.details {
            text.push_str(&format!("{:44}{}\n", "", style.paint(Tone::Dim, &harmless(&detail))));
        }
    }
    text.push_str(&footer(chain));
    text
}

fn of_moment(moment: &Moment, order: u8, label: &'static str, tone: Tone) -> Line {
    let text = format!("{}: {} {}", moment.agent, moment.event_type, moment.what);
    Line { at: moment.at, order, tone, label, text, details: Vec::new() }
}

fn of_hop(hop: &Hop) -> Line {
    let text = format!("{} → {} (hop {}), {} {}", hop.from, hop.to, hop.hop, hop.protocol, hop.endpoint);
    let (sent, received) = (bytes(hop.bytes_sent), bytes(hop.bytes_received));
    let mut details = vec![format!(
        "interactions: {}, {sent} there, {received} back; agents that talk to {}: {}",
        count(hop.interactions),
        hop.to,
        hop.clients
    )];
    details.extend(hop.correlation_id.iter().map(|id| format!("flow {id}")));
    details.extend(hop.because.iter().map(|reason| format!("because {reason}")));
    if !hop.other_ways.is_empty() {
        details.push(format!("also possible from {}", hop.other_ways.join(", ")));
    }
    Line { at: hop.at, order: 1, tone: Tone::Warning, label: "lateral movement", text, details }
}

fn of_outflow(out: &Outflow) -> Line {
    let text = format!("{} ⇒ {} {}", out.agent, out.protocol, out.endpoint);
    let (sent, received) = (bytes(out.bytes_sent), bytes(out.bytes_received));
    let mut details = vec![format!(
        "{} interactions until {}, {sent} out, {received} back",
        count(out.interactions),
        out.last
    )];
    details.extend(out.correlation_id.iter().map(|id| format!("flow {id}")));
    details.extend(out.because.iter().map(|reason| format!("because {reason}")));
    Line { at: out.first, order: 2, tone: Tone::Bad, label: "exfiltration", text, details }
}

fn footer(chain: &Chain) -> String {
    let mut text = String::new();
    if !chain.excluded.is_empty() {
        text.push_str("\nnot followed, since so many talk to it (--common changes that)\n");
    }
    for Excluded { what, clients, talked_to_by, bytes_sent } in chain.excluded.iter().take(SHOWN) {
        let by =
            harmless(&talked_to_by.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", "));
        let (what, sent) = (harmless(what), bytes(*bytes_sent));
        text.push_str(&format!("  {what}: {clients} agents, of the chain {by} ({sent})\n"));
    }
    if let Some(more) = chain.excluded.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!("  and {more} more\n"));
    }
    let counts = &chain.counts;
    text.push_str(&format!(
        "\n{} interactions of {} agents; {} other endpoints of these agents show nothing suspicious\n",
        count(counts.interactions as u64),
        count(counts.agents as u64),
        count(counts.other_endpoints as u64)
    ));
    if counts.sampled_out > 0 {
        text.push_str(&format!(
            "{} of these agents' interactions were sampled out\n",
            count(counts.sampled_out)
        ));
    }
    if counts.left_out > 0 {
        let left_out = count(counts.left_out);
        text.push_str(&format!(
            "{left_out} events found no room: choose a shorter time with --from and --to\n"
        ));
    }
    text
}
