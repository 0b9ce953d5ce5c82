//! What the log answers, through the command line, and read by programs that are not ours.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use agentsec::core::community_id::{DEFAULT_SEED, FlowTuple};
use agentsec::core::interaction::{FlowSummary, Message, OpenedBy, Traffic};
use agentsec::core::{Draft, EventKind, Time};
use agentsec::record::event::UuidV7;
use agentsec::record::evidence::{EvidenceLog, LOG_NAME};
use agentsec::record::{EventSink, Sealer};
use agentsec_tests::daemon::{Config, Daemon, Launch};
use agentsec_tests::lab::Lab;
use agentsec_tests::scene::{LONG, NAMES, Scene, config};
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// 2026-01-01.
const START_S: u64 = 1_767_225_600;

fn at(second: u64) -> Time {
    Time { mono_ns: second * 1_000_000_000, wall_ns: (START_S + second) * 1_000_000_000 }
}

/// What `program` says; it has to succeed.
fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("running {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{program} {arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

fn opened(agent: &str, local: &str, remote: &str, second: u64, bytes: (u64, u64)) -> Result<FlowSummary> {
    let message = Message { trace_id: Some(format!("{second:032x}")), ..Message::default() };
    let (outbound, inbound) =
        (Traffic { bytes: bytes.0, packets: 9 }, Traffic { bytes: bytes.1, packets: 9 });
    let seen = (second * 1_000_000_000, (second + 1) * 1_000_000_000);
    Ok(FlowSummary {
        agent: agent.into(),
        opened_by: OpenedBy::Agent,
        protocol: 6,
        local: local.parse()?,
        remote: remote.parse()?,
        outbound,
        inbound,
        first_seen_ns: seen.0,
        last_seen_ns: seen.1,
        message,
    })
}

/// The same flow as the other side sees it.
fn accepted(agent: &str, flow: &FlowSummary) -> FlowSummary {
    FlowSummary {
        agent: agent.into(),
        opened_by: OpenedBy::Remote,
        local: flow.remote,
        remote: flow.local,
        outbound: flow.inbound,
        inbound: flow.outbound,
        ..flow.clone()
    }
}

/// A is compromised, moves to B and C, and C exfiltrates.
fn story() -> Result<Vec<Draft>> {
    let to_b = opened("a", "10.0.0.1:40001", "10.0.0.2:8000", 20, (2000, 300))?;
    let to_c = opened("b", "10.0.0.2:40002", "10.0.0.3:8000", 30, (4000, 100))?;
    let out = opened("c", "10.0.0.3:40003", "203.0.113.9:443", 40, (5_000_000, 900))?;
    let about = |agent: &str, second, kind, data| Draft {
        agent_id: Some(agent.into()),
        ..Draft::daemon(at(second), kind, data)
    };
    let violation = json!({ "violation_type": "untypical", "attempted_action": "a packet" });
    let trip = json!({
        "action_type": "QUARANTINE", "from": "CLOSED", "to": "OPEN", "by": "kernel", "trigger_reason": "max_volume",
    });
    Ok(vec![
        about("a", 10, EventKind::SecurityViolation, violation),
        to_b.draft(at(21), None),
        accepted("b", &to_b).draft(at(21), None),
        to_c.draft(at(31), None),
        accepted("c", &to_c).draft(at(31), None),
        out.draft(at(41), None),
        about("c", 42, EventKind::ContainmentAction, trip),
    ])
}

/// A daemon that does not run, with the story in its log.
fn with_story() -> Result<(Lab, Daemon)> {
    let lab = Lab::routed(1)?;
    let daemon = Launch::new(lab.host(), &Config::new()).prepare()?;
    let mut sealer = Sealer::new("host".into(), "boot".into(), Box::<UuidV7>::default());
    let events: Vec<_> = story()?.into_iter().map(|draft| sealer.seal(draft)).collect();
    let mut log = EvidenceLog::open(&daemon.paths().state().join(LOG_NAME), "host")?.log;
    EventSink::append(&mut log, &events)?;
    Ok((lab, daemon))
}

fn lines(daemon: &Daemon, filter: &[&str]) -> Result<Vec<Value>> {
    let said = daemon.cli_ok(&[&["events", "--offline", "--json"], filter].concat())?;
    said.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[test]
fn questions_are_answered_without_a_daemon_with_and_without_an_index() -> Result<()> {
    let (_lab, daemon) = with_story()?;
    let flow = lines(&daemon, &["--agent", "b"])?[0]["correlation_id"].clone();
    let flow = flow.as_str().context("a Community ID")?;
    let ask = || -> Result<Vec<usize>> {
        let trace = format!("{:032x}", 30);
        let filters: [&[&str]; 9] = [
            &[],
            &["--agent", "b"],
            &["--type", "SECURITY_VIOLATION,CONTAINMENT_ACTION"],
            &["--correlation", flow],
            &["--correlation", &trace],
            &["--endpoint", "203.0.113.9:443"],
            &["--endpoint", "203.0.113.9:444"],
            &["--endpoint", "10.0.0.2", "--agent", "a"],
            &["--since", "2026-01-01T00:00:31Z", "--until", "2026-01-01T00:00:42Z"],
        ];
        filters.iter().map(|filter| Ok(lines(&daemon, filter)?.len())).collect()
    };
    let expected = [7, 2, 2, 2, 2, 1, 0, 1, 3];
    assert_eq!(ask()?, expected);
    let built: Value = serde_json::from_str(&daemon.cli_ok(&["log", "reindex", "--json"])?)?;
    assert_eq!((&built["entries"], &built["unreadable"]), (&7.into(), &0.into()));
    assert_eq!(ask()?, expected);
    // Whatever the index says, or cannot say, the answers stay.
    let index = daemon.paths().state().join("index/events.db");
    std::fs::write(&index, b"this is no index")?;
    assert_eq!(ask()?, expected);
    Ok(())
}

#[test]
fn sqlite3_reads_the_index() -> Result<()> {
    let (_lab, daemon) = with_story()?;
    daemon.cli_ok(&["log", "reindex"])?;
    let index = daemon.paths().state().join("index/events.db").display().to_string();
    let sql = |sql: &str| output("sqlite3", &["-readonly", &index, sql]);
    assert_eq!(sql("PRAGMA integrity_check")?, "ok\n");
    assert_eq!(
        sql("SELECT agent, type, time FROM event ORDER BY place LIMIT 2")?,
        "a|SECURITY_VIOLATION|2026-01-01T00:00:10.000Z\na|AGENT_INTERACTION|2026-01-01T00:00:21.000Z\n"
    );
    assert_eq!(sql("SELECT sum(entries) FROM tally WHERE class = 0")?, "7\n");
    Ok(())
}

#[test]
fn a_chain_is_the_same_in_each_format() -> Result<()> {
    let (_lab, daemon) = with_story()?;
    let chain = |format: &str| daemon.cli_ok(&["chain", "--agent", "a", "--format", format]);
    let told: Value = serde_json::from_str(&chain("json")?)?;
    let hops = told["lateral_movement"].as_array().context("hops")?;
    let edges: Vec<_> = hops.iter().map(|hop| (&hop["from"], &hop["to"], &hop["hop"])).collect();
    let (a, b, c) = (Value::from("a"), Value::from("b"), Value::from("c"));
    assert_eq!(edges, [(&a, &b, &1.into()), (&b, &c, &2.into())]);
    assert_eq!(told["exfiltration"][0]["endpoint"], "203.0.113.9:443");
    assert_eq!(told["containment"][0]["agent"], "c");
    assert_eq!(told["from"], "2025-12-31T23:00:10.000Z", "an hour before the first sign");
    let text = chain("text")?;
    let found: Vec<_> = ["compromise ", "a → b", "b → c", "c ⇒ tcp 203.0.113.9:443", "QUARANTINE"]
        .iter()
        .map(|part| text.find(part).with_context(|| format!("{part} in {text}")))
        .collect::<Result<_>>()?;
    assert!(found.is_sorted(), "a timeline: {text}");
    let mermaid = chain("mermaid")?;
    assert!(
        mermaid.starts_with("flowchart LR\n") && mermaid.contains("n0 -->") && mermaid.contains("n2 ==>"),
        "{mermaid}"
    );
    let dot = chain("dot")?;
    assert!(
        dot.starts_with("digraph chain {")
            && dot.contains("n0 -> n1")
            && dot.contains("n1 -> n2")
            && dot.contains("n2 -> n3"),
        "{dot}"
    );
    let unknown = daemon.cli(&["chain", "--agent", "nobody"])?;
    assert_eq!(unknown.status.code(), Some(4));
    Ok(())
}

#[test]
fn a_running_daemon_keeps_the_index_and_answers_through_it() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let index = scene.daemon.paths().state().join("index/events.db");
    wait::until("an index", LONG, || index.exists().then_some(()))?;
    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    let said =
        scene.daemon.cli_ok(&["events", "--json", "--agent", NAMES[0], "--type", "containment_action"])?;
    assert_eq!(said.lines().count(), 2, "{said}");
    let refused = scene.daemon.cli(&["events", "--endpoint", "nowhere"])?;
    assert_eq!(refused.status.code(), Some(2));
    let chain: Value =
        serde_json::from_str(&scene.daemon.cli_ok(&["chain", "--agent", NAMES[0], "--json"])?)?;
    assert_eq!(chain["containment"].as_array().map(Vec::len), Some(2), "{chain}");
    Ok(())
}

/// A packet of IP with a transport header of zeros but for its first bytes.
fn packet(flow: &FlowTuple) -> Result<Vec<u8>> {
    let mut payload = vec![0; 20];
    match flow.protocol {
        1 | 58 => (payload[0], payload[1]) = (flow.source_port as u8, flow.destination_port as u8),
        _ => {
            payload[..2].copy_from_slice(&flow.source_port.to_be_bytes());
            payload[2..4].copy_from_slice(&flow.destination_port.to_be_bytes());
        }
    }
    match flow.protocol {
        // The header's length; a SYN.
        6 => (payload[12], payload[13]) = (0x50, 2),
        17 => payload[5] = 20,
        // A chunk that is a COOKIE ACK.
        132 => (payload[12], payload[15]) = (11, 4),
        _ => {}
    }
    let mut packet = Vec::new();
    match (flow.source, flow.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, flow.protocol, 0, 0]);
            packet.extend(source.octets().iter().chain(&destination.octets()));
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60, 0, 0, 0, 0, 20, flow.protocol, 64]);
            packet.extend(source.octets().iter().chain(&destination.octets()));
        }
        _ => anyhow::bail!("two kinds of addresses"),
    }
    Ok([packet, payload].concat())
}

/// A capture of raw IP packets.
fn write_capture(path: &Path, packets: &[Vec<u8>]) -> Result<()> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    for packet in packets {
        let length = packet.len() as u32;
        [0, 0, length, length].iter().for_each(|word: &u32| file.extend(word.to_le_bytes()));
        file.extend(packet);
    }
    std::fs::write(path, file).context("writing a capture")
}

#[test]
fn tshark_gives_flows_the_same_community_ids() -> Result<()> {
    let mut flows = Vec::new();
    for (source, destination) in
        [("10.0.0.9", "10.0.0.2"), ("10.0.0.2", "10.0.0.9"), ("2001:db8::9", "2001:db8::2")]
    {
        let v6 = source.contains(':');
        let (icmp, question, other) = if v6 { (58, 128, 1) } else { (1, 8, 3) };
        for (protocol, source_port, destination_port) in [
            (6, 40_000, 443),
            (6, 80, 80),
            (17, 53, 5353),
            (132, 7, 9),
            (icmp, question, 0),
            (icmp, other, 1),
        ] {
            let (source, destination) = (source.parse()?, destination.parse()?);
            flows.push(FlowTuple { protocol, source, destination, source_port, destination_port });
        }
    }
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("flows.pcap");
    write_capture(&path, &flows.iter().map(packet).collect::<Result<Vec<_>>>()?)?;
    let path = path.display().to_string();
    let arguments =
        ["-n", "-r", &path, "--enable-protocol", "communityid", "-T", "fields", "-e", "communityid"];
    let told = output("tshark", &arguments)?;
    let ours: Vec<_> = flows.iter().map(|flow| flow.community_id(DEFAULT_SEED)).collect();
    assert_eq!(told.lines().collect::<Vec<_>>(), ours, "{flows:#?}");
    Ok(())
}
