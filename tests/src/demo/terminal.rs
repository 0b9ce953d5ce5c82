//! Where the demo speaks: a picture that changes below the story so far, or plain lines, or nothing.

use std::io::{IsTerminal, Write, stdout};
use std::os::fd::AsRawFd;
use std::time::Instant;

/// How something is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// To be watched.
    Warning,
    /// Contained, or wrong.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Strong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Live,
    Plain,
    Silent,
}

/// The demo's output.
#[derive(Debug)]
pub(super) struct Screen {
    kind: Kind,
    drawn: usize,
    start: Instant,
}

impl Screen {
    /// One for standard output; a silent one says nothing.
    pub(super) fn new(silent: bool) -> Self {
        let kind = match (silent, stdout().is_terminal()) {
            (true, _) => Kind::Silent,
            (false, true) => Kind::Live,
            (false, false) => Kind::Plain,
        };
        if kind == Kind::Live {
            say("\x1b[?25l");
        }
        Self { kind, drawn: 0, start: Instant::now() }
    }

    /// `text` in its tone, on a terminal.
    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "1;31",
            Tone::Dim => "2",
            Tone::Strong => "1",
        };
        if self.kind == Kind::Live { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// One more line of the story, with the time.
    pub(super) fn note(&mut self, text: &str) {
        let time = format!("{:5.1} s", self.start.elapsed().as_secs_f64());
        let line = format!("{}  {text}", self.paint(Tone::Dim, &time));
        self.print(&line);
    }

    /// One more line, as it is.
    pub(super) fn print(&mut self, line: &str) {
        if self.kind != Kind::Silent {
            self.erase();
            say(&format!("{line}\n"));
        }
    }

    /// The same; what people must know even if they wanted to hear nothing goes to standard error.
    pub(super) fn insist(&mut self, line: &str) {
        match self.kind {
            Kind::Silent => eprintln!("{line}"),
            Kind::Live | Kind::Plain => self.print(line),
        }
    }

    /// Draws the picture anew, on a terminal.
    pub(super) fn draw(&mut self, lines: &[String]) {
        if self.kind != Kind::Live {
            return;
        }
        let width = width();
        // Erasing and drawing in one piece does not flicker.
        let mut text = erasing(self.drawn);
        for line in lines {
            text += &fit(line, width);
            text.push('\n');
        }
        say(&text);
        self.drawn = lines.len();
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            say(&erasing(self.drawn));
            self.drawn = 0;
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.kind == Kind::Live {
            say("\x1b[?25h");
        }
    }
}

fn erasing(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

/// A reader that has gone away must not keep the demo from cleaning up.
fn say(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn width() -> usize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes one `winsize`, which outlives the call.
    let result = unsafe { libc::ioctl(stdout().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    if result == 0 && size.ws_col > 0 { usize::from(size.ws_col) } else { 80 }
}

/// The part of a line that fits; a wrapped line would not be erased whole. Colours take no room.
fn fit(line: &str, width: usize) -> String {
    let (mut fitted, mut used, mut escaped) = (String::new(), 0, false);
    for character in line.chars() {
        let starts = character == '\x1b';
        if starts || escaped {
            escaped = starts || !character.is_ascii_alphabetic();
        } else if used < width {
            used += 1;
        } else {
            continue;
        }
        fitted.push(character);
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_no_room() {
        assert_eq!(fit("\x1b[1mabc\x1b[0mdef", 4), "\x1b[1mabc\x1b[0md");
        assert_eq!(fit("\x1b[1mabcdef\x1b[0m", 4), "\x1b[1mabcd\x1b[0m");
        assert_eq!(fit("äöü", 3), "äöü");
    }
}
