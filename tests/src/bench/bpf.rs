//! The few calls of bpf(2) that the comparison programs need, and their instructions.
//!
//! They are too small for an object of their own, and written out nobody can say that a compiler made the
//! yardstick longer than it is.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;

/// Kinds of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum ProgramKind {
    Classifier = 3,
    Xdp = 6,
    /// At a cgroup's ingress.
    CgroupSkb = 8,
}

/// Kinds of maps.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum MapKind {
    Hash = 1,
    Array = 2,
    Programs = 3,
    PerCpuArray = 6,
}

/// One instruction.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

const fn insn(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Insn {
    Insn { code, registers: from << 4 | to, offset, value }
}

/// `to = from`
pub(super) const fn mov(to: u8, from: u8) -> Insn {
    insn(0xbf, to, from, 0, 0)
}

/// `to = value`
pub(super) const fn set(to: u8, value: i32) -> Insn {
    insn(0xb7, to, 0, 0, value)
}

/// `to += value`
pub(super) const fn add(to: u8, value: i32) -> Insn {
    insn(0x07, to, 0, 0, value)
}

/// `to &= value`
pub(super) const fn and(to: u8, value: i32) -> Insn {
    insn(0x57, to, 0, 0, value)
}

/// `to = *(u16 *)(from + offset)`
pub(super) const fn load16(to: u8, from: u8, offset: i16) -> Insn {
    insn(0x69, to, from, offset, 0)
}

/// `to = *(u32 *)(from + offset)`
pub(super) const fn load32(to: u8, from: u8, offset: i16) -> Insn {
    insn(0x61, to, from, offset, 0)
}

/// `to = *(u64 *)(from + offset)`
pub(super) const fn load64(to: u8, from: u8, offset: i16) -> Insn {
    insn(0x79, to, from, offset, 0)
}

/// `*(u32 *)(to + offset) = from`
pub(super) const fn store32(to: u8, offset: i16, from: u8) -> Insn {
    insn(0x63, to, from, offset, 0)
}

/// `*(u64 *)(to + offset) = from`
pub(super) const fn store64(to: u8, offset: i16, from: u8) -> Insn {
    insn(0x7b, to, from, offset, 0)
}

/// Offset of jumps to the end, until [`load`] knows where that is.
const TO_END: i16 = i16::MAX;

/// `if left > right goto end`
pub(super) const fn end_if_above(left: u8, right: u8) -> Insn {
    insn(0x2d, left, right, TO_END, 0)
}

/// `if left != value goto end`
pub(super) const fn end_unless(left: u8, value: i32) -> Insn {
    insn(0x55, left, 0, TO_END, value)
}

/// `if left == value goto end`
pub(super) const fn end_if(left: u8, value: i32) -> Insn {
    insn(0x15, left, 0, TO_END, value)
}

/// Calls a helper.
pub(super) const fn call(helper: i32) -> Insn {
    insn(0x85, 0, 0, 0, helper)
}

const EXIT: Insn = insn(0x95, 0, 0, 0, 0);

/// `bpf_map_lookup_elem`
pub(super) const LOOKUP: i32 = 1;
/// `bpf_tail_call`
pub(super) const TAIL_CALL: i32 = 12;
/// `bpf_redirect`
pub(super) const REDIRECT: i32 = 23;

/// `to = map`, two instructions long.
pub(super) fn map(to: u8, fd: &OwnedFd) -> [Insn; 2] {
    [insn(0x18, to, 1, 0, fd.as_raw_fd()), insn(0, 0, 0, 0, 0)]
}

/// `union bpf_attr` as an array of words: what is not set is zero.
#[repr(C, align(8))]
struct Attributes([u32; 40]);

impl Attributes {
    const fn new() -> Self {
        Self([0; 40])
    }

    const fn word(mut self, index: usize, value: u32) -> Self {
        self.0[index] = value;
        self
    }

    fn pointer<T>(mut self, index: usize, value: *const T) -> Self {
        let address = value as u64;
        self.0[index] = address as u32;
        self.0[index + 1] = (address >> 32) as u32;
        self
    }

    fn call(&mut self, command: libc::c_long) -> io::Result<i32> {
        let size = size_of::<Self>();
        // SAFETY: the attributes are a writable buffer of the given size, longer than any command reads, and
        // what they point to outlives the call in every caller below.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut self.0, size) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
    }

    fn descriptor(&mut self, command: libc::c_long) -> io::Result<OwnedFd> {
        let fd = self.call(command)?;
        // SAFETY: the kernel has just made the descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Makes a map.
pub(super) fn create(kind: MapKind, key_bytes: u32, value_bytes: u32, entries: u32) -> Result<OwnedFd> {
    let attributes = Attributes::new().word(0, kind as u32).word(1, key_bytes);
    let mut attributes = attributes.word(2, value_bytes).word(3, entries);
    attributes.descriptor(MAP_CREATE).with_context(|| format!("making a map of kind {kind:?}"))
}

/// Sets an entry; key and value are as long as the map says.
pub(super) fn update<K: Copy, V: Copy>(map: &OwnedFd, key: K, value: V) -> Result<()> {
    let attributes = Attributes::new().word(0, map.as_raw_fd() as u32);
    let mut attributes = attributes.pointer(2, &raw const key).pointer(4, &raw const value);
    attributes.call(MAP_UPDATE_ELEM).context("filling a map")?;
    Ok(())
}

/// `return verdict`
pub(super) const fn give(verdict: i32) -> [Insn; 2] {
    [set(0, verdict), EXIT]
}

/// Loads a program whose end returns `otherwise`.
pub(super) fn load(kind: ProgramKind, code: &[Insn], otherwise: i32) -> Result<OwnedFd> {
    let mut code = code.to_vec();
    let end = code.len();
    for (index, insn) in code.iter_mut().enumerate().filter(|(_, insn)| insn.offset == TO_END) {
        insn.offset = (end - index - 1) as i16;
    }
    code.extend(give(otherwise));
    let mut log = vec![0u8; 64 << 10];
    let attributes = Attributes::new().word(0, kind as u32).word(1, code.len() as u32);
    let attributes = attributes.pointer(2, code.as_ptr()).pointer(4, c"GPL".as_ptr());
    let mut attributes = attributes.word(6, 1).word(7, log.len() as u32).pointer(8, log.as_mut_ptr());
    attributes.descriptor(PROG_LOAD).with_context(|| {
        let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
        format!("the kernel refuses a comparison program:\n{}", String::from_utf8_lossy(&log[..end]))
    })
}

/// Runs a program `repeat` times on one and the same buffer that holds `frame`; returns its last verdict.
pub(super) fn test_run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> Result<i32> {
    let attributes = Attributes::new().word(0, program.as_raw_fd() as u32).word(2, frame.len() as u32);
    let mut attributes = attributes.pointer(4, frame.as_ptr()).word(8, repeat);
    attributes.call(PROG_TEST_RUN).context("BPF_PROG_TEST_RUN")?;
    Ok(attributes.0[1] as i32)
}

/// Runs an XDP program on `count` frames like this one, and does with each what the program says: what is redirected is
/// really sent.
pub(super) fn live_run(program: &OwnedFd, frame: &[u8], count: u32) -> Result<()> {
    const LIVE_FRAMES: u32 = 1 << 1;
    let attributes = Attributes::new().word(0, program.as_raw_fd() as u32).word(2, frame.len() as u32);
    let mut attributes = attributes.pointer(4, frame.as_ptr()).word(8, count).word(16, LIVE_FRAMES);
    attributes.call(PROG_TEST_RUN).context("BPF_PROG_TEST_RUN with live frames (5.18)")?;
    Ok(())
}

/// Loads an XDP program that sends every frame out of an interface, of the namespace in which it runs.
pub(super) fn sender(interface: u32) -> Result<OwnedFd> {
    const ABORTED: i32 = 0;
    let code = [set(1, interface as i32), set(2, 0), call(REDIRECT), end_if(0, ABORTED), EXIT];
    load(ProgramKind::Xdp, &code, ABORTED)
}
