//! Child processes that hang, flood and leave others behind. Here and not beside the code, since a process that is
//! being started holds the locks of its parent's threads for a moment, which tests of locks there would notice.

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use agentsec::recovery::child::{Bounds, Cancel, ChildError, Heard, copy, detached, lines};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

fn bounds(cancel: &Cancel, deadline: Duration) -> Bounds<'_> {
    Bounds {
        deadline,
        cancel,
        hear: &|line| if line.contains("in vain") { Heard::Vain } else { Heard::Kept },
    }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_a_child_says_is_handed_on_line_by_line() {
    let cancel = Cancel::default();
    let mut lines_seen = Vec::new();
    let ended = lines(&mut shell("printf 'a\\nb'; echo no >&2; exit 3"), bounds(&cancel, LONG), |line| {
        lines_seen.push(line.to_vec());
    })
    .unwrap();
    assert_eq!((lines_seen, ended.written), (vec![b"a".to_vec(), b"b".to_vec()], 3));
    assert_eq!((ended.status.code(), ended.said.as_str()), (Some(3), "no"));
}

#[test]
fn a_child_that_hangs_is_killed_with_its_children() {
    let cancel = Cancel::default();
    let started = Instant::now();
    let hung =
        lines(&mut shell("sleep 300 & sleep 300; wait"), bounds(&cancel, Duration::from_millis(50)), |_| {});
    assert!(matches!(hung, Err(ChildError::TimedOut(_))), "{hung:?}");
    assert!(started.elapsed() < LONG, "the grandchild held the pipe open");
}

#[test]
fn a_child_that_tries_in_vain_and_one_that_is_cancelled_are_ended() {
    let cancel = Cancel::default();
    let vain = lines(&mut shell("echo in vain >&2; sleep 300"), bounds(&cancel, LONG), |_| {});
    assert!(matches!(vain, Err(ChildError::GaveUp(ref line)) if line == "in vain"), "{vain:?}");
    cancel.cancel();
    let cancelled = lines(&mut shell("sleep 300"), bounds(&cancel, LONG), |_| {});
    assert!(matches!(cancelled, Err(ChildError::Cancelled)), "{cancelled:?}");
}

#[test]
fn output_is_bounded() {
    let cancel = Cancel::default();
    let mut kept = Vec::new();
    let ended = copy(&mut shell("printf 12345"), bounds(&cancel, LONG), 5, &mut kept).unwrap();
    assert_eq!((kept.as_slice(), ended.written), (b"12345".as_slice(), 5));
    let flood = copy(&mut shell("cat /dev/zero"), bounds(&cancel, LONG), 5, io::sink());
    assert!(matches!(flood, Err(ChildError::Io(_))), "{flood:?}");
}

#[test]
fn what_an_operators_command_leaves_running_lives_on() {
    let directory = tempfile::tempdir().unwrap();
    let (pid, log) = (directory.path().join("pid"), directory.path().join("log"));
    let script = format!("sleep 300 & echo $! > {}; echo started", pid.display());
    let ended = detached(&mut shell(&script), bounds(&Cancel::default(), LONG), &log).unwrap();
    assert!(ended.status.success() && ended.said == "started", "{ended:?}");
    let left: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(Pid::from_raw(left), Signal::SIGKILL).unwrap();
}

#[test]
fn what_a_command_has_said_is_read_from_its_end_however_long_that_is() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    // Whatever is left running may do so: the file is its standard output.
    let script = format!("truncate --size 1T {0}; echo the end >> {0}", log.display());
    let ended = detached(&mut shell(&script), bounds(&Cancel::default(), LONG), &log).unwrap();
    assert!(ended.said.ends_with("the end") && ended.said.len() <= 16 * 1024, "{} bytes", ended.said.len());
}
