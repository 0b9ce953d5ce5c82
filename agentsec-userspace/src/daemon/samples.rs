//! Samples of answers that are too deep for the kernel: read, counted in the agent's window, recorded and judged at once.

use std::collections::BTreeMap;

use agentsec_common::agent::Slot;
use agentsec_common::sample::Sample;

use crate::clock;
use crate::core::Input;
use crate::inspect::{AuthBy, Inspector};

use super::Daemon;

/// Events of failed authentications that one sample may cause: a liar can put many answers into a segment.
const MOST_EVENTS: usize = 4;

/// What the daemon keeps about samples.
#[derive(Default)]
pub(super) struct Samples {
    inspector: Inspector,
    failures: BTreeMap<Slot, u64>,
    /// Samples read.
    pub(super) read: u64,
    /// Those of which something could not be read.
    pub(super) cut: u64,
}

impl Samples {
    /// Failed authentications found of an agent.
    pub(super) fn failures(&self, slot: Slot) -> u64 {
        self.failures.get(&slot).copied().unwrap_or(0)
    }

    /// Forgets an agent.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.failures.remove(&slot);
    }
}

impl Daemon {
    /// The first bytes of an answer that the kernel does not read.
    pub(super) fn sample(&mut self, sample: &Sample) {
        let found = self.samples.inspector.inspect(sample);
        self.samples.read += 1;
        self.samples.cut += u64::from(found.is_cut);
        let slot = sample.flow.slot();
        if found.failures.is_empty() {
            return;
        }
        let (Some(profile), Some(control)) = (self.roster.profile(slot), self.kernel.enforcer.control(slot))
        else {
            return;
        };
        // What happened before a transition does not count after it.
        if control.epoch != sample.epoch {
            return;
        }
        let moment = profile.bucket_clock().moment(sample.at_ns, sample.epoch);
        let failures = found.failures.len() as u32;
        *self.samples.failures.entry(slot).or_default() += u64::from(failures);
        self.flows.fail(slot, moment, failures);
        let now = clock::now();
        for by in found.failures.iter().take(MOST_EVENTS) {
            let (at_ns, flow, epoch, by) = (sample.at_ns, sample.flow, sample.epoch, said(by));
            self.handle(now, Input::Refused { at_ns, flow, epoch, by });
        }
        self.say_slow_signals(now);
        let observations = self.observe(now, slot).into_iter().collect();
        self.handle(now, Input::Observed(observations));
    }
}

fn said(by: &AuthBy) -> String {
    match by {
        AuthBy::Http2Status(status) => format!("HTTP/2 status {status}"),
        AuthBy::GrpcStatus(7) => "gRPC status 7 (PERMISSION_DENIED)".into(),
        AuthBy::GrpcStatus(status) => format!("gRPC status {status} (UNAUTHENTICATED)"),
        AuthBy::Protocol(port) => format!("a refusal in the protocol of port {port}"),
    }
}
