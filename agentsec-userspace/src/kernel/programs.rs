//! The programs of the object, each loaded when it is first needed.

use std::os::fd::{AsFd, BorrowedFd};

use agentsec_common::maps::{PROGRAM_SOCKET, TELLS_NAMESPACE};
use anyhow::{Context, Error, Result, bail};
use aya::programs::{CgroupSkb, Lsm, Program, ProgramError, ProgramFd, ProgramType, SchedClassifier, Xdp};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Btf, Ebpf, EbpfLoader};

use super::layout::{Capacities, shapes};
use super::object::OBJECT;
use super::pins::Pins;

/// The loaded maps and the programs.
pub(super) struct Programs {
    object: Ebpf,
    /// Whether this kernel tells cgroup programs a packet's network namespace.
    pub(super) tells_namespace: bool,
}

impl Programs {
    /// Loads maps, re-using pinned ones.
    pub(super) fn open(pins: &Pins, capacities: &Capacities) -> Result<Self> {
        let shapes = shapes(capacities);
        let tells_namespace = tells_namespace();
        let mut loader = EbpfLoader::new();
        // Nothing of ours depends on the layout of the kernel's types, and reading them all takes time and memory.
        loader.btf(None);
        for shape in &shapes {
            loader.map_max_entries(shape.name, shape.entries);
            loader.map_pin_path(shape.name, pins.map(shape.name));
        }
        let told = u8::from(tells_namespace);
        loader.override_global(TELLS_NAMESPACE, &told, true);
        let object = loader.load(OBJECT).context("the kernel refuses the maps")?;
        Ok(Self { object, tells_namespace })
    }

    /// The object, to take maps from.
    pub(super) fn maps(&mut self) -> &mut Ebpf {
        &mut self.object
    }

    /// A classifier, loaded.
    pub(super) fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        let program: &mut SchedClassifier = self.program(name)?.try_into()?;
        if program.fd().is_err() {
            program.load().map_err(|error| refused(name, error))?;
        }
        Ok(program)
    }

    /// An XDP program, loaded.
    pub(super) fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        let program: &mut Xdp = self.program(name)?.try_into()?;
        if program.fd().is_err() {
            program.load().map_err(|error| refused(name, error))?;
        }
        Ok(program)
    }

    /// A program at cgroups, loaded.
    pub(super) fn cgroup(&mut self, name: &str) -> Result<&mut CgroupSkb> {
        let program: &mut CgroupSkb = self.program(name)?.try_into()?;
        if program.fd().is_err() {
            program.load().map_err(|error| refused(name, error))?;
        }
        Ok(program)
    }

    /// The program at the making of sockets, loaded.
    pub(super) fn socket(&mut self) -> Result<&mut Lsm> {
        let program: &mut Lsm = self.program(PROGRAM_SOCKET)?.try_into()?;
        if program.fd().is_err() {
            let btf = Btf::from_sys_fs().context("reading the kernel's types")?;
            program.load("socket_create", &btf).map_err(|error| refused(PROGRAM_SOCKET, error))?;
        }
        Ok(program)
    }

    /// Descriptor of a program, loaded.
    pub(super) fn fd(&mut self, name: &str) -> Result<BorrowedFd<'_>> {
        let fd: &ProgramFd = match self.program(name)? {
            Program::SchedClassifier(_) => self.classifier(name)?.fd()?,
            Program::Xdp(_) => self.xdp(name)?.fd()?,
            Program::CgroupSkb(_) => self.cgroup(name)?.fd()?,
            Program::Lsm(_) => self.socket()?.fd()?,
            _ => bail!("{name} is a program of no kind that we know"),
        };
        Ok(fd.as_fd())
    }

    fn program(&mut self, name: &str) -> Result<&mut Program> {
        self.object.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))
    }
}

/// A refusal in one line: of the verifier's log only what it says last, before its statistics.
fn refused(name: &str, error: ProgramError) -> Error {
    let what = format!("the kernel refuses the program {name}");
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return Error::new(error).context(what);
    };
    let log = verifier_log.to_string();
    let is_statistics = |line: &&str| {
        ["verification time", "stack depth", "processed "].iter().any(|word| line.starts_with(word))
    };
    let said = log.lines().rev().filter(|line| !line.trim().is_empty()).find(|line| !is_statistics(line));
    let what = said.map_or(what.clone(), |said| format!("{what} ({})", said.trim()));
    Error::new(io_error).context(what)
}

/// Asked of the kernel, since distributions add helpers to older ones.
fn tells_namespace() -> bool {
    let helper = BpfHelper::BPF_FUNC_get_netns_cookie;
    is_helper_supported(ProgramType::CgroupSkb, helper).unwrap_or(false)
}
