//! The agent's processes: who is there, what they run and how they were called. Environment variables are never read.
//!
//! Three passes, the surest first, so that what hangs later costs nothing that was there before: what the kernel says by
//! itself; command lines, which lie in the process's own memory and can hang; and the hashes of what is run, which lie
//! on file systems that can hang as well.

mod digest;
mod stat;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use serde_json::{Map, Value, json};

use crate::core::Time;
use crate::core::time::rfc3339;

use super::guarded::within;
use super::part::Paper;
use super::redact::redact;
use super::text;
use super::whereabouts::Whereabouts;
use stat::Stat;

/// Processes in one bundle.
const MOST_PROCESSES: usize = 4096;
/// Bytes of a command line that are read, and of one argument that are shown.
const COMMAND_BYTES: usize = 16 * 1024;
const ARGUMENT_BYTES: usize = 4096;
/// Bytes of a path that are shown.
const PATH_BYTES: usize = 4096;
/// The most that reading one command line may take.
const COMMAND_LIMIT: Duration = Duration::from_millis(200);

/// A process that was found.
struct Found {
    pid: u32,
    place: usize,
    /// Its directory: of this process for ever, whoever gets its number next.
    directory: File,
    exe: Option<PathBuf>,
}

/// Writes the part.
pub(super) fn write(paper: &Paper, where_: &Whereabouts, now: Time) -> Result<(), String> {
    where_.unknown.iter().for_each(|why| paper.lacks(why.clone()));
    if where_.nets.is_empty() && where_.cgroups.is_empty() {
        paper.cannot_be_known("no cgroup and no network namespace of the agent is known");
        return Ok(());
    }
    paper.fact("environment", "never collected");
    paper.fact("cgroups", where_.cgroups.clone());
    let nets: Vec<Value> =
        where_.nets.iter().map(|net| json!({ "inode": net.inode, "because": net.because })).collect();
    paper.fact("network_namespaces", nets);
    let mut found = list(paper, where_, now)?;
    commands(paper, &found);
    digest::write(paper, &mut found);
    Ok(())
}

/// First pass: everybody who is in one of the agent's cgroups or namespaces.
fn list(paper: &Paper, where_: &Whereabouts, now: Time) -> Result<Vec<Found>, String> {
    let inodes: BTreeSet<u64> = where_.nets.iter().map(|net| net.inode).collect();
    let clock = stat::Clock::of(now);
    let (mut found, mut beyond, mut vanished) = (Vec::new(), 0_usize, 0_usize);
    for entry in fs::read_dir("/proc").map_err(|error| format!("reading /proc: {error}"))? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if paper.is_late() {
            paper.lacks("time was up while processes were being listed");
            break;
        }
        let net = net_of(pid);
        let in_net = net.is_some_and(|inode| inodes.contains(&inode));
        let in_cgroup = where_.members.contains(&pid);
        if !in_net && !in_cgroup {
            continue;
        }
        if found.len() >= MOST_PROCESSES {
            beyond += 1;
            continue;
        }
        match describe(pid, &clock) {
            Some((directory, mut about, exe)) => {
                about.insert("in_cgroup".into(), in_cgroup.into());
                about.insert("in_network_namespace".into(), in_net.into());
                about.insert("network_namespace".into(), net.into());
                let Some(place) = paper.item(about.into()) else { break };
                found.push(Found { pid, place, directory, exe });
            }
            None => vanished += 1,
        }
    }
    paper.fact("vanished_meanwhile", vanished);
    if beyond > 0 {
        paper.lacks(format!("{beyond} processes beyond the first {MOST_PROCESSES} are left out"));
    }
    Ok(found)
}

/// Inode number of a process's network namespace.
fn net_of(pid: u32) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// What the kernel says of a process by itself; `None` for one that has gone.
fn describe(pid: u32, clock: &stat::Clock) -> Option<(File, Map<String, Value>, Option<PathBuf>)> {
    let directory = File::open(format!("/proc/{pid}")).ok()?;
    let stat = Stat::parse(&read(&directory, "stat", 4096)?)?;
    let mut about = Map::new();
    about.insert("pid".into(), pid.into());
    about.insert("parent_pid".into(), stat.parent.into());
    about.insert("state".into(), stat.state.to_string().into());
    text::put(&mut about, "name", &stat.name, 64);
    about.insert("started".into(), rfc3339(clock.wall_ns(stat.start_ticks)).into());
    about.insert("start_ticks".into(), stat.start_ticks.into());
    if let Some(status) = read(&directory, "status", 64 * 1024) {
        for (key, name) in
            [("Uid", "uid"), ("Gid", "gid"), ("Threads", "threads"), ("NSpid", "pid_in_namespaces")]
        {
            if let Some(value) = stat::status_field(&status, key) {
                about.insert(name.into(), value);
            }
        }
    }
    if let Some(cgroup) = read(&directory, "cgroup", PATH_BYTES) {
        let path = cgroup.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
        if let Some(path) = path {
            text::put(&mut about, "cgroup", path, PATH_BYTES);
        }
    }
    let exe = readlinkat(&directory, "exe").ok();
    if let Some(exe) = &exe {
        let bytes = exe.as_bytes();
        let deleted = bytes.strip_suffix(b" (deleted)");
        text::put(&mut about, "exe", deleted.unwrap_or(bytes), PATH_BYTES);
        about.insert("exe_deleted".into(), deleted.is_some().into());
    }
    Some((directory, about, exe.map(PathBuf::from)))
}

/// A file of a process, through its directory: never another process's.
fn open(directory: &File, name: &str) -> Option<File> {
    openat(directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok().map(File::from)
}

/// At most `most` bytes of such a file.
fn read(directory: &File, name: &str, most: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    open(directory, name)?.take(most as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Second pass: command lines. One that hangs costs its own time only.
fn commands(paper: &Paper, found: &[Found]) {
    for process in found {
        let limit = COMMAND_LIMIT.min(paper.left());
        if limit.is_zero() {
            return paper.lacks("time was up while command lines were being read");
        }
        let Some(file) = open(&process.directory, "cmdline") else { continue };
        let read = within("cmdline", limit, move || {
            let mut bytes = Vec::new();
            file.take(COMMAND_BYTES as u64 + 1).read_to_end(&mut bytes).map(|_| bytes)
        });
        match read {
            Ok(Ok(bytes)) => paper.amend(process.place, command(&bytes)),
            Ok(Err(_)) => {}
            Err(lost) => paper.lacks(format!("the command line of process {} {}", process.pid, lost.why())),
        }
    }
}

/// A command line as it is shown: secrets overwritten, arguments bounded, what is no text visible.
fn command(bytes: &[u8]) -> Map<String, Value> {
    let kept = &bytes[..bytes.len().min(COMMAND_BYTES)];
    let line = kept.strip_suffix(b"\0").unwrap_or(kept);
    let arguments: Vec<&[u8]> =
        if line.is_empty() { Vec::new() } else { line.split(|byte| *byte == 0).collect() };
    let (shown, redacted) = redact(&arguments);
    let mut fields = Map::new();
    let cut = |argument: &Vec<u8>| argument[..argument.len().min(ARGUMENT_BYTES)].to_vec();
    let shown: Vec<Vec<u8>> = shown.iter().map(cut).collect();
    fields.insert("command_line".into(), shown.iter().map(|bytes| text::visible(bytes)).collect());
    if !shown.iter().all(|argument| text::is_plain(argument)) {
        fields.insert("command_line_hex".into(), shown.iter().map(|bytes| super::hex(bytes)).collect());
    }
    if redacted > 0 {
        fields.insert("secrets_redacted".into(), redacted.into());
    }
    if bytes.len() > COMMAND_BYTES || shown.iter().any(|argument| argument.len() == ARGUMENT_BYTES) {
        fields.insert("command_line_cut".into(), true.into());
    }
    fields
}

/// Socket inodes that processes hold open, with the first process that does. Bounded by `most` descriptors.
pub(super) fn sockets_of(pids: &BTreeSet<u32>, most: usize, paper: &Paper) -> BTreeMap<u64, u32> {
    let (mut holders, mut seen) = (BTreeMap::new(), 0);
    for pid in pids {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            if seen > most || paper.is_late() {
                paper.lacks(format!("who holds which socket was looked for in {seen} descriptors only"));
                return holders;
            }
            if let Some(inode) = socket_of(&entry.path()) {
                holders.entry(inode).or_insert(*pid);
            }
        }
    }
    holders
}

fn socket_of(descriptor: &Path) -> Option<u64> {
    let link = fs::read_link(descriptor).ok()?;
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Everybody in the agent's cgroups and namespaces.
pub(super) fn pids(where_: &Whereabouts) -> BTreeSet<u32> {
    let inodes: BTreeSet<u64> = where_.nets.iter().map(|net| net.inode).collect();
    let mut pids = where_.members.clone();
    if inodes.is_empty() {
        return pids;
    }
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.extend(
        all.filter(|pid| net_of(*pid).is_some_and(|inode| inodes.contains(&inode))).take(MOST_PROCESSES),
    );
    pids
}

/// What a file is known by, to hash it once however many run it.
type Identity = (u64, u64, u64, i64, i64);

fn identity(file: &File) -> Option<Identity> {
    let about = file.metadata().ok()?;
    Some((about.dev(), about.ino(), about.len(), about.mtime(), about.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::super::part::Status;
    use super::*;
    use crate::clock;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn a_command_line_is_bounded_visible_and_without_its_secrets() {
        let fields = command(b"tool\0--token=hunter2\0\xff\x1b\0\0last\0");
        assert_eq!(fields["command_line"], json!(["tool", "--token=[redacted]", "\\xff\\u{1b}", "", "last"]));
        assert_eq!(fields["command_line_hex"][2], "ff1b");
        assert_eq!(fields["secrets_redacted"], 1);
        assert!(!serde_json::to_string(&fields).unwrap().contains(&super::super::hex(b"hunter2")));
        let long = [vec![b'a'; 3 * COMMAND_BYTES], vec![0]].concat();
        let fields = command(&long);
        assert_eq!(fields["command_line_cut"], true);
        assert_eq!(fields["command_line"][0].as_str().unwrap().len(), ARGUMENT_BYTES);
        assert_eq!(command(b"")["command_line"], json!([]), "as of a thread of the kernel");
    }

    #[test]
    fn a_process_is_told_as_it_is() {
        let mut child = Command::new("/bin/sleep").arg0("a (b) c").arg("600").spawn().unwrap();
        let inode = net_of(child.id());
        let where_ =
            Whereabouts { members: [child.id()].into(), cgroups: vec!["x".into()], ..Whereabouts::default() };
        let paper = Paper::new(Duration::from_secs(60), 1 << 20);
        // Until it has become what it runs.
        while fs::read(format!("/proc/{}/cmdline", child.id()))
            .is_ok_and(|line| !line.starts_with(b"a (b) c"))
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        write(&paper, &where_, clock::now()).unwrap();
        let part = paper.finish("processes.json", Ok(()), Duration::ZERO);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((part.status, &part.reasons), (Status::Complete, &Vec::new()));
        let document: Value = serde_json::from_slice(&part.bytes).unwrap();
        let process = &document["items"][0];
        assert_eq!(
            (&process["pid"], &process["parent_pid"]),
            (&child.id().into(), &std::process::id().into())
        );
        assert_eq!(process["command_line"], json!(["a (b) c", "600"]));
        assert_eq!(process["uid"][0], nix::unistd::getuid().as_raw());
        assert_eq!(process["network_namespace"], json!(inode));
        let exe = fs::canonicalize("/bin/sleep").unwrap();
        assert_eq!(process["exe"], exe.to_str().unwrap());
        assert_eq!(process["exe_sha256"], super::super::sha256(&fs::read(exe).unwrap()));
        let started: crate::api::Timestamp = process["started"].as_str().unwrap().parse().unwrap();
        assert!(crate::api::Timestamp::now().0.abs_diff(started.0) < 60_000, "{process}");
    }
}
