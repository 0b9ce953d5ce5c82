//! The two commands of bpf(2) that aya has not for every kind of link: open a pin, replace a link's program.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_GET: libc::c_int = 7;
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
