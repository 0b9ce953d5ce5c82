//! The composite score and the hard limits: integer only, per mille, the same in the kernel and the daemon.

use crate::profile::Profile;

/// The numbers that feed the score, each over the sliding window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Wire bytes.
    pub volume: u64,
    /// Distinct untypical endpoints.
    pub unusual_endpoints: u32,
    /// Failed authentications, hundredths: each kind has a weight.
    pub auth_failures_centi: u32,
    /// Mean absolute deviation of response times, in units of 100 µs.
    pub deviation_100us: u32,
    /// Requests.
    pub requests: u32,
    /// Anomalous requests: to untypical endpoints, denied, or violating probation.
    pub anomalous_requests: u32,
    /// Risk that the daemon adds, per mille.
    pub extra_milli: u16,
}

/// What each signal contributes to the score, per mille.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Failed authentications.
    pub auth: u16,
    /// Volume.
    pub volume: u16,
    /// Unusual endpoints.
    pub endpoints: u16,
    /// Response time deviation.
    pub deviation: u16,
    /// Requests.
    pub requests: u16,
    /// Anomalous requests.
    pub anomalous: u16,
    /// Added by the daemon.
    pub extra: u16,
}

impl Terms {
    /// The score: the terms' sum, at most 1000.
    #[inline(always)]
    #[must_use]
    pub const fn total(self) -> u16 {
        let sum = self.auth as u32
            + self.volume as u32
            + self.endpoints as u32
            + self.deviation as u32
            + self.requests as u32
            + self.anomalous as u32
            + self.extra as u32;
        if sum > 1000 { 1000 } else { sum as u16 }
    }
}

/// Why a circuit trips by itself.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The volume exceeded `max_volume`.
    VolumeLimit = 1,
    /// Unusual endpoints exceeded `max_unusual_endpoints`.
    EndpointLimit = 2,
    /// Failed authentications exceeded `max_auth_failures`.
    AuthLimit = 3,
    /// The score exceeded `quarantine_threshold`.
    Risk = 4,
    /// The agent reached for what is not typical while it was on probation.
    ProbeViolation = 5,
    /// The response time deviation exceeded `max_variance`.
    DeviationLimit = 6,
}

impl Cause {
    /// From its stored byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::VolumeLimit),
            2 => Some(Self::EndpointLimit),
            3 => Some(Self::AuthLimit),
            4 => Some(Self::Risk),
            5 => Some(Self::ProbeViolation),
            6 => Some(Self::DeviationLimit),
            _ => None,
        }
    }
}

/// Scores `signals` against `profile`.
#[inline(always)]
#[must_use]
pub const fn score(signals: &Signals, profile: &Profile) -> Terms {
    let weights = &profile.weights;
    Terms {
        auth: when(signals.auth_failures_centi > profile.anomalous_auth_failures_centi, weights.auth),
        volume: when(signals.volume > profile.anomalous_volume, weights.volume),
        endpoints: endpoint_term(signals.unusual_endpoints, profile),
        deviation: when(signals.deviation_100us > profile.anomalous_deviation_100us, weights.deviation),
        requests: when(signals.requests > profile.anomalous_rate, weights.requests),
        anomalous: when(signals.anomalous_requests > profile.anomalous_requests, weights.anomalous),
        extra: if signals.extra_milli > 1000 { 1000 } else { signals.extra_milli },
    }
}

#[inline(always)]
const fn when(is_anomalous: bool, weight: u16) -> u16 {
    if is_anomalous { weight } else { 0 }
}

/// The response times' mean absolute deviation, 100 µs, from their sum and number over the window: nothing as long as
/// they are too few to mean anything.
#[inline(always)]
#[must_use]
pub const fn deviation_100us(sum: u64, count: u64) -> u64 {
    if count < RESPONSES_MIN { 0 } else { sum / count }
}

/// Response times in the window below which their deviation is not judged.
pub const RESPONSES_MIN: u64 = 10;

/// `min(weight · unusual / max(1, typical), cap)`, dividing only when the result is between nothing and the
/// cap: a division is as slow as a look-up.
#[inline(always)]
const fn endpoint_term(unusual: u32, profile: &Profile) -> u16 {
    if unusual == 0 {
        return 0;
    }
    let typical = if profile.typical_endpoints == 0 { 1 } else { profile.typical_endpoints as u64 };
    let weighted = profile.weights.endpoints as u64 * unusual as u64;
    let cap = profile.weights.endpoints_cap;
    if weighted >= cap as u64 * typical { cap } else { (weighted / typical) as u16 }
}

/// Whether the circuit trips: a limit by itself, or the score.
#[inline(always)]
#[must_use]
pub const fn judge(signals: &Signals, profile: &Profile) -> Option<Cause> {
    if signals.volume > profile.max_volume {
        return Some(Cause::VolumeLimit);
    }
    if signals.unusual_endpoints > profile.max_unusual_endpoints {
        return Some(Cause::EndpointLimit);
    }
    if signals.auth_failures_centi > profile.max_auth_failures_centi {
        return Some(Cause::AuthLimit);
    }
    if signals.deviation_100us > profile.max_deviation_100us {
        return Some(Cause::DeviationLimit);
    }
    if score(signals, profile).total() > profile.quarantine_threshold {
        return Some(Cause::Risk);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{NO_LIMIT, PRESENT, PortRange, Weights};
    use crate::window::BucketClock;
    use proptest::prelude::*;

    fn article() -> Profile {
        Profile {
            flags: PRESENT,
            generation: 0,
            bucket_multiplier: BucketClock::for_window(60_000_000_000).multiplier(),
            max_volume: NO_LIMIT,
            anomalous_volume: 3_600_000,
            max_unusual_endpoints: u32::MAX,
            max_auth_failures_centi: u32::MAX,
            anomalous_auth_failures_centi: 500,
            max_deviation_100us: u32::MAX,
            anomalous_deviation_100us: 1000,
            typical_endpoints: 2,
            quarantine_threshold: 700,
            weights: Weights::DEFAULT,
            anomalous_rate: 300,
            anomalous_requests: 10,
            probe_violations: 1,
            endpoint_cap: 4096,
            flow_cap: 4096,
            normal_response_100us: 500,
            probe: crate::bucket::Bucket::default(),
            auth_weights_centi: crate::auth::default_weights_centi(),
            reserved: 0,
            read_ports: [PortRange::ANY; 8],
            reserved_more: [0; 4],
        }
    }

    #[test]
    fn the_articles_terms_in_per_mille() {
        let profile = article();
        let calm = Signals {
            volume: 3_600_000,
            auth_failures_centi: 500,
            deviation_100us: 1000,
            ..Signals::default()
        };
        assert_eq!(score(&calm, &profile), Terms::default(), "at a threshold nothing counts yet");
        assert_eq!(judge(&calm, &profile), None);

        let wild = Signals {
            volume: 3_600_001,
            unusual_endpoints: 1,
            auth_failures_centi: 501,
            deviation_100us: 1001,
            requests: 301,
            anomalous_requests: 11,
            extra_milli: 50,
        };
        let terms = score(&wild, &profile);
        let article =
            Terms { auth: 300, volume: 400, endpoints: 100, deviation: 200, extra: 50, ..Terms::default() };
        assert_eq!(terms, article, "requests have no weight");
        assert_eq!(terms.total(), 1000, "clamped from 1050");
        assert_eq!(judge(&wild, &profile), Some(Cause::Risk));
    }

    #[test]
    fn volume_and_endpoints_alone_reach_the_threshold_and_do_not_cross_it() {
        let signals = Signals { volume: u64::MAX, unusual_endpoints: 1000, ..Signals::default() };
        assert_eq!(score(&signals, &article()).total(), 700);
        assert_eq!(judge(&signals, &article()), None);
        let and_more = Signals { extra_milli: 1, ..signals };
        assert_eq!(judge(&and_more, &article()), Some(Cause::Risk));
    }

    #[test]
    fn each_limit_trips_by_itself() {
        let mut profile = article();
        profile.max_volume = 1000;
        profile.max_unusual_endpoints = 10;
        profile.max_auth_failures_centi = 300;
        profile.max_deviation_100us = 20;
        let at = Signals {
            volume: 1000,
            unusual_endpoints: 10,
            auth_failures_centi: 300,
            deviation_100us: 20,
            ..Signals::default()
        };
        assert_eq!(judge(&at, &profile), None);
        assert_eq!(judge(&Signals { volume: 1001, ..at }, &profile), Some(Cause::VolumeLimit));
        assert_eq!(judge(&Signals { unusual_endpoints: 11, ..at }, &profile), Some(Cause::EndpointLimit));
        assert_eq!(judge(&Signals { auth_failures_centi: 301, ..at }, &profile), Some(Cause::AuthLimit));
        assert_eq!(judge(&Signals { deviation_100us: 21, ..at }, &profile), Some(Cause::DeviationLimit));
    }

    #[test]
    fn a_profile_without_typical_endpoints_divides_by_one() {
        let profile = Profile { typical_endpoints: 0, ..article() };
        let one = Signals { unusual_endpoints: 1, ..Signals::default() };
        assert_eq!(score(&one, &profile).endpoints, 200);
        assert_eq!(score(&Signals { unusual_endpoints: 2, ..one }, &profile).endpoints, 300);
    }

    #[test]
    fn requests_count_once_they_have_a_weight() {
        let weights = Weights { requests: 150, anomalous: 250, ..Weights::DEFAULT };
        let profile = Profile { weights, ..article() };
        let at = Signals { requests: 300, anomalous_requests: 10, ..Signals::default() };
        assert_eq!(score(&at, &profile).total(), 0);
        assert_eq!(score(&Signals { requests: 301, ..at }, &profile).requests, 150);
        assert_eq!(score(&Signals { anomalous_requests: 11, ..at }, &profile).anomalous, 250);
    }

    #[test]
    fn two_signals_at_half_strength_trip_only_together() {
        let profile = Profile { quarantine_threshold: 450, ..article() };
        let failures = Signals { auth_failures_centi: 600, ..Signals::default() };
        let slow = Signals { deviation_100us: 2000, ..Signals::default() };
        assert_eq!((judge(&failures, &profile), judge(&slow, &profile)), (None, None));
        let both = Signals { deviation_100us: 2000, ..failures };
        assert_eq!(judge(&both, &profile), Some(Cause::Risk));
    }

    #[test]
    fn a_deviation_of_too_few_response_times_is_none() {
        assert_eq!(deviation_100us(9_000, RESPONSES_MIN - 1), 0);
        assert_eq!(deviation_100us(9_000, RESPONSES_MIN), 900);
    }

    proptest! {
        #[test]
        fn more_of_any_signal_never_lowers_the_score(
            a in any::<[u32; 7]>(), more in any::<[u16; 7]>(), typical: u16,
        ) {
            let weights = Weights { requests: 100, anomalous: 100, ..Weights::DEFAULT };
            let profile = Profile { typical_endpoints: typical.into(), weights, ..article() };
            let signals = |s: [u32; 7]| Signals {
                volume: s[0].into(), unusual_endpoints: s[1], auth_failures_centi: s[2],
                deviation_100us: s[3], extra_milli: (s[4] % 1200) as u16,
                requests: s[5], anomalous_requests: s[6],
            };
            let before = signals(a);
            let mut b = a;
            for (value, more) in b.iter_mut().zip(more) {
                *value = value.saturating_add(more.into());
            }
            b[4] = a[4] % 1200 + u32::from(more[4]) % (1200 - a[4] % 1200);
            let after = signals(b);
            prop_assert!(score(&after, &profile).total() >= score(&before, &profile).total());
        }

        #[test]
        fn the_endpoint_term_is_the_floor_of_the_articles_formula(unusual in 0u32..100_000, typical in 0u32..5_000) {
            let profile = Profile { typical_endpoints: typical, ..article() };
            let signals = Signals { unusual_endpoints: unusual, ..Signals::default() };
            let expected = (200 * u64::from(unusual) / u64::from(typical.max(1))).min(300);
            prop_assert_eq!(u64::from(score(&signals, &profile).endpoints), expected);
        }
    }
}
