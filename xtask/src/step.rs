//! Runs a command as one step: quiet while it goes well, complete when it does not.
//!
//! Everything goes to standard error, so that a verb whose result is read by a program keeps standard output.

use std::fs::File;
use std::io::{IsTerminal, Read, Seek, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// A step that takes longer than this is worth a word.
const QUIET: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);
/// What is watched from outside is looked at less often.
const LOOK: Duration = Duration::from_millis(500);

/// How steps show themselves.
pub struct Progress {
    verbose: bool,
    terminal: bool,
}

impl Progress {
    /// A spinner and colours on a terminal, plain lines elsewhere; with `verbose` all output as it comes.
    pub fn new(verbose: bool) -> Self {
        Self { verbose, terminal: std::io::stderr().is_terminal() }
    }

    /// Runs a command; its output is shown only if it fails.
    pub fn run(&self, label: &str, command: &mut Command) -> Result<()> {
        let log = tempfile::tempfile().context("cannot create a temporary file for the output")?;
        command.stdin(Stdio::null()).stdout(self.sink(&log)?).stderr(self.sink(&log)?);
        self.finish(label, command, log)
    }

    /// Runs a command whose standard output is for us to read, and returns it.
    pub fn read(&self, label: &str, command: &mut Command) -> Result<String> {
        let log = tempfile::tempfile().context("cannot create a temporary file for the output")?;
        let mut answer = tempfile::tempfile().context("cannot create a temporary file for the output")?;
        command.stdin(Stdio::null()).stdout(answer.try_clone()?).stderr(self.sink(&log)?);
        self.finish(label, command, log)?;
        contents(&mut answer)
    }

    /// Looks again and again until there is an answer; what is being done meanwhile is shown on a terminal.
    pub fn poll<T>(
        &self,
        label: &str,
        mut look: impl FnMut() -> Result<ControlFlow<T, String>>,
    ) -> Result<T> {
        let start = Instant::now();
        let spinner = self.tell(label);
        loop {
            match look()? {
                ControlFlow::Break(answer) => {
                    if let Some(spinner) = spinner {
                        spinner.finish_and_clear();
                    }
                    eprintln!("{label} {}", paint("2", &format!("{:.1} s", start.elapsed().as_secs_f64())));
                    return Ok(answer);
                }
                ControlFlow::Continue(doing) => {
                    if let Some(spinner) = &spinner {
                        spinner.set_message(format!("{label}: {doing}"));
                    }
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Says one thing that the user should know although nothing failed.
    pub fn note(&self, text: &str) {
        eprintln!("{}", paint("33", text));
    }

    /// Says that something was done.
    pub fn done(&self, text: &str) {
        eprintln!("{text}");
    }

    fn sink(&self, log: &File) -> Result<Stdio> {
        if self.verbose {
            let fd = std::io::stderr().as_fd().try_clone_to_owned().context("cannot share standard error")?;
            return Ok(fd.into());
        }
        Ok(log.try_clone().context("cannot share the output file")?.into())
    }

    fn finish(&self, label: &str, command: &mut Command, mut log: File) -> Result<()> {
        if colours() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        let start = Instant::now();
        let status = self.wait(label, command, start)?;
        if !status.success() {
            std::io::stderr().write_all(contents(&mut log)?.as_bytes())?;
            bail!("{label}: failed ({status}): {}", line(command));
        }
        let took = start.elapsed();
        if !self.terminal || took >= QUIET {
            eprintln!("{label} {}", paint("2", &format!("{:.1} s", took.as_secs_f64())));
        }
        Ok(())
    }

    fn wait(&self, label: &str, command: &mut Command, start: Instant) -> Result<ExitStatus> {
        let mut child =
            command.spawn().with_context(|| format!("{label}: cannot start {}", line(command)))?;
        let mut spinner = None;
        let mut told = self.verbose;
        loop {
            if let Some(status) = child.try_wait().with_context(|| format!("{label}: cannot wait"))? {
                if let Some(spinner) = spinner {
                    ProgressBar::finish_and_clear(&spinner);
                }
                return Ok(status);
            }
            if !told && start.elapsed() >= QUIET {
                told = true;
                spinner = self.tell(label);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Says that a step is taking its time.
    fn tell(&self, label: &str) -> Option<ProgressBar> {
        if !self.terminal {
            eprintln!("{label} …");
            return None;
        }
        let style = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}");
        let spinner = ProgressBar::new_spinner().with_elapsed(QUIET);
        if let Ok(style) = style {
            spinner.set_style(style);
        }
        spinner.set_message(label.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(100));
        Some(spinner)
    }
}

/// Wraps text in an SGR sequence where colours are wanted.
pub fn paint(sgr: &str, text: &str) -> String {
    if colours() {
        return format!("\x1b[{sgr}m{text}\x1b[0m");
    }
    text.to_owned()
}

/// An error and its causes, one a line. Without a backtrace: what fails here is a command, not our code.
pub fn chain(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(|cause| cause.to_string().trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n  because: ")
}

/// A command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Whether standard error is a terminal whose user has not declined colours.
pub fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn contents(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind().context("cannot rewind the output")?;
    file.read_to_end(&mut bytes).context("cannot read the output")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIETLY: Progress = Progress { verbose: false, terminal: false };

    #[test]
    fn a_failing_step_names_itself_its_command_and_its_status() {
        let error = QUIETLY.run("build: nothing", &mut Command::new("false")).unwrap_err().to_string();
        assert_eq!(error, "build: nothing: failed (exit status: 1): false");
    }

    #[test]
    fn an_error_is_followed_by_its_causes_and_nothing_else() {
        let error = anyhow::anyhow!("inner\n").context("outer");
        assert_eq!(chain(&error), "outer\n  because: inner");
    }

    #[test]
    fn a_step_hands_back_only_standard_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo answer; echo noise >&2"]);
        assert_eq!(QUIETLY.read("ask", &mut command).unwrap(), "answer\n");
    }

    #[test]
    fn a_command_that_does_not_exist_is_named() {
        let error = QUIETLY.run("ask", &mut Command::new("/nonexistent")).unwrap_err().to_string();
        assert_eq!(error, "ask: cannot start /nonexistent");
    }
}
