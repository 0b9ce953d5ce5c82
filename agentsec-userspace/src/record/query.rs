//! Which events are wanted, and whether a line is one of them.

use super::head::Head;
use super::timestamp::Timestamp;
use crate::core::draft::EventKind;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Which events are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Keep waiting for new ones.
    pub follow: bool,
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// About this agent.
    pub agent: Option<String>,
    /// Of one of these types, in any case; empty for all.
    pub types: Vec<String>,
    /// With this correlation id: an incident, a Community ID, a trace id, or what an application reported.
    pub correlation: Option<String>,
    /// With this endpoint.
    pub endpoint: Option<EndpointFilter>,
    /// Of those already written, only this many latest ones.
    pub limit: Option<usize>,
}

impl EventQuery {
    /// Whether somebody can have meant it: a slip must not look like a log in which nothing happened.
    ///
    /// # Errors
    ///
    /// What is wrong, with what is allowed.
    pub fn check(&self) -> Result<(), String> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if since >= until => {
                Err(format!("{until}, where the time ends, is not after {since}, where it begins"))
            }
            _ => Ok(()),
        }
    }

    /// Whether it wants every line, even one that is no event.
    #[must_use]
    pub fn wants_all(&self) -> bool {
        let Self { since, until, agent, types, correlation, endpoint, follow: _, limit: _ } = self;
        let named = agent.is_some() || correlation.is_some() || endpoint.is_some();
        since.is_none() && until.is_none() && !named && types.is_empty()
    }

    /// Whether a line, without its newline, is wanted.
    #[must_use]
    pub fn wants(&self, line: &[u8]) -> bool {
        self.wants_all() || Head::of(line).is_some_and(|head| self.wants_head(&head))
    }

    fn wants_head(&self, head: &Head<'_>) -> bool {
        let time = head.time();
        self.since.is_none_or(|since| time.is_some_and(|time| time >= since))
            && self.until.is_none_or(|until| time.is_some_and(|time| time < until))
            && self.agent.as_deref().is_none_or(|agent| head.agent() == Some(agent))
            && (self.types.is_empty()
                || self.types.iter().any(|wanted| wanted.eq_ignore_ascii_case(head.kind())))
            && self.correlation.as_deref().is_none_or(|wanted| head.ids().contains(&Some(wanted)))
            && self.endpoint.is_none_or(|wanted| head.endpoint().is_some_and(|found| wanted.admits(found)))
    }
}

/// The name of a type of events, in any case.
///
/// # Errors
///
/// When there is none of that name; the names that there are.
pub fn event_type(name: &str) -> Result<String, String> {
    match EventKind::from_name(name) {
        Some(kind) => Ok(kind.name().to_owned()),
        None => {
            let allowed = EventKind::ALL.map(EventKind::name).join(", ");
            Err(format!("`{name}` is no type of events; allowed: {allowed}"))
        }
    }
}

/// An endpoint's address and port; any port if none is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointFilter {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: Option<u16>,
}

impl EndpointFilter {
    /// Whether an endpoint with this address and port is meant.
    #[must_use]
    pub fn admits(&self, (address, port): (IpAddr, u16)) -> bool {
        self.address.to_canonical() == address.to_canonical() && self.port.is_none_or(|wanted| wanted == port)
    }
}

impl fmt::Display for EndpointFilter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => self.address.fmt(out),
            Some(port) => std::net::SocketAddr::new(self.address, port).fmt(out),
        }
    }
}

/// A text that names no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnEndpoint;

impl fmt::Display for NotAnEndpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("not an endpoint such as 192.0.2.7, 192.0.2.7:443, 2001:db8::7 or [2001:db8::7]:443")
    }
}

impl std::error::Error for NotAnEndpoint {}

impl FromStr for EndpointFilter {
    type Err = NotAnEndpoint;

    fn from_str(text: &str) -> Result<Self, NotAnEndpoint> {
        if let Ok(address) = text.parse() {
            return Ok(Self { address, port: None });
        }
        let both: std::net::SocketAddr = text.parse().map_err(|_| NotAnEndpoint)?;
        Ok(Self { address: both.ip(), port: Some(both.port()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_with_or_without_a_port() {
        for text in ["192.0.2.7", "192.0.2.7:443", "2001:db8::7", "[2001:db8::7]:443"] {
            assert_eq!(text.parse::<EndpointFilter>().unwrap().to_string(), text);
        }
        for text in ["", "host:443", "192.0.2.7:", "192.0.2.7:65536", "[2001:db8::7]"] {
            assert_eq!(text.parse::<EndpointFilter>(), Err(NotAnEndpoint), "{text}");
        }
        let mapped: EndpointFilter = "::ffff:192.0.2.7".parse().unwrap();
        assert!(mapped.admits(("192.0.2.7".parse().unwrap(), 9)));
    }

    #[test]
    fn a_type_that_there_is_not_is_told_with_those_that_there_are() {
        assert_eq!(event_type("loss").as_deref(), Ok("LOSS"));
        for wrong in ["", "LOSSES", "LOSS "] {
            let error = event_type(wrong).unwrap_err();
            assert!(error.contains("allowed: AGENT_INTERACTION, ") && error.contains(", LOSS, "), "{error}");
        }
    }

    #[test]
    fn a_time_that_ends_before_it_begins_is_no_question() {
        let between = |since, until| EventQuery {
            since: Some(Timestamp(since)),
            until: Some(Timestamp(until)),
            ..EventQuery::default()
        };
        assert_eq!(between(1, 2).check(), Ok(()));
        assert!(between(2, 2).check().unwrap_err().contains("is not after"));
    }

    #[test]
    fn each_filter_chooses_and_all_have_to_agree() {
        let line = br#"{"agent_id":"a","correlation_id":"1:x=","event_data":{"remote_address":"192.0.2.7","remote_port":443,"trace_id":"cafe"},"event_type":"AGENT_INTERACTION","timestamp":"1970-01-01T00:00:05.000000001Z"}"#;
        let wants = |query: EventQuery| query.wants(line);
        let base = EventQuery::default;
        let table = [
            (EventQuery { agent: Some("a".into()), ..base() }, true),
            (EventQuery { agent: Some("b".into()), ..base() }, false),
            (EventQuery { types: vec!["x".into(), "agent_interaction".into()], ..base() }, true),
            (EventQuery { types: vec!["LOSS".into()], ..base() }, false),
            (EventQuery { correlation: Some("1:x=".into()), ..base() }, true),
            (EventQuery { correlation: Some("cafe".into()), ..base() }, true),
            (EventQuery { correlation: Some("caf".into()), ..base() }, false),
            (EventQuery { endpoint: "192.0.2.7".parse().ok(), ..base() }, true),
            (EventQuery { endpoint: "192.0.2.7:443".parse().ok(), ..base() }, true),
            (EventQuery { endpoint: "192.0.2.7:80".parse().ok(), ..base() }, false),
            (EventQuery { since: Some(Timestamp(5000)), until: Some(Timestamp(5001)), ..base() }, true),
            (EventQuery { since: Some(Timestamp(5001)), ..base() }, false),
            (EventQuery { until: Some(Timestamp(5000)), ..base() }, false),
            (EventQuery { agent: Some("a".into()), correlation: Some("1:y=".into()), ..base() }, false),
        ];
        for (query, expected) in table {
            assert_eq!(wants(query.clone()), expected, "{query:?}");
        }
        assert!(base().wants(b"not json"));
        assert!(!EventQuery { agent: Some("a".into()), ..base() }.wants(b"not json"));
    }
}
