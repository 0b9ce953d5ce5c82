//! What a local repository tells without its key, whose derivation is slow on purpose.

use std::fs;
use std::path::Path;

use crate::core::hex::sha256;

/// The full id of the one snapshot whose id begins with `short`: a document's file is named by the SHA-256 of what is in
/// it. `None` when the files do not tell: there is none, there are several, or what is in it is something else.
#[must_use]
pub fn full_id(repository: &Path, short: &str) -> Option<String> {
    let snapshots = repository.join("snapshots");
    let names =
        fs::read_dir(&snapshots).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut found = names.filter(|name| !short.is_empty() && name.starts_with(short));
    let (Some(id), None) = (found.next(), found.next()) else { return None };
    let document = fs::read(snapshots.join(&id)).ok()?;
    (sha256(&document) == id).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_told_by_the_one_document_that_is_what_its_name_says() {
        const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let repository = tempfile::tempdir().unwrap();
        let snapshots = repository.path().join("snapshots");
        assert_eq!(full_id(repository.path(), "ba7816bf"), None, "there are no snapshots");
        fs::create_dir(&snapshots).unwrap();
        fs::write(snapshots.join(ABC), "abc").unwrap();
        assert_eq!(full_id(repository.path(), "ba7816bf").as_deref(), Some(ABC));
        assert_eq!(full_id(repository.path(), "cc"), None, "there is none");
        assert_eq!(full_id(repository.path(), ""), None, "nothing was asked for");
        fs::write(snapshots.join(ABC), "abd").unwrap();
        assert_eq!(full_id(repository.path(), "ba7816bf"), None, "another document is in its place");
        fs::write(snapshots.join(ABC), "abc").unwrap();
        fs::write(snapshots.join("ba7816bf00"), "").unwrap();
        assert_eq!(full_id(repository.path(), "ba7816bf"), None, "two begin alike");
    }
}
