//! Attachments: the links that tie our programs to hooks, each pinned and held. Where the kernel has no TCX, filters
//! take the place of links on interfaces.

mod filtered;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use aya::programs::links::{CgroupAttachMode, FdLink, LinkOrder};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{CgroupSkbAttachType, ProgramError, TcAttachType, XdpMode};

use super::filters::{self, Filters};
use super::hook::{Hook, LinkName, Side};
use super::pins::{self, Pins};
use super::programs::Programs;
use super::rcu::Expedited;
use super::syscall;

/// The links in force.
pub struct Links {
    programs: Programs,
    pins: Pins,
    filters: Filters,
    /// Whether interfaces are attached to by links.
    has_tcx: bool,
    held: BTreeMap<Hook, BTreeMap<Side, Held>>,
    expedited: Option<Expedited>,
}

/// What ties a program to its hook.
#[derive(Debug)]
enum Held {
    /// A link, pinned.
    Link {
        /// Held as well, for when its pin is unmounted.
        _fd: OwnedFd,
    },
    /// A clsact filter, which holds the program by itself.
    Filter,
}

impl From<OwnedFd> for Held {
    fn from(fd: OwnedFd) -> Self {
        Self::Link { _fd: fd }
    }
}

/// What became of the links of an earlier daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// Hooks that now run this daemon's programs.
    pub attached: Vec<Hook>,
    /// Hooks with some of their links only, since a daemon was killed between them: [`Links::attach`] completes
    /// them.
    pub halves: Vec<Hook>,
    /// Hooks whose interface or cgroup is gone; their pins are removed.
    pub gone: Vec<Hook>,
    /// Hooks whose filter somebody had taken off meanwhile. They are attached again.
    pub repaired: Vec<Hook>,
}

/// What a hook is made on.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// An interface, by name.
    Interface(&'a str),
    /// A cgroup's directory.
    Cgroup(&'a Path),
    /// The whole kernel.
    Everything,
}

impl Links {
    pub(super) fn new(programs: Programs, pins: Pins) -> Self {
        let filters = Filters::new(&pins.layout());
        Self { programs, pins, filters, has_tcx: filters::has_tcx(), held: BTreeMap::new(), expedited: None }
    }

    /// Whether the kernel tells cgroup programs a packet's network namespace, so that what is counted on an
    /// interface is not counted again.
    #[must_use]
    pub fn tells_namespace(&self) -> bool {
        self.programs.tells_namespace
    }

    /// Replaces the programs of pinned links by ours, each in one step: no packet goes by neither.
    ///
    /// # Errors
    ///
    /// When a link can be neither taken over nor recognized as dead. What was taken over stays so.
    pub fn take_over(&mut self) -> Result<TakenOver> {
        let mut taken = TakenOver::default();
        for name in self.pins.pinned_links() {
            match self.take_over_one(&name) {
                Ok(link) => {
                    self.held.entry(name.hook).or_default().insert(name.side, link.into());
                }
                Err(error) if is_gone(&error) => {
                    pins::remove(&self.pins.link(&name)).context("removing the pin of a dead link")?;
                    taken.gone.push(name.hook);
                }
                Err(error) => return Err(error.context(format!("taking over the link {name}"))),
            }
        }
        self.take_over_filters(&mut taken)?;
        taken.gone.dedup();
        taken.repaired.dedup();
        let whole = |hook: &Hook| self.missing(*hook).is_empty();
        (taken.attached, taken.halves) = self.held.keys().partition(|hook| whole(hook));
        Ok(taken)
    }

    fn take_over_one(&mut self, name: &LinkName) -> Result<OwnedFd> {
        let path = self.pins.link(name);
        let link = syscall::open_pin(&path).with_context(|| format!("opening {}", path.display()))?;
        let program = self.programs.fd(name.program().context("a link of no program")?)?;
        match syscall::replace_program(&link, program) {
            // A link of the kind that watches sockets cannot run another program: a second link takes its place.
            Err(_) if name.hook == Hook::Sockets => self.renew(*name),
            replaced => replaced.context("replacing the link's program").map(|()| link),
        }
    }

    /// Puts a new link in an old one's place. For a moment both are in force.
    fn renew(&mut self, name: LinkName) -> Result<OwnedFd> {
        let link = self.link(name, Target::Everything)?;
        self.pin(name, link)
    }

    /// Attaches the programs of a hook, on interfaces ahead of all others there, and pins their links. What is
    /// already attached is left as it is.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; nothing is left half attached.
    pub fn attach(&mut self, hook: Hook, target: Target<'_>) -> Result<()> {
        let before = self.held.get(&hook).map_or(0, BTreeMap::len);
        for side in self.missing(hook) {
            if let Err(error) = self.attach_side(LinkName { hook, side }, target) {
                // One half that was taken over is in force and stays so.
                if before == 0 {
                    self.detach(hook)?;
                }
                return Err(error.context(format!("cannot attach to {target}")));
            }
        }
        Ok(())
    }

    /// Drops what arrives on a shared link before the stack sees it.
    ///
    /// # Errors
    ///
    /// When the driver cannot, or when somebody else's XDP program is there, which is never replaced: see
    /// [`is_taken`]. The hook's other programs are as before.
    pub fn attach_xdp(&mut self, ifindex: u32, interface: &str) -> Result<()> {
        let name = LinkName { hook: Hook::Link { ifindex }, side: Side::Xdp };
        if self.held.get(&name.hook).is_some_and(|links| links.contains_key(&name.side)) {
            return Ok(());
        }
        self.attach_side(name, Target::Interface(interface))
    }

    /// Lets a shared link's frames reach the stack again; the hook's other programs are as before.
    ///
    /// # Errors
    ///
    /// When the pin cannot be removed; the link is still in force then.
    pub fn detach_xdp(&mut self, ifindex: u32) -> Result<()> {
        let name = LinkName { hook: Hook::Link { ifindex }, side: Side::Xdp };
        let path = self.pins.link(&name);
        pins::remove(&path).with_context(|| format!("cannot remove the pin {}", path.display()))?;
        if let Some(links) = self.held.get_mut(&name.hook) {
            links.remove(&name.side);
        }
        Ok(())
    }

    /// Whether frames of a shared link are dropped before the stack.
    #[must_use]
    pub fn has_xdp(&self, ifindex: u32) -> bool {
        self.held.get(&Hook::Link { ifindex }).is_some_and(|links| links.contains_key(&Side::Xdp))
    }

    fn missing(&self, hook: Hook) -> Vec<Side> {
        let held = self.held.get(&hook);
        let is_missing = |side: &Side| held.is_none_or(|links| !links.contains_key(side));
        hook.sides().iter().copied().filter(is_missing).collect()
    }

    fn attach_side(&mut self, name: LinkName, target: Target<'_>) -> Result<()> {
        let by_filter = !self.has_tcx && matches!(target, Target::Interface(_)) && name.side != Side::Xdp;
        let held = if by_filter {
            self.put_filter(&name)?;
            Held::Filter
        } else {
            let link = self.link(name, target)?;
            self.pin(name, link)?.into()
        };
        self.held.entry(name.hook).or_default().insert(name.side, held);
        Ok(())
    }

    fn link(&mut self, name: LinkName, target: Target<'_>) -> Result<FdLink> {
        let program = name.program().context("a hook has no such program")?;
        match (target, name.side) {
            (Target::Interface(interface), Side::Xdp) => {
                let program = self.programs.xdp(program)?;
                let id =
                    program.attach(interface, XdpMode::Driver).context("the kernel refuses the XDP link")?;
                FdLink::try_from(program.take_link(id)?).context("keeping the link")
            }
            (Target::Interface(interface), side) => {
                let way = if side == Side::In { TcAttachType::Egress } else { TcAttachType::Ingress };
                let program = self.programs.classifier(program)?;
                let first = TcAttachOptions::TcxOrder(LinkOrder::first());
                let id = program
                    .attach_with_options(interface, way, first)
                    .context("the kernel refuses the TCX link")?;
                FdLink::try_from(program.take_link(id)?).context("keeping the link")
            }
            (Target::Cgroup(directory), side) => {
                let directory = File::open(directory).context("opening the cgroup")?;
                let way = match side {
                    Side::In => CgroupSkbAttachType::Ingress,
                    _ => CgroupSkbAttachType::Egress,
                };
                let program = self.programs.cgroup(program)?;
                // A link shares the hook with others whatever is asked for; aya wants the word for no flags.
                let id = program
                    .attach(directory, way, CgroupAttachMode::Single)
                    .context("the kernel refuses the link to the cgroup")?;
                FdLink::try_from(program.take_link(id)?).context("keeping the link")
            }
            (Target::Everything, _) => {
                let program = self.programs.socket()?;
                let id = program.attach().context("the kernel refuses the LSM link")?;
                let link = program.take_link(id)?;
                Ok(link.into())
            }
        }
    }

    fn pin(&self, name: LinkName, link: FdLink) -> Result<OwnedFd> {
        let path = self.pins.link(&name);
        // What was deleted has left its pin behind, and its number may come back.
        pins::remove(&path)?;
        link.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
        syscall::open_pin(&path).with_context(|| format!("opening {}", path.display()))
    }

    /// Whether the links of a hook still work: an interface that is no longer listed may only have moved to another
    /// namespace, with our programs on it.
    ///
    /// # Errors
    ///
    /// When the kernel gives neither answer.
    pub fn is_alive(&mut self, hook: Hook) -> Result<bool> {
        let Some(links) = self.held.get(&hook) else { return Ok(false) };
        if links.values().any(|held| matches!(held, Held::Filter)) {
            // The move took its qdiscs away.
            return Ok(false);
        }
        let sides: Vec<Side> = links.keys().copied().collect();
        for side in sides {
            match self.take_over_one(&LinkName { hook, side }) {
                Ok(_) => {}
                Err(error) if is_gone(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Takes our programs off a hook.
    ///
    /// # Errors
    ///
    /// When a pin or a filter cannot be removed; it is still in force then.
    pub fn detach(&mut self, hook: Hook) -> Result<()> {
        for side in hook.sides().iter().copied().chain([Side::Xdp]) {
            let name = LinkName { hook, side };
            if self.filters.remembers(&name) {
                self.filters.remove(&name)?;
            }
            let path = self.pins.link(&name);
            pins::remove(&path).with_context(|| format!("cannot remove the pin {}", path.display()))?;
        }
        self.held.remove(&hook);
        Ok(())
    }

    /// Expedites many attachments; [`Self::settle`] ends it.
    pub fn expedite(&mut self) {
        if self.expedited.is_none() {
            self.expedited = Some(Expedited::new());
        }
    }

    /// Ends expediting.
    pub fn settle(&mut self) {
        self.expedited = None;
    }

    /// The hooks with programs of ours.
    #[must_use]
    pub fn attached(&self) -> Vec<Hook> {
        self.held.keys().copied().collect()
    }
}

impl std::fmt::Display for Target<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interface(name) => write!(out, "interface {name}"),
            Self::Cgroup(path) => write!(out, "cgroup {}", path.display()),
            Self::Everything => out.write_str("the making of sockets"),
        }
    }
}

/// Whether somebody else's XDP program is on the interface (EBUSY, EEXIST).
#[must_use]
pub fn is_taken(error: &anyhow::Error) -> bool {
    matches!(code(error), Some(libc::EBUSY | libc::EEXIST))
}

/// Whether a link's interface or cgroup does not exist any more (ENOLINK; ENODEV when netlink is asked).
fn is_gone(error: &anyhow::Error) -> bool {
    matches!(code(error), Some(libc::ENOLINK | libc::ENODEV))
}

/// The system's error in an error's chain.
fn code(error: &anyhow::Error) -> Option<i32> {
    error.chain().find_map(|cause| match cause.downcast_ref::<ProgramError>() {
        Some(ProgramError::SyscallError(error)) => error.io_error.raw_os_error(),
        _ => cause.downcast_ref::<io::Error>()?.raw_os_error(),
    })
}
