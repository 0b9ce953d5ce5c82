//! A connection of an agent, as the kernel follows it: what was asked, what was answered, and how long it took.
//!
//! The agent's side and the remote's side run on different CPUs, so each word of a [`Flow`] is written by the packets
//! of one direction only. What packets of the other direction need is in a word that they read whole.
//!
//! # When an answer is an answer
//!
//! The agent *asks* with the first new payload after an answer (or after the connection's begin), and what it sends on
//! until it is answered belongs to that. Payload *answers* when it is new and, on TCP, acknowledges all that was asked:
//! what was on its way already when the agent asked (server push), retransmissions and keep-alives answer nothing. A
//! remote can answer no more often than the agent has asked. Time runs from the end of the message that was asked: a
//! segment without PSH is continued by the next one.

use crate::agent::Slot;
use crate::endpoint::Address;
use crate::packet::{protocol, tcp};

/// Key of [`FLOWS`](crate::maps::FLOWS): six words, which the kernel hashes in two steps.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// See [`Self::new`].
    who: u32,
    /// The agent's port, host byte order.
    pub local_port: u16,
    /// The remote's port, host byte order.
    pub remote_port: u16,
    /// The remote's address.
    pub remote: Address,
}

const _: () = assert!(size_of::<FlowKey>() == 24);

const SLOT_BITS: u32 = 16;
const UDP: u32 = 1 << SLOT_BITS;

impl FlowKey {
    /// The key of a TCP or UDP connection of an agent, of which there are at most 65,536, with ports of the agent and the
    /// remote.
    ///
    /// ```text
    /// bit 0..16 slot | 16 UDP | 17..32 the agent's address, folded
    /// ```
    ///
    /// The agent's address is folded in, since one with many addresses may use one port with one remote twice.
    #[inline(always)]
    #[must_use]
    pub const fn new(slot: Slot, protocol: u8, local: &Address, ports: (u16, u16), remote: Address) -> Self {
        let folded = local[0] ^ local[1] ^ local[2] ^ local[3];
        let udp = if protocol == protocol::UDP { UDP } else { 0 };
        // The last bits of an address tell hosts of a network apart, wherever they lie in memory.
        let who = slot & (UDP - 1) | udp | (folded ^ folded << 16) & !(2 * UDP - 1);
        Self { who, local_port: ports.0, remote_port: ports.1, remote }
    }

    /// The agent.
    #[inline(always)]
    #[must_use]
    pub const fn slot(&self) -> Slot {
        self.who & (UDP - 1)
    }

    /// IP protocol number.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        if self.who & UDP != 0 { protocol::UDP } else { protocol::TCP }
    }
}

/// Value of [`FLOWS`](crate::maps::FLOWS): three cache lines, of which most packets touch two.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// [`Settled`].
    pub settled: u64,
    /// An [`EndpointKind`](crate::endpoint::EndpointKind): who opened it.
    pub kind: u64,
    /// [`Sent`]; the agent's.
    pub sent: u64,
    /// [`Asked`]; the agent's.
    pub asked: u64,
    /// Monotonic nanoseconds of the end of what was asked; the agent's.
    pub asked_ns: u64,
    /// [`Requests`]; the agent's.
    pub requests: u64,
    /// [`Answered`]; the remote's.
    pub answered: u64,
    /// [`Statuses`]; the remote's.
    pub statuses: u64,
    /// Coarse monotonic nanoseconds of the latest packet.
    pub last_seen_ns: u64,
    /// Samples of answers that were sent; the remote's.
    pub samples: u64,
    /// Wire bytes that passed once the entry was there, by [`Direction`](crate::agent::Direction).
    pub bytes: [u64; 2],
    /// Packets, likewise.
    pub packets: [u64; 2],
    /// What of [`Self::bytes`] its endpoint has been told.
    pub told_bytes: [u64; 2],
    /// What of [`Self::packets`] its endpoint has been told.
    pub told_packets: [u64; 2],
    /// Coarse monotonic nanoseconds of the first packet.
    pub first_seen_ns: u64,
    /// The agent's address.
    pub local: Address,
    /// Sum of response times, nanoseconds; the remote's.
    pub response_ns: u64,
    /// Response times in that sum; the remote's.
    pub responses: u64,
    /// Explicit padding to whole cache lines.
    pub reserved: [u64; 1],
}

const _: () = assert!(size_of::<Flow>() == 192);

/// That a connection's endpoint is typical of a profile, and was told of the connection within this second (2^30 ns). As
/// long as that holds, its packets need not look at the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled;

impl Settled {
    /// As stored: of the profile with this [tag](crate::profile::Profile::tag), at this time. Never zero.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(tag: u32, now_ns: u64) -> u64 {
        (tag as u64) << 32 | (now_ns >> 30) as u32 as u64 | 1 << 31
    }
}

/// What is spoken on a connection, told by the agent's first words.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// Nothing was said yet.
    Unknown = 0,
    /// HTTP/1 in plain text.
    Http1 = 1,
    /// HTTP/2 in plain text, with prior knowledge.
    Http2 = 2,
    /// TLS.
    Tls = 3,
    /// DNS over UDP.
    Dns = 4,
    /// Anything else, or not to be read.
    Other = 5,
}

impl Language {
    /// From its stored byte.
    #[inline(always)]
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Unknown,
            1 => Self::Http1,
            2 => Self::Http2,
            3 => Self::Tls,
            4 => Self::Dns,
            _ => Self::Other,
        }
    }

    /// As in status and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Http1 => "http/1",
            Self::Http2 => "http/2",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Other => "other",
        }
    }
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgment: u32,
    /// Bytes of payload.
    pub payload: u32,
    /// Flags, as in [`tcp`].
    pub flags: u8,
}

impl Segment {
    #[inline(always)]
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The sequence number after it.
    #[inline(always)]
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.sequence
            .wrapping_add(self.payload)
            .wrapping_add(self.has(tcp::SYN) as u32)
            .wrapping_add(self.has(tcp::FIN) as u32)
    }
}

/// Whether sequence number `a` comes after `b`.
#[inline(always)]
const fn is_after(a: u32, b: u32) -> bool {
    let distance = a.wrapping_sub(b);
    distance != 0 && distance < 1 << 31
}

/// What the agent has sent: the greatest sequence number, and what is known of its side.
///
/// ```text
/// bit 0..32 sequence | 32 started | 33 pushed | 34 finished | 35 read | 36 connect | 37 midway | 40..48 language
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent(pub u64);

const STARTED: u64 = 1 << 32;
const PUSHED: u64 = 1 << 33;
const FINISHED: u64 = 1 << 34;
const READ: u64 = 1 << 35;
const CONNECT: u64 = 1 << 36;
const MIDWAY: u64 = 1 << 37;
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

/// What was answered: the count of [`Asked`] that the latest answer answered, and the sequence number after all that
/// the remote has said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered(pub u64);

impl Answered {
    /// A count and a sequence number.
    #[inline(always)]
    #[must_use]
    pub const fn new(count: u32, heard: u32) -> Self {
        Self((count as u64) << 32 | heard as u64)
    }

    /// How many of the messages that were asked.
    #[inline(always)]
    #[must_use]
    pub const fn count(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The sequence number after all that was said.
    #[inline(always)]
    #[must_use]
    pub const fn heard(self) -> u32 {
        self.0 as u32
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
            Start::Unread | Start::Shared => sent.0 & PUSHED != 0,
        };
        sent = sent.with_end(end);
        if segment.has(tcp::FIN) {
            sent = Sent(sent.0 | FINISHED);
        }
        if segment.payload == 0 {
            return (Self { sent, asked, answer }, Says::Nothing);
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

/// What a segment of the remote is in the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hears {
    /// Nothing new.
    Nothing,
    /// New payload that answers nothing, or goes on answering.
    More,
    /// It answers what the agent asked.
    Answer,
}

impl Answered {
    /// The word after a segment with payload of the remote.
    #[inline(always)]
    #[must_use]
    pub const fn tcp(self, segment: &Segment, asked: Asked, has_heard: bool) -> (Self, Hears) {
        let end = segment.sequence.wrapping_add(segment.payload);
        if segment.payload == 0 || has_heard && !is_after(end, self.heard()) {
            return (self, Hears::Nothing);
        }
        let waits = asked.count() != self.count();
        if waits && asked.is_acknowledged(segment) {
            (Self::new(asked.count(), end), Hears::Answer)
        } else {
            (Self::new(self.count(), end), Hears::More)
        }
    }

    /// The same for a datagram that names `id`, or zero where there are no names.
    #[inline(always)]
    #[must_use]
    pub const fn udp(self, id: u32, asked: Asked) -> (Self, Hears) {
        let waits = asked.count() != self.count();
        if waits && asked.end() == id {
            (Self::new(asked.count(), 0), Hears::Answer)
        } else {
            (self, Hears::More)
        }
    }
}

/// What is known of the remote's side, and the status line that is being read.
///
/// ```text
/// bit 0..16 latest status | 16..20 characters of a status line | 20..30 its digits | 30 heard | 31 reached
///     | 32 finished | 33 adrift | 34 tunnel | 40..64 answers to HTTP/1 requests
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
        if waiting == 0 {
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

/// What a reset by the remote means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Nothing: it is not of this connection.
    Foreign,
    /// The connection was refused.
    Refused,
    /// It was reset before the remote had said anything.
    BeforeData,
    /// It was reset later.
    Late,
}

/// What `segment`, a reset by the remote, means. It has to name the very sequence number that the agent waits for, as its kernel
/// demands too, so that nobody who does not see the connection can fake one.
#[inline(always)]
#[must_use]
pub const fn reset(segment: &Segment, sent: Sent, answered: Answered, statuses: Statuses) -> Reset {
    if !statuses.is_reached() {
        let acknowledges = segment.has(tcp::ACK) && segment.acknowledgment == sent.end();
        return if acknowledges && sent.0 & STARTED != 0 { Reset::Refused } else { Reset::Foreign };
    }
    if segment.sequence != answered.heard() {
        return Reset::Foreign;
    }
    if statuses.has_heard() { Reset::Late } else { Reset::BeforeData }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
