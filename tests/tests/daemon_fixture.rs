//! The daemon fixture, tried on a pretender that keeps the outer contract of the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agentsec_tests::daemon::{Config, Daemon, Launch};
use agentsec_tests::netns::Namespace;
use anyhow::Result;

const PRETENDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pretender.sh");
const LONG: Duration = Duration::from_secs(60);

struct Witness(tempfile::TempDir);

impl Witness {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("unloaded")
    }

    fn launch(&self, host: &Namespace) -> Launch {
        let config = Config::new().agent("a", "agent-0");
        Launch::new(host, &config).binary(PRETENDER).environment("PRETENDER_WITNESS", self.path())
    }
}

#[test]
fn a_daemon_answers_and_leaves_nothing_behind() -> Result<()> {
    let (host, witness) = (Namespace::new("host")?, Witness::new()?);
    let daemon = witness.launch(&host).start()?;
    assert_eq!(daemon.status()?["daemon"]["interfaces"], 1, "it runs inside: only lo");
    assert_eq!(daemon.agent("a")?["state"], "CLOSED");
    daemon.wait_for_state("a", "CLOSED", LONG)?;
    assert_eq!(daemon.cli(&["dance"])?.status.code(), Some(64));
    assert!(daemon.said().contains("a pretender starts"));
    let paths = daemon.paths().clone();
    let pid = daemon.pid().map(|pid| PathBuf::from(format!("/proc/{pid}")));
    assert!(paths.pins().join("links").exists() && !witness.path().exists());
    drop(daemon);
    assert!(witness.path().exists(), "enforcement was taken off");
    assert!(!paths.pins().exists() && !paths.run().exists());
    assert!(pid.is_some_and(|pid| !pid.exists()), "the process is gone");
    Ok(())
}

#[test]
fn a_killed_daemon_is_restarted_with_the_same_files() -> Result<()> {
    let (host, witness) = (Namespace::new("host")?, Witness::new()?);
    let mut daemon = witness.launch(&host).start()?;
    assert_eq!(daemon.events()?.len(), 1, "the torn line is not an event yet");
    daemon.stop()?;
    daemon.cont()?;
    assert_eq!(daemon.terminate()?.code(), Some(3));
    assert_eq!(daemon.events()?.len(), 2);
    assert!(!daemon.is_running());
    daemon.restart()?;
    assert_eq!(daemon.events()?.len(), 3);
    daemon.kill9()?;
    assert!(!daemon.is_running() && daemon.status().is_err());
    assert!(!witness.path().exists(), "a crash takes nothing off");
    Ok(())
}

#[test]
fn a_daemon_that_ends_at_once_says_why() -> Result<()> {
    let (host, witness) = (Namespace::new("host")?, Witness::new()?);
    let launch = Launch::new(&host, &Config::new()).binary(PRETENDER);
    let mut daemon = launch.environment("PRETENDER_WITNESS", witness.path()).prepare()?;
    daemon.begin()?;
    let said = format!("{:#}", daemon.wait_ready().expect_err("it cannot be ready"));
    assert!(said.contains("the configuration is empty"), "{said}");
    Ok(())
}

#[test]
fn daemons_side_by_side_share_no_path() -> Result<()> {
    let (host, witness) = (Namespace::new("host")?, Witness::new()?);
    let both: [Daemon; 2] = [witness.launch(&host).start()?, witness.launch(&host).start()?];
    let [first, second] = both.each_ref().map(Daemon::paths);
    assert_ne!(first.pins(), second.pins());
    assert_ne!(first.run(), second.run());
    assert!(first.pins().starts_with(Path::new("/sys/fs/bpf")));
    Ok(())
}
