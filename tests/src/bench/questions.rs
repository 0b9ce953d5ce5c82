//! How quickly the log answers: building the index, one question through it, and an attack chain.
//!
//! A million events unless `--full` asks for the ten millions of the targets; the rows say which. The log is on the
//! disk of the temporary directory and in the page cache, as a log is that was just written.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use agentsec::record::chain::{self, Settings, Story};
use agentsec::record::entries::EventSource;
use agentsec::record::evidence::{EvidenceLog, EvidenceSource, LOG_NAME};
use agentsec::record::index::{Answer, Files, rebuild};
use agentsec::record::query::EventQuery;
use agentsec::record::timestamp::Timestamp;
use anyhow::{Context, Result, ensure};

use super::Options;
use super::row::Row;
use super::statistics::median;

const SMALL: u64 = 1_000_000;
const FULL: u64 = 10_000_000;
/// The chain is always over as many.
const CHAIN: u64 = 1_000_000;
/// Hours that a log lasts, and agents in it: what a question for one of each finds is then 40 or 400 events.
const HOURS: u64 = 25;
const AGENTS: u64 = 1000;
/// 2026-01-01.
const START_MS: u64 = 1_767_225_600_000;
const QUESTIONS: u64 = 21;

/// Measures.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    let events = if options.full { FULL } else { SMALL };
    let directory = tempfile::tempdir().context("making a directory for the log")?;
    let bytes = write_log(directory.path(), events)?;
    let source = EvidenceSource::in_state(directory.path());
    let files = Files::in_state(directory.path());
    let start = Instant::now();
    let built = rebuild(&files, &source)?;
    let took = start.elapsed().as_secs_f64();
    ensure!(built.entries == events && built.unreadable == 0, "{built:?} of {events} events");
    let rate = events as f64 / took;
    let index = fs::metadata(files.index())?.len();
    let mut rows = vec![
        Row::at_least(
            "questions",
            format!("reindexing {} million events of {} bytes", events / SMALL, bytes / events),
            format!("{rate:.0} events/s ({took:.1} s; the index has {} bytes an event)", index / events),
            rate,
            150_000.0,
            " events/s",
        ),
        question(&source, &files, events)?,
    ];
    if events > CHAIN {
        fs::remove_dir_all(directory.path().join(LOG_NAME))?;
        write_log(directory.path(), CHAIN)?;
        rebuild(&files, &source)?;
    }
    rows.push(attack_chain(&source, &files)?);
    Ok(rows)
}

/// Writes a log and says how many bytes its entries have.
fn write_log(directory: &Path, events: u64) -> Result<u64> {
    const AT_ONCE: u64 = 4096;
    let mut log = EvidenceLog::open(&directory.join(LOG_NAME), "bench")?.log;
    let mut bytes = 0;
    for first in (0..events).step_by(AT_ONCE as usize) {
        let numbers = first..(first + AT_ONCE).min(events);
        let lines: Vec<String> = numbers.map(|number| event(number, events)).collect();
        bytes += lines.iter().map(String::len).sum::<usize>() as u64;
        log.append(&lines, false)?;
    }
    log.close()?;
    Ok(bytes)
}

/// An interaction with the fields of a real one. Agent n opens to agent 7·n + k, so that everybody can be reached.
pub(super) fn event(number: u64, events: u64) -> String {
    let agent = number % AGENTS;
    let peer = (agent * 7 + number / AGENTS % 3 + 1) % AGENTS;
    let at = Timestamp(START_MS + number * HOURS * 3_600_000 / events);
    let (local, remote) = (address(agent), address(peer));
    let port = 20_000 + number % 40_000;
    let id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        concat!(
            r#"{{"agent_id":"agent-{agent:04}","boot_id":"5d7e6a3c-9f0b-4c1d-8e2a-0123456789ab","correlation_id":"1:{id:016x}abcdefghijk=","event_data":{{"#,
            r#""auth_method":null,"community_id":"1:{id:016x}abcdefghijk=","first_seen":"{at}","inbound":{{"bytes":5120,"packets":6}},"#,
            r#""last_seen":"{at}","latency_ms":1.25,"local_address":"{local}","local_port":{port},"message_type":"flow","opened_by":"agent","#,
            r#""outbound":{{"bytes":2048,"packets":7}},"payload_hash":null,"protocol":"tcp","remote_address":"{remote}","remote_port":8000,"#,
            r#""reported_id":null,"requests":1,"response_code":200,"source_agent":"agent-{agent:04}","target_agent":null,"trace_id":null}},"#,
            r#""event_id":"01890000-0000-7000-8000-{number:012x}","event_type":"AGENT_INTERACTION","host":"bench","#,
            r#""integrity_hash":"{id:064x}","monotonic_ns":{number},"timestamp":"{at}"}}"#
        ),
        agent = agent,
        id = id,
        at = at,
        local = local,
        port = port,
        remote = remote,
        number = number,
    )
}

fn address(agent: u64) -> String {
    format!("10.0.{}.{}", agent / 250, agent % 250 + 1)
}

/// Different questions by agent and hour, each asked once.
fn question(source: &EvidenceSource, files: &Files, events: u64) -> Result<Row> {
    let mut times = Vec::new();
    let mut found = 0;
    for number in 0..QUESTIONS {
        let hour = START_MS + number % HOURS * 3_600_000;
        let query = EventQuery {
            agent: Some(format!("agent-{:04}", number * 37 % AGENTS)),
            since: Some(Timestamp(hour)),
            until: Some(Timestamp(hour + 3_600_000)),
            ..EventQuery::default()
        };
        let start = Instant::now();
        let answer = Answer::find(files, source, &query)?.context("the index is not used")?;
        let lines = source.entries_at(&answer.places)?;
        found += lines.iter().flatten().filter(|line| query.wants(line)).count();
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    let per_question = events / AGENTS / HOURS;
    let off = (found as f64 / QUESTIONS as f64 - per_question as f64).abs();
    ensure!(off <= 1.0, "{found} events for {QUESTIONS} questions of {per_question} each");
    let slowest = times.iter().copied().fold(0.0, f64::max);
    let middle = median(times);
    Ok(Row::at_most(
        "questions",
        format!("one agent's hour of {} million events", events / SMALL),
        format!("{middle:.2} ms, the slowest of {QUESTIONS} {slowest:.2} ms ({per_question} events)"),
        slowest,
        100.0,
        " ms",
    ))
}

/// From the log on the disk to the finished chain, the best of three: what else runs here only slows it.
fn attack_chain(source: &EvidenceSource, files: &Files) -> Result<Row> {
    let mut best = (Duration::MAX, 0);
    for _ in 0..3 {
        let start = Instant::now();
        let (from, to) = (Timestamp(START_MS), Timestamp(START_MS + HOURS * 3_600_000));
        let mut story = Story::default();
        chain::gather(source, files, (from, to), &mut story)?;
        let settings = Settings { agent: "agent-0000".into(), from, to, common_percent: 50 };
        let chain = chain::find(&story, &settings).context("the agent is in the log")?;
        ensure!(chain.counts.interactions as u64 == CHAIN, "{:?}", chain.counts);
        best = best.min((start.elapsed(), chain.lateral_movement.len()));
    }
    let seconds = best.0.as_secs_f64();
    Ok(Row::at_most(
        "questions",
        "an attack chain over a million interactions, reading them included",
        format!("{seconds:.2} s ({} agents reached)", best.1),
        seconds,
        2.0,
        " s",
    ))
}
