//! The file of what was told of connections that live: `flows.json` in the state directory, replaced whole. It is worth as much as the
//! connections' own numbers, which are gone when the machine stops; so it is not synced, and one of another boot is not read.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::core::interaction::Remembered;

use super::saver::{Saver, Target};

const NAME: &str = "flows.json";
/// The most that is read: more than all connections that there can be in a list of the default size.
const MOST_BYTES: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct Document<'a> {
    boot_id: Cow<'a, str>,
    flows: Cow<'a, [Remembered]>,
}

/// What an earlier daemon of this boot has told; nothing if there was none.
///
/// # Errors
///
/// When the file is there and cannot be read or understood.
pub(super) fn read(directory: &Path, boot_id: &str) -> Result<Vec<Remembered>> {
    let path = directory.join(NAME);
    let bytes = match File::open(&path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(file, MOST_BYTES), &mut bytes).map(|_| bytes)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let bytes = bytes.with_context(|| format!("cannot read {}", path.display()))?;
    let document: Document<'_> =
        serde_json::from_slice(&bytes).with_context(|| format!("cannot understand {}", path.display()))?;
    Ok(if document.boot_id == boot_id { document.flows.into_owned() } else { Vec::new() })
}

/// What keeps it from now on.
///
/// # Errors
///
/// When there is no thread for it.
pub(super) fn saver(directory: &Path) -> Result<Saver> {
    let target = Target { path: directory.join(NAME), is_synced: false };
    Saver::start("flows", target).context("starting the thread that keeps what was told of connections")
}

/// What the file shall say.
pub(super) fn document(boot_id: &str, flows: &[Remembered]) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&Document { boot_id: boot_id.into(), flows: flows.into() })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_was_told_is_kept_for_this_boot_only_and_a_spoilt_file_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let flow = serde_json::json!({
            "key": [1, 2, 3, 4, 5, 6], "first_seen_ns": 7, "told_ns": 8, "opening": null,
            "told": { "bytes": [1, 2], "packets": [3, 4], "asked": 5, "response_ns": 6, "responses": 7 },
        });
        let flows: Vec<Remembered> = vec![serde_json::from_value(flow).unwrap()];
        assert_eq!(read(directory.path(), "boot").unwrap(), []);
        fs::write(directory.path().join(NAME), document("boot", &flows).unwrap()).unwrap();
        assert_eq!(read(directory.path(), "boot").unwrap(), flows);
        assert_eq!(read(directory.path(), "another").unwrap(), []);
        fs::write(directory.path().join(NAME), "{").unwrap();
        assert!(read(directory.path(), "boot").unwrap_err().to_string().contains(NAME));
    }
}
