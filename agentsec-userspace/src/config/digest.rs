//! Which files a configuration was read from, and what they said.

use super::Source;
use crate::core::hex::sha256;
use serde::{Deserialize, Serialize};

/// One file that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDigest {
    /// Its name.
    pub file: String,
    /// SHA-256 of its bytes in hex, as `sha256sum` writes it.
    pub sha256: String,
}

impl From<&Source> for SourceDigest {
    fn from(source: &Source) -> Self {
        Self { file: source.name.clone(), sha256: sha256(source.text.as_bytes()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_what_sha256sum_says() {
        let digest = SourceDigest::from(&Source { name: "a".into(), text: "abc".into() });
        assert_eq!(digest.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
