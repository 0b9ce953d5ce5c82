//! Attachments: the two links of each interface that an agent is behind.

use std::collections::BTreeMap;

use agentsec_common::agent::Slot;
use agentsec_common::maps::{PROGRAM_INBOUND, PROGRAM_OUTBOUND};
use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};

use super::object::classifier;
use super::pins::{self, LinkName, Pins};
use super::rcu::Expedited;

/// Links of an attachment: one for each direction.
const WHOLE: usize = 2;

/// The links in force, each pinned and held.
pub struct Links {
    object: Ebpf,
    pins: Pins,
    held: BTreeMap<(Slot, u32), Vec<FdLink>>,
    expedited: Option<Expedited>,
}

/// What became of the links of an earlier daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// Attachments that now run this daemon's programs.
    pub attached: Vec<(Slot, u32)>,
    /// Attachments with one link only, since a daemon was killed between the two: [`Links::attach`] completes them.
    pub halves: Vec<(Slot, u32)>,
    /// Attachments whose interface is gone; their pins are removed.
    pub gone: Vec<(Slot, u32)>,
}

impl Links {
    pub(super) fn new(object: Ebpf, pins: Pins) -> Self {
        Self { object, pins, held: BTreeMap::new(), expedited: None }
    }

    /// Replaces the programs of pinned links by ours, each in one step: no packet goes by neither.
    ///
    /// # Errors
    ///
    /// When a link can be neither taken over nor recognized as dead. What was taken over stays so.
    pub fn take_over(&mut self) -> Result<TakenOver> {
        let mut taken = TakenOver::default();
        for name in self.pins.pinned_links() {
            let key = (name.slot, name.ifindex);
            match self.take_over_one(&name) {
                Ok(link) => self.held.entry(key).or_default().push(link),
                Err(error) if is_gone(&error) => {
                    pins::remove(&self.pins.link(&name)).context("removing the pin of a dead link")?;
                    taken.gone.push(key);
                }
                Err(error) => return Err(error.context(format!("taking over the link {name}"))),
            }
        }
        taken.gone.dedup();
        let whole = |key: &(Slot, u32)| self.held[key].len() == WHOLE;
        (taken.attached, taken.halves) = self.held.keys().partition(|key| whole(key));
        Ok(taken)
    }

    fn take_over_one(&mut self, name: &LinkName) -> Result<FdLink> {
        let pinned = PinnedLink::from_pin(self.pins.link(name)).context("opening the pinned link")?;
        let link = SchedClassifierLink::try_from(FdLink::from(pinned)).context("not a TCX link")?;
        let program = self.program(name.inbound)?;
        let id = program.attach_to_link(link).context("replacing the link's program")?;
        FdLink::try_from(program.take_link(id)?).context("keeping the link")
    }

    /// Attaches an agent to an interface, ahead of all other programs there, and pins the links. What is
    /// already attached is left as it is.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; nothing is left half attached.
    pub fn attach(&mut self, slot: Slot, ifindex: u32, interface: &str) -> Result<()> {
        let held = self.held.get(&(slot, ifindex)).map_or(0, Vec::len);
        if held == WHOLE {
            return Ok(());
        }
        let mut links = Vec::with_capacity(WHOLE);
        for inbound in [false, true] {
            let name = LinkName { slot, ifindex, inbound };
            // One half that was taken over is in force and stays so; only such a link's pin is a live one's.
            if held > 0 && self.pins.link(&name).exists() {
                continue;
            }
            match self.attach_one(name, interface) {
                Ok(link) => links.push(link),
                Err(error) => {
                    if held == 0 {
                        self.remove_pins(slot, ifindex)?;
                    }
                    return Err(error.context(format!("cannot attach to interface {interface}")));
                }
            }
        }
        self.held.entry((slot, ifindex)).or_default().extend(links);
        Ok(())
    }

    fn attach_one(&mut self, name: LinkName, interface: &str) -> Result<FdLink> {
        let path = self.pins.link(&name);
        let way = if name.inbound { TcAttachType::Egress } else { TcAttachType::Ingress };
        let program = self.program(name.inbound)?;
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id =
            program.attach_with_options(interface, way, first).context("the kernel refuses the TCX link")?;
        let link = FdLink::try_from(program.take_link(id)?).context("keeping the link")?;
        // An interface that was deleted has left its pin behind, and its number may come back.
        pins::remove(&path)?;
        Ok(FdLink::from(link.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?))
    }

    /// Whether the links of an interface that is no longer listed still work: it may only have moved to another
    /// namespace, with our programs on it.
    ///
    /// # Errors
    ///
    /// When the kernel gives neither answer.
    pub fn is_alive(&mut self, slot: Slot, ifindex: u32) -> Result<bool> {
        if !self.held.contains_key(&(slot, ifindex)) {
            return Ok(false);
        }
        for inbound in [false, true] {
            match self.take_over_one(&LinkName { slot, ifindex, inbound }) {
                Ok(_) => {}
                Err(error) if is_gone(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Detaches an agent from an interface.
    ///
    /// # Errors
    ///
    /// When a pin cannot be removed; the link is still in force then.
    pub fn detach(&mut self, slot: Slot, ifindex: u32) -> Result<()> {
        self.remove_pins(slot, ifindex)?;
        self.held.remove(&(slot, ifindex));
        Ok(())
    }

    fn remove_pins(&self, slot: Slot, ifindex: u32) -> Result<()> {
        for inbound in [false, true] {
            let path = self.pins.link(&LinkName { slot, ifindex, inbound });
            pins::remove(&path).with_context(|| format!("cannot remove the pin {}", path.display()))?;
        }
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

    /// The attachments in force.
    #[must_use]
    pub fn attached(&self) -> Vec<(Slot, u32)> {
        self.held.keys().copied().collect()
    }

    fn program(&mut self, inbound: bool) -> Result<&mut SchedClassifier> {
        classifier(&mut self.object, if inbound { PROGRAM_INBOUND } else { PROGRAM_OUTBOUND })
    }
}

/// Whether a link's interface does not exist any more (ENOLINK).
fn is_gone(error: &anyhow::Error) -> bool {
    // By its chain, since context is put around it.
    let source = error.chain().find_map(|cause| cause.downcast_ref::<ProgramError>());
    let Some(ProgramError::SyscallError(error)) = source else { return false };
    error.io_error.raw_os_error() == Some(libc::ENOLINK)
}
