//! An agent's signals as the API shows them, with the response times of the last windows.

use agentsec_common::ledger::Ledger;

use crate::api::views::{AuthCounts, ResponseTimes, Signals, mean_ms, ns_as_ms};
use crate::core::recent::{Recent, quantiles_ns};
use crate::core::view::AgentView;
use crate::core::{Observation, Time};

use super::Daemon;
use super::roster::Member;

const MINUTE_NS: u64 = 60_000_000_000;

impl Daemon {
    /// Keeps copies of the response times of those whom `observations` are of.
    pub(super) fn keep_times(&mut self, now: Time, observations: &[Observation]) {
        for observed in observations {
            let (slot, total) = (observed.slot, observed.totals.responses);
            let Some(window_ns) = self.roster.window_ns(slot) else { continue };
            let collector = &self.kernel.collector;
            let recent = self
                .recent
                .entry(slot)
                .or_insert_with(|| Recent::new(now.mono_ns, window_ns, total, || collector.times(slot)));
            recent.keep(now.mono_ns, window_ns, total, || collector.times(slot));
        }
    }

    /// What feeds an agent's score.
    pub(super) fn signals(&self, now: Time, view: &AgentView, member: &Member, ledger: &Ledger) -> Signals {
        let expected = self.config.profiles.get(&view.profile);
        Signals {
            volume: view.volume_bytes,
            unusual_endpoints: view.unusual_endpoints,
            auth_failures: view.auth_failures_centi / 100,
            deviation_ms: f64::from(view.deviation_100us) / 10.0,
            auth: AuthCounts { sampled: self.samples.failures(view.slot), ..view.totals.auth.into() },
            response_time: self.response_time(now, view, member, ledger),
            requests: view.requests,
            requests_per_minute: per_minute(view.requests, member.window_ns),
            expected_requests_per_minute: expected.and_then(|profile| profile.expected_requests_per_minute),
            anomalous_requests: view.anomalous_requests,
            flows: self.live_flows(view.slot),
        }
    }

    fn response_time(&self, now: Time, view: &AgentView, member: &Member, ledger: &Ledger) -> ResponseTimes {
        if ledger.responses_total == 0 {
            return ResponseTimes::default();
        }
        let times = self.kernel.collector.times(view.slot);
        let times = self.recent.get(&view.slot).map_or(times, |recent| recent.since(&times));
        let (samples, p50, p99) = quantiles_ns(&times, 0);
        let moment = member.settings.profile.bucket_clock().moment(now.mono_ns, view.epoch);
        ResponseTimes {
            samples,
            p50_ms: p50.map(ns_as_ms),
            p99_ms: p99.map(ns_as_ms),
            deviation_ms: mean_ms(moment.sum(&ledger.deviation), moment.sum(&ledger.responses)),
        }
    }
}

/// So many in a window, scaled to a minute, to a thousandth.
fn per_minute(count: u32, window_ns: u64) -> f64 {
    let scaled = f64::from(count) * MINUTE_NS as f64 / window_ns.max(1) as f64;
    (scaled * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_scaled_to_a_minute() {
        assert_eq!(per_minute(40, MINUTE_NS), 40.0);
        assert_eq!(per_minute(40, MINUTE_NS / 6), 240.0);
        assert_eq!(per_minute(1, 7 * MINUTE_NS), 0.143);
    }
}
