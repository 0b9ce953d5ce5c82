//! States and modes in words.

use agentsec_common::policy::{Mode, State};
use serde::{Deserialize, Serialize};

/// A circuit's state as written in files, events and views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StateName {
    /// Passing.
    Closed,
    /// Probing.
    HalfOpen,
    /// Dropping.
    Open,
}

/// A mode as written in files, events and views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModeName {
    /// Judged and enforced.
    Enforce,
    /// Judged, never dropped.
    Shadow,
    /// Neither.
    Exempt,
}

impl From<State> for StateName {
    fn from(state: State) -> Self {
        match state {
            State::Closed => Self::Closed,
            State::HalfOpen => Self::HalfOpen,
            State::Open => Self::Open,
        }
    }
}

impl From<StateName> for State {
    fn from(name: StateName) -> Self {
        match name {
            StateName::Closed => Self::Closed,
            StateName::HalfOpen => Self::HalfOpen,
            StateName::Open => Self::Open,
        }
    }
}

impl From<Mode> for ModeName {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Enforce => Self::Enforce,
            Mode::Shadow => Self::Shadow,
            Mode::Exempt => Self::Exempt,
        }
    }
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Enforce => Self::Enforce,
            ModeName::Shadow => Self::Shadow,
            ModeName::Exempt => Self::Exempt,
        }
    }
}

/// `CLOSED`, `HALF_OPEN` or `OPEN`.
#[must_use]
pub const fn state_name(state: State) -> &'static str {
    match state {
        State::Closed => "CLOSED",
        State::HalfOpen => "HALF_OPEN",
        State::Open => "OPEN",
    }
}

/// `enforce`, `shadow` or `exempt`.
#[must_use]
pub const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Shadow => "shadow",
        Mode::Exempt => "exempt",
    }
}
