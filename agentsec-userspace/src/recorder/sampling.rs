//! How many packets of an agent are recorded, by its risk.

use agentsec_common::recorder::{DATA_BYTES, Orders};

/// Whether packets are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecorderMode {
    /// None.
    Off,
    /// One in so many, more of a risky agent.
    Sampled,
    /// All.
    Always,
}

/// What is recorded of an agent, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Whether.
    pub mode: RecorderMode,
    /// One in so many packets of an agent without risk.
    pub one_in: u16,
    /// Risk above which every packet is recorded, per mille.
    pub always_above_milli: u16,
    /// Whether payload is recorded, and not only headers.
    pub payload: bool,
    /// The most bytes of a packet that are recorded.
    pub snap_bytes: u8,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            mode: RecorderMode::Sampled,
            one_in: 16,
            always_above_milli: 300,
            payload: false,
            snap_bytes: DATA_BYTES as u8,
        }
    }
}

impl Sampling {
    /// One in how many packets is recorded of an agent of this risk; `None` for none at all.
    ///
    /// The rate falls in a straight line from [`Self::one_in`] without risk to one at the risk above which all are.
    #[must_use]
    pub fn one_in_at(&self, risk_milli: u16) -> Option<u16> {
        let limit = u32::from(self.always_above_milli);
        match self.mode {
            RecorderMode::Off => None,
            RecorderMode::Always => Some(1),
            RecorderMode::Sampled => {
                let left = limit.saturating_sub(u32::from(risk_milli));
                if left == 0 {
                    return Some(1);
                }
                let more = u32::from(self.one_in.max(1)) - 1;
                Some(1 + (more * left).div_ceil(limit) as u16)
            }
        }
    }

    /// The kernel's orders for an agent of this risk, in a recorder of its own; `None` when it needs none.
    #[must_use]
    pub fn orders(&self, risk_milli: u16, recorder: u32, depth_log2: u8, generation: u16) -> Option<Orders> {
        let one_in = self.one_in_at(risk_milli)?;
        Some(Orders {
            recorder,
            on: true,
            payload: self.payload,
            snap_bytes: self.snap_bytes,
            depth_log2,
            one_in,
            generation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_calm_agent_is_sampled_and_a_risky_one_recorded_whole() {
        let sampling = Sampling::default();
        let at = [0, 100, 150, 299, 300, 700, 1000].map(|risk| sampling.one_in_at(risk).unwrap());
        assert_eq!(at, [16, 11, 9, 2, 1, 1, 1]);
        assert_eq!(Sampling { mode: RecorderMode::Always, ..sampling }.one_in_at(0), Some(1));
        assert_eq!(Sampling { mode: RecorderMode::Off, ..sampling }.one_in_at(1000), None);
    }

    proptest! {
        #[test]
        fn more_risk_never_records_less(one_in in 1u16..=16383, limit in 0u16..=1000, risk in 0u16..1000) {
            let sampling = Sampling { one_in, always_above_milli: limit, ..Sampling::default() };
            let (less, more) = (sampling.one_in_at(risk).unwrap(), sampling.one_in_at(risk + 1).unwrap());
            prop_assert!(more <= less && (1..=one_in).contains(&less));
            prop_assert!(risk < limit || less == 1);
        }
    }
}
