//! The event document.

use super::canonical;
use super::evidence::tiles::ENTRY_BYTES;
use crate::core::draft::{Draft, EventKind};
use crate::core::hex::sha256;
use crate::core::time::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;
use uuid::{ContextV7, Timestamp, Uuid};

/// One event, as it stands in the log: one line of canonical JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// A UUID of version 7: unique, and in the order of time.
    pub event_id: String,
    /// RFC 3339 in UTC with nanoseconds.
    pub timestamp: String,
    /// The same moment on the monotonic clock of the boot. From 2^53 on (104 days) it is written as a string.
    #[serde(deserialize_with = "exact")]
    pub monotonic_ns: u64,
    /// Names the boot.
    pub boot_id: String,
    /// Name of the host.
    pub host: String,
    /// The agent that it is about; `None` for the daemon itself.
    pub agent_id: Option<String>,
    /// Its kind.
    pub event_type: EventKind,
    /// What happened.
    pub event_data: Value,
    /// The incident that it belongs to.
    pub correlation_id: Option<String>,
    /// SHA-256 in hex over the canonical JSON of all other fields.
    pub integrity_hash: String,
}

impl Event {
    /// The line for the log, without its newline.
    #[must_use]
    pub fn to_line(&self) -> String {
        canonical::to_string(&self.to_value())
    }

    fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn hash(&self) -> String {
        hash_without_itself(self.to_value())
    }
}

/// An integer that is written as a number, or as a string when a double cannot hold it.
pub(crate) fn exact<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match Value::deserialize(from)? {
        Value::Number(number) => number.as_u64(),
        Value::String(digits) => digits.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| serde::de::Error::custom("it is not a whole number"))
}

/// The most of data that is too long for an entry that stays in it.
const BEGINNING_BYTES: usize = 4096;

/// What takes the place of data that is too long for an entry: how it began, and by what to know the whole.
fn cut_down(data: &Value) -> Value {
    let text = canonical::to_string(data);
    let mut beginning = BEGINNING_BYTES.min(text.len());
    while !text.is_char_boundary(beginning) {
        beginning -= 1;
    }
    let digest = sha256(text.as_bytes());
    let mut cut = json!({ "cut": { "bytes": text.len(), "sha256": digest, "beginning": text[..beginning] } });
    // What makes an event findable stays where it is looked for.
    for (name, value) in data.as_object().into_iter().flatten() {
        let is_short =
            !(value.is_array() || value.is_object()) && value.as_str().is_none_or(|text| text.len() <= 128);
        if is_short && name.len() <= 64 && cut.as_object().is_some_and(|cut| cut.len() < 16) {
            cut[name] = value.clone();
        }
    }
    cut
}

fn hash_without_itself(mut document: Value) -> String {
    if let Value::Object(fields) = &mut document {
        fields.remove("integrity_hash");
    }
    sha256(canonical::to_string(&document).as_bytes())
}

/// Why a line is not an intact event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is not an event at all.
    NotAnEvent,
    /// It is one, written in another way than events are: repeated keys, white space or another order.
    NotCanonical,
    /// Its hash is that of another event.
    Altered,
}

impl fmt::Display for Flaw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NotAnEvent => "the line is not an event",
            Self::NotCanonical => "the line is not in canonical form",
            Self::Altered => "the line does not match its integrity_hash",
        })
    }
}

/// The intact event in `line`.
///
/// # Errors
///
/// The first flaw that it has.
pub fn verify(line: &str) -> Result<Event, Flaw> {
    let event: Event = serde_json::from_str(line).map_err(|_| Flaw::NotAnEvent)?;
    if event.to_line() != line {
        return Err(Flaw::NotCanonical);
    }
    if event.hash() == event.integrity_hash { Ok(event) } else { Err(Flaw::Altered) }
}

/// The event in a line of the log, if it is one and intact.
#[must_use]
pub fn intact(line: &[u8]) -> Option<Event> {
    verify(std::str::from_utf8(line).ok()?).ok()
}

/// Where ids come from.
pub trait IdSource: Send {
    /// An id that no other event has.
    fn next(&mut self, wall_ns: u64) -> Uuid;
}

/// UUIDs of version 7, increasing within a process even when the clock is not.
#[derive(Debug, Default)]
pub struct UuidV7(ContextV7);

impl IdSource for UuidV7 {
    fn next(&mut self, wall_ns: u64) -> Uuid {
        let (seconds, nanos) = (wall_ns / 1_000_000_000, (wall_ns % 1_000_000_000) as u32);
        Uuid::new_v7(Timestamp::from_unix(&self.0, seconds, nanos))
    }
}

/// Turns drafts into events.
pub struct Sealer {
    host: String,
    boot_id: String,
    ids: Box<dyn IdSource>,
}

impl Sealer {
    /// A sealer for this host and boot.
    #[must_use]
    pub fn new(host: String, boot_id: String, ids: Box<dyn IdSource>) -> Self {
        Self { host, boot_id, ids }
    }

    /// The event of `draft`; of data that no entry of the log can hold, the beginning and the hash.
    #[must_use]
    pub fn seal(&mut self, draft: Draft) -> Event {
        let Draft { at, agent_id, kind, data, correlation_id, trip: _ } = draft;
        let mut event = Event {
            event_id: self.ids.next(at.wall_ns).to_string(),
            timestamp: rfc3339(at.wall_ns),
            monotonic_ns: at.mono_ns,
            boot_id: self.boot_id.clone(),
            host: self.host.clone(),
            agent_id,
            event_type: kind,
            event_data: data,
            correlation_id,
            integrity_hash: String::new(),
        };
        event.integrity_hash = event.hash();
        if event.to_line().len() > ENTRY_BYTES {
            event.event_data = cut_down(&event.event_data);
            event.integrity_hash = event.hash();
        }
        event
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::time::Time;
    use sha2::{Digest, Sha256};

    /// Ids that tests can predict.
    #[derive(Default)]
    pub struct Counted(u64);

    impl IdSource for Counted {
        fn next(&mut self, wall_ns: u64) -> Uuid {
            self.0 += 1;
            Uuid::from_u64_pair(wall_ns, self.0)
        }
    }

    pub fn sealer() -> Sealer {
        Sealer::new("host".into(), "boot".into(), Box::new(Counted::default()))
    }

    fn event() -> Event {
        let at = Time { mono_ns: 1 << 60, wall_ns: 1_700_000_000_123_456_789 };
        let data = json!({ "risk": 0.7, "all": 1.0, "text": "ü\n\u{1}" });
        sealer().seal(Draft {
            agent_id: Some("crawler".into()),
            correlation_id: Some("crawler-1".into()),
            ..Draft::daemon(at, EventKind::SecurityViolation, data)
        })
    }

    #[test]
    fn a_line_verifies_and_any_other_byte_does_not() {
        let line = event().to_line();
        verify(&line).unwrap();
        for at in (0..line.len()).filter(|at| line.is_char_boundary(*at) && line.is_char_boundary(at + 1)) {
            let old = line.as_bytes()[at];
            let new = if old == b'7' { "8" } else { "7" };
            let forged = format!("{}{new}{}", &line[..at], &line[at + 1..]);
            assert!(verify(&forged).is_err(), "byte {at}: {forged}");
        }
    }

    #[test]
    fn a_document_spelt_in_another_way_does_not_verify() {
        let line = event().to_line();
        let spaced = line.replace("\":", "\": ");
        assert_eq!(verify(&spaced), Err(Flaw::NotCanonical));
        let doubled = line.replace("\"host\":\"host\"", "\"host\":\"evil\",\"host\":\"host\"");
        assert!(verify(&doubled).is_err(), "of two equal keys one would be hidden");
        assert_eq!(verify(&line.replace("crawler-1", "crawler-2")), Err(Flaw::Altered));
        assert_eq!(verify("{}"), Err(Flaw::NotAnEvent));
    }

    #[test]
    fn the_hash_is_what_anybody_computes() {
        let line = event().to_line();
        let hash_at = line.find(",\"integrity_hash\":").unwrap();
        let after = hash_at + ",\"integrity_hash\":\"\"".len() + 64;
        let without = format!("{}{}", &line[..hash_at], &line[after..]);
        let digest: String =
            Sha256::digest(without.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, event().integrity_hash);
        assert!(line.contains("\"timestamp\":\"2023-11-14T22:13:20.123456789Z\""), "{line}");
    }

    #[test]
    fn ids_are_in_the_order_of_their_making() {
        let mut ids = UuidV7::default();
        let made: Vec<Uuid> = (0..1000u64).map(|n| ids.next(1_700_000_000_000_000_000 + n / 10)).collect();
        assert!(made.is_sorted() && made.windows(2).all(|two| two[0] != two[1]));
        assert_eq!(made[0].get_version_num(), 7);
        // A clock that steps back makes none twice.
        let mut again: Vec<Uuid> =
            (0..1000u64).map(|n| ids.next(1_700_000_000_000_000_000 - n * 3_600_000_000_000)).collect();
        again.extend(&made);
        again.sort();
        assert!(again.windows(2).all(|two| two[0] != two[1]));
    }

    #[test]
    fn data_that_no_entry_can_hold_is_cut_and_what_makes_it_findable_stays() {
        let long = json!({ "text": "\u{1}".repeat(70_000), "what": "a report", "community_id": "1:x", "list": [1, 2] });
        let at = Time { mono_ns: (1 << 53) + 1, wall_ns: 1_700_000_000_000_000_000 };
        let line = sealer().seal(Draft::daemon(at, EventKind::Alert, long.clone())).to_line();
        assert!(line.len() <= ENTRY_BYTES, "{}", line.len());
        let event = verify(&line).unwrap();
        assert!(line.contains("\"monotonic_ns\":\"9007199254740993\""), "{line}");
        assert_eq!(event.monotonic_ns, (1 << 53) + 1);
        let data = &event.event_data;
        assert_eq!((&data["what"], &data["community_id"]), (&"a report".into(), &"1:x".into()));
        let whole = canonical::to_string(&long);
        assert_eq!(data["cut"]["bytes"], whole.len());
        assert!(whole.starts_with(data["cut"]["beginning"].as_str().unwrap()));
    }
}
