//! The agent's side of a connection: what it has sent, and what it asks.

use super::{Language, Segment, is_after};
use crate::packet::tcp;

/// What the agent has sent: the greatest sequence number, and what is known of its side.
///
/// ```text
/// bit 0..32 sequence | 32 started | 33 pushed | 34 finished | 35 read | 36 connect | 37 midway | 38 ciphered | 40..48 language
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent(pub u64);

pub(super) const STARTED: u64 = 1 << 32;
const PUSHED: u64 = 1 << 33;
const FINISHED: u64 = 1 << 34;
const READ: u64 = 1 << 35;
const CONNECT: u64 = 1 << 36;
const MIDWAY: u64 = 1 << 37;
const CIPHERED: u64 = 1 << 38;
const LANGUAGE_SHIFT: u32 = 40;

impl Sent {
    /// Before the connection's first packet. With `read` its payload is looked at.
    #[inline(always)]
    #[must_use]
    pub const fn new(read: bool, midway: bool) -> Self {
        Self((if read { READ } else { 0 }) | (if midway { MIDWAY } else { 0 }))
    }

    /// What is spoken; [`Language::Other`] where payload is not to be read.
    #[inline(always)]
    #[must_use]
    pub const fn language(self) -> Language {
        if self.0 & READ == 0 { Language::Other } else { self.spoken() }
    }

    /// Whether payload is looked at.
    #[inline(always)]
    #[must_use]
    pub const fn is_read(self) -> bool {
        self.0 & READ != 0
    }

    /// Whether nothing was sent yet that is known.
    #[inline(always)]
    #[must_use]
    pub const fn is_fresh(self) -> bool {
        self.0 & STARTED == 0
    }

    /// What was found to be spoken.
    #[inline(always)]
    #[must_use]
    pub const fn spoken(self) -> Language {
        Language::from_byte((self.0 >> LANGUAGE_SHIFT) as u8)
    }

    /// The same with another language.
    #[inline(always)]
    #[must_use]
    pub const fn speaking(self, language: Language) -> Self {
        Self(self.0 & !(0xff << LANGUAGE_SHIFT) | (language as u64) << LANGUAGE_SHIFT)
    }

    /// The same when the latest request asks for a tunnel, or does not.
    #[inline(always)]
    #[must_use]
    pub const fn connecting(self, connect: bool) -> Self {
        Self(if connect { self.0 | CONNECT } else { self.0 & !CONNECT })
    }

    /// Whether the latest request asked for a tunnel; on HTTP/2, whether there was any request.
    #[inline(always)]
    #[must_use]
    pub const fn is_connecting(self) -> bool {
        self.0 & CONNECT != 0
    }

    /// Whether the agent has closed its side.
    #[inline(always)]
    #[must_use]
    pub const fn is_finished(self) -> bool {
        self.0 & FINISHED != 0
    }

    /// Whether the connection's begin was not seen.
    #[inline(always)]
    #[must_use]
    pub const fn is_midway(self) -> bool {
        self.0 & MIDWAY != 0
    }

    /// The sequence number after all that was sent.
    #[inline(always)]
    #[must_use]
    pub const fn end(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    const fn with_end(self, end: u32) -> Self {
        Self(self.0 & !0xffff_ffff | end as u64)
    }
}

/// What the agent asked, until it is answered: how often it has, and where the first message that is not answered ends. On
/// DNS the latter is that message's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked(pub u64);

impl Asked {
    /// A count and an end.
    #[inline(always)]
    #[must_use]
    pub const fn new(count: u32, end: u32) -> Self {
        Self((count as u64) << 32 | end as u64)
    }

    /// How many messages.
    #[inline(always)]
    #[must_use]
    pub const fn count(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The end of the first that is not answered.
    #[inline(always)]
    #[must_use]
    pub const fn end(self) -> u32 {
        self.0 as u32
    }

    /// Whether the remote says in `segment` that it has all of that.
    #[inline(always)]
    #[must_use]
    pub const fn is_acknowledged(self, segment: &Segment) -> bool {
        !is_after(self.end(), segment.acknowledgment)
    }
}

/// HTTP/1 requests: how many, and the sequence number at which the answer to the latest message begins (the agent's
/// acknowledgement when it asked).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests(pub u64);

impl Requests {
    /// A count and where the answer begins.
    #[inline(always)]
    #[must_use]
    pub const fn new(count: u32, answer: u32) -> Self {
        Self((count as u64) << 32 | answer as u64)
    }

    /// How many.
    #[inline(always)]
    #[must_use]
    pub const fn count(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Where the answer begins.
    #[inline(always)]
    #[must_use]
    pub const fn answer(self) -> u32 {
        self.0 as u32
    }
}

/// Bytes of a TLS record that changes the cipher; no other one of a handshake is as short.
const CHANGE_CIPHER_SPEC_BYTES: u32 = 6;

/// Whether a segment of the agent begins a message.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// If the segment before it was pushed.
    Unread = 0,
    /// It does: it reads as a request.
    Request = 1,
    /// It does not: requests can be read here, and this is none.
    Rest = 2,
    /// If the segment before it was pushed, and it may be one that nobody answers: streams that share a connection
    /// acknowledge and keep house.
    Shared = 3,
    /// If the segment before it was pushed, within a TLS handshake: but the connection's first change of cipher by itself is no
    /// message, since nobody answers it. Clients send it as soon as they have read the begin of what the server says, and
    /// the rest of that would be taken for its answer.
    Handshake = 4,
}

impl Start {
    /// From its byte.
    #[inline(always)]
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Request,
            2 => Self::Rest,
            3 => Self::Shared,
            4 => Self::Handshake,
            _ => Self::Unread,
        }
    }
}

/// What a segment of the agent is in the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing new: no payload, a retransmission, a keep-alive.
    Nothing,
    /// A message begins, and nothing else waits for an answer: time runs from now.
    Asks,
    /// A message begins while another one waits.
    AsksMore,
    /// The same, where the one that waits may be waiting for nothing: time runs from now.
    AsksAnew,
    /// A message that waits goes on; with `ends` it ends here, and time runs from now.
    GoesOn {
        /// Whether this is its end.
        ends: bool,
    },
}

/// The agent's words of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asking {
    /// [`Flow::sent`].
    pub sent: Sent,
    /// [`Flow::asked`].
    pub asked: Asked,
    /// Where the answer to what is asked begins.
    pub answer: u32,
}

impl Asking {
    /// The words after a segment of the agent, of which the remote has answered `answered`.
    #[inline(always)]
    #[must_use]
    pub const fn tcp(self, segment: &Segment, start: Start, answered: u32) -> (Self, Says) {
        let Self { mut sent, asked, answer } = self;
        if sent.0 & STARTED == 0 {
            // What comes before the first segment was pushed, as far as we know.
            sent = Sent(sent.0 | STARTED | PUSHED).with_end(segment.sequence);
        }
        let end = segment.end();
        if !is_after(end, sent.end()) {
            return (Self { sent, asked, answer }, Says::Nothing);
        }
        let begins = match start {
            Start::Request => true,
            Start::Rest => false,
            Start::Unread | Start::Shared | Start::Handshake => sent.0 & PUSHED != 0,
        };
        sent = sent.with_end(end);
        if segment.has(tcp::FIN) {
            sent = Sent(sent.0 | FINISHED);
        }
        if segment.payload == 0 {
            return (Self { sent, asked, answer }, Says::Nothing);
        }
        if matches!(start, Start::Handshake)
            && segment.payload == CHANGE_CIPHER_SPEC_BYTES
            && sent.0 & CIPHERED == 0
        {
            return (Self { sent: Sent(sent.0 | CIPHERED), asked, answer }, Says::Nothing);
        }
        let ends = segment.has(tcp::PSH);
        sent = Sent(if ends { sent.0 | PUSHED } else { sent.0 & !PUSHED });
        let waits = asked.count() != answered;
        if !waits {
            let asked = Asked::new(asked.count().wrapping_add(1), end);
            return (Self { sent, asked, answer: segment.acknowledgment }, Says::Asks);
        }
        if begins && matches!(start, Start::Shared) {
            let asked = Asked::new(asked.count().wrapping_add(1), end);
            return (Self { sent, asked, answer }, Says::AsksAnew);
        }
        if begins {
            let asked = Asked::new(asked.count().wrapping_add(1), asked.end());
            return (Self { sent, asked, answer }, Says::AsksMore);
        }
        // Of several that wait, the first keeps its time.
        let alone = asked.count() == answered.wrapping_add(1);
        let asked = if alone { Asked::new(asked.count(), end) } else { asked };
        (Self { sent, asked, answer }, Says::GoesOn { ends: ends && alone })
    }

    /// The same once anything was sent.
    #[inline(always)]
    #[must_use]
    pub const fn started(self) -> Self {
        Self { sent: Sent(self.sent.0 | STARTED), ..self }
    }

    /// The same for a datagram, which is a message of its own: `id` names it where it has a name, else zero.
    #[inline(always)]
    #[must_use]
    pub const fn udp(self, id: u32, answered: u32) -> (Self, Says) {
        let Self { sent, asked, answer } = self;
        let count = asked.count();
        if count == answered {
            return (Self { sent, asked: Asked::new(count.wrapping_add(1), id), answer }, Says::Asks);
        }
        if id != 0 && asked.end() == id {
            return (self, Says::Nothing);
        }
        (Self { sent, asked: Asked::new(count.wrapping_add(1), asked.end()), answer }, Says::AsksMore)
    }
}
