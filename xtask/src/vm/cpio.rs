//! The archive that a kernel unpacks as its first root directory (`newc`, not compressed: unpacking is the guest's work).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

const DIRECTORY: u32 = 0o40_755;
const PROGRAM: u32 = 0o100_755;
const TRAILER: &str = "TRAILER!!!";

/// Files by their path without the leading slash; all may be executed.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Writes files, and the directories that they and `also` need.
pub fn write(to: &mut impl Write, files: &Files, also: &[&str]) -> io::Result<()> {
    let mut directories: BTreeSet<&str> = also.iter().copied().collect();
    for path in files.keys().map(String::as_str).chain(also.iter().copied()) {
        directories.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
    }
    let mut number = 0;
    // Sorted, so every directory comes before what is in it.
    for directory in directories {
        number += 1;
        entry(to, number, directory, DIRECTORY, &[])?;
    }
    for (path, contents) in files {
        number += 1;
        entry(to, number, path, PROGRAM, contents)?;
    }
    entry(to, 0, TRAILER, 0, &[])
}

fn entry(to: &mut impl Write, number: u32, name: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
    let size = u32::try_from(contents.len()).map_err(io::Error::other)?;
    let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
    // inode, mode, uid, gid, links, mtime, size, device (4), size of the name, checksum
    let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    let mut header = String::from("070701");
    for field in fields {
        header += &format!("{field:08x}");
    }
    to.write_all(header.as_bytes())?;
    to.write_all(name.as_bytes())?;
    to.write_all(&[0])?;
    to.write_all(padding(header.len() + name.len() + 1))?;
    to.write_all(contents)?;
    to.write_all(padding(contents.len()))
}

/// Names and contents begin at multiples of four.
fn padding(length: usize) -> &'static [u8] {
    &[0; 3][..(4 - length % 4) % 4]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_directories_before_their_files_and_everything_aligned() {
        let files = Files::from([("usr/bin/ip".to_owned(), b"12345".to_vec())]);
        let mut archive = Vec::new();
        write(&mut archive, &files, &["dev"]).unwrap();
        let text = String::from_utf8(archive.clone()).unwrap();
        let places =
            ["dev\0", "usr\0", "usr/bin\0", "usr/bin/ip\0", "TRAILER!!!\0"].map(|name| text.find(name));
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{places:?}");
        assert_eq!(archive.len() % 4, 0);
        for (at, _) in text.match_indices("070701") {
            assert_eq!(at % 4, 0, "a header at {at}");
        }
        let header = text.find("usr/bin/ip\0").unwrap() - 110;
        assert_eq!(&text[header + 54..header + 62], "00000005", "the size of the contents");
    }
}
