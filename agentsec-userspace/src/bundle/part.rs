//! One part of a bundle while it is written, and what became of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::record::canonical;

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It has everything.
    Complete,
    /// It lacks something, and says what.
    Partial,
    /// There is nothing.
    Failed,
    /// It cannot be known of this agent.
    Unavailable,
}

impl Status {
    /// As written in manifests and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A finished part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its file name in the archive.
    pub name: String,
    /// What became of it.
    pub status: Status,
    /// Why it is not complete.
    pub reasons: Vec<String>,
    /// Its content; empty when there is none.
    pub bytes: Vec<u8>,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

/// A part while it is written, shared with whoever waits for it: what is on it when time is up is kept.
#[derive(Debug)]
pub struct Paper {
    deadline: Instant,
    most_bytes: usize,
    sheet: Mutex<Sheet>,
}

#[derive(Debug, Default)]
struct Sheet {
    facts: Map<String, Value>,
    items: Vec<Value>,
    raw: Option<Vec<u8>>,
    bytes: usize,
    reasons: Vec<String>,
    unavailable: bool,
}

/// Reasons that one part keeps.
const MOST_REASONS: usize = 32;

impl Paper {
    /// An empty one that is to be written within `limit` and be of at most `most_bytes`.
    #[must_use]
    pub fn new(limit: Duration, most_bytes: usize) -> Self {
        Self { deadline: Instant::now() + limit, most_bytes, sheet: Mutex::default() }
    }

    fn sheet(&self) -> MutexGuard<'_, Sheet> {
        self.sheet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much time is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether time is up.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.left().is_zero()
    }

    /// Bytes that the part may have.
    #[must_use]
    pub const fn most_bytes(&self) -> usize {
        self.most_bytes
    }

    /// States something about the whole.
    pub fn fact(&self, name: &str, value: impl Into<Value>) {
        self.sheet().facts.insert(name.to_owned(), value.into());
    }

    /// Adds an item, if there is room and time. Its place, or `None` if it was left out, which the part then says.
    pub fn item(&self, item: Value) -> Option<usize> {
        let bytes = size_of_value(&item);
        let mut sheet = self.sheet();
        if sheet.bytes + bytes > self.most_bytes {
            drop(sheet);
            self.lacks(format!("cut at {} bytes", self.most_bytes));
            return None;
        }
        sheet.bytes += bytes;
        sheet.items.push(item);
        Some(sheet.items.len() - 1)
    }

    /// Adds fields to an item.
    pub fn amend(&self, place: usize, fields: Map<String, Value>) {
        let bytes: usize = fields.iter().map(|(name, value)| name.len() + 4 + size_of_value(value)).sum();
        let mut sheet = self.sheet();
        if sheet.bytes + bytes > self.most_bytes {
            drop(sheet);
            return self.lacks(format!("cut at {} bytes", self.most_bytes));
        }
        sheet.bytes += bytes;
        if let Some(Value::Object(item)) = sheet.items.get_mut(place) {
            item.extend(fields);
        }
    }

    /// The part is these bytes and no document.
    pub fn raw(&self, bytes: Vec<u8>) {
        if bytes.len() > self.most_bytes {
            return self.lacks(format!(
                "left out: {} bytes, and {} are allowed",
                bytes.len(),
                self.most_bytes
            ));
        }
        self.sheet().raw = Some(bytes);
    }

    /// The part lacks something.
    pub fn lacks(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let mut sheet = self.sheet();
        if sheet.reasons.len() < MOST_REASONS && !sheet.reasons.contains(&reason) {
            sheet.reasons.push(reason);
        }
    }

    /// It cannot be known of this agent.
    pub fn cannot_be_known(&self, reason: impl Into<String>) {
        self.sheet().unavailable = true;
        self.lacks(reason);
    }

    /// What stands on it now, as a part; `ended` says whether whoever writes has said the last word, or why not.
    #[must_use]
    pub fn finish(&self, name: &str, ended: Result<(), String>, took: Duration) -> Part {
        let mut sheet = std::mem::take(&mut *self.sheet());
        let is_empty = sheet.items.is_empty() && sheet.facts.is_empty() && sheet.raw.is_none();
        if let Err(reason) = &ended {
            sheet.reasons.push(reason.clone());
        }
        let status = match (&ended, is_empty) {
            _ if sheet.unavailable => Status::Unavailable,
            (Err(_), true) => Status::Failed,
            _ if sheet.reasons.is_empty() => Status::Complete,
            _ => Status::Partial,
        };
        let bytes = match sheet.raw {
            Some(raw) => raw,
            // Of what is complete, an empty list is the answer.
            None if is_empty && status != Status::Complete => Vec::new(),
            None => {
                let mut document = sheet.facts;
                document.insert("items".into(), sheet.items.into());
                let mut text = canonical::to_string(&Value::Object(document));
                text.push('\n');
                text.into_bytes()
            }
        };
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Part { name: name.to_owned(), status, reasons: sheet.reasons, bytes, took_ms }
    }
}

/// About how many bytes a value has when written: never much less.
fn size_of_value(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 6,
        Value::Number(_) => 20,
        // Escapes in JSON make control characters six times as long; none are left by `text::visible`.
        Value::String(text) => {
            text.len() + 3 + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count()
        }
        Value::Array(items) => 3 + items.iter().map(size_of_value).sum::<usize>(),
        Value::Object(fields) => {
            3 + fields.iter().map(|(name, value)| name.len() + 4 + size_of_value(value)).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_part_that_ran_out_of_room_or_time_keeps_what_it_has_and_says_so() {
        let paper = Paper::new(LONG, 200);
        while paper.item(json!({ "pid": 1, "name": "0123456789" })).is_some() {}
        let part = paper.finish("p.json", Ok(()), Duration::ZERO);
        assert_eq!((part.status, part.reasons), (Status::Partial, vec!["cut at 200 bytes".to_owned()]));
        assert!((100..=300).contains(&part.bytes.len()), "{}", part.bytes.len());
        let paper = Paper::new(LONG, 200);
        paper.item(json!(1));
        let part = paper.finish("p.json", Err("took longer than 5 s".into()), Duration::ZERO);
        assert_eq!(part.status, Status::Partial);
        assert_eq!(part.bytes, b"{\"items\":[1]}\n");
    }

    #[test]
    fn nothing_is_failed_or_unavailable_and_never_complete() {
        let failed = Paper::new(LONG, 9).finish("p", Err("x".into()), Duration::ZERO);
        assert_eq!((failed.status, failed.bytes.len()), (Status::Failed, 0));
        let paper = Paper::new(LONG, 9);
        paper.cannot_be_known("known by its address");
        assert_eq!(paper.finish("p", Ok(()), Duration::ZERO).status, Status::Unavailable);
        let paper = Paper::new(LONG, 9);
        paper.raw(vec![0; 10]);
        let part = paper.finish("p", Ok(()), Duration::ZERO);
        assert_eq!((part.status, part.bytes.len()), (Status::Partial, 0));
        let none = Paper::new(LONG, 9).finish("p", Ok(()), Duration::ZERO);
        assert_eq!((none.status, none.bytes.as_slice()), (Status::Complete, &b"{\"items\":[]}\n"[..]));
        let paper = Paper::new(LONG, 999);
        paper.fact("sockets", 0);
        assert_eq!(paper.finish("p", Ok(()), Duration::ZERO).status, Status::Complete, "none is an answer");
    }
}
