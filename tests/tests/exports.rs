//! `log export`: every document keeps to the schema that somebody else publishes, and following neither loses nor
//! repeats anything.

use std::io::{BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use agentsec::core::interaction::{FlowSummary, Message, OpenedBy, Traffic};
use agentsec::core::{Draft, EventKind, Time};
use agentsec::record::Sealer;
use agentsec::record::event::UuidV7;
use agentsec::record::evidence::EvidenceLog;
use agentsec_tests::daemon::{Config, Daemon, Launch};
use agentsec_tests::lab::Lab;
use agentsec_tests::scene::{LONG, NAMES, Scene, config};
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

const SECOND: u64 = 1_000_000_000;

fn at(second: u64) -> Time {
    Time { mono_ns: second * SECOND, wall_ns: (1_767_225_600 + second) * SECOND }
}

fn about(agent: &str, second: u64, kind: EventKind, data: Value) -> Draft {
    let correlation_id = Some("incident-1".to_owned());
    Draft { agent_id: Some(agent.into()), correlation_id, ..Draft::daemon(at(second), kind, data) }
}

fn packet(direction: &str) -> Value {
    json!({ "direction": direction, "remote": "203.0.113.9", "remote_port": 443, "local_port": 40_000,
            "protocol": 6, "bytes": 1500 })
}

fn flow(protocol: u8, opened_by: OpenedBy, message: Message) -> Result<FlowSummary> {
    let (local, remote): (SocketAddr, SocketAddr) = ("10.0.0.1:40001".parse()?, "[2001:db8::7]:443".parse()?);
    let traffic = Traffic { bytes: 2000, packets: 9 };
    Ok(FlowSummary {
        agent: "crawler".into(),
        opened_by,
        protocol,
        local: if protocol == 58 { "[2001:db8::1]:0".parse()? } else { local },
        remote: if protocol == 6 { "10.0.0.9:443".parse()? } else { remote },
        outbound: traffic,
        inbound: traffic,
        first_seen_ns: SECOND,
        last_seen_ns: 2 * SECOND,
        message,
    })
}

fn interactions() -> Result<Vec<Draft>> {
    let message = Message {
        kind: Some("http GET".into()),
        payload_hash: Some("ab".repeat(32)),
        requests: 3,
        response_code: Some(401),
        latency_us: Some(1500),
        auth_method: Some("bearer".into()),
        trace_id: Some("c".repeat(32)),
        reported_id: Some("job-7".into()),
    };
    Ok(vec![
        flow(6, OpenedBy::Agent, message.clone())?.draft(at(3), Some("mailer")),
        flow(6, OpenedBy::Remote, Message { response_code: Some(200), ..message })?.draft(at(3), None),
        flow(58, OpenedBy::Agent, Message::default())?.draft(at(3), None),
    ])
}

/// Events of every kind, in the shapes that the daemon gives them.
fn drafts() -> Result<Vec<Draft>> {
    let daemon = |second, kind, data| Draft::daemon(at(second), kind, data);
    let contained = |action: &str, from: &str, level: &str, automated: bool| {
        json!({
            "action_type": action, "trigger_reason": "volume of 9 bytes", "automated": automated, "by": "kernel",
            "isolation_level": level, "affected_services": ["veth0"], "recovery_snapshot": null, "from": from,
            "to": "OPEN", "from_mode": "enforce", "to_mode": "enforce", "epoch": 2, "profile": "default",
            "risk": 0.812, "packet": packet("outbound"), "tripped": { "packet": packet("outbound") },
        })
    };
    let violation = |kind: &str, severity: &str, context: Value| {
        json!({ "violation_type": kind, "severity": severity, "policy_violated": "profiles.default.typical",
                "attempted_action": "outbound packet", "context": context, "risk_score": 0.31 })
    };
    let mut all = vec![
        daemon(1, EventKind::DaemonStarted, json!({ "version": "0.1.0", "pid": 7, "agents": 1 })),
        daemon(
            1,
            EventKind::ConfigLoaded,
            json!({ "by": "start", "sources": [{ "file": "a", "sha256": "00" }] }),
        ),
        about("crawler", 2, EventKind::AgentAdded, json!({ "profile": "default" })),
        about("crawler", 2, EventKind::AgentAttached, json!({ "number": 4 })),
        about("crawler", 2, EventKind::AgentDetached, json!({ "why": "missing" })),
        about("crawler", 2, EventKind::AgentDetached, json!({ "why": "failed", "error": "no such device" })),
        about(
            "crawler",
            4,
            EventKind::EndpointNew,
            json!({ "packet": packet("outbound"), "opened_by": "agent" }),
        ),
        about(
            "crawler",
            5,
            EventKind::SecurityViolation,
            violation(
                "untypical_endpoint_on_probation",
                "high",
                json!({ "packet": packet("inbound"), "opened_by": "remote" }),
            ),
        ),
        about(
            "crawler",
            5,
            EventKind::SecurityViolation,
            violation("authentication_failed", "medium", json!({})),
        ),
        daemon(
            5,
            EventKind::SecurityViolation,
            violation(
                "control_api_refused",
                "high",
                json!({ "pid": 9, "uid": 1000, "gid": 1000, "reason": "netns" }),
            ),
        ),
        about("crawler", 6, EventKind::ContainmentAction, contained("QUARANTINE", "CLOSED", "full", true)),
        about("crawler", 6, EventKind::ContainmentAction, contained("PROBE", "OPEN", "partial", true)),
        about("crawler", 6, EventKind::ContainmentAction, contained("SHADOW", "CLOSED", "none", false)),
        about(
            "crawler",
            6,
            EventKind::Drops,
            json!({ "dropped": { "packets": 3, "bytes": 400 },
            "would_drop": { "packets": 0, "bytes": 0 }, "packet": packet("outbound") }),
        ),
        about(
            "crawler",
            6,
            EventKind::Drops,
            json!({ "dropped": { "packets": 0, "bytes": 0 },
            "would_drop": { "packets": 5, "bytes": 40 }, "packet": null }),
        ),
        daemon(6, EventKind::Drops, json!({ "dropped": { "packets": 1, "bytes": 1 } })),
        about(
            "crawler",
            7,
            EventKind::OperatorCommand,
            json!({ "command": "release", "flag": null, "reason": null,
            "by": "uid 0", "outcomes": [{ "agent_id": "crawler", "changed": false, "refused": "it is held" }] }),
        ),
        daemon(
            7,
            EventKind::OperatorCommand,
            json!({ "command": "quarantine", "by": "root", "tag": "batch", "outcomes": [] }),
        ),
        about("crawler", 8, EventKind::Snapshot, json!({ "action": "created", "id": "abc", "files": 7 })),
        about("crawler", 8, EventKind::Snapshot, json!({ "action": "failed", "error": "disk full" })),
        daemon(9, EventKind::Loss, json!({ "what": "events", "events_lost": 7 })),
        daemon(9, EventKind::Loss, json!({ "what": "retention", "removed_before": 256 })),
        about(
            "crawler",
            9,
            EventKind::Alert,
            json!({ "alert": "many_trips", "cause": "volume", "trips": 11 }),
        ),
        daemon(
            9,
            EventKind::Alert,
            json!({ "what": "anchor_failing", "anchor": "worm", "error": "no space" }),
        ),
        daemon(9, EventKind::Alert, json!({ "what": "anchor_working", "anchor": "worm" })),
        about("crawler", 10, EventKind::AgentRemoved, json!({})),
        daemon(11, EventKind::DaemonStopped, json!({ "enforcement": "stays in place" })),
    ];
    all.extend(interactions()?);
    // Data of no shape at all must not make a document that nobody takes.
    let odd = [
        json!({}),
        json!([1, "x"]),
        json!("words"),
        json!({ "packet": "x", "dropped": 7, "outcomes": {}, "by": 3 }),
    ];
    all.extend(
        EventKind::ALL
            .into_iter()
            .flat_map(|kind| odd.clone().into_iter().map(move |data| Draft::daemon(at(12), kind, data))),
    );
    Ok(all)
}

fn sealed(drafts: Vec<Draft>) -> Vec<String> {
    let mut sealer = Sealer::new("host.example".into(), "boot".into(), Box::<UuidV7>::default());
    drafts.into_iter().map(|draft| sealer.seal(draft).to_line()).collect()
}

/// A daemon that does not run, with these lines in its log.
fn with_log(lines: &[String]) -> Result<(Lab, Daemon, EvidenceLog)> {
    let lab = Lab::routed(1)?;
    let daemon = Launch::new(lab.host(), &Config::new()).prepare()?;
    let mut log = EvidenceLog::open(&daemon.paths().state().join("log"), "host")?.log;
    log.append(lines, true)?;
    log.publish()?;
    Ok((lab, daemon, log))
}

/// What the schema that the package `ocsf-json-schema` ships says of documents, one in each line.
fn validate(documents: &str) -> Result<Output> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python: PathBuf = tests.join("../target/ocsf/bin/python");
    ensure!(python.exists(), "{} is missing: `cargo xtask setup` makes it", python.display());
    let mut child = Command::new(python)
        .arg(tests.join("ocsf/validate.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("a pipe")?.write_all(documents.as_bytes())?;
    Ok(child.wait_with_output()?)
}

#[track_caller]
fn valid(documents: &str) -> Result<()> {
    let output = validate(documents)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(said.contains(&format!("{} documents, 0 errors", documents.lines().count())), "{said}");
    Ok(())
}

#[test]
fn every_kind_of_event_keeps_to_the_published_schema() -> Result<()> {
    let mut lines = sealed(drafts()?);
    lines.push("this is no event".into());
    lines.push(lines[0].replace("0.1.0", "6.6.6"));
    let (_lab, daemon, _log) = with_log(&lines)?;
    let documents = daemon.cli_ok(&["log", "export", "--format", "ocsf"])?;
    ensure!(documents.lines().count() == lines.len(), "every entry has a document");
    valid(&documents)?;
    let parsed: Vec<Value> = documents.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for kind in EventKind::ALL {
        ensure!(parsed.iter().any(|one| one["metadata"]["event_code"] == kind.name()), "{kind:?}");
    }
    // The check has teeth.
    for (path, value) in [
        ("/severity_id", json!(77)),
        ("/time", json!("now")),
        ("/activity_name", json!("Nonsense")),
        ("/metadata/product", json!({})),
        ("/invented", json!(1)),
    ] {
        let mut broken = parsed[0].clone();
        match broken.pointer_mut(path) {
            Some(place) => *place = value,
            None => broken[&path[1..]] = value,
        }
        ensure!(!validate(&format!("{broken}\n"))?.status.success(), "{path} passes");
    }
    Ok(())
}

#[test]
fn what_a_daemon_records_keeps_to_the_schema_too() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    scene.daemon.cli_ok(&["reload"])?;
    let documents = scene.daemon.cli_ok(&["log", "export"])?;
    ensure!(documents.lines().count() >= 8, "{documents}");
    valid(&documents)?;
    let isolated =
        scene.daemon.cli_ok(&["log", "export", "--agent", NAMES[0], "--type", "CONTAINMENT_ACTION"])?;
    let activities: Vec<Value> = isolated
        .lines()
        .map(|line| Ok(serde_json::from_str::<Value>(line)?["activity_name"].clone()))
        .collect::<Result<_>>()?;
    assert_eq!(activities, ["Isolate", "Restore"]);
    Ok(())
}

fn sequence(line: &str) -> Result<u64> {
    let document: Value = serde_json::from_str(line).with_context(|| format!("a whole line: {line:?}"))?;
    document["metadata"]["sequence"].as_u64().context("a sequence")
}

/// Reads this many lines.
fn take(reader: &mut impl std::io::BufRead, count: usize) -> Result<Vec<u64>> {
    (0..count)
        .map(|_| {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            sequence(&line)
        })
        .collect()
}

fn follow(daemon: &Daemon, more: &[&str]) -> Result<(Child, BufReader<std::process::ChildStdout>)> {
    let mut child =
        daemon.command(&[&["log", "export", "--follow"], more].concat()).stdout(Stdio::piped()).spawn()?;
    let out = BufReader::new(child.stdout.take().context("a pipe")?);
    Ok((child, out))
}

#[test]
fn following_goes_on_where_it_was_and_ends_when_nobody_reads() -> Result<()> {
    let event = |number: u64| about("a", number, EventKind::Drops, json!({ "number": number }));
    let lines = |from: u64, to: u64| sealed((from..to).map(event).collect());
    let (_lab, daemon, mut log) = with_log(&lines(0, 300))?;
    let (mut child, mut out) = follow(&daemon, &[])?;
    assert_eq!(take(&mut out, 300)?, (0..300).collect::<Vec<_>>());
    // What is written ahead, what becomes a tile, and what is both at once.
    for round in 1..4 {
        let from = 300 * round;
        log.append(&lines(from, from + 300), true)?;
        if round > 1 {
            log.publish()?;
        }
        assert_eq!(take(&mut out, 300)?, (from..from + 300).collect::<Vec<_>>());
    }
    let (mut later, mut out_later) = follow(&daemon, &["--after", "1100", "--agent", "a"])?;
    assert_eq!(take(&mut out_later, 99)?, (1101..1200).collect::<Vec<_>>());
    // Nobody reads any more: it ends by itself, though nothing new comes.
    drop((out, out_later));
    for child in [&mut child, &mut later] {
        let status = wait::until("the end", LONG, || child.try_wait().ok().flatten())?;
        assert_eq!(status.code(), Some(0));
    }
    let refused = daemon.cli(&["log", "export", "--follow", "--to", "1m"])?;
    assert_eq!(refused.status.code(), Some(2));
    Ok(())
}
