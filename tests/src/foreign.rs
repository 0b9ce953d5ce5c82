//! Programs that are not AgentSec's, on the same hooks: each counts packets and has one and the same verdict for all.
//!
//! Made by bare system calls: six instructions need neither a compiler nor an object file.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

use crate::cgroup::Cgroup;
use crate::netns::Namespace;

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP: libc::c_long = 1;
const PROG_LOAD: libc::c_long = 5;
const PROG_QUERY: libc::c_long = 16;
const LINK_CREATE: libc::c_long = 28;
const MAP_TYPE_ARRAY: u32 = 2;

/// `BPF_XDP`
const XDP: u32 = 37;

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

/// What a cgroup's processes receive or send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Way {
    /// Receive.
    In = 0,
    /// Send.
    Out = 1,
}

/// What becomes of packets at a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// They are dropped, and the sender is told that it may not.
    Drop = 0,
    /// They pass, if everybody else's programs agree.
    Pass = 1,
}

/// Kind of a program, and what it returns.
#[derive(Clone, Copy)]
struct Kind {
    number: u32,
    returns: u32,
}

impl Kind {
    /// TCX_NEXT
    const TCX: Self = Self { number: 3, returns: u32::MAX };
    /// XDP_PASS
    const XDP: Self = Self { number: 6, returns: 2 };

    const fn cgroup(verdict: Verdict) -> Self {
        Self { number: 8, returns: verdict as u32 }
    }
}

/// An attached counter; dropping it detaches it.
#[derive(Debug)]
pub struct Counter {
    map: OwnedFd,
    // The link holds the program, which holds the map.
    _link: OwnedFd,
}

impl Counter {
    /// Attaches one that passes everything on to an interface of `namespace`, by TCX.
    pub fn attach(namespace: &Namespace, interface: &str, hook: Hook, place: Place) -> Result<Self> {
        let index = index_of(namespace, interface)?;
        Self::of(Kind::TCX, |program| namespace.run(|| link(program, index, hook as u32, place as u32)))
            .with_context(|| format!("attaching a foreign program to {interface}"))
    }

    /// Attaches one that passes everything on to an interface of `namespace`, by XDP.
    pub fn attach_xdp(namespace: &Namespace, interface: &str) -> Result<Self> {
        let index = index_of(namespace, interface)?;
        Self::of(Kind::XDP, |program| namespace.run(|| link(program, index, XDP, 0)))
            .with_context(|| format!("attaching a foreign XDP program to {interface}"))
    }

    /// Attaches one to a cgroup. Programs of one cgroup run in the order in which they were attached, and all of them.
    pub fn attach_cgroup(cgroup: &Cgroup, way: Way, verdict: Verdict) -> Result<Self> {
        let directory = File::open(cgroup.directory()).context("opening a cgroup")?;
        let target = directory.as_raw_fd() as u32;
        Self::of(Kind::cgroup(verdict), |program| link(program, target, way as u32, 0))
            .with_context(|| format!("attaching a foreign program to the cgroup {}", cgroup.path()))
    }

    fn of(kind: Kind, link: impl FnOnce(&OwnedFd) -> io::Result<OwnedFd>) -> Result<Self> {
        let map = create_map().context("making an array map")?;
        let program = load(&map, kind).context("loading a counting program")?;
        let link = link(&program).context("making its link")?;
        Ok(Self { map, _link: link })
    }

    /// Packets so far.
    pub fn packets(&self) -> Result<u64> {
        let (key, mut value) = (0u32, 0u64);
        let mut attribute = Attribute::default();
        attribute.words[0] = self.map.as_raw_fd() as u32;
        attribute.set_pointer(2, (&raw const key).cast());
        attribute.set_pointer(4, (&raw mut value).cast_const().cast());
        call(MAP_LOOKUP, &mut attribute).context("reading a foreign program's counter")?;
        Ok(value)
    }
}

/// How many programs, whosever, a cgroup itself has for what its processes receive or send.
pub fn programs_on(cgroup: &Cgroup, way: Way) -> Result<u32> {
    const COUNT: usize = 6;
    let directory = File::open(cgroup.directory()).context("opening a cgroup")?;
    let mut attribute = Attribute::default();
    attribute.words[0] = directory.as_raw_fd() as u32;
    attribute.words[1] = way as u32;
    call(PROG_QUERY, &mut attribute).context("asking for a cgroup's programs")?;
    Ok(attribute.words[COUNT])
}

fn index_of(namespace: &Namespace, interface: &str) -> Result<u32> {
    let index = namespace.run(|| nix::net::if_::if_nametoindex(interface));
    index.with_context(|| format!("{interface} does not exist"))
}

fn link(program: &OwnedFd, target: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attribute = Attribute::default();
    attribute.words[..4].copy_from_slice(&[program.as_raw_fd() as u32, target, attach_type, flags]);
    made(LINK_CREATE, &mut attribute)
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
    made(MAP_CREATE, &mut attribute)
}

/// `lock *value += 1; return`
fn load(map: &OwnedFd, kind: Kind) -> io::Result<OwnedFd> {
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
        instruction(0xb7, 0x00, kind.returns),
        instruction(0x95, 0, 0),
    ];
    let mut attribute = Attribute::default();
    attribute.words[0] = kind.number;
    attribute.words[1] = program.len() as u32;
    attribute.set_pointer(2, program.as_ptr().cast());
    attribute.set_pointer(4, c"GPL".as_ptr().cast());
    made(PROG_LOAD, &mut attribute)
}

fn made(command: libc::c_long, attribute: &mut Attribute) -> io::Result<OwnedFd> {
    let fd = call(command, attribute)?;
    // SAFETY: the kernel has just made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn call(command: libc::c_long, attribute: &mut Attribute) -> io::Result<libc::c_long> {
    // SAFETY: the attribute is ours alone and outlives the call, and so does whatever its pointers point to; the kernel
    // checks the rest.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<Attribute>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
