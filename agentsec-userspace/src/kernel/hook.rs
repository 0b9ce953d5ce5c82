//! Where programs meet packets, and what the links there are called.

use std::fmt;

use agentsec_common::agent::Slot;
use agentsec_common::maps;

/// A place where programs of ours can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// An interface that is one agent's.
    Interface {
        /// The agent.
        slot: Slot,
        /// The interface, as numbered when it was attached.
        ifindex: u32,
    },
    /// An interface with agents behind it that are known by their addresses.
    Link {
        /// The interface, as numbered when it was attached.
        ifindex: u32,
    },
    /// A cgroup below which agents are known by their cgroups.
    Cgroup {
        /// Its id.
        id: u64,
    },
    /// The making of sockets, anywhere.
    Sockets,
}

/// One of the programs at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// What agents send.
    Out,
    /// What agents are sent.
    In,
    /// What agents send, before the stack sees it.
    Xdp,
    /// What agents may make.
    Create,
}

impl Side {
    const ALL: [Self; 4] = [Self::Out, Self::In, Self::Xdp, Self::Create];

    const fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
            Self::Xdp => "xdp",
            Self::Create => "create",
        }
    }
}

impl Hook {
    /// The programs without which the hook is not attached.
    #[must_use]
    pub const fn sides(self) -> &'static [Side] {
        match self {
            Self::Interface { .. } | Self::Link { .. } | Self::Cgroup { .. } => &[Side::Out, Side::In],
            Self::Sockets => &[Side::Create],
        }
    }
}

/// Names a link: its hook and its program's side there.
///
/// ```text
/// <slot>-<ifindex>-<out|in>   link-<ifindex>-<out|in|xdp>   cgroup-<id>-<out|in>   sockets-create
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkName {
    /// Where.
    pub hook: Hook,
    /// Which of the programs there.
    pub side: Side,
}

impl LinkName {
    /// Name of the program; `None` when the hook has no such side.
    #[must_use]
    pub const fn program(self) -> Option<&'static str> {
        Some(match (self.hook, self.side) {
            (Hook::Interface { .. }, Side::Out) => maps::PROGRAM_OUTBOUND,
            (Hook::Interface { .. }, Side::In) => maps::PROGRAM_INBOUND,
            (Hook::Link { .. }, Side::Out) => maps::PROGRAM_LINK_OUTBOUND,
            (Hook::Link { .. }, Side::In) => maps::PROGRAM_LINK_INBOUND,
            (Hook::Link { .. }, Side::Xdp) => maps::PROGRAM_LINK_XDP,
            (Hook::Cgroup { .. }, Side::Out) => maps::PROGRAM_CGROUP_OUTBOUND,
            (Hook::Cgroup { .. }, Side::In) => maps::PROGRAM_CGROUP_INBOUND,
            (Hook::Sockets, Side::Create) => maps::PROGRAM_SOCKET,
            _ => return None,
        })
    }

    /// From the name of a pin; `None` when it is not ours.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (hook, side) = name.rsplit_once('-')?;
        let side = Side::ALL.into_iter().find(|known| known.name() == side)?;
        let hook = match hook.split_once('-') {
            None if hook == "sockets" => Hook::Sockets,
            Some(("link", ifindex)) => Hook::Link { ifindex: ifindex.parse().ok()? },
            Some(("cgroup", id)) => Hook::Cgroup { id: id.parse().ok()? },
            Some((slot, ifindex)) => {
                Hook::Interface { slot: slot.parse().ok()?, ifindex: ifindex.parse().ok()? }
            }
            None => return None,
        };
        let name = Self { hook, side };
        name.program().map(|_| name)
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hook {
            Hook::Interface { slot, ifindex } => write!(out, "{slot}-{ifindex}-")?,
            Hook::Link { ifindex } => write!(out, "link-{ifindex}-")?,
            Hook::Cgroup { id } => write!(out, "cgroup-{id}-")?,
            Hook::Sockets => out.write_str("sockets-")?,
        }
        out.write_str(self.side.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_survives_its_name_and_others_are_not_ours() {
        for hook in [
            Hook::Interface { slot: 0, ifindex: 70_000 },
            Hook::Link { ifindex: 3 },
            Hook::Cgroup { id: u64::MAX },
            Hook::Sockets,
        ] {
            for &side in hook.sides() {
                let name = LinkName { hook, side };
                assert_eq!(LinkName::parse(&name.to_string()), Some(name), "{name}");
            }
        }
        let xdp = LinkName { hook: Hook::Link { ifindex: 3 }, side: Side::Xdp };
        assert_eq!(LinkName::parse("link-3-xdp"), Some(xdp));
        for foreign in
            ["", "x", "1-2", "1-2-xdp", "link-x-out", "cgroup-1-create", "1-2-3-out", "sockets-out"]
        {
            assert_eq!(LinkName::parse(foreign), None, "{foreign}");
        }
    }
}
