//! Snapshots in a real repository, looked at by the real restic.

#[path = "snapshots/children.rs"]
mod children;
#[path = "snapshots/ground.rs"]
mod ground;
#[path = "snapshots/hostile.rs"]
mod hostile;
#[path = "snapshots/remote.rs"]
mod remote;
#[path = "snapshots/tree.rs"]
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use agentsec::clock;
use agentsec::config::recovery::{AgentRecovery, RecoveryConfig};
use agentsec::recovery::staging::{self, Target};
use agentsec::recovery::store::Wish;
use agentsec::recovery::{Cancel, Failure, LaidOut, Moment, Record, Store};
use anyhow::{Context, Result, ensure};

/// A store whose agent's state is the directory `state` beside it.
pub struct Bench {
    home: tempfile::TempDir,
    /// The store.
    pub store: Store,
}

/// Now, in a boot of a name that does not matter.
pub fn now() -> Moment {
    Moment::new(clock::now(), "boot")
}

impl Bench {
    /// In the directory for temporary files.
    pub fn new() -> Result<Self> {
        Self::within(std::env::temp_dir())
    }

    /// In a directory of one's own below `directory`.
    pub fn within(directory: impl AsRef<Path>) -> Result<Self> {
        let home = tempfile::tempdir_in(directory)?;
        let state = home.path().join("state");
        let body = format!("directory = {:?}", state.display().to_string());
        let spec = recovery(&body)?;
        let store = Store::new("a", &spec, &RecoveryConfig::default(), &home.path().join("lib"))?;
        Ok(Self { home, store })
    }

    /// Path of a file beside the state.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Takes a snapshot.
    pub fn create(&self) -> Result<Record, Failure> {
        self.store.create(&Wish::default(), &now, &Cancel::default(), &mut |_, _| {})
    }

    /// Reads one again.
    pub fn verify(&self, id: &str) -> Result<Record, Failure> {
        self.store.verify(id, &now, &Cancel::default(), &mut |_, _| {})
    }

    /// Restores one as `snapshot restore` does.
    pub fn restore(&self, id: &str, to: &Path) -> Result<(), Failure> {
        let target = Target::of(to)?;
        let LaidOut { directory, place, .. } = self.store.lay_out(id, &target, "test", &Cancel::default())?;
        let exchanged = staging::exchange(&directory, &target);
        staging::clear(&place)?;
        exchanged.map(drop)
    }

    /// The real restic, started by hand.
    pub fn restic(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("restic");
        command.args(["--no-cache", "--repo", &self.store.restic.repository, "--password-file"]);
        command.arg(&self.store.restic.key_file).args(arguments);
        command.output().context("running restic: cargo xtask setup installs it")
    }
}

/// A recovery section as an operator writes it.
pub fn recovery(body: &str) -> Result<AgentRecovery> {
    let text = format!("[agents.a]\ninterface = \"v0\"\n[agents.a.recovery]\n{body}\n");
    let config = agentsec::config::parse(&[agentsec::config::Source { name: "test".into(), text }])?;
    config.agents["a"].recovery.clone().context("a recovery section")
}

#[test]
fn create_then_restore_is_the_identity_over_random_trees_and_restic_agrees() -> Result<()> {
    let seed = fastrand::u64(..);
    println!("the seed is {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let bench = Bench::new()?;
    for round in 0..3 {
        let (state, out) = (bench.path("state"), bench.path("out"));
        tree::plant(&state, 150, &mut random)?;
        let expected = tree::entries(&state)?;
        let record = bench.create()?;
        ensure!(bench.verify(&record.id)?.is_verified());
        bench.restore(&record.id, &out)?;
        assert_same(&expected, &tree::entries(&out)?, &format!("ours, round {round} of seed {seed}"));
        let theirs = bench.path("theirs");
        let target = theirs.display().to_string();
        let output = bench.restic(&["restore", &record.id, "--target", &target])?;
        ensure!(output.status.success(), "{output:?}");
        assert_same(&expected, &tree::entries(&theirs.join("state"))?, "restic's");
        for directory in [state, out, theirs] {
            fs::remove_dir_all(directory)?;
        }
    }
    let check = bench.restic(&["check", "--read-data"])?;
    ensure!(check.status.success(), "{check:?}");
    Ok(())
}

#[track_caller]
fn assert_same<T: PartialEq + std::fmt::Debug>(
    expected: &std::collections::BTreeMap<PathBuf, T>,
    found: &std::collections::BTreeMap<PathBuf, T>,
    whose: &str,
) {
    let paths: Vec<_> = expected.keys().chain(found.keys()).collect();
    for path in paths {
        let (expected, found) = (expected.get(path), found.get(path));
        assert!(expected == found, "{whose}: {path:?}\n{expected:.300?}\n{found:.300?}");
    }
}

#[test]
fn an_unchanged_state_adds_next_to_nothing() -> Result<()> {
    let bench = Bench::new()?;
    tree::plant(&bench.path("state"), 60, &mut fastrand::Rng::with_seed(7))?;
    let (first, second) = (bench.create()?, bench.create()?);
    bench.store.compare(&Cancel::default())?;
    let tree = |record: &Record| Ok::<_, Failure>(bench.store.catalogue()?.find(&record.id)?.tree.clone());
    ensure!(tree(&first)?.is_some() && tree(&first)? == tree(&second)?, "the same tree");
    assert_eq!((first.files, first.bytes), (second.files, second.bytes));
    assert!(first.id != second.id && first.added > 10_000 && second.added < 2_000, "{first:?} {second:?}");
    Ok(())
}

#[test]
fn a_commands_output_is_stored_whole_or_not_at_all() -> Result<()> {
    let bench = Bench::new()?;
    let restored = bench.path("restored");
    let with = |script: &str| -> Result<Store> {
        let body = format!(
            "command = [\"/bin/sh\", \"-c\", {script:?}]\nmax_state = \"1kB\"\ncommand_timeout = \"1s\"\n\
             restore = [\"/bin/sh\", \"-c\", \"cat > {}\"]",
            restored.display()
        );
        Ok(Store::new("a", &recovery(&body)?, &RecoveryConfig::default(), &bench.path("lib"))?)
    };
    let create = |store: &Store| store.create(&Wish::default(), &now, &Cancel::default(), &mut |_, _| {});
    for (script, why) in [
        ("echo half; exit 1", "failed"),
        ("head -c 1001 /dev/zero", "longer than 1000 bytes"),
        ("echo half; sleep 300", "took longer"),
    ] {
        let failure = create(&with(script)?).unwrap_err();
        assert!(failure.message.contains(why), "{script}: {failure}");
    }
    let store = with("printf 'the state'")?;
    assert_eq!(store.catalogue()?.records.len(), 0);
    let record = create(&store)?;
    store.verify(&record.id, &now, &Cancel::default(), &mut |_, _| {})?;
    let target = Target::of(&bench.path("none"))?;
    let laid_out = store.lay_out(&record.id, &target, "test", &Cancel::default())?;
    store.feed(&laid_out.directory, &Cancel::default())?;
    staging::clear(&laid_out.place)?;
    assert_eq!(fs::read_to_string(restored)?, "the state");
    Ok(())
}

#[test]
fn handed_over_state_comes_back_as_it_was() -> Result<()> {
    let bench = Bench::new()?;
    let body = "handed = true\nmax_state = \"10B\"\nrestore = [\"/bin/true\"]";
    let store = Store::new("a", &recovery(body)?, &RecoveryConfig::default(), &bench.path("lib"))?;
    let create = || store.create(&Wish::default(), &now, &Cancel::default(), &mut |_, _| {});
    assert!(create().unwrap_err().message.contains("handed over no state"));
    store.hand_over(b"0123456789")?;
    assert!(store.hand_over(b"0123456789x").unwrap_err().message.contains("max_state"));
    assert!(bench.store.hand_over(b"x").is_err(), "a directory's agent hands over nothing");
    let record = create()?;
    let target = Target::of(&bench.path("none"))?;
    let laid_out = store.lay_out(&record.id, &target, "test", &Cancel::default())?;
    assert_eq!(fs::read(laid_out.directory.join("content"))?, b"0123456789");
    Ok(())
}

#[test]
fn states_that_are_handed_over_at_once_are_not_mixed() -> Result<()> {
    const BYTES: usize = 8 << 20;
    let bench = Bench::new()?;
    let body = "handed = true\nrestore = [\"/bin/true\"]";
    let store = Store::new("a", &recovery(body)?, &RecoveryConfig::default(), &bench.path("lib"))?;
    for _ in 0..4 {
        let all = std::thread::scope(|scope| {
            let hands = [b'a', b'b', b'c'].map(|letter| {
                let store = &store;
                scope.spawn(move || store.hand_over(&vec![letter; BYTES]))
            });
            hands.into_iter().all(|hand| hand.join().is_ok_and(|handed| handed.is_ok()))
        });
        assert!(all, "each of them is taken");
        let state = fs::read(store.file("handed/state/content"))?;
        assert!(state.len() == BYTES && state.iter().all(|letter| *letter == state[0]));
    }
    Ok(())
}
