//! What counts as a failed authentication, and how much.

/// One kind of failed authentication that the kernel sees by itself.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthKind {
    /// HTTP status 401: no credentials, or wrong ones.
    Http401 = 0,
    /// HTTP status 403: credentials that do not suffice.
    Http403 = 1,
    /// HTTP status 407: the proxy wants credentials.
    Http407 = 2,
    /// A TLS alert in answer to the agent's handshake: its certificate or identity is refused.
    TlsAlert = 3,
    /// A connection that was refused.
    Refused = 4,
    /// A connection that was reset before the remote had said anything.
    ResetBeforeData = 5,
}

/// How many kinds there are; arrays by kind have room for more.
pub const AUTH_KINDS: usize = 6;
/// Length of arrays by kind.
pub const AUTH_ROOM: usize = 8;

/// Every kind, in the order of arrays by kind.
pub const ALL_AUTH_KINDS: [AuthKind; AUTH_KINDS] = [
    AuthKind::Http401,
    AuthKind::Http403,
    AuthKind::Http407,
    AuthKind::TlsAlert,
    AuthKind::Refused,
    AuthKind::ResetBeforeData,
];

impl AuthKind {
    /// From its stored byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        if (byte as usize) < AUTH_KINDS { Some(ALL_AUTH_KINDS[byte as usize]) } else { None }
    }

    /// Of an HTTP status, if it is one of a failed authentication.
    #[inline(always)]
    #[must_use]
    pub const fn of_status(status: u32) -> Option<Self> {
        match status {
            401 => Some(Self::Http401),
            403 => Some(Self::Http403),
            407 => Some(Self::Http407),
            _ => None,
        }
    }

    /// As in configuration, status and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http401 => "http_401",
            Self::Http403 => "http_403",
            Self::Http407 => "http_407",
            Self::TlsAlert => "tls_alert",
            Self::Refused => "refused",
            Self::ResetBeforeData => "reset_before_data",
        }
    }

    /// How many hundredths of a failed authentication one of this kind is, unless the profile says otherwise.
    ///
    /// A refused connection is none: a service that is down refuses an innocent agent's every retry, and a sweep over
    /// ports already shows in the endpoints. A connection that is closed on an agent before a word was said is what
    /// services do to guessers that they know, and what overloaded ones do to anybody: it counts a quarter.
    #[must_use]
    pub const fn default_centi(self) -> u16 {
        match self {
            Self::Http401 | Self::Http403 | Self::Http407 | Self::TlsAlert => 100,
            Self::Refused => 0,
            Self::ResetBeforeData => 25,
        }
    }
}

/// The default weights as a profile holds them.
#[must_use]
pub const fn default_weights_centi() -> [u16; AUTH_ROOM] {
    let mut weights = [0; AUTH_ROOM];
    let mut index = 0;
    while index < AUTH_KINDS {
        weights[index] = ALL_AUTH_KINDS[index].default_centi();
        index += 1;
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_survives_its_byte_and_has_a_name_of_its_own() {
        for (index, kind) in ALL_AUTH_KINDS.into_iter().enumerate() {
            assert_eq!(AuthKind::from_byte(index as u8), Some(kind));
            let same = ALL_AUTH_KINDS.into_iter().filter(|other| other.name() == kind.name());
            assert_eq!(same.count(), 1);
        }
        assert_eq!(AuthKind::from_byte(AUTH_KINDS as u8), None);
    }

    #[test]
    fn statuses_of_failed_authentication() {
        let kinds = [200, 400, 401, 402, 403, 404, 407].map(AuthKind::of_status);
        let (http_401, http_403, http_407) =
            (Some(AuthKind::Http401), Some(AuthKind::Http403), Some(AuthKind::Http407));
        assert_eq!(kinds, [None, None, http_401, None, http_403, None, http_407]);
    }
}
