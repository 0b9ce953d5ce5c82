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

/// `text` without what a terminal would obey: control characters, and those that turn the direction of writing, which make
/// one text look like another.
pub(super) fn harmless(text: &str) -> String {
    let turns = |character| matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown =
        |character: char| if character.is_control() || turns(character) { '\u{fffd}' } else { character };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn what_a_terminal_would_obey_is_replaced() {
        assert_eq!(harmless("a\u{1b}[2J\u{202e}b\n\u{2066}c"), "a\u{fffd}[2J\u{fffd}b\u{fffd}\u{fffd}c");
        assert_eq!(harmless("naïve → 日本語 עברית"), "naïve → 日本語 עברית");
    }
}
