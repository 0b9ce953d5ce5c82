//! Reads the keys of one table and collects every problem instead of stopping at the first.

use super::error::Problem;
use super::source::{Entry, Node, Source, Spot, Table, Value};
use super::units;
use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::path::{Component, PathBuf};

/// Collects problems.
pub(super) struct Report<'a> {
    sources: &'a [Source],
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(sources: &'a [Source], problems: Vec<Problem>) -> Self {
        Self { sources, problems: RefCell::new(problems) }
    }

    /// Notes a problem at `spot`.
    pub(super) fn problem(&self, spot: Spot, key: &str, message: String, allowed: Option<String>) {
        let file = self.sources[spot.file].name.clone();
        self.problems.borrow_mut().push(Problem { file, line: spot.line, key: key.into(), message, allowed });
    }

    /// `FILE:LINE`.
    pub(super) fn place(&self, spot: Spot) -> String {
        format!("{}:{}", self.sources[spot.file].name, spot.line)
    }

    /// Everything noted, ordered by file and line.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let order = |problem: &Problem| {
            let file = self.sources.iter().position(|source| source.name == problem.file);
            (file, problem.line)
        };
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(order);
        problems
    }
}

static EMPTY: Table = Table::new();

/// One table while it is read. Every key that is asked for becomes an allowed key.
pub(super) struct Section<'a> {
    pub(super) report: &'a Report<'a>,
    pub(super) path: String,
    table: &'a Table,
    asked: RefCell<Vec<&'static str>>,
    finished: Cell<bool>,
}

impl<'a> Section<'a> {
    /// The table in `node`; anything else is a problem and reads like an empty table.
    pub(super) fn new(report: &'a Report<'a>, path: String, node: &'a Node) -> Self {
        let table = match &node.value {
            Value::Table(table) => table,
            other => {
                report.problem(node.spot, &path, format!("is {}", other.kind()), Some("a table".into()));
                &EMPTY
            }
        };
        Self::of(report, path, table)
    }

    /// A table at hand.
    pub(super) fn of(report: &'a Report<'a>, path: String, table: &'a Table) -> Self {
        Self { report, path, table, asked: RefCell::default(), finished: Cell::new(false) }
    }

    /// Dotted path of one of its keys.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of `key`, which thereby is an allowed key.
    pub(super) fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.asked.borrow_mut().push(key);
        self.table.get(key).map(|entry| &entry.node)
    }

    /// A table below this one; an empty one when it is absent.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        let path = self.key(key);
        match self.node(key) {
            Some(node) => Section::new(self.report, path, node),
            None => Section::of(self.report, path, &EMPTY),
        }
    }

    /// Every entry, for tables whose keys are names.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Entry)> + use<'a> {
        self.finished.set(true);
        self.table.iter()
    }

    /// `key` as read by `parse`, which returns what is wrong with it otherwise.
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        allowed: &str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.node(key)?;
        match parse(&node.value) {
            Ok(value) => Some(value),
            Err(message) => {
                self.report.problem(node.spot, &self.key(key), message, Some(allowed.to_owned()));
                None
            }
        }
    }

    /// A string of any content.
    pub(super) fn string(&self, key: &'static str, allowed: &str) -> Option<String> {
        self.parsed(key, allowed, |value| text(value).map(str::to_owned))
    }

    /// An absolute path of a file or directory, which does not climb.
    pub(super) fn absolute(&self, key: &'static str) -> Option<PathBuf> {
        self.parsed(key, "an absolute path without `..`", |value| absolute_path(text(value)?))
    }

    /// A boolean.
    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        self.parsed(key, "true, false", |value| match value {
            Value::Boolean(boolean) => Ok(*boolean),
            other => Err(format!("is {}", other.kind())),
        })
    }

    /// An integer within `range`.
    pub(super) fn integer(&self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let allowed = format!("an integer from {} to {}", range.start(), range.end());
        self.parsed(key, &allowed, |value| match value {
            Value::Integer(Ok(integer)) => {
                let small = u32::try_from(*integer).ok().filter(|small| range.contains(small));
                small.ok_or_else(|| format!("is {integer}"))
            }
            Value::Integer(Err(text)) => Err(format!("is {text}")),
            other => Err(format!("is {}", other.kind())),
        })
    }

    /// A decimal number within `range` (in thousandths), in thousandths.
    pub(super) fn milli(&self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        self.parts(key, range, 1000)
    }

    /// A decimal number within `range` (in hundredths), in hundredths.
    pub(super) fn centi(&self, key: &'static str, range: RangeInclusive<u16>) -> Option<u16> {
        let parts = self.parts(key, u32::from(*range.start())..=u32::from(*range.end()), 100);
        parts.and_then(|parts| parts.try_into().ok())
    }

    /// A decimal number within `range`, both in parts of one.
    fn parts(&self, key: &'static str, range: RangeInclusive<u32>, parts: u32) -> Option<u32> {
        let parts = f64::from(parts);
        let (least, most) = (f64::from(*range.start()) / parts, f64::from(*range.end()) / parts);
        self.parsed(key, &format!("a number from {least} to {most}"), |value| {
            let number = match value {
                Value::Integer(Ok(integer)) => *integer as f64,
                Value::Float(float) => *float,
                other => return Err(format!("is {}", other.kind())),
            };
            if (least..=most).contains(&number) {
                Ok((number * parts).round() as u32)
            } else {
                Err(format!("is {number}"))
            }
        })
    }

    /// A duration within `range`, in nanoseconds.
    pub(super) fn duration(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let (least, most) = (units::show_duration(*range.start()), units::show_duration(*range.end()));
        self.parsed(key, &format!("a duration from \"{least}\" to \"{most}\""), |value| {
            let text = text(value)?;
            let ns = units::duration_ns(text).ok_or_else(|| format!("{text:?} is not a duration"))?;
            if range.contains(&ns) { Ok(ns) } else { Err(format!("is {text:?}")) }
        })
    }

    /// After how long what is kept goes: from 1 s to ten years, or `"off"` for never, which is `Some(None)`.
    pub(super) fn expiry(&self, key: &'static str) -> Option<Option<u64>> {
        const SECOND: u64 = 1_000_000_000;
        match self.node(key).map(|node| &node.value) {
            Some(Value::String(word)) if word == "off" => Some(None),
            _ => self.duration(key, SECOND..=3650 * 86_400 * SECOND).map(Some),
        }
    }

    /// A duration from 100 µs to `most` times as much, in steps of that.
    pub(super) fn ticks(&self, key: &'static str, most: u64) -> Option<u32> {
        const TICK_NS: u64 = 100_000;
        let longest = units::show_duration(most * TICK_NS);
        let allowed = format!("a duration from \"100us\" to \"{longest}\" in steps of \"100us\"");
        self.parsed(key, &allowed, |value| {
            let text = text(value)?;
            let ns = units::duration_ns(text).ok_or_else(|| format!("{text:?} is not a duration"))?;
            let ticks = ns / TICK_NS;
            if ns.is_multiple_of(TICK_NS) && (1..=most).contains(&ticks) {
                Ok(ticks as u32)
            } else {
                Err(format!("is {text:?}"))
            }
        })
    }

    /// A number of bytes from 1 and below `limit`.
    pub(super) fn bytes(&self, key: &'static str, limit: u64) -> Option<u64> {
        let allowed =
            format!("bytes with a unit (B, kB, MB, GB, KiB, MiB, GiB), from 1B and less than {limit}B");
        self.parsed(key, &allowed, |value| {
            let text = text(value)?;
            let bytes = units::bytes(text).ok_or_else(|| format!("{text:?} is not a number of bytes"))?;
            if (1..limit).contains(&bytes) { Ok(bytes) } else { Err(format!("is {text:?}")) }
        })
    }

    /// A number of bytes within `range`.
    pub(super) fn bytes_within(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let (least, most) = (units::show_bytes(*range.start()), units::show_bytes(*range.end()));
        self.parsed(key, &format!("bytes with a unit, from \"{least}\" to \"{most}\""), |value| {
            let text = text(value)?;
            let bytes = units::bytes(text).ok_or_else(|| format!("{text:?} is not a number of bytes"))?;
            if range.contains(&bytes) { Ok(bytes) } else { Err(format!("is {text:?}")) }
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let allowed: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        self.parsed(key, &allowed.join(", "), |value| {
            let text = text(value)?;
            let found = choices.iter().find(|(word, _)| *word == text);
            found.map(|(_, choice)| *choice).ok_or_else(|| format!("is {text:?}"))
        })
    }

    /// A list of strings.
    pub(super) fn strings(&self, key: &'static str) -> Option<Vec<String>> {
        self.parsed(key, "a list of strings", |value| match value {
            Value::Array(items) => items.iter().map(|item| text(&item.value).map(str::to_owned)).collect(),
            other => Err(format!("is {}", other.kind())),
        })
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(&self) {
        if self.finished.get() {
            return;
        }
        let asked = self.asked.borrow();
        for (key, entry) in self.table.iter().filter(|(key, _)| !asked.contains(&key.as_str())) {
            let nearest = asked.iter().min_by_key(|known| units::distance(key, known));
            let message = match nearest.filter(|known| units::distance(key, known) <= known.len().max(4) / 2)
            {
                Some(nearest) => format!("is not a key here, perhaps `{nearest}` is meant"),
                None => "is not a key here".to_owned(),
            };
            self.report.problem(entry.key, &self.key(key), message, Some(asked.join(", ")));
        }
    }
}

/// A path that names a file wherever it is read.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if path.is_absolute() && !climbs && path.file_name().is_some() && !text.contains('\0') {
        Ok(path)
    } else {
        Err(format!("is {text:?}"))
    }
}

/// The string in `value`, or what it is instead.
pub(super) fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("is {}", other.kind())),
    }
}
