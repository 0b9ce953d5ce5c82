//! The archive: a tar of the manifest and the parts, which any `tar` opens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};

use tar::{EntryType, Header};

use super::manifest::{FORMAT, Manifest, NAME};
use super::part::Part;
use super::sha256;

/// A larger archive is none of ours.
pub const MOST_BYTES: u64 = 4 << 30;

/// The archive's bytes. The same manifest and parts are always the same bytes.
///
/// # Errors
///
/// When a name is too long for a tar.
pub fn write(manifest: &Manifest, parts: &[Part], mtime_s: u64) -> io::Result<Vec<u8>> {
    let bytes = manifest.to_bytes();
    let mut builder = tar::Builder::new(Vec::new());
    let with_bytes = parts.iter().filter(|part| !part.bytes.is_empty());
    let files = with_bytes.map(|part| (part.name.as_str(), part.bytes.as_slice()));
    for (name, content) in std::iter::once((NAME, bytes.as_slice())).chain(files) {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(mtime_s);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, format!("{}/{name}", manifest.bundle_id), content)?;
    }
    builder.into_inner()
}

/// What is wrong with an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is no tar, or a damaged one.
    NotAnArchive(String),
    /// Its first file is no manifest of a known format.
    NoManifest(String),
    /// A part is not there.
    Missing(String),
    /// A part is there twice, or one that the manifest does not know.
    Foreign(String),
    /// A part is not what the manifest says.
    Altered(String),
}

impl fmt::Display for Flaw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnArchive(why) => write!(out, "it is not a whole archive: {why}"),
            Self::NoManifest(why) => write!(out, "its manifest cannot be used: {why}"),
            Self::Missing(name) => write!(out, "{name} is missing"),
            Self::Foreign(name) => write!(out, "{name} does not belong there"),
            Self::Altered(name) => write!(out, "{name} is not what the manifest says"),
        }
    }
}

impl std::error::Error for Flaw {}

/// An archive that agrees with its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The manifest.
    pub manifest: Manifest,
    /// The parts that have bytes, by name.
    pub parts: BTreeMap<String, Vec<u8>>,
}

/// Reads an archive and compares every part with the manifest. Nothing is written anywhere.
///
/// # Errors
///
/// The first flaw.
pub fn read(bytes: &[u8]) -> Result<Opened, Flaw> {
    let damaged = |error: io::Error| Flaw::NotAnArchive(error.to_string());
    let mut archive = tar::Archive::new(bytes);
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != EntryType::Regular {
            return Err(Flaw::Foreign(path));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(damaged)?;
        files.push((path, content));
    }
    let mut files = files.into_iter();
    let (path, document) = files.next().ok_or_else(|| Flaw::NotAnArchive("it is empty".into()))?;
    let manifest = parse(&path, &document)?;
    let prefix = format!("{}/", manifest.bundle_id);
    let mut parts = BTreeMap::new();
    for (path, content) in files {
        let known =
            path.strip_prefix(&prefix).and_then(|name| manifest.parts.iter().find(|part| part.name == name));
        let Some(known) = known else { return Err(Flaw::Foreign(path)) };
        if known.bytes != content.len() as u64 || known.sha256 != sha256(&content) {
            return Err(Flaw::Altered(known.name.clone()));
        }
        if parts.insert(known.name.clone(), content).is_some() {
            return Err(Flaw::Foreign(path));
        }
    }
    match manifest.parts.iter().find(|part| part.bytes > 0 && !parts.contains_key(&part.name)) {
        Some(missing) => Err(Flaw::Missing(missing.name.clone())),
        None => Ok(Opened { manifest, parts }),
    }
}

fn parse(path: &str, document: &[u8]) -> Result<Manifest, Flaw> {
    let manifest: Manifest =
        serde_json::from_slice(document).map_err(|error| Flaw::NoManifest(format!("{path}: {error}")))?;
    if manifest.format != FORMAT {
        return Err(Flaw::NoManifest(format!(
            "its format is {}, and this version knows {FORMAT}",
            manifest.format
        )));
    }
    let names: BTreeSet<&str> = manifest.parts.iter().map(|part| part.name.as_str()).collect();
    let is_its_own = path == format!("{}/{NAME}", manifest.bundle_id);
    if !is_its_own || names.len() != manifest.parts.len() || manifest.to_bytes() != document {
        return Err(Flaw::NoManifest(format!("{path} is not in canonical form")));
    }
    Ok(manifest)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::manifest::{Entry, Limits, Origin};
    use super::super::part::Status;
    use super::super::trip::Trip;
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    pub fn manifest(parts: &[Part]) -> Manifest {
        Manifest {
            format: FORMAT,
            bundle_id: "0199-id".into(),
            trip: Trip { agent: "a".into(), incident: Some("i".into()), ..Trip::default() },
            origin: Origin::default(),
            collected_at: "2026-01-01T00:00:00.000000000Z".into(),
            collected_monotonic_ns: u64::MAX,
            took_ms: 3,
            limits: Limits::default(),
            parts: parts.iter().map(Entry::of).collect(),
        }
    }

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        let status = prop_oneof![Just(Status::Complete), Just(Status::Partial), Just(Status::Failed)];
        let part = (
            "[a-z]{1,12}\\.json",
            status,
            prop::collection::vec(".*", 0..3),
            any::<Vec<u8>>(),
            0u64..1 << 53,
        );
        let part = part.prop_map(|(name, status, reasons, bytes, took_ms)| Part {
            name,
            status,
            reasons,
            bytes,
            took_ms,
        });
        prop::collection::vec(part, 0..6).prop_map(|mut parts| {
            parts.sort_by(|a, b| a.name.cmp(&b.name));
            parts.dedup_by(|a, b| a.name == b.name);
            parts
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_a_part_with_any_other_byte_is_found(parts in parts(), at: prop::sample::Index, flip in 1_u8..) {
            let manifest = manifest(&parts);
            let mut bytes = write(&manifest, &parts, 7).unwrap();
            let opened = read(&bytes).unwrap();
            prop_assert_eq!(&opened.manifest, &manifest);
            let expected: BTreeMap<_, _> =
                parts.iter().filter(|part| !part.bytes.is_empty()).map(|part| (part.name.clone(), part.bytes.clone())).collect();
            prop_assert_eq!(&opened.parts, &expected);
            // The manifest, and metadata such as the mode, are covered by the log's SHA-256 over the whole file.
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(again) = read(&bytes) {
                prop_assert_eq!(again.parts, opened.parts);
            }
        }

        #[test]
        fn any_truncation_of_the_files_is_found(parts in parts(), at: prop::sample::Index) {
            let bytes = write(&manifest(&parts), &parts, 7).unwrap();
            let at = at.index(bytes.len() - 1024);
            prop_assert!(read(&bytes[..at]).is_err(), "{} of {}", at, bytes.len());
        }

        #[test]
        fn anything_is_read_without_harm(bytes: Vec<u8>) {
            prop_assert!(read(&bytes).is_err());
        }
    }

    fn part(name: &str, content: &str) -> Part {
        Part {
            name: name.into(),
            status: Status::Complete,
            reasons: vec![],
            bytes: content.into(),
            took_ms: 1,
        }
    }

    #[test]
    fn a_part_that_was_exchanged_removed_added_or_doubled_is_named() {
        let (a, b) = (part("a.json", "first"), part("b.json", "second"));
        let both = manifest(&[a.clone(), b.clone()]);
        let altered = part("b.json", "seconD");
        for (parts, flaw) in [
            (vec![a.clone(), altered], Flaw::Altered("b.json".into())),
            (vec![a.clone()], Flaw::Missing("b.json".into())),
            (vec![a.clone(), b.clone(), part("c.json", "x")], Flaw::Foreign("0199-id/c.json".into())),
            (vec![a.clone(), b.clone(), b.clone()], Flaw::Foreign("0199-id/b.json".into())),
            (vec![a.clone(), part("../b.json", "second")], Flaw::Foreign(String::new())),
        ] {
            let written = write(&both, &parts, 7);
            match (written, flaw) {
                // A path that leaves the directory is not even written.
                (Err(_), flaw) => assert_eq!(flaw, Flaw::Foreign(String::new())),
                (Ok(bytes), flaw) => assert_eq!(read(&bytes), Err(flaw)),
            }
        }
    }

    #[test]
    fn the_tar_of_others_opens_it() {
        let parts = [part("a.json", "{\"items\":[]}\n")];
        let bytes = write(&manifest(&parts), &parts, 1_700_000_000).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bundle.tar");
        std::fs::write(&file, &bytes).unwrap();
        let tar = Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(directory.path()).output().unwrap();
        assert!(tar.status.success(), "{tar:?}");
        let read = |name: &str| std::fs::read(directory.path().join("0199-id").join(name)).unwrap();
        assert_eq!(read("a.json"), b"{\"items\":[]}\n");
        assert_eq!(read(NAME), manifest(&parts).to_bytes());
    }
}
