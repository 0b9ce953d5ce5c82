//! Parts that several classes have.

use super::document::Document;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub const fn names(self) -> (u32, &'static str) {
        match self {
            Self::Informational => (1, "Informational"),
            Self::Low => (2, "Low"),
            Self::Medium => (3, "Medium"),
            Self::High => (4, "High"),
            Self::Critical => (5, "Critical"),
        }
    }

    /// As events name it.
    pub fn of(word: &str) -> Option<Self> {
        let all = [Self::Informational, Self::Low, Self::Medium, Self::High, Self::Critical];
        all.into_iter().find(|severity| severity.names().1.eq_ignore_ascii_case(word))
    }
}

/// Takes a string out of the data; anything else stays there.
pub(super) fn text(data: &mut Map<String, Value>, key: &str) -> Option<String> {
    if !data.get(key)?.is_string() {
        return None;
    }
    match data.remove(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// A string of the data, which also stays there.
pub(super) fn peek<'a>(data: &'a Map<String, Value>, key: &str) -> &'a str {
    data.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A risk score of 0 to 1, and more, in per cent.
pub(super) fn per_cent(data: &Map<String, Value>, key: &str) -> Option<u64> {
    let risk = data.get(key)?.as_f64()?;
    (0.0..1e6).contains(&risk).then(|| (risk * 100.0).round() as u64)
}

/// Who opens something to whom, on which protocol.
#[derive(Clone, Debug, Default)]
pub(super) struct Talk {
    pub agent: Option<String>,
    pub agent_ip: Option<String>,
    pub agent_port: Option<u16>,
    pub remote_name: Option<String>,
    pub remote_ip: Option<String>,
    pub remote_port: Option<u16>,
    pub opened_by_remote: bool,
    pub protocol_number: Option<u8>,
    pub protocol_name: Option<String>,
    pub community_id: Option<String>,
}

impl Talk {
    /// From a packet as events have it.
    pub fn of_packet(agent: Option<&str>, packet: &Value, opened_by: &str) -> Self {
        let opened_by_remote = match opened_by {
            "agent" => false,
            "remote" => true,
            _ => packet["direction"] == "inbound",
        };
        let port = |key: &str| packet[key].as_u64().and_then(|port| port.try_into().ok());
        Self {
            agent: agent.map(str::to_owned),
            agent_port: port("local_port"),
            remote_ip: address(packet["remote"].as_str()),
            remote_port: port("remote_port"),
            opened_by_remote,
            protocol_number: packet["protocol"].as_u64().and_then(|number| number.try_into().ok()),
            protocol_name: packet["protocol"].as_str().map(str::to_owned),
            ..Self::default()
        }
    }

    /// The two endpoints: whose opening it is comes first. Each has something that names it.
    pub fn endpoints(&self) -> [Option<Value>; 2] {
        let side = |name: &Option<String>, ip: &Option<String>, port: Option<u16>| {
            let mut endpoint = Map::new();
            if let Some(name) = name {
                endpoint.insert("uid".into(), name.as_str().into());
                endpoint.insert("name".into(), name.as_str().into());
            }
            if let Some(ip) = ip {
                endpoint.insert("ip".into(), ip.as_str().into());
            }
            if endpoint.is_empty() {
                return None;
            }
            if let Some(port) = port {
                endpoint.insert("port".into(), port.into());
            }
            Some(Value::Object(endpoint))
        };
        let agent = side(&self.agent, &self.agent_ip, self.agent_port);
        let remote = side(&self.remote_name, &self.remote_ip, self.remote_port);
        if self.opened_by_remote { [remote, agent] } else { [agent, remote] }
    }

    /// Direction and protocol.
    pub fn connection(&self) -> Value {
        let (direction, name) = match (self.remote_name.is_some(), self.opened_by_remote) {
            (true, _) => (3, "Lateral"),
            (false, true) => (1, "Inbound"),
            (false, false) => (2, "Outbound"),
        };
        let mut connection = Map::new();
        connection.insert("direction_id".into(), direction.into());
        connection.insert("direction".into(), name.into());
        if let Some(number) = self.protocol_number {
            connection.insert("protocol_num".into(), number.into());
        }
        if let Some(name) = &self.protocol_name {
            connection.insert("protocol_name".into(), name.as_str().into());
        }
        if let Some(id) = &self.community_id {
            connection.insert("community_uid".into(), id.as_str().into());
        }
        Value::Object(connection)
    }

    /// Puts it into a document of network activity.
    pub fn write(&self, document: &mut Document) {
        let endpoints = self.endpoints();
        for (name, endpoint) in ["src_endpoint", "dst_endpoint"].into_iter().zip(&endpoints) {
            let Some(endpoint) = endpoint else { continue };
            if let Some(ip) = endpoint["ip"].as_str() {
                document.observe(&format!("{name}.ip"), (2, "IP Address"), ip);
            }
            document.set(name, endpoint.clone());
        }
        // A class without any endpoint is not valid.
        if endpoints.iter().all(Option::is_none) {
            document.set("src_endpoint", json!({ "name": "unknown" }));
        }
        document.set("connection_info", self.connection());
    }

    /// It as evidence of a finding; `None` when it names nobody.
    pub fn evidence(&self) -> Option<Value> {
        let mut evidence = Map::new();
        for (name, endpoint) in ["src_endpoint", "dst_endpoint"].into_iter().zip(self.endpoints()) {
            if let Some(endpoint) = endpoint {
                evidence.insert(name.into(), endpoint);
            }
        }
        if evidence.is_empty() {
            return None;
        }
        evidence.insert("connection_info".into(), self.connection());
        Some(Value::Object(evidence))
    }
}

/// An address in its usual spelling.
pub(super) fn address(text: Option<&str>) -> Option<String> {
    let ip: IpAddr = text?.parse().ok()?;
    Some(ip.to_canonical().to_string())
}

/// The agent as a resource.
pub(super) fn resource(agent: &str) -> Value {
    json!({ "uid": agent, "name": agent, "type": "AI agent" })
}
