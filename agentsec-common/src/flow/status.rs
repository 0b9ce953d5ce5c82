//! Status lines of HTTP/1, in whatever pieces they come.

use super::{Language, Requests, Segment, is_after};

/// What is known of the remote's side, and the status line that is being read.
///
/// ```text
/// bit 0..16 latest status | 16..20 characters of a status line | 20..30 its digits | 30 heard | 31 reached
///     | 32 finished | 33 adrift | 34 tunnel | 36..40 language | 40..64 answers to HTTP/1 requests
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statuses(pub u64);

const READ_SHIFT: u32 = 16;
const DIGITS_SHIFT: u32 = 20;
const HEARD: u64 = 1 << 30;
const REACHED: u64 = 1 << 31;
const REMOTE_FINISHED: u64 = 1 << 32;
/// Where the next answer begins is not known: one to an earlier request, or an interim one, comes before it.
const ADRIFT: u64 = 1 << 33;
const TUNNEL: u64 = 1 << 34;
const LANGUAGE_SHIFT: u32 = 36;
const COUNT_SHIFT: u32 = 40;
const COUNT_MASK: u32 = (1 << 24) - 1;
/// Characters of a status line up to the status's last digit.
pub const STATUS_LINE: u32 = 12;

/// What the bytes of an answer tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Not yet whether it is a status line.
    Unfinished,
    /// Its status.
    Status(u32),
    /// No status line.
    Foreign,
}

impl Statuses {
    /// The status of the latest answer; zero when there was none.
    #[must_use]
    pub const fn latest(self) -> u16 {
        self.0 as u16
    }

    /// How many HTTP/1 requests have met their answer.
    #[inline(always)]
    #[must_use]
    pub const fn count(self) -> u32 {
        (self.0 >> COUNT_SHIFT) as u32
    }

    /// How many of so many requests have not.
    #[inline(always)]
    #[must_use]
    pub const fn waiting(self, requests: Requests) -> u32 {
        requests.count().wrapping_sub(self.count()) & COUNT_MASK
    }

    /// Characters read of the status line.
    #[inline(always)]
    #[must_use]
    pub const fn read(self) -> u32 {
        (self.0 >> READ_SHIFT) as u32 & 0xf
    }

    /// Whether the remote has said anything.
    #[inline(always)]
    #[must_use]
    pub const fn has_heard(self) -> bool {
        self.0 & HEARD != 0
    }

    /// The same once it has.
    #[inline(always)]
    #[must_use]
    pub const fn hearing(self) -> Self {
        Self(self.0 | HEARD | REACHED)
    }

    /// Whether the remote has accepted the connection.
    #[inline(always)]
    #[must_use]
    pub const fn is_reached(self) -> bool {
        self.0 & REACHED != 0
    }

    /// The same once it has.
    #[inline(always)]
    #[must_use]
    pub const fn reaching(self) -> Self {
        Self(self.0 | REACHED)
    }

    /// Whether the remote has closed its side.
    #[inline(always)]
    #[must_use]
    pub const fn is_finished(self) -> bool {
        self.0 & REMOTE_FINISHED != 0
    }

    /// The same once it has.
    #[inline(always)]
    #[must_use]
    pub const fn finishing(self) -> Self {
        Self(self.0 | REMOTE_FINISHED)
    }

    /// What the remote spoke first on a connection that it opened.
    #[inline(always)]
    #[must_use]
    pub const fn spoken(self) -> Language {
        Language::from_byte((self.0 >> LANGUAGE_SHIFT) as u8 & 0xf)
    }

    /// The same with another language.
    #[inline(always)]
    #[must_use]
    pub const fn speaking(self, language: Language) -> Self {
        Self(self.0 & !(0xf << LANGUAGE_SHIFT) | (language as u64) << LANGUAGE_SHIFT)
    }

    /// Whether another protocol goes on inside the connection.
    #[inline(always)]
    #[must_use]
    pub const fn is_tunnel(self) -> bool {
        self.0 & TUNNEL != 0
    }

    /// Where in a segment the next character of the status line is; `None` when it is not there.
    ///
    /// With one request waiting, at the very place where its answer begins. With several, or after an interim status,
    /// wherever a segment with something new begins, since a bounded reader cannot tell where the answer before ends.
    #[inline(always)]
    #[must_use]
    pub const fn place(self, segment: &Segment, requests: Requests, heard: u32) -> Option<u32> {
        let waiting = self.waiting(requests);
        if waiting == 0 || segment.payload == 0 {
            return None;
        }
        let adrift = waiting > 1 || self.0 & ADRIFT != 0;
        if adrift && self.read() == 0 {
            let is_new = !self.has_heard() || !is_after(heard, segment.sequence);
            return if is_new { Some(0) } else { None };
        }
        // Of several, a line that was cut is continued where the one before it ended.
        let at = if adrift { heard } else { requests.answer().wrapping_add(self.read()) };
        let offset = at.wrapping_sub(segment.sequence);
        if offset < segment.payload { Some(offset) } else { None }
    }

    /// Reads on in the status line: `bytes`, of which `length` are there.
    #[inline(always)]
    #[must_use]
    pub const fn advance(self, bytes: &[u8; 16], length: u32) -> (Self, Line) {
        let mut read = self.read();
        let mut digits = (self.0 >> DIGITS_SHIFT) as u32 & 0x3ff;
        let mut index = 0;
        while index < STATUS_LINE as usize {
            if index as u32 >= length || read >= STATUS_LINE {
                break;
            }
            match take(read, digits, bytes[index]) {
                Some(more) => digits = more,
                None => return (self.without_line(), Line::Foreign),
            }
            read += 1;
            index += 1;
        }
        if read >= STATUS_LINE {
            return (self.without_line(), Line::Status(digits));
        }
        let line = (read as u64) << READ_SHIFT | (digits as u64) << DIGITS_SHIFT;
        (Self(self.without_line().0 | line), Line::Unfinished)
    }

    #[inline(always)]
    const fn without_line(self) -> Self {
        Self(self.0 & !(0x3fff << READ_SHIFT))
    }

    /// After a status (zero for an answer that is none), when so many requests waited: an interim one is followed by
    /// another, and one that switches protocols, or grants what `connecting` asked for, by something else.
    #[inline(always)]
    #[must_use]
    pub const fn met(self, status: u32, waiting: u32, connecting: bool) -> Self {
        let kept = self.0 & !0xffff & !ADRIFT | status as u64 & 0xffff;
        if status >= 100 && status < 200 && status != 101 {
            return Self(kept | ADRIFT);
        }
        let tunnel = status == 101 || connecting && status >= 200 && status < 300;
        let count = (self.count().wrapping_add(1) & COUNT_MASK) as u64;
        let flags = if tunnel { TUNNEL } else { 0 } | if waiting > 1 { ADRIFT } else { 0 };
        Self(kept << 24 >> 24 | count << COUNT_SHIFT | flags)
    }
}

/// The digits of a status line after its next character; `None` when it is not one.
#[inline(always)]
const fn take(read: u32, digits: u32, byte: u8) -> Option<u32> {
    const PREFIX: u64 = u64::from_le_bytes(*b"HTTP/1.x");
    let fits = match read {
        0..=6 => byte == (PREFIX >> (8 * read)) as u8,
        8 => byte == b' ',
        _ => byte >= b'0' && byte <= b'9',
    };
    if !fits {
        return None;
    }
    Some(if read > 8 { digits * 10 + (byte - b'0') as u32 } else { 0 })
}
