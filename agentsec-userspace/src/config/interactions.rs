//! `[interactions]`, and what a profile says of them: which of what agents have to do with others is recorded.

use super::section::Section;
use crate::core::interaction::{BookSettings, SamplingSettings};

const SECOND_NS: u64 = 1_000_000_000;

/// What is recorded of the interactions of a profile's agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interactions {
    /// While they are calm a sample, else all.
    #[default]
    Sampled,
    /// All.
    All,
    /// Nothing.
    Off,
}

/// `[interactions]` as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InteractionsConfig {
    /// Whether any are recorded.
    pub enabled: bool,
    /// How they are told.
    pub settings: BookSettings,
}

impl Default for InteractionsConfig {
    fn default() -> Self {
        Self { enabled: true, settings: BookSettings::default() }
    }
}

/// Reads `[interactions]`.
pub(super) fn read(section: &Section<'_>) -> InteractionsConfig {
    let default = InteractionsConfig::default();
    let BookSettings { sampling, tell_every_ns, max_per_second } = default.settings;
    let calm = section.milli("calm_below_risk", 0..=1000).map(|milli| milli as u16);
    let config = InteractionsConfig {
        enabled: section.boolean("enabled").unwrap_or(default.enabled),
        settings: BookSettings {
            sampling: SamplingSettings {
                calm_below_milli: calm.unwrap_or(sampling.calm_below_milli),
                one_in: section.integer("one_in", 1..=1_000_000).unwrap_or(sampling.one_in),
                interval_ns: section
                    .duration("interval", SECOND_NS..=86_400 * SECOND_NS)
                    .unwrap_or(sampling.interval_ns),
            },
            tell_every_ns: section
                .duration("tell_every", SECOND_NS..=86_400 * SECOND_NS)
                .unwrap_or(tell_every_ns),
            max_per_second: section.integer("max_per_second", 1..=100_000).unwrap_or(max_per_second),
        },
    };
    section.finish();
    config
}

/// Reads a profile's `interactions`.
pub(super) fn read_profile(section: &Section<'_>) -> Interactions {
    let choices =
        [("sampled", Interactions::Sampled), ("all", Interactions::All), ("off", Interactions::Off)];
    section.choice("interactions", &choices).unwrap_or_default()
}
