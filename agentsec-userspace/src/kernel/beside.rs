//! The kernel's maps of one agent's endpoints and connections, read beside the loop that owns them.

use std::os::fd::{AsFd, OwnedFd};

use agentsec_common::agent::Slot;
use agentsec_common::endpoint::{Endpoint, EndpointKey};
use agentsec_common::flow::{Flow, FlowKey};
use agentsec_common::sample::Responses;
use anyhow::{Context, Result};

use super::batch::Batch;

/// Descriptors of the maps, for a thread of its own. Reading changes nothing.
#[derive(Debug)]
pub struct Beside {
    pub(super) endpoints: OwnedFd,
    pub(super) flows: OwnedFd,
    pub(super) responses: OwnedFd,
}

impl Beside {
    /// Hands over the agent's endpoints. Those that come and go meanwhile may be missed.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn endpoints(&self, slot: Slot, mut look: impl FnMut(EndpointKey, Endpoint)) -> Result<()> {
        let mut batch = Batch::<EndpointKey, Endpoint>::new();
        let each = |key: EndpointKey, endpoint| {
            if key.slot == slot {
                look(key, endpoint)
            }
        };
        batch.read(self.endpoints.as_fd(), each).context("reading the endpoints")
    }

    /// Hands over the agent's connections, likewise.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn flows(&self, slot: Slot, mut look: impl FnMut(FlowKey, Flow)) -> Result<()> {
        let mut batch = Batch::<FlowKey, Flow>::new();
        let each = |key: FlowKey, flow| {
            if key.slot() == slot {
                look(key, flow)
            }
        };
        batch.read(self.flows.as_fd(), each).context("reading the connections")
    }

    /// Hands over how the agent's endpoints answer, likewise.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn responses(&self, slot: Slot, mut look: impl FnMut(EndpointKey, Responses)) -> Result<()> {
        let mut batch = Batch::<EndpointKey, Responses>::new();
        let each = |key: EndpointKey, responses| {
            if key.slot == slot {
                look(key, responses)
            }
        };
        batch.read(self.responses.as_fd(), each).context("reading the response times")
    }
}
