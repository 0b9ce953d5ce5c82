//! Old entries leave the log while it is being written: to an S3 server that is not ours, and at a running daemon.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use agentsec::config::LogConfig;
use agentsec::config::log::{Destination, KeepLog, S3Config};
use agentsec::core::Time;
use agentsec::core::time::rfc3339;
use agentsec::record::evidence::check::check;
use agentsec::record::evidence::tiles::entries_in;
use agentsec::record::evidence::{EvidenceLog, key};
use agentsec::record::retention::{Retention, Told, accounted_for};
use agentsec_tests::daemon::{Config, Launch};
use agentsec_tests::lab::Lab;
use agentsec_tests::scene::LONG;
use agentsec_tests::wait;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

const SECOND: u64 = 1_000_000_000;

/// A server of moto's, until it is dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start() -> Result<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/object-store/bin/moto_server");
        ensure!(program.exists(), "{} is missing: `cargo xtask setup` makes it", program.display());
        // Free a moment ago; who takes it meanwhile makes the start fail, not the test pass.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let child = Command::new(program)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self { child, url: format!("http://127.0.0.1:{port}") };
        wait::until("the server", LONG, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())?;
        Ok(server)
    }

    /// What curl says to a request.
    fn curl(&self, method: &str, path: &str) -> Result<Vec<u8>> {
        let url = format!("{}{path}", self.url);
        let signed = ["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", "key:secret"];
        let output = Command::new("curl")
            .args(signed)
            .args(["--silent", "--fail", "--request", method, &url])
            .output()?;
        ensure!(output.status.success(), "{method} {url}: {output:?}");
        Ok(output.stdout)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn entry(number: u64) -> String {
    json!({ "event_type": "DROPS", "number": number, "timestamp": rfc3339((1_700_000_000 + number) * SECOND) })
        .to_string()
}

fn config(server: &Server, credentials: &Path) -> LogConfig {
    let mut config = LogConfig::default();
    config.retention.interval_ns = SECOND;
    config.retention.keep = KeepLog { age_ns: Some(60 * SECOND), bytes: None };
    config.retention.ship_to = Some(Destination::S3(S3Config {
        bucket: "evidence".into(),
        prefix: "hosts/one".into(),
        endpoint: Some(server.url.clone()),
        region: "us-east-1".into(),
        credentials_file: credentials.into(),
        ca_file: None,
    }));
    config
}

#[test]
fn old_bundles_go_to_s3_while_the_log_is_written_and_what_stays_is_proved() -> Result<()> {
    let server = Server::start()?;
    server.curl("PUT", "/evidence")?;
    let state = tempfile::tempdir()?;
    let credentials = state.path().join("credentials");
    fs::write(&credentials, "AWS_ACCESS_KEY_ID=key\nAWS_SECRET_ACCESS_KEY=secret\n")?;
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600))?;
    let directory = state.path().join("log");
    let mut log = EvidenceLog::open(&directory, "host")?.log;
    log.append(&(0..1000).map(entry).collect::<Vec<_>>(), true)?;
    log.publish()?;
    let (sender, told) = channel();
    let tell = Box::new(move |one| drop(sender.send(one)));
    let retention = Retention::start(config(&server, &credentials), state.path(), tell)?;
    let intent = match told.recv_timeout(LONG)? {
        Told::Going(intent) => intent,
        Told::Failing(error) => bail!("{error}"),
    };
    assert_eq!((intent.from, intent.to), (0, 768));
    // The writer goes on; the event is one of many.
    let draft = intent.draft(Time::default());
    let event = json!({ "event_type": draft.kind.name(), "event_data": draft.data, "timestamp": rfc3339(9 * SECOND) });
    let more: Vec<String> = (1000..1300).map(entry).chain([event.to_string()]).collect();
    for batch in more.chunks(50) {
        log.append(batch, true)?;
        log.publish()?;
    }
    let gone = directory.join("tile/entries/002");
    wait::until("the bundles' removal", LONG, || (!gone.exists()).then_some(()))?;
    drop(retention);
    log.close()?;
    let report = check(log.store(), &key::read_public(&directory)?, &[])?;
    ensure!(report.is_clean() && report.removed >= 768, "{report:?}");
    let source = agentsec::record::evidence::EvidenceSource::new(&directory);
    ensure!(accounted_for(&source)? >= 768);
    // What the server has are the bundles, as another client gets them.
    let listed = String::from_utf8(server.curl("GET", "/evidence?list-type=2")?)?;
    let prefix = format!("hosts/one/{}", intent.origin);
    for name in ["tile/entries/000", "tile/entries/001", "tile/entries/002", "key.pub", "checkpoint.1000"] {
        ensure!(listed.contains(&format!("<Key>{prefix}/{name}</Key>")), "{name} in {listed}");
    }
    let bundle = server.curl("GET", &format!("/evidence/{prefix}/tile/entries/001"))?;
    let entries = entries_in(&bundle).context("a bundle")?;
    assert_eq!((entries.len(), entries[7]), (256, entry(263).as_bytes()));
    Ok(())
}

#[test]
fn a_daemon_lets_old_entries_go_under_an_event_of_its_own_and_again_after_kill_9() -> Result<()> {
    let lab = Lab::routed(1)?;
    let archive = tempfile::tempdir()?;
    let config = Config::new()
        .set("log.retention.interval", "1s")
        .set("log.retention.keep.age", "60s")
        .set("log.retention.ship_to", archive.path().display().to_string());
    let mut daemon = Launch::new(lab.host(), &config).prepare()?;
    let directory = daemon.paths().state().join("log");
    {
        let mut begun = EvidenceLog::open(&directory, "host")?.log;
        begun.append(&(0..1000).map(entry).collect::<Vec<_>>(), true)?;
        begun.close()?;
    }
    daemon.begin()?;
    daemon.wait_ready()?;
    let gone = directory.join("tile/entries/002");
    // Whatever it was at, the next one finishes.
    daemon.kill9()?;
    daemon.restart()?;
    wait::until("the bundles' removal", LONG, || (!gone.exists()).then_some(()))?;
    let said = daemon.cli_ok(&["events", "--json", "--type", "LOSS"])?;
    let told: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let retention =
        told.iter().find(|event| event["event_data"]["what"] == "retention").context("the event")?;
    assert_eq!(retention["event_data"]["removed_before"], 768);
    assert_eq!(retention["event_data"]["shipped_to"].as_str(), archive.path().to_str());
    let origin = retention["event_data"]["log"].as_str().context("the log's name")?;
    ensure!(archive.path().join(origin).join("tile/entries/002").exists());
    daemon.terminate()?;
    let verified = daemon.cli(&["log", "verify", "--json"])?;
    let report: Value = serde_json::from_slice(&verified.stdout).with_context(|| format!("{verified:?}"))?;
    ensure!(verified.status.success() && report.to_string().contains("\"removed\":768"), "{report}");
    let plan =
        daemon.cli_ok(&["log", "retention", "--config", &daemon.paths().config().display().to_string()])?;
    ensure!(plan.contains("those before entry 768 have gone"), "{plan}");
    Ok(())
}
