//! The remote's side of a connection: what answers, and what a reset means.

use super::{Asked, Segment, Sent, Statuses, is_after};
use crate::packet::tcp;

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
        return if acknowledges && !sent.is_fresh() { Reset::Refused } else { Reset::Foreign };
    }
    if segment.sequence != answered.heard() {
        return Reset::Foreign;
    }
    if statuses.has_heard() { Reset::Late } else { Reset::BeforeData }
}
