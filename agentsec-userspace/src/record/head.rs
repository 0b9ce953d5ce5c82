//! What questions look at in an event's line, read without the rest.

use super::timestamp::Timestamp;
use serde::Deserialize;
use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Deref;

/// The fields of an event that questions choose by.
#[derive(Debug, Default, Deserialize)]
pub struct Head<'a> {
    #[serde(default, borrow, rename = "timestamp")]
    at: Option<Text<'a>>,
    #[serde(default, borrow, rename = "event_type")]
    kind: Option<Text<'a>>,
    #[serde(default, borrow, rename = "agent_id")]
    agent: Option<Text<'a>>,
    #[serde(default, borrow, rename = "correlation_id")]
    correlation: Option<Text<'a>>,
    #[serde(default, borrow, rename = "event_data")]
    data: Option<Data<'a>>,
}

/// A string that is only copied when it has to be unescaped. (In an `Option`, serde copies every `Cow`.)
#[derive(Debug, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Of the event's data, what names an endpoint or something that other events name too.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data<'a> {
    #[serde(borrow)]
    remote_address: Option<Text<'a>>,
    remote_port: Option<u16>,
    local_port: Option<u16>,
    #[serde(borrow)]
    opened_by: Option<Text<'a>>,
    #[serde(borrow)]
    community_id: Option<Text<'a>>,
    #[serde(borrow)]
    trace_id: Option<Text<'a>>,
    #[serde(borrow)]
    reported_id: Option<Text<'a>>,
    #[serde(borrow)]
    packet: Option<Packet<'a>>,
    #[serde(borrow)]
    context: Option<Holder<'a>>,
    #[serde(borrow)]
    tripped: Option<Holder<'a>>,
}

/// Something with a packet in it: a violation's context, or why a circuit is open.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Holder<'a> {
    #[serde(borrow)]
    packet: Option<Packet<'a>>,
    #[serde(borrow)]
    opened_by: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Packet<'a> {
    #[serde(borrow)]
    remote: Option<Text<'a>>,
    remote_port: Option<u16>,
    local_port: Option<u16>,
}

/// The port that makes an endpoint: the remote's of what the agent opens, its own of what it accepts.
fn port(opened_by: Option<&str>, remote: Option<u16>, local: Option<u16>) -> u16 {
    if opened_by == Some("remote") { local } else { remote }.unwrap_or(0)
}

impl<'a> Head<'a> {
    /// The head of a line, if it is an object with these fields.
    #[must_use]
    pub fn of(line: &'a [u8]) -> Option<Self> {
        // serde would take an array for the fields in their order.
        if line.first() != Some(&b'{') {
            return None;
        }
        if let Ok(head) = serde_json::from_slice(line) {
            return Some(head);
        }
        // Data of another shape names no endpoint; the rest is still what it says.
        let Envelope { at, kind, agent, correlation } = serde_json::from_slice(line).ok()?;
        Some(Self { at, kind, agent, correlation, data: None })
    }

    /// Its type; empty if it has none.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or_default()
    }

    /// The agent that it is about.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    /// When it happened.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        self.at.as_deref()?.parse().ok()
    }

    /// Its correlation id, its trace id, and what an application reported, as far as it has them.
    #[must_use]
    pub fn ids(&self) -> [Option<&str>; 3] {
        let data = self.data.as_ref();
        let of_flow = || data.and_then(|data| data.community_id.as_deref());
        [
            self.correlation.as_deref().or_else(of_flow),
            data.and_then(|data| data.trace_id.as_deref()),
            data.and_then(|data| data.reported_id.as_deref()),
        ]
    }

    /// The endpoint that it names.
    #[must_use]
    pub fn endpoint(&self) -> Option<(IpAddr, u16)> {
        let data = self.data.as_ref()?;
        let opened_by = data.opened_by.as_deref();
        if let Some(address) = &data.remote_address {
            return Some((address.parse().ok()?, port(opened_by, data.remote_port, data.local_port)));
        }
        let (packet, opened_by) = match (&data.packet, &data.context, &data.tripped) {
            (Some(packet), ..) => (packet, opened_by),
            (None, Some(context), _) if context.packet.is_some() => {
                (context.packet.as_ref()?, context.opened_by.as_deref())
            }
            (None, _, Some(tripped)) => (tripped.packet.as_ref()?, tripped.opened_by.as_deref()),
            _ => return None,
        };
        let address = packet.remote.as_deref()?.parse().ok()?;
        Some((address, port(opened_by, packet.remote_port, packet.local_port)))
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default, borrow, rename = "timestamp")]
    at: Option<Text<'a>>,
    #[serde(default, borrow, rename = "event_type")]
    kind: Option<Text<'a>>,
    #[serde(default, borrow, rename = "agent_id")]
    agent: Option<Text<'a>>,
    #[serde(default, borrow, rename = "correlation_id")]
    correlation: Option<Text<'a>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(data: &str) -> Option<String> {
        let line = format!("{{\"event_data\":{data}}}");
        let head = Head::of(line.as_bytes()).unwrap();
        head.endpoint().map(|(address, port)| format!("{address} {port}"))
    }

    #[test]
    fn the_endpoint_is_where_each_kind_of_event_has_it() {
        let packet = r#"{"bytes":9,"direction":"outbound","local_port":4,"protocol":6,"remote":"192.0.2.7","remote_port":443}"#;
        for (data, expected) in [
            (
                r#"{"remote_address":"2001:db8::1","remote_port":80,"local_port":5}"#.to_owned(),
                Some("2001:db8::1 80"),
            ),
            (
                r#"{"remote_address":"192.0.2.7","remote_port":80,"local_port":5,"opened_by":"remote"}"#
                    .into(),
                Some("192.0.2.7 5"),
            ),
            (format!(r#"{{"packet":{packet},"opened_by":"agent"}}"#), Some("192.0.2.7 443")),
            (format!(r#"{{"packet":{packet},"opened_by":"remote"}}"#), Some("192.0.2.7 4")),
            (format!(r#"{{"context":{{"packet":{packet},"opened_by":"remote"}}}}"#), Some("192.0.2.7 4")),
            (format!(r#"{{"tripped":{{"packet":{packet},"by":"kernel"}}}}"#), Some("192.0.2.7 443")),
            (r#"{"tripped":null,"packet":null}"#.into(), None),
            (r#"{"remote_address":"nowhere"}"#.into(), None),
        ] {
            assert_eq!(endpoint(&data).as_deref(), expected, "{data}");
        }
    }

    #[test]
    fn data_of_another_shape_hides_nothing_else() {
        let line = br#"{"agent_id":"a","event_data":{"context":"words","packet":7},"event_type":"ALERT"}"#;
        let head = Head::of(line).unwrap();
        assert_eq!((head.agent(), head.kind(), head.endpoint()), (Some("a"), "ALERT", None));
        assert!(Head::of(b"[]").is_none() && Head::of(b"not json").is_none());
    }
}
