//! Colours, for terminals only.

use crate::api::views::{AttachmentStatus, Mode, State};

/// How something is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
    Dim,
    Strong,
}

/// Whether colours are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    pub(super) colors: bool,
}

impl Style {
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "1;31",
            Tone::Dim => "2",
            Tone::Strong => "1",
        };
        if self.colors { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

pub(super) const fn of_state(state: State) -> Tone {
    match state {
        State::Closed => Tone::Good,
        State::HalfOpen => Tone::Warning,
        State::Open => Tone::Bad,
    }
}

pub(super) const fn of_mode(mode: Mode) -> Tone {
    match mode {
        Mode::Enforce => Tone::Plain,
        Mode::Shadow | Mode::Exempt => Tone::Warning,
    }
}

pub(super) const fn of_attachment(status: AttachmentStatus) -> Tone {
    match status {
        AttachmentStatus::Attached => Tone::Plain,
        AttachmentStatus::Pending | AttachmentStatus::Missing => Tone::Warning,
        AttachmentStatus::Failed => Tone::Bad,
    }
}

/// `text` without what a terminal would obey.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}
