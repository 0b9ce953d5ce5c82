//! Anchors on mounts of their own, and at a running daemon.

use std::fs;
use std::path::{Path, PathBuf};

use agentsec::record::anchor::consistent::newest;
use agentsec::record::anchor::file::FileAnchor;
use agentsec::record::anchor::history::notes;
use agentsec::record::anchor::{Fault, newest_trusted};
use agentsec::record::evidence::check::check;
use agentsec::record::evidence::{EvidenceLog, key};
use agentsec_tests::daemon::{Config, Daemon, Launch};
use agentsec_tests::lab::Lab;
use agentsec_tests::scene::LONG;
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use tempfile::TempDir;

/// Runs `test` on a thread with mounts that nobody else sees and that go with it.
fn with_own_mounts(test: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("private mounts")?;
        test()
    });
    thread.join().map_err(|_| anyhow::anyhow!("the test panicked"))?
}

fn tmpfs(at: &Path, options: &str) -> Result<()> {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options)).context("a tmpfs")
}

struct Log {
    state: TempDir,
}

impl Log {
    fn new() -> Result<Self> {
        Ok(Self { state: tempfile::tempdir()? })
    }

    fn directory(&self) -> PathBuf {
        self.state.path().join("log")
    }

    fn grow(&self, more: u64) -> Result<u64> {
        let mut log = EvidenceLog::open(&self.directory(), "host")?.log;
        let entries: Vec<String> = (0..more).map(|number| format!("entry {number}")).collect();
        log.append(&entries, true)?;
        log.close()?;
        Ok(log.size())
    }

    fn place(&self, anchor: &FileAnchor) -> Result<(), String> {
        let store = agentsec::record::evidence::tiles::TileStore::new(&self.directory());
        let newest = newest(&store).map_err(|error| format!("{error:#}"))?.ok_or("no checkpoint")?;
        anchor.place(&store, None, &newest).map_err(|fault| match fault {
            Fault::Failed(error) => format!("{error:#}"),
            Fault::Contradicted(contradiction) => format!("contradicted: {contradiction}"),
        })
    }
}

#[test]
fn a_mount_that_is_full_read_only_or_missing_is_told_and_what_it_holds_still_vouches() -> Result<()> {
    with_own_mounts(|| {
        let log = Log::new()?;
        let directory = tempfile::tempdir()?;
        let mounted = directory.path().join("worm");
        fs::create_dir(&mounted)?;
        let anchor = FileAnchor { path: mounted.join("checkpoints"), same_device: false };
        log.grow(3)?;
        // Before it is mounted, its directory is on the log's own disk.
        let error = log.place(&anchor).unwrap_err();
        ensure!(error.contains("is its mount missing?"), "{error}");
        tmpfs(&mounted, "size=64k")?;
        log.place(&anchor).map_err(anyhow::Error::msg)?;
        // Full: what does not fit is told, and the end that it has torn hides nothing later.
        fs::write(mounted.join("filler"), vec![0; 59 * 1024])?;
        let (size, error) = loop {
            let size = log.grow(1)?;
            ensure!(size < 200, "it never became full");
            if let Err(error) = log.place(&anchor) {
                break (size, error);
            }
        };
        ensure!(error.contains("No space left"), "{error}");
        let whole = notes(&fs::read_to_string(&anchor.path)?).len();
        fs::remove_file(mounted.join("filler"))?;
        log.place(&anchor).map_err(anyhow::Error::msg)?;
        let key = key::read_public(&log.directory())?;
        let text = fs::read_to_string(&anchor.path)?;
        ensure!(notes(&text).len() > whole, "{text}");
        let trusted = newest_trusted(&[("worm".into(), text)], &key, &[])?;
        assert_eq!(trusted.newest.as_ref().map(|newest| newest.size), Some(size));
        // Read-only.
        let options = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &mounted, None::<&str>, options, None::<&str>)?;
        log.grow(1)?;
        let error = log.place(&anchor).unwrap_err();
        ensure!(error.contains("Read-only file system"), "{error}");
        umount2(&mounted, MntFlags::MNT_DETACH)?;
        ensure!(log.place(&anchor).unwrap_err().contains("is its mount missing?"));
        Ok(())
    })
}

fn anchors(daemon: &Daemon) -> Result<Value> {
    let said = daemon.cli(&["log", "anchors", "--json"])?;
    Ok(serde_json::from_slice(&said.stdout)?)
}

#[test]
fn a_daemon_anchors_its_log_and_says_what_fails() -> Result<()> {
    let lab = Lab::routed(1)?;
    let elsewhere = tempfile::tempdir_in("/dev/shm")?;
    let file = elsewhere.path().join("checkpoints");
    let config = Config::new()
        .set("log.anchors.interval", "1s")
        .set("log.anchors.file.worm.path", file.display().to_string())
        .set("log.anchors.http.gone.url", "http://127.0.0.1:9/");
    let mut daemon = Launch::new(lab.host(), &config).prepare()?;
    let log = daemon.paths().state().join("log");
    {
        let mut begun = EvidenceLog::open(&log, "host")?.log;
        begun.append(&["before the daemon"], true)?;
        begun.close()?;
    }
    daemon.begin()?;
    daemon.wait_ready()?;
    let size = wait::until("an anchored checkpoint", LONG, || {
        anchors(&daemon).ok()?["worm"]["anchored"]["size"].as_u64()
    })?;
    ensure!(size >= 1);
    let alert = wait::until("an alert", LONG, || {
        let said = daemon.cli_ok(&["events", "--json", "--type", "ALERT"]).ok()?;
        said.lines().find(|line| line.contains("anchor_failing")).map(str::to_owned)
    })?;
    let alert: Value = serde_json::from_str(&alert)?;
    assert_eq!(
        (&alert["event_data"]["anchor"], &alert["event_data"]["kind"]),
        (&"gone".into(), &"http".into())
    );
    let said = daemon.cli(&["log", "anchors"])?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(
        said.status.code() == Some(7) && text.contains("failed") && text.contains("worm (file "),
        "{text}"
    );
    let status = daemon.status()?["daemon"]["anchors"].clone();
    ensure!(
        status["worm"]["anchored"]["size"].as_u64() >= Some(size)
            && status["gone"]["failures"].as_u64() > Some(0),
        "{status}"
    );
    let text = daemon.cli_ok(&["status"])?;
    ensure!(
        text.contains("anchored: gone nothing yet, worm ") && text.contains("anchor gone failed"),
        "{text}"
    );
    daemon.terminate()?;
    // What lies outside vouches for what is inside.
    let key = key::read_public(&log)?;
    let trusted = newest_trusted(&[("file".into(), fs::read_to_string(&file)?)], &key, &[])?;
    let store = agentsec::record::evidence::tiles::TileStore::new(&log);
    let report = check(&store, &key, &trusted.kept)?;
    ensure!(report.is_clean() && report.anchored >= size, "{report:?}");
    Ok(())
}
