//! What documents say of the tests is true.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The `file::test` references of a text, each between backticks, by file.
fn references(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for quoted in text.split('`').skip(1).step_by(2) {
        if let Some((file, test)) = quoted.split_once(".rs::") {
            found.entry(file).or_default().push(test);
        }
    }
    found
}

/// Whether a source defines this function and calls it a test, directly or through `proptest!`.
fn has_test(source: &str, name: &str) -> bool {
    let signature = format!("fn {name}(");
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| line.starts_with(&signature));
    at.is_some_and(|at| lines[..at].iter().rev().take(3).any(|line| *line == "#[test]"))
}

/// Rows of a document's tables, heads and rulers left out.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines: Vec<_> = text.lines().collect();
    let is_row = |line: &str| line.starts_with('|') && !line.starts_with("|---");
    let heads: Vec<_> = lines.iter().skip(1).map(|next| next.starts_with("|---")).chain([false]).collect();
    let body: Vec<_> = lines.into_iter().zip(heads).filter(|(line, head)| is_row(line) && !head).collect();
    body.into_iter().map(|(line, _)| line.trim_matches('|').split('|').map(str::trim).collect())
}

#[test]
fn every_test_that_the_list_of_evasions_names_exists() -> Result<()> {
    let text = fs::read_to_string(root().join("docs/evasions.md")).context("docs/evasions.md")?;
    let named = references(&text);
    let count: usize = named.values().map(Vec::len).sum();
    assert!(count > 60, "only {count} tests were found in the text");
    let mut missing = Vec::new();
    for (file, tests) in named {
        let path = if file.contains('/') { format!("{file}.rs") } else { format!("tests/tests/{file}.rs") };
        let source = fs::read_to_string(root().join(&path)).with_context(|| format!("{path} is named"))?;
        missing.extend(tests.into_iter().filter(|test| !has_test(&source, test)).map(|test| (file, test)));
    }
    assert!(missing.is_empty(), "docs/evasions.md names tests that do not exist: {missing:#?}");
    Ok(())
}

#[test]
fn every_evasion_says_what_becomes_of_it_at_each_attachment_and_who_shows_it() -> Result<()> {
    let text = fs::read_to_string(root().join("docs/evasions.md")).context("docs/evasions.md")?;
    let all: Vec<_> = rows(&text).collect();
    assert!(all.len() > 25, "only {} rows were found", all.len());
    for row in all {
        assert!([3, 5].contains(&row.len()), "{} columns: {row:?}", row.len());
        assert!(row.iter().all(|cell| !cell.is_empty()), "an empty cell: {row:?}");
        let shown = row.last().is_some_and(|cell| cell.contains(".rs") || cell.starts_with("none: "));
        assert!(shown, "neither a test nor a reason why there is none: {row:?}");
    }
    Ok(())
}

#[test]
fn a_test_is_told_from_what_only_looks_like_one() {
    let source = "#[test]\nfn one() {}\nfn two() {}\n    #[test]\n    #[ignore]\n    fn three(\n";
    assert_eq!(["one", "two", "three", "four"].map(|name| has_test(source, name)), [true, true, true, false]);
    let text = "| a | `x.rs::one`, `y.rs` |\n";
    assert_eq!(references(text), BTreeMap::from([("x", vec!["one"])]));
}
