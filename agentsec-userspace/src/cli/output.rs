//! Where a command's words go. Nothing here panics when the reader has gone.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::error::CliError;
use super::exit::Exit;
use super::style::{Style, Tone};

/// How this command writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
    pub(super) style: Style,
}

impl Output {
    pub(super) fn of_this_process(json: bool) -> Self {
        // https://no-color.org: present and not empty.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { json, style: Style { colors: !json && !unwanted && !dumb && io::stdout().is_terminal() } }
    }

    /// Writes text as it is.
    pub(super) fn text(self, text: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// Writes one object.
    pub(super) fn object(self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value);
        let text = text.map_err(|error| CliError::failure(format!("writing JSON: {error}")))?;
        self.text(&(text + "\n"))
    }

    /// Tells why the command failed, on the standard error.
    pub(super) fn error(self, error: &CliError) -> Exit {
        let CliError::Failed(failure) = error else { return Exit::Ok };
        let mut err = io::stderr().lock();
        // If even this cannot be written there is nobody to tell.
        let _ = if self.json {
            writeln!(err, "{}", serde_json::json!({ "error": failure }))
        } else {
            let style = Style { colors: self.style.colors && io::stderr().is_terminal() };
            let remedy = failure.remedy.iter().map(|remedy| format!("\n  {remedy}")).collect::<String>();
            writeln!(err, "{} {}{remedy}", style.paint(Tone::Bad, "agentsec:"), failure.message)
        };
        failure.exit
    }
}
