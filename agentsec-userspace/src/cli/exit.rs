//! What exit codes mean.

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Ok = 0,
    /// It failed in a way that has no code of its own.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No daemon answers.
    NotRunning = 3,
    /// There is no such agent.
    NotFound = 4,
    /// The daemon, or the system, forbids it.
    Refused = 5,
    /// The configuration is wrong.
    Config = 6,
    /// It worked, and found something unhealthy.
    Unhealthy = 7,
    /// Of several agents, some were refused.
    Partial = 8,
}

/// Every code and what it says, for people.
const MEANINGS: [(Exit, &str); 9] = [
    (Exit::Ok, "done"),
    (Exit::Failure, "failed"),
    (Exit::Usage, "the command line is wrong"),
    (Exit::NotRunning, "no daemon answers"),
    (Exit::NotFound, "there is no such agent, or no agent with this tag"),
    (Exit::Refused, "refused: not permitted, or forbidden by state or configuration"),
    (Exit::Config, "the configuration is wrong"),
    (
        Exit::Unhealthy,
        "unhealthy: a requirement is missing (doctor), something is not in force (status --check)",
    ),
    (Exit::Partial, "done for some agents and refused for others (--tag)"),
];

impl Exit {
    /// As the process returns it.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// The table for `--help`.
pub(super) fn help() -> String {
    let lines = MEANINGS.map(|(exit, meaning)| format!("  {}  {meaning}", exit.code()));
    format!("Exit codes:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented_once_and_in_order() {
        for (index, (exit, _)) in MEANINGS.iter().enumerate() {
            assert_eq!(usize::from(exit.code()), index);
        }
        assert!(help().contains("\n  3  no daemon answers"));
    }
}
