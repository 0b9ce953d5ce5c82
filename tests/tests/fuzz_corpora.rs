//! The fuzzers' targets over the committed corpora, and over some mutations of what is in them.

use std::fs;
use std::path::{Path, PathBuf};

use agentsec_tests::fuzz::targets::TARGETS;
use anyhow::{Context, Result, ensure};

/// Mutations of each entry: quick enough for every run, while `cargo xtask fuzz` looks further.
const MUTATIONS: usize = 400;

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora").join(name)
}

fn entries(name: &str) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let directory = corpus(name);
    let listed = fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut entries = Vec::new();
    for entry in listed {
        let path = entry?.path();
        entries.push((path.clone(), fs::read(&path)?));
    }
    entries.sort();
    Ok(entries)
}

/// What a fuzzer does, bounded and the same in every run.
fn mutate(random: &mut fastrand::Rng, bytes: &mut Vec<u8>, others: &[(PathBuf, Vec<u8>)]) {
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=bytes.len());
        match random.u8(..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 if at < bytes.len() => bytes[at] = *random.choice(&[0, 1, 0x7f, 0x80, 0xff]).unwrap_or(&0),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.u8(..)),
            4 => {
                let part = bytes[at..].to_vec();
                bytes.splice(at..at, part.into_iter().take(64));
            }
            _ => {
                let (_, other) = &others[random.usize(..others.len())];
                bytes.truncate(at);
                bytes.extend(&other[random.usize(..=other.len())..]);
            }
        }
        bytes.truncate(4096);
    }
}

#[test]
fn every_target_takes_its_corpus_and_what_is_made_of_it() -> Result<()> {
    for (name, target) in TARGETS {
        let entries = entries(name)?;
        ensure!(entries.len() >= 4, "the corpus of {name} has {} entries", entries.len());
        let mut random = fastrand::Rng::with_seed(9);
        for (path, entry) in &entries {
            let told = |what: &str, bytes: &[u8]| format!("{name}: {what} {}: {bytes:02x?}", path.display());
            let ran = std::panic::catch_unwind(|| target(entry));
            assert!(ran.is_ok(), "{}", told("the entry", entry));
            for _ in 0..MUTATIONS {
                let mut bytes = entry.clone();
                mutate(&mut random, &mut bytes, &entries);
                let ran = std::panic::catch_unwind(|| target(&bytes));
                assert!(ran.is_ok(), "{}", told("made of", &bytes));
            }
        }
    }
    Ok(())
}

#[test]
fn every_corpus_has_a_target() -> Result<()> {
    for entry in fs::read_dir(corpus(""))? {
        let name = entry?.file_name();
        assert!(TARGETS.iter().any(|(target, _)| name == *target), "{}", name.display());
    }
    Ok(())
}
