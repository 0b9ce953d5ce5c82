//! A document while it is written.

use super::class::Class;
use super::parts::Severity;
use crate::record::event::Event;
use crate::record::timestamp::Timestamp;
use serde_json::{Map, Value, json};

/// One document.
pub(super) struct Document {
    fields: Map<String, Value>,
    metadata: Map<String, Value>,
    observables: Vec<Value>,
    unmapped: Map<String, Value>,
}

impl Document {
    /// Of an entry of which nothing is known.
    pub fn bare(place: u64, integrity: String) -> Self {
        let product = json!({
            "name": "AgentSec", "uid": "agentsec", "vendor_name": "AgentSec",
            "version": env!("CARGO_PKG_VERSION"),
        });
        let tags = json!([{ "name": "integrity", "value": integrity }]);
        let metadata = [
            ("version", json!(super::VERSION)),
            ("product", product),
            ("log_provider", json!("agentsec")),
            ("sequence", json!(place)),
            ("tags", tags),
        ];
        let metadata = metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut document =
            Self { fields: Map::new(), metadata, observables: Vec::new(), unmapped: Map::new() };
        document.set("timezone_offset", 0);
        document
    }

    /// Of an event, without what its kind alone has.
    pub fn of(place: u64, event: &Event, integrity: &str) -> Self {
        let mut document = Self::bare(place, integrity.to_owned());
        let time: Option<Timestamp> = event.timestamp.parse().ok();
        document.set("time", time.map_or(0, |time| time.0));
        document.meta("uid", &event.event_id);
        document.meta("event_code", event.event_type.name());
        document.meta("original_time", &event.timestamp);
        if let Some(id) = &event.correlation_id {
            document.meta("correlation_uid", id);
        }
        if let Some(Value::Array(tags)) = document.metadata.get_mut("tags") {
            tags.push(json!({ "name": "integrity_hash", "value": event.integrity_hash }));
        }
        document.set("device", json!({ "type_id": 0, "type": "Unknown", "hostname": event.host }));
        document.observe("device.hostname", (1, "Hostname"), &event.host);
        document.leave("boot_id", json!(event.boot_id));
        document.leave("monotonic_ns", json!(event.monotonic_ns));
        if let Some(agent) = &event.agent_id {
            document.leave("agent_id", json!(agent));
            document.observe("unmapped.agent_id", (10, "Resource UID"), agent);
        }
        document
    }

    /// The data as an object; anything else is left as it is.
    pub fn take_data(&mut self, data: Value) -> Map<String, Value> {
        match data {
            Value::Object(data) => data,
            Value::Null => Map::new(),
            other => {
                self.leave("event_data", other);
                Map::new()
            }
        }
    }

    /// Sets a field of the document.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// Sets a field if there is something.
    pub fn set_some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    fn meta(&mut self, name: &str, value: &str) {
        self.metadata.insert(name.to_owned(), value.into());
    }

    /// Says from which log it is: places in different ones do not compare.
    pub fn name_log(&mut self, origin: Option<&str>) {
        if let Some(origin) = origin {
            self.meta("log_name", origin);
        }
    }

    /// The event's id.
    pub fn uid(&self) -> Value {
        self.metadata.get("uid").cloned().unwrap_or_default()
    }

    /// Its class, and of that the activity.
    pub fn class(&mut self, class: Class, (activity, name): (u32, &str)) {
        let (uid, caption, category) = class.names();
        self.set("class_uid", uid);
        self.set("class_name", caption);
        self.set("category_uid", uid / 1000);
        self.set("category_name", category);
        self.set("activity_id", activity);
        self.set("activity_name", name);
        self.set("type_uid", uid * 100 + activity);
        self.set("type_name", format!("{caption}: {name}"));
        self.metadata.insert("profiles".into(), json!(class.profiles()));
        if class == Class::Base {
            self.metadata.remove("profiles");
        }
    }

    pub fn severity(&mut self, severity: Severity) {
        let (id, name) = severity.names();
        self.set("severity_id", id);
        self.set("severity", name);
    }

    /// What was done with it.
    pub fn disposition(&mut self, (action, action_name): (u32, &str), (id, name): (u32, &str)) {
        self.set("action_id", action);
        self.set("action", action_name);
        self.set("disposition_id", id);
        self.set("disposition", name);
    }

    pub fn status(&mut self, (id, name): (u32, &str)) {
        self.set("status_id", id);
        self.set("status", name);
    }

    /// Something by which other documents can be found.
    pub fn observe(&mut self, name: &str, (type_id, kind): (u32, &str), value: &str) {
        self.observables.push(json!({ "name": name, "type_id": type_id, "type": kind, "value": value }));
    }

    /// Leaves a value unmapped.
    pub fn leave(&mut self, name: &str, value: Value) {
        self.unmapped.insert(name.to_owned(), value);
    }

    /// Leaves what is left of the data.
    pub fn leave_all(&mut self, data: Map<String, Value>) {
        let data: Map<_, _> = data.into_iter().filter(|(_, value)| !value.is_null()).collect();
        if !data.is_empty() {
            self.leave("event_data", Value::Object(data));
        }
    }

    /// The document as JSON.
    pub fn finish(mut self) -> Value {
        self.fields.insert("metadata".into(), Value::Object(self.metadata));
        if !self.observables.is_empty() {
            self.fields.insert("observables".into(), Value::Array(self.observables));
        }
        if !self.unmapped.is_empty() {
            self.fields.insert("unmapped".into(), Value::Object(self.unmapped));
        }
        Value::Object(self.fields)
    }
}
