//! The composite score and the hard limits: integer only, per mille, the same in the kernel and the daemon.

use crate::profile::Profile;

/// The numbers that feed the score, each over the sliding window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Wire bytes.
    pub volume: u64,
    /// Distinct untypical endpoints.
    pub unusual_endpoints: u32,
    /// Failed authentications.
    pub auth_failures: u32,
    /// Mean absolute deviation of response times, in units of 100 µs.
    pub deviation_100us: u32,
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
        auth: if signals.auth_failures > profile.anomalous_auth_failures { weights.auth } else { 0 },
        volume: if signals.volume > profile.anomalous_volume { weights.volume } else { 0 },
        endpoints: endpoint_term(signals.unusual_endpoints, profile),
        deviation: if signals.deviation_100us > profile.anomalous_deviation_100us {
            weights.deviation
        } else {
            0
        },
        extra: if signals.extra_milli > 1000 { 1000 } else { signals.extra_milli },
    }
}

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
    if signals.auth_failures > profile.max_auth_failures {
        return Some(Cause::AuthLimit);
    }
    if score(signals, profile).total() > profile.quarantine_threshold {
        return Some(Cause::Risk);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{NO_LIMIT, PRESENT, Weights};
    use crate::window::BucketClock;
    use proptest::prelude::*;

    fn article() -> Profile {
        Profile {
            probe: crate::bucket::Bucket::default(),
            reserved: [0; 6],
            flags: PRESENT,
            generation: 0,
            bucket_multiplier: BucketClock::for_window(60_000_000_000).multiplier(),
            max_volume: NO_LIMIT,
            anomalous_volume: 3_600_000,
            max_unusual_endpoints: u32::MAX,
            max_auth_failures: u32::MAX,
            anomalous_auth_failures: 5,
            anomalous_deviation_100us: 1000,
            typical_endpoints: 2,
            quarantine_threshold: 700,
            weights: Weights::DEFAULT,
            probe_violations: 1,
            endpoint_cap: 4096,
        }
    }

    #[test]
    fn the_articles_terms_in_per_mille() {
        let profile = article();
        let calm =
            Signals { volume: 3_600_000, auth_failures: 5, deviation_100us: 1000, ..Signals::default() };
        assert_eq!(score(&calm, &profile), Terms::default(), "at a threshold nothing counts yet");
        assert_eq!(judge(&calm, &profile), None);

        let wild = Signals {
            volume: 3_600_001,
            unusual_endpoints: 1,
            auth_failures: 6,
            deviation_100us: 1001,
            extra_milli: 50,
        };
        let terms = score(&wild, &profile);
        assert_eq!(terms, Terms { auth: 300, volume: 400, endpoints: 100, deviation: 200, extra: 50 });
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
        profile.max_auth_failures = 3;
        let at = Signals { volume: 1000, unusual_endpoints: 10, auth_failures: 3, ..Signals::default() };
        assert_eq!(judge(&at, &profile), None);
        assert_eq!(judge(&Signals { volume: 1001, ..at }, &profile), Some(Cause::VolumeLimit));
        assert_eq!(judge(&Signals { unusual_endpoints: 11, ..at }, &profile), Some(Cause::EndpointLimit));
        assert_eq!(judge(&Signals { auth_failures: 4, ..at }, &profile), Some(Cause::AuthLimit));
    }

    #[test]
    fn a_profile_without_typical_endpoints_divides_by_one() {
        let profile = Profile { typical_endpoints: 0, ..article() };
        let one = Signals { unusual_endpoints: 1, ..Signals::default() };
        assert_eq!(score(&one, &profile).endpoints, 200);
        assert_eq!(score(&Signals { unusual_endpoints: 2, ..one }, &profile).endpoints, 300);
    }

    proptest! {
        #[test]
        fn more_of_any_signal_never_lowers_the_score(
            a in any::<[u32; 5]>(), more in any::<[u16; 5]>(), typical: u16,
        ) {
            let profile = Profile { typical_endpoints: typical.into(), ..article() };
            let signals = |s: [u32; 5]| Signals {
                volume: s[0].into(), unusual_endpoints: s[1], auth_failures: s[2],
                deviation_100us: s[3], extra_milli: (s[4] % 1200) as u16,
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
