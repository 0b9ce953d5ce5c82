//! The log's key: made at the first start, readable by its owner only.

use super::note::{PublicKey, Signer};
use super::tiles::TileStore;
use anyhow::{Context, Result, anyhow};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The secret half, in the log's directory.
pub const KEY_NAME: &str = "key";
/// The public half beside it.
pub const PUBLIC_NAME: &str = "key.pub";

/// The key in the log's directory; `None` when there is none.
///
/// # Errors
///
/// When it is not a key, or others can read it.
pub fn read(directory: &Path) -> Result<Option<Signer>> {
    let path = directory.join(KEY_NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let mode = fs::metadata(&path)?.mode();
    if mode & 0o077 != 0 {
        return Err(anyhow!(
            "{}: others can read it (mode {:03o}, allowed is 600)",
            path.display(),
            mode & 0o777
        ));
    }
    Signer::parse(text.strip_suffix('\n').unwrap_or(&text))
        .map(Some)
        .map_err(|_| anyhow!("{}: it is not a secret key", path.display()))
}

/// Makes a key for the log `origin` and writes both halves.
///
/// # Errors
///
/// When it cannot.
pub fn make(store: &TileStore, origin: &str) -> Result<Signer> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| anyhow!("making a key: {error}"))?;
    let signer = Signer::new(origin, &seed)?;
    store.replace(KEY_NAME, format!("{}\n", signer.to_secret()).as_bytes()).context("writing the key")?;
    write_public(store, &signer.public())?;
    Ok(signer)
}

/// Writes the public half, which everybody who may enter the directory may read.
pub(super) fn write_public(store: &TileStore, key: &PublicKey) -> Result<()> {
    store.replace(PUBLIC_NAME, format!("{key}\n").as_bytes()).context("writing the public key")?;
    let path = store.root().join(PUBLIC_NAME);
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(&path, open).with_context(|| format!("opening {} to readers", path.display()))
}

/// The public half in the log's directory.
///
/// # Errors
///
/// When it is not there, or not a key.
pub fn read_public(directory: &Path) -> Result<PublicKey> {
    let path = directory.join(PUBLIC_NAME);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    PublicKey::parse(line)
        .map_err(|_| anyhow!("{}: it is not a public key (NAME+HASH+BASE64)", path.display()))
}
