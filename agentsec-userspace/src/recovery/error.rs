//! Why recovery work fails: what a caller can tell apart, and words for people.

use std::fmt;

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// restic is not installed, or is not runnable.
    NoProgram,
    /// There is no repository where one is configured.
    NoRepository,
    /// The store does not answer.
    Unreachable,
    /// The key file is missing, readable by others, or not the repository's.
    Key,
    /// Somebody else holds the repository.
    Locked,
    /// The repository has lost or changed data.
    Damaged,
    /// The store does not allow it, as an append-only one allows no forgetting.
    Denied,
    /// A disk is full.
    NoSpace,
    /// It took too long.
    TimedOut,
    /// It was cancelled.
    Cancelled,
    /// The agent's state could not be read completely.
    Source,
    /// The target is not one that may be written.
    Target,
    /// No such snapshot, or none that fits.
    NoSnapshot,
    /// A configured command failed.
    Command,
    /// Anything else.
    Other,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its kind.
    pub kind: Kind,
    /// In words: what, where, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure of `kind`.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// For `map_err` over what names no kind itself; a full disk is one all the same.
    pub fn io(what: impl fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        move |error| {
            let full =
                matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
            Self::new(if full { Kind::NoSpace } else { Kind::Other }, format!("{what}: {error}"))
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
