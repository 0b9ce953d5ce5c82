//! Classes of events, with their categories.

/// A class that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Base,
    DetectionFinding,
    NetworkActivity,
    ApplicationLifecycle,
    ApiActivity,
    ApplicationError,
    RemediationActivity,
}

impl Class {
    /// Its number, its caption, its category's caption. The category is the thousands of the number.
    pub const fn names(self) -> (u32, &'static str, &'static str) {
        match self {
            Self::Base => (0, "Base Event", "Uncategorized"),
            Self::DetectionFinding => (2004, "Detection Finding", "Findings"),
            Self::NetworkActivity => (4001, "Network Activity", "Network Activity"),
            Self::ApplicationLifecycle => (6002, "Application Lifecycle", "Application Activity"),
            Self::ApiActivity => (6003, "API Activity", "Application Activity"),
            Self::ApplicationError => (6008, "Application Error", "Application Activity"),
            Self::RemediationActivity => (7001, "Remediation Activity", "Remediation"),
        }
    }

    /// The profiles of which its documents have attributes.
    pub const fn profiles(self) -> &'static [&'static str] {
        match self {
            Self::NetworkActivity | Self::RemediationActivity => &["host", "security_control"],
            Self::DetectionFinding => &["security_control"],
            _ => &["host"],
        }
    }
}
