//! Child processes that cannot hang, flood or outlive us: a deadline, a bound on what they say, and a process group
//! of their own that is killed as a whole.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How often a child is looked at.
const POLL: Duration = Duration::from_millis(5);
/// The most that is kept of what a child says on its standard error.
const SAID_BYTES: usize = 16 * 1024;
/// Longest line that is handed on; the rest of a longer one is not.
const LINE_BYTES: u64 = 1 << 20;

/// Tells long work to stop.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks for the end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a child came to no end of its own.
#[derive(Debug)]
pub enum ChildError {
    /// It could not be started.
    Spawn(io::Error),
    /// It took longer than it may.
    TimedOut(Duration),
    /// The work was cancelled.
    Cancelled,
    /// Something it said shows that waiting is in vain.
    GaveUp(String),
    /// Reading from it, or waiting for it, failed.
    Io(io::Error),
}

impl fmt::Display for ChildError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(error) => write!(out, "cannot be started: {error}"),
            Self::TimedOut(after) => write!(out, "was killed: it took longer than {} s", after.as_secs()),
            Self::Cancelled => out.write_str("was cancelled"),
            Self::GaveUp(line) => write!(out, "was killed: {line}"),
            Self::Io(error) => write!(out, "was given up: {error}"),
        }
    }
}

impl std::error::Error for ChildError {}

/// Words before a command that make it end when the thread that started it does, even if that is killed; none where
/// there is no `setpriv`.
#[must_use]
pub fn ending_with_us() -> Vec<&'static str> {
    const SETPRIV: &str = "/usr/bin/setpriv";
    if Path::new(SETPRIV).exists() { vec![SETPRIV, "--pdeathsig", "KILL", "--"] } else { Vec::new() }
}

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// With what status.
    pub status: ExitStatus,
    /// The end of what it said on its standard error.
    pub said: String,
    /// Bytes that it wrote on its standard output.
    pub written: u64,
}

/// The bounds of a child.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// The most that it may take.
    pub deadline: Duration,
    /// Ends it when set.
    pub cancel: &'a Cancel,
    /// What a line on its standard error is worth.
    pub hear: &'a (dyn Fn(&str) -> Heard + Sync),
}

/// What a line on a child's standard error is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Being kept, for whoever asks why it failed.
    Kept,
    /// Nothing more: it has been counted.
    Counted,
    /// The end: what it tries is in vain.
    Vain,
}

/// Keeps everything.
pub fn keep(_: &str) -> Heard {
    Heard::Kept
}

/// Runs `command` to its end. Each line of its output goes to `on_line`.
///
/// # Errors
///
/// When it cannot be started or is ended by a bound. It and its children are gone then.
pub fn lines(
    command: &mut Command,
    bounds: Bounds<'_>,
    mut on_line: impl FnMut(&[u8]) + Send,
) -> Result<Ended, ChildError> {
    supervise(command, bounds, move |out| {
        let mut out = BufReader::with_capacity(64 * 1024, out);
        let (mut line, mut total) = (Vec::new(), 0);
        loop {
            line.clear();
            let read = out.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(total);
            }
            total += read as u64;
            on_line(line.strip_suffix(b"\n").unwrap_or(&line));
        }
    })
}

/// Runs `command` to its end and copies its output to `sink`, at most `most` bytes: more is an error.
///
/// # Errors
///
/// As [`lines`], and when there is more or the sink fails.
pub fn copy(
    command: &mut Command,
    bounds: Bounds<'_>,
    most: u64,
    mut sink: impl io::Write + Send,
) -> Result<Ended, ChildError> {
    supervise(command, bounds, move |out| {
        let written = io::copy(&mut out.take(most.saturating_add(1)), &mut sink)?;
        if written > most {
            return Err(io::Error::other(format!("its output is longer than {most} bytes")));
        }
        sink.flush()?;
        Ok(written)
    })
}

/// Runs an operator's command: its output goes to the file `log`, so that what it leaves running may keep it open.
/// What it leaves running is left in peace unless the command itself is ended by a bound.
///
/// # Errors
///
/// As [`lines`], and when the log cannot be made.
pub fn detached(command: &mut Command, bounds: Bounds<'_>, log: &Path) -> Result<Ended, ChildError> {
    // What an earlier command has left running keeps the file that it knows, and this one is its own.
    let _ = std::fs::remove_file(log);
    let file = std::fs::File::create(log).map_err(ChildError::Io)?;
    let again = file.try_clone().map_err(ChildError::Io)?;
    let child = command.stdout(file).stderr(again).process_group(0).spawn().map_err(ChildError::Spawn)?;
    let status = wait(child, bounds, || None)?;
    let said = end_of(log).map_err(ChildError::Io)?;
    Ok(Ended { status, said: String::from_utf8_lossy(&said).trim().to_owned(), written: 0 })
}

/// The end of a file, however long somebody makes it meanwhile.
fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(SAID_BYTES as u64);
    file.seek(io::SeekFrom::Start(from))?;
    let mut said = Vec::new();
    file.take(SAID_BYTES as u64).read_to_end(&mut said)?;
    Ok(said)
}

fn supervise(
    command: &mut Command,
    bounds: Bounds<'_>,
    read: impl FnOnce(std::process::ChildStdout) -> io::Result<u64> + Send,
) -> Result<Ended, ChildError> {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(ChildError::Spawn)?;
    let missing = || ChildError::Io(io::Error::other("a pipe is missing"));
    let out = child.stdout.take().ok_or_else(missing)?;
    let errors = child.stderr.take().ok_or_else(missing)?;
    let group = group_of(&child);
    let vain = Arc::new(std::sync::Mutex::new(None));
    thread::scope(|scope| {
        let heard = Arc::clone(&vain);
        let listener = scope.spawn(move || listen(errors, bounds.hear, &heard));
        let reader = scope.spawn(move || {
            let read = read(out);
            if read.is_err() {
                // A child that nobody reads from would wait for ever.
                kill(group);
            }
            read
        });
        let waited = wait(child, bounds, || vain.lock().ok().and_then(|mut line| line.take()));
        // Whatever it has left running holds the pipes open.
        kill(group);
        let written = reader.join().unwrap_or_else(|_| Err(io::Error::other("the reader failed")));
        let said = listener.join().unwrap_or_default();
        Ok(Ended { status: waited?, said, written: written.map_err(ChildError::Io)? })
    })
}

fn wait(
    mut child: Child,
    bounds: Bounds<'_>,
    mut vain: impl FnMut() -> Option<String>,
) -> Result<ExitStatus, ChildError> {
    let group = group_of(&child);
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(ChildError::Io)? {
            return Ok(status);
        }
        let end = if bounds.cancel.is_cancelled() {
            Some(ChildError::Cancelled)
        } else if started.elapsed() >= bounds.deadline {
            Some(ChildError::TimedOut(bounds.deadline))
        } else {
            vain().map(ChildError::GaveUp)
        };
        if let Some(end) = end {
            kill(group);
            let _ = child.wait();
            return Err(end);
        }
        thread::sleep(POLL);
    }
}

/// Reads what a child complains of; the end of it is kept.
fn listen(
    errors: impl Read,
    hear: &(dyn Fn(&str) -> Heard + Sync),
    vain: &std::sync::Mutex<Option<String>>,
) -> String {
    let mut errors = BufReader::new(errors);
    let (mut line, mut said) = (Vec::new(), String::new());
    loop {
        line.clear();
        match errors.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return said.trim().to_owned(),
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        match hear(&text) {
            Heard::Counted => continue,
            Heard::Kept => {}
            Heard::Vain => {
                if let Ok(mut vain) = vain.lock() {
                    vain.get_or_insert_with(|| text.trim().to_owned());
                }
            }
        }
        said.push_str(&text);
        let mut cut = said.len().saturating_sub(SAID_BYTES);
        while !said.is_char_boundary(cut) {
            cut += 1;
        }
        said.drain(..cut);
    }
}

fn group_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().map(Pid::from_raw)
}

/// Kills a process group. One that is gone already is what was wanted.
fn kill(group: Option<Pid>) {
    if let Some(group) = group {
        let _ = killpg(group, Signal::SIGKILL);
    }
}
