//! `status`: the daemon in a line or two, every agent in one.

use std::time::Duration;

use serde::Serialize;

use super::exit::Exit;
use super::style::{self, Style, Tone, harmless};
use super::table::{Cell, Table};
use super::units::{ago, bytes, count, duration, milliseconds};
use super::{Context, Outcome};
use crate::api::Timestamp;
use crate::api::views::recovery::Places;
use crate::api::views::{AgentStatus, AttachmentStatus, DaemonStatus, PACKET_SOCKETS_DENIED, State, Status};
use crate::record::anchor::AnchorState;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Fail (exit code 7) if an attachment is not in force, or events or packets go astray
    #[arg(long)]
    check: bool,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let status: Status = context.client.get("/v1/status").await?;
        // A daemon that keeps none still has a status.
        let snapshots = context.client.get::<Places>("/v1/snapshots").await.unwrap_or_default();
        if context.output.json {
            context.output.object(&Whole { status: &status, snapshots: &snapshots })?;
        } else {
            let style = context.output.style;
            context.output.text(&render(&status, Timestamp::now(), style))?;
            if !snapshots.agents.is_empty() {
                context.output.text(&format!("\n{}", snapshots_table(&snapshots).render(style)))?;
            }
        }
        let unhealthy = self.check && !problems(&status).is_empty();
        Ok(if unhealthy { Exit::Unhealthy } else { Exit::Ok })
    }
}

/// The status, and where snapshots lie: that is a question of its own to the daemon, since it waits for disks.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    status: &'a Status,
    snapshots: &'a Places,
}

/// Each tier over everybody; whose are where is told by `snapshot list`.
fn snapshots_table(places: &Places) -> Table {
    let mut table = Table::new(&["SNAPSHOTS", "AGENTS", "NUMBER", "STATE", "STORED", "LOCATION"]);
    for total in places.totals() {
        table.row([
            Cell::new(&total.tier),
            Cell::number(format!("{} of {}", total.agents, places.agents.len())),
            Cell::number(count(total.snapshots)),
            Cell::number(bytes(total.state_bytes)),
            Cell::number(total.stored_bytes.map(bytes).unwrap_or_default()),
            Cell::new(total.location),
        ]);
    }
    table
}

/// What is not as it should be. A contained agent is no problem: that is what this is for.
fn problems(status: &Status) -> Vec<String> {
    let mut problems: Vec<String> = status.agents.iter().flat_map(unattached).collect();
    let daemon = &status.daemon;
    if daemon.events.lost > 0 {
        problems.push(format!("{} events were lost", count(daemon.events.lost)));
    }
    let strays = daemon.strays.unidentified_packets + daemon.strays.unpoliced_packets;
    if strays > 0 {
        problems.push(format!(
            "{} packets at our hooks belonged to no known agent and were dropped",
            count(strays)
        ));
    }
    problems.extend(daemon.anchors.iter().filter_map(|(name, state)| trouble(name, state)));
    problems.extend(daemon.alerts.iter().cloned());
    problems
}

fn trouble(name: &str, state: &AnchorState) -> Option<String> {
    let error = state.error.as_deref().unwrap_or_default();
    match (state.contradicted, state.failures) {
        (true, _) => Some(format!("the log contradicts its anchor {name}: {error}")),
        (false, 0) => None,
        (false, failures) => {
            Some(format!("the log's anchor {name} failed {} times: {error}", count(failures.into())))
        }
    }
}

/// Up to where the log is attested by others, and since when.
fn anchored(name: &str, state: &AnchorState, now: Timestamp) -> String {
    let Some(anchored) = &state.anchored else { return format!("{name} nothing yet") };
    let when = anchored.at.parse::<Timestamp>().map(|at| format!(" {}", ago(at, now)));
    format!("{name} {} entries{}", count(anchored.size), when.unwrap_or_default())
}

/// What the programs cannot hold here. No problem of this installation: it works as well as the kernel lets it.
fn gap(daemon: &DaemonStatus) -> Option<String> {
    let said = daemon.packet_sockets.as_ref()?;
    (said != PACKET_SOCKETS_DENIED).then(|| format!("packet sockets are {said}"))
}

fn unattached(agent: &AgentStatus) -> Vec<String> {
    let failed = |status| matches!(status, AttachmentStatus::Missing | AttachmentStatus::Failed);
    let missing = agent.attachments.iter().filter(|attachment| failed(attachment.status));
    let describe = |attachment: &crate::api::views::Attachment| {
        let why = attachment.error.as_deref().unwrap_or(attachment.status.name());
        format!("{} is not attached to {}: {why}", agent.id, attachment.target())
    };
    let remarks = agent.attachments.iter().filter_map(|attachment| attachment.remark.as_deref());
    let uncovered = agent.uncovered.iter().map(String::as_str);
    let more = remarks.chain(uncovered).map(|text| format!("{}: {text}", agent.id));
    missing.map(describe).chain(more).collect()
}

fn render(status: &Status, now: Timestamp, style: Style) -> String {
    let mut text = daemon_lines(&status.daemon, style);
    let anchors = status.daemon.anchors.iter().map(|(name, state)| anchored(name, state, now));
    let anchors = anchors.collect::<Vec<_>>().join(", ");
    if !anchors.is_empty() {
        text.push_str(&format!("anchored: {anchors}\n"));
    }
    for problem in problems(status).into_iter().chain(gap(&status.daemon)) {
        text.push_str(&style.paint(Tone::Warning, &format!("! {}", harmless(&problem))));
        text.push('\n');
    }
    text.push('\n');
    if status.agents.is_empty() {
        return text + "no agents are configured\n";
    }
    text + &table(&status.agents, now).render(style)
}

fn daemon_lines(daemon: &DaemonStatus, style: Style) -> String {
    let states = daemon.agents_by_state;
    let in_state = |tone, number: u32, name| match number {
        0 => style.paint(Tone::Dim, &format!("0 {name}")),
        number => style.paint(tone, &format!("{number} {name}")),
    };
    let pending = match daemon.attachments_pending {
        0 => String::new(),
        pending => style.paint(Tone::Warning, &format!("; {pending} attachments pending")),
    };
    let waiting = match daemon.events.queued {
        0 => String::new(),
        queued => style.paint(Tone::Warning, &format!(", {} waiting", count(queued))),
    };
    format!(
        "agentsec {} (pid {}), up {}, Linux {}, {}, every {} ms\nagents: {}, {}, {}{pending}; events: {} written{waiting}\n",
        harmless(&daemon.version),
        daemon.pid,
        duration(Duration::from_secs(daemon.uptime_s)),
        harmless(&daemon.kernel),
        harmless(&daemon.config),
        daemon.interval_ms,
        in_state(Tone::Bad, states.open, "OPEN"),
        in_state(Tone::Warning, states.half_open, "HALF_OPEN"),
        in_state(Tone::Good, states.closed, "CLOSED"),
        count(daemon.events.written),
    )
}

fn table(agents: &[AgentStatus], now: Timestamp) -> Table {
    let heading = [
        "AGENT",
        "STATE",
        "MODE",
        "RISK",
        "TOP",
        "OUT",
        "DROPPED",
        "IN",
        "DROPPED",
        "REQ/MIN",
        "P50",
        "P99",
        "AUTH",
        "ATTACHMENT",
        "NOTE",
    ];
    let mut table = Table::new(&heading);
    for agent in agents {
        let top = agent.contributions.top().map(|(term, risk)| format!("{term} {risk}")).unwrap_or_default();
        let dropped = |bytes_dropped: u64| match bytes_dropped {
            0 => Cell::number("0").tone(Tone::Dim),
            some => Cell::number(bytes(some)).tone(Tone::Bad),
        };
        table.row([
            Cell::new(&agent.id).tone(Tone::Strong),
            Cell::new(agent.state.name()).tone(style::of_state(agent.state)),
            Cell::new(agent.mode.name()).tone(style::of_mode(agent.mode)),
            Cell::number(agent.risk.to_string()),
            Cell::new(top),
            Cell::number(bytes(agent.outbound.bytes)),
            dropped(agent.outbound.dropped_bytes),
            Cell::number(bytes(agent.inbound.bytes)),
            dropped(agent.inbound.dropped_bytes),
            requests(agent),
            Cell::number(milliseconds(agent.signals.response_time.p50_ms)),
            Cell::number(milliseconds(agent.signals.response_time.p99_ms)),
            failures(agent),
            attachments(agent),
            Cell::new(note(agent, now)),
        ]);
    }
    table
}

/// Requests a minute; nothing of those who make none.
fn requests(agent: &AgentStatus) -> Cell {
    match agent.signals.requests {
        0 => Cell::number(""),
        _ => Cell::number(format!("{:.0}", agent.signals.requests_per_minute)),
    }
}

/// Failed authentications in the window; nothing of those who fail at none.
fn failures(agent: &AgentStatus) -> Cell {
    match agent.signals.auth_failures {
        0 => Cell::number(""),
        failures => Cell::number(failures.to_string()).tone(Tone::Warning),
    }
}

/// The first attachment that is not in force, else the first, and how many there are.
fn attachments(agent: &AgentStatus) -> Cell {
    let worst = agent.attachments.iter().find(|attachment| attachment.status != AttachmentStatus::Attached);
    let Some(shown) = worst.or_else(|| agent.attachments.first()) else {
        return Cell::new("none").tone(Tone::Warning);
    };
    let status = match shown.status {
        AttachmentStatus::Attached => String::new(),
        other => format!(" {}", other.name()),
    };
    let more = match agent.attachments.len() {
        0 | 1 => String::new(),
        several => format!(" +{}", several - 1),
    };
    Cell::new(format!("{}{status}{more}", shown.target())).tone(style::of_attachment(shown.status))
}

fn note(agent: &AgentStatus, now: Timestamp) -> String {
    let mut parts = Vec::new();
    if let Some(trip) = &agent.tripped {
        parts.push(format!("{} by {} {}", trip.reason, trip.by, ago(trip.at, now)));
    }
    // A CLOSED agent's next is nothing, which a glance at everybody can do without.
    let next = agent.next.clone().filter(|_| agent.state != State::Closed);
    if agent.hold && !next.as_ref().is_some_and(|next| next.starts_with("held")) {
        parts.push("held".to_owned());
    }
    parts.extend(next);
    if agent.would_drop.packets > 0 {
        parts.push(format!("would have dropped {}", bytes(agent.would_drop.bytes)));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::views::Attachment;
    use crate::api::views::tests::one_agent;
    use crate::record::anchor::state::Anchored;

    const NOW: Timestamp = Timestamp(1_700_000_060_123);

    #[test]
    fn a_status_fits_a_glance() {
        let expected = "\
agentsec 0.1.0 (pid 42), up 1 min 30 s, Linux 6.18.0, /etc/agentsec/agentsec.toml, every 250 ms
agents: 1 OPEN, 0 HALF_OPEN, 0 CLOSED; events: 5 written

AGENT    STATE  MODE      RISK  TOP                OUT  DROPPED    IN  DROPPED  REQ/MIN      P50     P99  ATTACHMENT    NOTE
crawler  OPEN   enforce  0.700  volume 0.400  10.0 MiB  4.0 MiB  99 B        0       40  51.5 ms  130 ms  veth-crawler  volume limit by kernel 1 min ago; probes in 12 s
";
        assert_eq!(render(&one_agent(), NOW, Style::default()), expected);
        let mut status = one_agent();
        status.daemon.events.queued = 3;
        assert!(render(&status, NOW, Style::default()).contains("5 written, 3 waiting\n"));
    }

    #[test]
    fn containment_is_healthy_and_a_gap_in_it_is_not() {
        let mut status = one_agent();
        assert!(problems(&status).is_empty());
        status.agents[0].attachments.push(Attachment {
            interface: Some("veth9".into()),
            status: AttachmentStatus::Missing,
            ..Attachment::default()
        });
        status.daemon.events.lost = 1000;
        assert_eq!(
            problems(&status),
            ["crawler is not attached to veth9: missing", "1,000 events were lost"]
        );
        let text = render(&status, NOW, Style::default());
        assert!(text.contains("\n! 1,000 events were lost\n") && text.contains("veth9 missing +1"), "{text}");
    }

    #[test]
    fn it_says_what_others_attest_of_the_log_and_what_hinders_that() {
        let mut status = one_agent();
        let anchored = Anchored {
            origin: "o".into(),
            size: 1234,
            root: String::new(),
            at: "2023-11-14T22:13:20.123456789Z".into(),
            cosigned_at: None,
        };
        let good = AnchorState { anchored: Some(anchored), ..AnchorState::default() };
        let failing = AnchorState { failures: 2, error: Some("refused".into()), ..AnchorState::default() };
        let turned = AnchorState { contradicted: true, error: Some("shorter".into()), ..good.clone() };
        status.daemon.anchors =
            [("a", good), ("b", failing), ("c", turned)].map(|(name, state)| (name.to_owned(), state)).into();
        let text = render(&status, NOW, Style::default());
        let line = "\nanchored: a 1,234 entries 1 min ago, b nothing yet, c 1,234 entries 1 min ago\n";
        assert!(text.contains(line), "{text}");
        let expected =
            ["the log's anchor b failed 2 times: refused", "the log contradicts its anchor c: shorter"];
        assert_eq!(problems(&status), expected);
    }

    #[test]
    fn a_way_past_the_programs_is_a_warning_and_no_problem() {
        let mut status = one_agent();
        status.daemon.packet_sockets = Some(PACKET_SOCKETS_DENIED.into());
        assert!(!render(&status, NOW, Style::default()).contains("packet sockets"));
        status.daemon.packet_sockets = Some("not denied to anybody".into());
        let text = render(&status, NOW, Style::default());
        assert!(text.contains("\n! packet sockets are not denied to anybody\n"), "{text}");
        assert!(problems(&status).is_empty());
    }

    #[test]
    fn a_note_says_nothing_twice_and_nothing_of_those_who_behave() {
        let mut status = one_agent();
        let agent = &mut status.agents[0];
        (agent.hold, agent.next) = (true, Some("held: stays open until an operator releases it".into()));
        let held = "volume limit by kernel 1 min ago; held: stays open until an operator releases it";
        assert_eq!(note(agent, NOW), held);
        (agent.tripped, agent.hold, agent.state) = (None, false, State::Closed);
        agent.next = Some("nothing, unless it trips".into());
        assert_eq!(note(agent, NOW), "");
    }

    #[test]
    fn states_have_colours_on_a_terminal() {
        let text = render(&one_agent(), NOW, Style { colors: true });
        assert!(text.contains("\x1b[1;31mOPEN\x1b[0m"), "{text:?}");
    }
}
