//! Where the cgroup v2 tree is mounted.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The mount points of cgroup v2 in the text of `/proc/self/mountinfo`: those of the whole tree (as far as this
/// cgroup namespace sees it) first, those of a part after them. An earlier one may be covered by a later one.
pub(super) fn cgroup2(mountinfo: &str) -> Vec<PathBuf> {
    let found: Vec<(bool, PathBuf)> = mountinfo.lines().filter_map(mount).collect();
    let of = |whole| found.iter().filter(move |(all, _)| *all == whole).map(|(_, path)| path.clone());
    of(true).chain(of(false)).collect()
}

/// `id parent major:minor root mountpoint options [optional…] - type source superoptions`
fn mount(line: &str) -> Option<(bool, PathBuf)> {
    let (about, file_system) = line.split_once(" - ")?;
    if file_system.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = about.split(' ').skip(3);
    let whole = fields.next()? == "/";
    Some((whole, unescaped(fields.next()?)))
}

/// Blanks, tabs, line feeds and backslashes are told as `\` and three octal digits.
fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let octal = others.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = octal.filter(|_| first == b'\\').and_then(|octal| u8::from_str_radix(octal, 8).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &others[3..] } else { others };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_found_wherever_it_is_mounted() {
        let tmpfs = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n";
        let version_1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n";
        for (about, mountinfo, expected) in [
            (
                "alone",
                "29 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n",
                &["/sys/fs/cgroup"][..],
            ),
            (
                "beside version 1, without optional fields",
                &format!("{tmpfs}{version_1}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n"),
                &["/sys/fs/cgroup/unified"],
            ),
            ("version 1 only", &format!("{tmpfs}{version_1}"), &[]),
            (
                "a part, and all of it",
                "1 0 0:1 /a.slice /part rw - cgroup2 x rw\n2 0 0:1 / /all rw - cgroup2 x rw",
                &["/all", "/part"],
            ),
            ("only named so", "5 4 0:9 / /cgroup2 rw - tmpfs cgroup2 rw\n", &[]),
            ("with a blank and a backslash", r"5 4 0:9 / /a\040b\134c rw - cgroup2 none rw", &[r"/a b\c"]),
            ("cut off", "5 4 0:9 / - cgroup2", &[]),
        ] {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(cgroup2(mountinfo), expected, "{about}");
        }
    }
}
