//! The commands of bpf(2) that aya has not, or not for every kind of link: open a pin, replace a link's program, read many
//! entries of a map.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_LINK_UPDATE: libc::c_int = 29;

/// `struct { __aligned_u64 pathname; __u32 bpf_fd; __u32 file_flags; }` of `union bpf_attr`.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `struct { __u32 link_fd; __u32 new_prog_fd; __u32 flags; __u32 old_prog_fd; }` of `union bpf_attr`.
#[repr(C)]
struct LinkUpdate {
    link_fd: RawFd,
    new_prog_fd: RawFd,
    flags: u32,
    old_prog_fd: u32,
}

/// `struct { __aligned_u64 in_batch, out_batch, keys, values; __u32 count, map_fd; __u64 elem_flags, flags; }` of
/// `union bpf_attr`.
#[repr(C)]
struct MapBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: RawFd,
    elem_flags: u64,
    flags: u64,
}

/// Where the reading of a map goes on: of a hash the number of a bucket.
pub(super) type Cursor = u32;

/// What [`lookup_batch`] has found.
#[derive(Debug)]
pub(super) struct Found {
    /// Entries that were read.
    pub(super) entries: usize,
    /// Where it goes on; `None` at the end.
    pub(super) next: Option<Cursor>,
}

/// Reads up to `entries` entries of a hash map, from the begin or from where an earlier call has ended.
/// [`io::ErrorKind::StorageFull`] when those of one bucket are more.
pub(super) fn lookup_batch(
    map: BorrowedFd<'_>,
    from: Option<Cursor>,
    keys: &mut [u8],
    values: &mut [u8],
    entries: usize,
) -> io::Result<Found> {
    let mut next: Cursor = 0;
    let mut attributes = MapBatch {
        in_batch: from.as_ref().map_or(0, |cursor| std::ptr::from_ref(cursor) as u64),
        out_batch: std::ptr::from_mut(&mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(entries).unwrap_or(u32::MAX),
        map_fd: map.as_raw_fd(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: a whole attribute of the command, which the kernel also writes to. Its pointers are to a cursor each, and to
    // room for as many keys and values as are asked for, which the caller sees to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_BATCH,
            std::ptr::from_mut(&mut attributes),
            size_of::<MapBatch>(),
        )
    };
    let entries = attributes.count as usize;
    if result >= 0 {
        return Ok(Found { entries, next: Some(next) });
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOENT) => Ok(Found { entries, next: None }),
        error => Err(error),
    }
}

/// Opens what is pinned at `path`.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let pathname = CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjGet { pathname: pathname.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &attributes)?;
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a link run another program of its kind, from one packet to the next.
pub(super) fn replace_program(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let attributes = LinkUpdate {
        link_fd: link.as_fd().as_raw_fd(),
        new_prog_fd: program.as_fd().as_raw_fd(),
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(BPF_LINK_UPDATE, &attributes).map(drop)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads as many bytes as we say, which are those of a whole attribute of the command.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}
