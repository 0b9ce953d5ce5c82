//! Files become one tree of values that each know where they were written.

use super::error::Problem;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

/// One file's name and text.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the operator named it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Where something was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub file: usize,
    pub line: usize,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub spot: Spot,
    pub value: Value,
}

/// A TOML value. An integer that does not fit is the `Err` of its text.
#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    Integer(Result<i64, String>),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(Vec<Node>),
    Table(Table),
}

impl Value {
    /// How messages call it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime => "a date",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Entries by key, each with the place of its key.
pub(super) type Table = BTreeMap<String, Entry>;

/// One key of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: Spot,
    pub node: Node,
}

/// Reads `path` and the drop-ins `conf.d/*.toml` beside it, sorted by name.
pub(super) fn read(path: &Path) -> Result<Vec<Source>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut sources = Vec::new();
    let mut paths = vec![path.to_owned()];
    match drop_ins(path) {
        Ok(found) => paths.extend(found),
        Err(problem) => problems.push(problem),
    }
    for path in paths {
        match std::fs::read_to_string(&path) {
            Ok(text) => sources.push(Source { name: path.display().to_string(), text }),
            Err(error) => problems.push(unreadable(&path, &error)),
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    let directory = path.parent().unwrap_or(Path::new("")).join("conf.d");
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(&directory, &error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(&directory, &error))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|extension| extension == "toml") && !hidden {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem {
        file: path.display().to_string(),
        line: 0,
        key: String::new(),
        message: format!("cannot be read: {error}"),
        allowed: None,
    }
}

/// Parses every source and merges them. What cannot be parsed is a problem, and the rest is still examined.
pub(super) fn merge(sources: &[Source], problems: &mut Vec<Problem>) -> Table {
    let mut merged = Table::new();
    for (file, source) in sources.iter().enumerate() {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        problems.extend(errors.iter().map(|error| Problem {
            file: source.name.clone(),
            line: line_of(&source.text, error.span().map_or(0, |span| span.start)),
            key: String::new(),
            message: error.message().replace('\n', ", "),
            allowed: None,
        }));
        let lines = Lines { file, text: &source.text };
        merge_top(&mut merged, lines.table(table.get_ref()), sources, problems);
    }
    merged
}

/// Sections merge key by key, but a profile or an agent is written in one place only.
fn merge_top(into: &mut Table, from: Table, sources: &[Source], problems: &mut Vec<Problem>) {
    for (section, entry) in from {
        match into.entry(section) {
            MapEntry::Vacant(vacant) => _ = vacant.insert(entry),
            MapEntry::Occupied(mut occupied) => {
                let named = matches!(occupied.key().as_str(), "profiles" | "agents");
                let section = occupied.key().clone();
                match (&mut occupied.get_mut().node.value, entry.node.value) {
                    (Value::Table(old), Value::Table(new)) if named => {
                        merge_named(&section, old, new, sources, problems);
                    }
                    (Value::Table(old), Value::Table(new)) => override_keys(old, new),
                    (old, new) => *old = new,
                }
            }
        }
    }
}

fn merge_named(
    section: &str,
    into: &mut Table,
    from: Table,
    sources: &[Source],
    problems: &mut Vec<Problem>,
) {
    for (name, entry) in from {
        match into.entry(name) {
            MapEntry::Vacant(vacant) => _ = vacant.insert(entry),
            MapEntry::Occupied(occupied) => {
                let first = occupied.get().key;
                problems.push(Problem {
                    file: sources[entry.key.file].name.clone(),
                    line: entry.key.line,
                    key: format!("{section}.{}", occupied.key()),
                    message: format!("is already defined at {}:{}", sources[first.file].name, first.line),
                    allowed: Some("one definition over all files".into()),
                });
            }
        }
    }
}

fn override_keys(into: &mut Table, from: Table) {
    for (key, entry) in from {
        match into.entry(key) {
            MapEntry::Vacant(vacant) => _ = vacant.insert(entry),
            MapEntry::Occupied(mut occupied) => {
                match (&mut occupied.get_mut().node.value, entry.node.value) {
                    (Value::Table(old), Value::Table(new)) => override_keys(old, new),
                    (_, value) => {
                        *occupied.get_mut() =
                            Entry { key: entry.key, node: Node { spot: entry.node.spot, value } };
                    }
                }
            }
        }
    }
}

struct Lines<'a> {
    file: usize,
    text: &'a str,
}

impl Lines<'_> {
    fn spot(&self, span: std::ops::Range<usize>) -> Spot {
        Spot { file: self.file, line: line_of(self.text, span.start) }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| -> (String, Entry) {
            let key: &Spanned<std::borrow::Cow<'_, str>> = key;
            let node = self.node(value);
            (key.get_ref().to_string(), Entry { key: self.spot(key.span()), node })
        };
        table.iter().map(entry).collect()
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        let spot = self.spot(value.span());
        let value = match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(integer) => Value::Integer(integer_of(integer)),
            DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(array) => Value::Array(array.iter().map(|value| self.node(value)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { spot, value }
    }
}

fn integer_of(integer: &DeInteger<'_>) -> Result<i64, String> {
    i64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| integer.to_string())
}

fn line_of(text: &str, offset: usize) -> usize {
    let end = offset.min(text.len());
    1 + text.as_bytes()[..end].iter().filter(|&&byte| byte == b'\n').count()
}
