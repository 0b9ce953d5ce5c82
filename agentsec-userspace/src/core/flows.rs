//! What the daemon finds in an agent's connections: which are over without an end, and which requests wait for an answer
//! that is late.
//!
//! The kernel counts a response time when the answer comes. One that does not come would never be counted, so the time
//! that a request has waited stands for it as long as it waits.
//!
//! # What counts as a request that waits
//!
//! The agent has opened the connection, asked, and is not answered; neither side has closed. Either one message waits,
//! or the connection has answered before: a stream of several messages that nobody ever answers asks for nothing. On TLS and
//! HTTP/2 only the first message does: later ones may be acknowledgements of settings and windows, which look like
//! requests and get no answer. Of UDP only DNS is asked and answered for certain; a query is given up after ten seconds,
//! as resolvers do, since then it is lost and not slow. What was asked before the window, or before the agent's epoch,
//! is outside of both.

use agentsec_common::endpoint::{EndpointKey, EndpointKind};
use agentsec_common::flow::{Answered, Asked, Flow, FlowKey, Language, Sent, Statuses};
use agentsec_common::packet::protocol;
use agentsec_common::profile::Profile;
use agentsec_common::risk::deviation_100us;

const SECOND_NS: u64 = 1_000_000_000;
/// A connection that was not reached is over after so long a silence.
const UNREACHED_NS: u64 = 30 * SECOND_NS;
/// One that was.
const REACHED_NS: u64 = 600 * SECOND_NS;
/// One that was reached and on which a remote that opened it says nothing, one that one side has closed, and a
/// conversation by UDP.
const QUIET_NS: u64 = 60 * SECOND_NS;
/// The least, in a list that presses.
const LEAST_NS: u64 = 2 * SECOND_NS;
/// When a DNS query is given up.
const GIVEN_UP_NS: u64 = 10 * SECOND_NS;
/// Unit of deviations, nanoseconds.
const TICK_NS: u64 = 100_000;

/// What is expected of one agent's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Normal response time, nanoseconds.
    pub normal_ns: u64,
    /// Deviation above which an answer is late, nanoseconds.
    pub late_ns: u64,
    /// The sliding window, nanoseconds.
    pub window_ns: u64,
    /// Since when the agent's epoch lasts, monotonic nanoseconds.
    pub since_ns: u64,
    /// Whether the list is filling up.
    pub presses: bool,
}

impl Expected {
    /// By a profile.
    #[must_use]
    pub fn by(profile: &Profile, window_ns: u64, since_ns: u64, presses: bool) -> Self {
        Self {
            normal_ns: u64::from(profile.normal_response_100us) * TICK_NS,
            late_ns: u64::from(profile.anomalous_deviation_100us) * TICK_NS,
            window_ns,
            since_ns,
            presses,
        }
    }
}

/// What a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// In order.
    Fine,
    /// Silent for so long that it is over.
    Over,
    /// Its answer deviates so far from what is normal, nanoseconds.
    Late(u64),
}

/// Looks at one connection at `now_ns` of the monotonic clock.
#[must_use]
pub fn look(now_ns: u64, key: &FlowKey, flow: &Flow, expected: &Expected) -> Finding {
    let silent_ns = now_ns.saturating_sub(flow.last_seen_ns);
    if silent_ns > idle_ns(key, flow, expected.presses) {
        return Finding::Over;
    }
    match waits_ns(now_ns, key, flow, expected).map(|ns| ns.saturating_sub(expected.normal_ns)) {
        Some(deviation_ns) if deviation_ns > expected.late_ns => Finding::Late(deviation_ns),
        _ => Finding::Fine,
    }
}

/// How long a connection may be silent.
fn idle_ns(key: &FlowKey, flow: &Flow, presses: bool) -> u64 {
    let (sent, statuses) = (Sent(flow.sent), Statuses(flow.statuses));
    let has_asked_or_heard = Asked(flow.asked).count() > 0 || statuses.has_heard();
    let is_tcp = key.protocol() == protocol::TCP;
    // Whoever opens a connection to the agent and leaves it at that holds no place in the list for long.
    let idle = if is_tcp && (!statuses.is_reached() || sent.is_fresh()) {
        UNREACHED_NS
    } else if !is_tcp
        || sent.is_finished()
        || statuses.is_finished()
        || !is_opened(flow) && !has_asked_or_heard
    {
        QUIET_NS
    } else {
        REACHED_NS
    };
    if presses { (idle / 2).max(LEAST_NS) } else { idle }
}

fn is_opened(flow: &Flow) -> bool {
    flow.kind == EndpointKind::Opened as u64
}

/// How long a request has waited for its answer, if one does.
fn waits_ns(now_ns: u64, key: &FlowKey, flow: &Flow, expected: &Expected) -> Option<u64> {
    let (sent, statuses) = (Sent(flow.sent), Statuses(flow.statuses));
    let (asked, answered) = (Asked(flow.asked).count(), Answered(flow.answered).count());
    let waiting = asked.wrapping_sub(answered);
    if !is_opened(flow) || waiting == 0 || sent.is_finished() || statuses.is_finished() {
        return None;
    }
    let is_request = waiting == 1 || answered != 0;
    let (may_wait, longest_ns) = match (key.protocol(), sent.spoken()) {
        (protocol::TCP, Language::Tls | Language::Http2) => (asked == 1, expected.window_ns),
        (protocol::TCP, _) => (is_request, expected.window_ns),
        (protocol::UDP, Language::Dns) => (is_request, expected.window_ns.min(GIVEN_UP_NS)),
        _ => (false, 0),
    };
    let ns = now_ns.saturating_sub(flow.asked_ns);
    (may_wait && ns <= longest_ns && flow.asked_ns >= expected.since_ns).then_some(ns)
}

/// The endpoint of a connection.
#[must_use]
pub fn endpoint_of(key: &FlowKey, flow: &Flow) -> EndpointKey {
    let (kind, port) = if is_opened(flow) {
        (EndpointKind::Opened, key.remote_port)
    } else {
        (EndpointKind::Accepted, key.local_port)
    };
    EndpointKey { slot: key.slot(), port, protocol: key.protocol(), kind: kind as u8, remote: key.remote }
}

/// What has passed on connections and their endpoint has not been told yet: by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Untold {
    /// Wire bytes.
    pub bytes: [u64; 2],
    /// Packets.
    pub packets: [u64; 2],
}

impl Untold {
    /// Of one connection.
    #[must_use]
    pub fn of(flow: &Flow) -> Self {
        // What is told is read after what has passed, and may be ahead of it.
        let left = |passed: [u64; 2], told: [u64; 2]| {
            std::array::from_fn(|direction: usize| passed[direction].saturating_sub(told[direction]))
        };
        Self { bytes: left(flow.bytes, flow.told_bytes), packets: left(flow.packets, flow.told_packets) }
    }

    /// Whether there is anything.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Adds that of another connection with the same endpoint.
    pub fn add(&mut self, other: &Self) {
        for direction in 0..2 {
            self.bytes[direction] += other.bytes[direction];
            self.packets[direction] += other.packets[direction];
        }
    }
}

/// An agent's answers that are late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Late {
    count: u64,
    /// Sum of the deviations, 100 µs.
    sum: u64,
}

impl Late {
    /// Adds one that deviates so far, nanoseconds.
    pub fn add(&mut self, deviation_ns: u64) {
        self.count += 1;
        self.sum = self.sum.saturating_add(deviation_ns / TICK_NS);
    }

    /// The mean deviation of these and of the answers that came (their sum of deviations and their number in the window), 100
    /// µs; nothing when none is late: what came the kernel knows by itself.
    #[must_use]
    pub fn deviation_100us(&self, came_sum: u64, came: u64) -> u16 {
        if self.count == 0 {
            return 0;
        }
        let mean = deviation_100us(came_sum.saturating_add(self.sum), came.saturating_add(self.count));
        u16::try_from(mean).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
#[path = "flows_tests.rs"]
mod tests;
