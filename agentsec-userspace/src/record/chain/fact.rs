//! What a line of the log says that matters to a chain.

use crate::record::head::Head;
use crate::record::timestamp::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::net::IpAddr;

/// Bytes of a mark's words, at most.
const WORDS: usize = 300;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// An agent saw a flow.
    Interaction(Box<Seen>),
    /// Something was noticed about an agent.
    Mark(Box<Noticed>),
    /// Interactions of an agent were left out of the log.
    Sampled {
        /// Whose.
        agent: String,
        /// How many.
        interactions: u64,
    },
    /// An agent opened to an endpoint before the time that is looked at.
    Earlier {
        /// The agent.
        agent: String,
        /// IP protocol number.
        protocol: u8,
        /// The endpoint.
        remote: (IpAddr, u16),
    },
    /// An agent has an address.
    Address {
        /// The agent.
        agent: String,
        /// The address.
        address: IpAddr,
    },
}

/// A flow as an agent saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who saw it.
    pub agent: String,
    /// It opened it.
    pub opened: bool,
    /// IP protocol, by name.
    pub protocol: u8,
    /// Its address and port.
    pub local: (IpAddr, u16),
    /// The other side's.
    pub remote: (IpAddr, u16),
    /// First and last packet, milliseconds since 1970.
    pub span: (u64, u64),
    /// Bytes sent and received.
    pub bytes: (u64, u64),
    /// The agent on the other side, if the event names it.
    pub peer: Option<String>,
}

/// A sign of compromise, an act of containment, or something worth a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noticed {
    /// About whom.
    pub agent: String,
    /// When, milliseconds since 1970.
    pub at: u64,
    /// Type of its event.
    pub kind: String,
    /// In words.
    pub what: String,
    /// The endpoint that it names.
    pub endpoint: Option<(IpAddr, u16)>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    agent_id: Option<Text<'a>>,
    #[serde(borrow)]
    event_type: Text<'a>,
    #[serde(borrow)]
    event_data: Flow<'a>,
    #[serde(borrow)]
    timestamp: Text<'a>,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Flow<'a> {
    #[serde(borrow)]
    opened_by: Text<'a>,
    #[serde(borrow)]
    protocol: Text<'a>,
    #[serde(borrow)]
    local_address: Text<'a>,
    local_port: u16,
    #[serde(borrow)]
    remote_address: Text<'a>,
    remote_port: u16,
    outbound: Bytes,
    inbound: Bytes,
    #[serde(borrow)]
    first_seen: Option<Text<'a>>,
    #[serde(borrow)]
    last_seen: Option<Text<'a>>,
    #[serde(borrow)]
    source_agent: Option<Text<'a>>,
    #[serde(borrow)]
    target_agent: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Bytes {
    bytes: u64,
}

/// The facts of a line: none if it does not matter here.
#[must_use]
pub fn read(line: &[u8]) -> Vec<Fact> {
    if let Some(seen) = interaction(line) {
        return vec![Fact::Interaction(Box::new(seen))];
    }
    let Some(head) = Head::of(line) else { return Vec::new() };
    let Some(agent) = head.agent().map(str::to_owned) else { return Vec::new() };
    match head.kind() {
        "SECURITY_VIOLATION" | "CONTAINMENT_ACTION" | "ENDPOINT_NEW" | "ALERT" => {
            let at = head.time().map_or(0, |time| time.0);
            let (kind, endpoint) = (head.kind().to_owned(), head.endpoint());
            let what = words(head.kind(), &data(line));
            vec![Fact::Mark(Box::new(Noticed { agent, at, kind, what, endpoint }))]
        }
        "LOSS" => sampled(agent, &data(line)).into_iter().collect(),
        "AGENT_ADDED" | "AGENT_ATTACHED" => addresses(&agent, &data(line)),
        _ => Vec::new(),
    }
}

/// The hot path: nothing is copied but names.
fn interaction(line: &[u8]) -> Option<Seen> {
    let Line { agent_id, event_type, event_data: flow, timestamp } = serde_json::from_slice(line).ok()?;
    if event_type.0 != "AGENT_INTERACTION" {
        return None;
    }
    let time = |text: Text<'_>| text.0.parse::<Timestamp>().ok().map(|time| time.0);
    let at = time(timestamp)?;
    let last = flow.last_seen.and_then(time).unwrap_or(at);
    let first = flow.first_seen.and_then(time).unwrap_or(last).min(last);
    let opened = flow.opened_by.0 == "agent";
    let peer = if opened { flow.target_agent } else { flow.source_agent };
    Some(Seen {
        agent: agent_id?.0.into_owned(),
        opened,
        protocol: protocol(&flow.protocol.0)?,
        local: (flow.local_address.0.parse().ok()?, flow.local_port),
        remote: (flow.remote_address.0.parse().ok()?, flow.remote_port),
        span: (first, last),
        bytes: (flow.outbound.bytes, flow.inbound.bytes),
        peer: peer.map(|peer| peer.0.into_owned()),
    })
}

fn protocol(name: &str) -> Option<u8> {
    crate::core::protocol::protocol_number(name).or_else(|| name.parse().ok())
}

fn data(line: &[u8]) -> Value {
    serde_json::from_slice::<Value>(line).map(|mut event| event["event_data"].take()).unwrap_or_default()
}

fn sampled(agent: String, data: &Value) -> Option<Fact> {
    let interactions = match data["what"].as_str()? {
        "interactions_sampled" | "interactions_dropped" => data["interactions"].as_u64()?,
        "kernel" => data["interactions_lost"].as_u64().filter(|lost| *lost > 0)?,
        _ => return None,
    };
    Some(Fact::Sampled { agent, interactions })
}

/// Addresses of attachments; of prefixes only those that are one address.
fn addresses(agent: &str, data: &Value) -> Vec<Fact> {
    let places = data["attachments"].as_array().map_or(std::slice::from_ref(data), Vec::as_slice);
    let texts = places.iter().filter_map(|place| place["address"].as_str());
    let single = |text: &str| -> Option<IpAddr> {
        let (address, length) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { "32" } else { "128" };
        (length.is_empty() || length == whole).then_some(address)
    };
    texts.filter_map(single).map(|address| Fact::Address { agent: agent.to_owned(), address }).collect()
}

/// A mark in one line.
fn words(kind: &str, data: &Value) -> String {
    let text = |name: &str| data[name].as_str().unwrap_or_default();
    let what = match kind {
        "SECURITY_VIOLATION" => format!("{}: {}", text("violation_type"), text("attempted_action")),
        "CONTAINMENT_ACTION" => {
            let (from, to) = (text("from"), text("to"));
            format!("{} {from} → {to} by {}: {}", text("action_type"), text("by"), text("trigger_reason"))
        }
        "ENDPOINT_NEW" => "an endpoint that is not typical".to_owned(),
        _ => ["what", "text", "message", "reason"]
            .map(text)
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or("an alert")
            .to_owned(),
    };
    let end = what.char_indices().map(|(at, _)| at).find(|at| *at >= WORDS).unwrap_or(what.len());
    what[..end].to_owned()
}
