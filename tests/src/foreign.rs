//! A TCX program that is not AgentSec's: it counts packets and passes them on.
//!
//! Made by bare system calls: six instructions need neither a compiler nor an object file.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

use crate::netns::Namespace;

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP: libc::c_long = 1;
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_SCHED_CLS: u32 = 3;

/// Where the program runs, as the interface sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// What the interface receives.
    Ingress = 46,
    /// What it sends.
    Egress = 47,
}

/// Among the programs that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Place {
    /// Ahead of all of them (`BPF_F_BEFORE`).
    First = 1 << 3,
    /// Behind all of them (`BPF_F_AFTER`).
    Last = 1 << 4,
}

/// An attached counter; dropping it detaches it.
#[derive(Debug)]
pub struct Counter {
    map: OwnedFd,
    // The link holds the program, which holds the map.
    _link: OwnedFd,
}

impl Counter {
    /// Attaches one to an interface of `namespace`.
    pub fn attach(namespace: &Namespace, interface: &str, hook: Hook, place: Place) -> Result<Self> {
        let map = create_map().context("making an array map")?;
        let program = load(&map).context("loading a counting program")?;
        let index = namespace.run(|| nix::net::if_::if_nametoindex(interface));
        let index = index.with_context(|| format!("{interface} does not exist"))?;
        let mut attribute = Attribute::default();
        attribute.words[0] = program.as_raw_fd() as u32;
        attribute.words[1] = index;
        attribute.words[2] = hook as u32;
        attribute.words[3] = place as u32;
        let link = namespace.run(|| made(LINK_CREATE, &attribute));
        let link = link.with_context(|| format!("attaching a foreign program to {interface}"))?;
        Ok(Self { map, _link: link })
    }

    /// Packets so far.
    pub fn packets(&self) -> Result<u64> {
        let (key, mut value) = (0u32, 0u64);
        let mut attribute = Attribute::default();
        attribute.words[0] = self.map.as_raw_fd() as u32;
        attribute.set_pointer(2, (&raw const key).cast());
        attribute.set_pointer(4, (&raw mut value).cast_const().cast());
        call(MAP_LOOKUP, &attribute).context("reading a foreign program's counter")?;
        Ok(value)
    }
}

/// `union bpf_attr`, as 32-bit words.
#[repr(C, align(8))]
#[derive(Default)]
struct Attribute {
    words: [u32; 32],
}

impl Attribute {
    fn set_pointer(&mut self, word: usize, pointer: *const u8) {
        let address = pointer.addr() as u64;
        // The low half first: BPF hosts where these tests run are little endian.
        self.words[word] = address as u32;
        self.words[word + 1] = (address >> 32) as u32;
    }
}

fn create_map() -> io::Result<OwnedFd> {
    let mut attribute = Attribute::default();
    attribute.words[..4].copy_from_slice(&[MAP_TYPE_ARRAY, 4, 8, 1]);
    made(MAP_CREATE, &attribute)
}

/// `lock *value += 1; return TCX_NEXT`
fn load(map: &OwnedFd) -> io::Result<OwnedFd> {
    let map = map.as_raw_fd() as u32;
    let instruction =
        |code: u64, registers: u64, immediate: u32| code | registers << 8 | u64::from(immediate) << 32;
    let program: [u64; 6] = [
        // r1 = the address of the map's value, in two halves
        instruction(0x18, 0x21, map),
        instruction(0, 0, 0),
        // r2 = 1; lock *(u64 *)r1 += r2
        instruction(0xb7, 0x02, 1),
        instruction(0xdb, 0x21, 0),
        // return -1
        instruction(0xb7, 0x00, u32::MAX),
        instruction(0x95, 0, 0),
    ];
    let mut attribute = Attribute::default();
    attribute.words[0] = PROG_TYPE_SCHED_CLS;
    attribute.words[1] = program.len() as u32;
    attribute.set_pointer(2, program.as_ptr().cast());
    attribute.set_pointer(4, c"GPL".as_ptr().cast());
    made(PROG_LOAD, &attribute)
}

fn made(command: libc::c_long, attribute: &Attribute) -> io::Result<OwnedFd> {
    let fd = call(command, attribute)?;
    // SAFETY: the kernel has just made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn call(command: libc::c_long, attribute: &Attribute) -> io::Result<libc::c_long> {
    // SAFETY: the attribute outlives the call, and so does whatever its pointers point to; the kernel checks the rest.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute, size_of::<Attribute>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
