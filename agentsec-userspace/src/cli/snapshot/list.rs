//! `snapshot list`: an agent's options.

use std::time::Duration;

use super::super::exit::Exit;
use super::super::style::{Style, Tone, harmless};
use super::super::table::{Cell, Table};
use super::super::units::{ago, bytes, count, duration};
use super::super::{Context, Outcome};
use crate::api::Timestamp;
use crate::api::client::escaped;
use crate::api::views::recovery::{Places, SnapshotList, SnapshotView};
use crate::recovery::plan::short;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Which agent; without one, where every agent's snapshots lie and how much they take
    agent: Option<String>,
}

impl Args {
    pub(in crate::cli) async fn run(self, context: &Context) -> Outcome {
        let Some(agent) = &self.agent else { return places(context).await };
        let path = format!("/v1/agents/{}/snapshots", escaped(agent));
        let list: SnapshotList = context.client.get(&path).await?;
        if context.output.json {
            context.output.object(&list)?;
        } else {
            context.output.text(&render(&list, context.output.style))?;
        }
        Ok(Exit::Ok)
    }
}

async fn places(context: &Context) -> Outcome {
    let places: Places = context.client.get("/v1/snapshots").await?;
    if context.output.json {
        context.output.object(&places)?;
    } else {
        context.output.text(&render_places(&places, Timestamp::now(), context.output.style))?;
    }
    Ok(Exit::Ok)
}

/// How long ago a time of the daemon's was.
fn age(time: &str, now: Timestamp) -> String {
    time.parse().map_or_else(|_| time.to_owned(), |then| ago(then, now))
}

fn render_places(places: &Places, now: Timestamp, style: Style) -> String {
    if places.agents.is_empty() {
        return "no agent has a recovery section\n".into();
    }
    let mut table = Table::new(&["AGENT", "TIER", "SNAPSHOTS", "STATE", "STORED", "VERIFIED", "LOCATION"]);
    for (agent, tiers) in &places.agents {
        for tier in tiers {
            table.row([
                Cell::new(agent).tone(Tone::Strong),
                Cell::new(&tier.tier),
                Cell::number(count(tier.snapshots)),
                Cell::number(bytes(tier.state_bytes)),
                Cell::number(tier.stored_bytes.map(bytes).unwrap_or_default()),
                Cell::number(tier.verified.as_ref().map(|time| age(time, now)).unwrap_or_default()),
                Cell::new(&tier.location),
            ]);
        }
    }
    table.render(style)
}

fn render(list: &SnapshotList, style: Style) -> String {
    if list.snapshots.is_empty() {
        return format!("{} has no snapshots\n", harmless(&list.agent));
    }
    let mut table = Table::new(&[
        "SNAPSHOT", "TIME", "AGE", "VERIFIED", "INCIDENT", "FILES", "SIZE", "NEW", "FITS", "WHERE", "NOTE",
    ]);
    for snapshot in &list.snapshots {
        let fits: Vec<String> =
            snapshot.dependencies.iter().map(|(agent, id)| format!("{agent}={}", short(id))).collect();
        table.row([
            Cell::new(short(&snapshot.snapshot_id)).tone(Tone::Strong),
            Cell::new(snapshot.timestamp.get(..19).unwrap_or(&snapshot.timestamp)),
            Cell::number(duration(Duration::from_secs(snapshot.age_s))),
            verified(snapshot),
            match snapshot.before_incident {
                _ if snapshot.suspect.is_some() => Cell::new("after").tone(Tone::Bad),
                None => Cell::new(""),
                Some(true) => Cell::new("before").tone(Tone::Good),
                Some(false) => Cell::new("after").tone(Tone::Bad),
            },
            Cell::number(count(snapshot.files)),
            Cell::number(bytes(snapshot.bytes)),
            Cell::number(bytes(snapshot.added_bytes)),
            Cell::new(fits.join(" ")),
            Cell::new(snapshot.tiers.join(" ")),
            Cell::new(note(snapshot)),
        ]);
    }
    let since = list.suspicious_since.as_ref().map(|since| format!("suspicious since {since}\n"));
    since.unwrap_or_default() + &table.render(style)
}

fn verified(snapshot: &SnapshotView) -> Cell {
    match (&snapshot.problem, snapshot.integrity_verified) {
        (Some(_), _) => Cell::new("damaged").tone(Tone::Bad),
        (None, _) if snapshot.attested == Some(false) => Cell::new("not ours").tone(Tone::Bad),
        (None, true) => Cell::new("yes").tone(Tone::Good),
        (None, false) => Cell::new("no").tone(Tone::Warning),
    }
}

fn note(snapshot: &SnapshotView) -> String {
    let suspect = snapshot.suspect.as_ref().map(|incident| format!("from incident {incident}"));
    let frozen = snapshot.frozen.then(|| "frozen meanwhile".to_owned());
    [snapshot.problem.clone(), snapshot.doubt.clone(), suspect, frozen]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_shown_with_what_a_choice_rests_on() {
        let good = SnapshotView {
            snapshot_id: "aaaaaaaabbbb".into(),
            timestamp: "2026-01-01T00:00:00.000000000Z".into(),
            age_s: 300,
            integrity_verified: true,
            attested: Some(true),
            before_incident: Some(true),
            files: 1,
            bytes: 2048,
            dependencies: [("db".to_owned(), "ccccccccdddd".to_owned())].into(),
            ..SnapshotView::default()
        };
        let bad = SnapshotView {
            snapshot_id: "eeeeeeeeffff".into(),
            problem: Some("a byte".into()),
            before_incident: Some(false),
            ..good.clone()
        };
        let foreign =
            SnapshotView { attested: Some(false), doubt: Some("unheard of".into()), ..good.clone() };
        let since = Some("2026-01-01T00:01:00Z".to_owned());
        let list =
            SnapshotList { agent: "a".into(), suspicious_since: since, snapshots: vec![bad, good, foreign] };
        let text = render(&list, Style::default());
        assert!(text.starts_with("suspicious since 2026-01-01T00:01:00Z\nSNAPSHOT"), "{text}");
        assert!(text.contains("eeeeeeee  2026-01-01T00:00:00") && text.contains("damaged   after"), "{text}");
        assert!(text.contains("yes       before") && text.contains("db=cccccccc"), "{text}");
        assert!(text.contains("not ours  before") && text.contains("unheard of"), "{text}");
        let none = SnapshotList { agent: "a".into(), ..SnapshotList::default() };
        assert_eq!(render(&none, Style::default()), "a has no snapshots\n");
    }
}
