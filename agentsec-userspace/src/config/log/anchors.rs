//! `[log.anchors]`: files, HTTP servers and witnesses that get the log's checkpoints.

use super::{is_in_the_clear, url_of};
use crate::config::check_name;
use crate::config::section::{Section, text};
use crate::record::anchor::WitnessKey;
use std::collections::BTreeMap;
use std::path::PathBuf;

const SECOND: u64 = 1_000_000_000;

/// Where checkpoints go, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorsConfig {
    /// How often the newest checkpoint is anchored, nanoseconds.
    pub interval_ns: u64,
    /// The most that one attempt may take, nanoseconds.
    pub timeout_ns: u64,
    /// Certificates (PEM) that are trusted beside the system's, for servers inside an organization.
    pub ca_file: Option<PathBuf>,
    /// The anchors by name.
    pub anchors: BTreeMap<String, AnchorConfig>,
}

impl Default for AnchorsConfig {
    fn default() -> Self {
        Self { interval_ns: 60 * SECOND, timeout_ns: 10 * SECOND, ca_file: None, anchors: BTreeMap::new() }
    }
}

/// One anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorConfig {
    /// Where it is.
    pub place: AnchorPlace,
}

/// Where an anchor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnchorPlace {
    /// A file to which checkpoints are appended.
    File {
        /// The file; its directory exists.
        path: PathBuf,
        /// It may lie on the file system of the daemon's state.
        same_device: bool,
    },
    /// A server that gets each checkpoint as the body of a POST.
    Http {
        /// Where to.
        url: String,
        /// File of mode 0600 with one line `Name: value`: a header for the server, such as its token.
        header_file: Option<PathBuf>,
    },
    /// A witness as C2SP's `tlog-witness` describes it.
    Witness {
        /// The submission prefix: `add-checkpoint` is below it.
        url: String,
        /// The key with which it cosigns.
        key: WitnessKey,
    },
}

/// Reads `[log.anchors]`.
pub(super) fn read(section: &Section<'_>) -> AnchorsConfig {
    let default = AnchorsConfig::default();
    let mut anchors = BTreeMap::new();
    each(section, "file", &mut anchors, read_file);
    each(section, "http", &mut anchors, read_http);
    each(section, "witness", &mut anchors, read_witness);
    let config = AnchorsConfig {
        interval_ns: section.duration("interval", SECOND..=86_400 * SECOND).unwrap_or(default.interval_ns),
        timeout_ns: section.duration("timeout", SECOND / 10..=300 * SECOND).unwrap_or(default.timeout_ns),
        ca_file: section.absolute("ca_file"),
        anchors,
    };
    section.finish();
    config
}

/// Reads the anchors of one kind; a name is given once over all kinds.
fn each(
    section: &Section<'_>,
    kind: &'static str,
    anchors: &mut BTreeMap<String, AnchorConfig>,
    read: impl Fn(&Section<'_>) -> Option<AnchorPlace>,
) {
    let kinds = section.section(kind);
    for (name, entry) in kinds.entries() {
        check_name(&kinds, name, entry);
        let table = Section::new(section.report, kinds.key(name), &entry.node);
        let place = read(&table);
        if place.is_none() {
            let needed = match kind {
                "file" => "path",
                "http" => "url",
                _ => "url and key",
            };
            let message = "does not say, or not rightly, where it is".to_owned();
            table.report.problem(entry.key, &table.path, message, Some(needed.to_owned()));
        }
        table.finish();
        let Some(place) = place else { continue };
        if anchors.insert(name.clone(), AnchorConfig { place }).is_some() {
            let message = "is the name of another anchor".to_owned();
            table.report.problem(entry.key, &table.path, message, Some("a name for each anchor".to_owned()));
        }
    }
}

fn read_file(table: &Section<'_>) -> Option<AnchorPlace> {
    let (path, same_device) = (table.absolute("path"), table.boolean("same_device"));
    Some(AnchorPlace::File { path: path?, same_device: same_device.unwrap_or(false) })
}

fn read_http(table: &Section<'_>) -> Option<AnchorPlace> {
    let (url, header_file) = (url(table), table.absolute("header_file"));
    let url = url?;
    if header_file.is_some()
        && is_in_the_clear(&url)
        && let Some(node) = table.node("header_file")
    {
        let message = "would be sent in the clear".to_owned();
        let allowed = Some("with an https URL, or one of this host".to_owned());
        table.report.problem(node.spot, &table.key("header_file"), message, allowed);
    }
    Some(AnchorPlace::Http { url, header_file })
}

fn read_witness(table: &Section<'_>) -> Option<AnchorPlace> {
    let allowed = "a verifier key NAME+HASH+BASE64 of type 4 (Ed25519 cosignature)";
    let key = table.parsed("key", allowed, |value| {
        let text = text(value)?;
        WitnessKey::parse(text).map_err(|why| format!("is {text:?}: {why}"))
    });
    let url = url(table);
    Some(AnchorPlace::Witness { url: url?, key: key? })
}

fn url(table: &Section<'_>) -> Option<String> {
    table.parsed("url", "an http or https URL without credentials, query and fragment", |value| {
        url_of(text(value)?)
    })
}
