//! What the forensic log costs: appending with its tree, against SQLite doing the same; checking it, against hashing
//! alone; and handing an event over, which is what the breaker waits for.

use std::path::Path;
use std::time::{Duration, Instant};

use agentsec::clock;
use agentsec::core::{Draft, EventKind};
use agentsec::record::event::UuidV7;
use agentsec::record::evidence::check::check;
use agentsec::record::evidence::{EvidenceLog, LOG_NAME};
use agentsec::record::{Journal, Sealer, Writer};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Options;
use super::questions::event;
use super::row::Row;
use super::statistics::median;

/// Events of a batch, batches of a round, and rounds of each side, one after the other.
const BATCH: u64 = 256;
const BATCHES: u64 = 40;
const ROUNDS: u64 = 9;
/// Tiles and checkpoint follow so long after an event, as in the daemon.
const PUBLISH: Duration = Duration::from_secs(1);
/// Events of the log that is checked.
const CHECKED: u64 = 200_000;
const HANDED: u64 = 5_000;

/// Measures.
pub(super) fn run(_options: &Options) -> Result<Vec<Row>> {
    let directory = tempfile::tempdir().context("making a directory for the log")?;
    Ok(vec![append(directory.path())?, verify(directory.path())?, hand_over(directory.path())?])
}

fn batch(number: u64) -> Vec<String> {
    (number * BATCH..(number + 1) * BATCH).map(|number| event(number, 1 << 30)).collect()
}

/// Batches, each on the disk before the next.
fn append(directory: &Path) -> Result<Row> {
    let mut log = EvidenceLog::open(&directory.join("appended"), "bench")?.log;
    let mut published = Instant::now();
    let database = rusqlite::Connection::open(directory.join("events.db"))?;
    database.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE event (number INTEGER PRIMARY KEY, line TEXT)",
    )?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let batches: Vec<_> = (round * BATCHES..(round + 1) * BATCHES).map(batch).collect();
        let start = Instant::now();
        for batch in &batches {
            log.append(batch, true)?;
            if published.elapsed() >= PUBLISH {
                log.publish()?;
                published = Instant::now();
            }
        }
        ours.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        for batch in &batches {
            insert(&database, batch)?;
        }
        theirs.push(start.elapsed().as_secs_f64());
    }
    let rows: i64 = database.query_row("SELECT count(*) FROM event", [], |row| row.get(0))?;
    ensure!(
        rows as u64 == log.size() && log.size() == ROUNDS * BATCHES * BATCH,
        "{rows} rows, {} entries",
        log.size()
    );
    let ratio = median(ours.iter().zip(&theirs).map(|(ours, theirs)| theirs / ours));
    let rate = |times: Vec<f64>| (BATCHES * BATCH) as f64 / median(times);
    Ok(Row::at_least(
        "log",
        format!("appending batches of {BATCH} events, each synced, against SQLite (WAL, synchronous=FULL)"),
        format!("{ratio:.2}x as fast: {:.0} and {:.0} events/s", rate(ours), rate(theirs)),
        ratio,
        1.0,
        "x",
    ))
}

fn insert(database: &rusqlite::Connection, batch: &[String]) -> Result<()> {
    let transaction = database.unchecked_transaction()?;
    let mut statement = transaction.prepare_cached("INSERT INTO event (line) VALUES (?1)")?;
    for line in batch {
        statement.execute([line])?;
    }
    drop(statement);
    Ok(transaction.commit()?)
}

/// Checking a log in the page cache, and hashing as many bytes, in turns.
fn verify(directory: &Path) -> Result<Row> {
    let mut log = EvidenceLog::open(&directory.join(LOG_NAME), "bench")?.log;
    for number in 0..CHECKED / BATCH {
        log.append(&batch(number), false)?;
    }
    log.close()?;
    let key = log.signer().public();
    let mut ratios = Vec::new();
    let mut rates = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let report = check(log.store(), &key, &[])?;
        let ours = report.bytes as f64 / start.elapsed().as_secs_f64();
        ensure!(report.is_clean(), "{:?}", report.findings);
        let bytes = vec![0x5a; 1 << 20];
        let start = Instant::now();
        let mut hasher = Sha256::new();
        let pieces = report.bytes.div_ceil(bytes.len() as u64);
        (0..pieces).for_each(|_| hasher.update(&bytes));
        std::hint::black_box(hasher.finalize());
        let raw = (pieces * bytes.len() as u64) as f64 / start.elapsed().as_secs_f64();
        ratios.push(ours / raw);
        rates.0.push(ours / 1e6);
        rates.1.push(raw / 1e6);
    }
    let ratio = median(ratios);
    Ok(Row::at_least(
        "log",
        format!("checking {CHECKED} entries against hashing as many bytes"),
        format!("{ratio:.2}x the rate: {:.0} and {:.0} MB/s", median(rates.0), median(rates.1)),
        ratio,
        0.5,
        "x",
    ))
}

/// What the loop waits for at a trip: events one by one, each of which is synced in the log's own thread.
fn hand_over(directory: &Path) -> Result<Row> {
    let log = EvidenceLog::open(&directory.join("handed"), "bench")?.log;
    let sealer = Sealer::new("bench".into(), clock::boot_id(), Box::<UuidV7>::default());
    let (mut writer, _told) = Writer::start(Journal::new(log, sealer, None), clock::now)?;
    let mut times = Vec::new();
    for number in 0..HANDED {
        let data = json!({ "action_type": "ISOLATE", "number": number, "text": "x".repeat(400) });
        let draft = Draft::daemon(clock::now(), EventKind::ContainmentAction, data);
        let start = Instant::now();
        ensure!(writer.write(vec![draft]).is_empty());
        times.push(start.elapsed().as_secs_f64() * 1e6);
        std::thread::sleep(Duration::from_micros(200));
    }
    ensure!(writer.close(), "the thread did not end");
    times.sort_by(f64::total_cmp);
    let p99 = times[times.len() * 99 / 100];
    Ok(Row::at_most(
        "log",
        format!("handing {HANDED} events over, p99: what a trip waits for"),
        format!("{p99:.1} us, median {:.1} us", median(times)),
        p99 / 1000.0,
        1.0,
        " ms",
    ))
}
