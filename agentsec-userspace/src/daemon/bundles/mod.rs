//! The loop's side of evidence bundles: it notices trips, hands over what only it knows, and records what became of
//! each bundle. Everything slow is done beside it ([`crate::bundle`]).

mod hear;
mod parts;
mod profile;
mod trips;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use agentsec_common::policy::State;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::api::views::BundleCounts;
use crate::bundle::manifest::Origin;
use crate::bundle::{Gate, Service, Told, Trip};
use crate::clock;
use crate::core::{Draft, Time};

use super::Daemon;

/// How often what is kept is looked at.
const TEND_NS: u64 = 60_000_000_000;
/// Trips that are remembered, so that none is ordered twice.
const REMEMBERED: usize = 1024;

/// What the loop keeps about bundles.
#[derive(Default)]
pub(super) struct Bundles {
    service: Option<Service>,
    /// Whether there is a service, or none can be had: what is due before waits.
    is_started: bool,
    heard: Option<UnboundedReceiver<Told>>,
    gate: Gate,
    /// Trips whose bundles are to be ordered, with their events' data.
    due: Vec<(Trip, Value)>,
    /// The latest trips that were.
    ordered: VecDeque<Trip>,
    /// Agents that were OPEN when the daemon started.
    found_open: Vec<Trip>,
    /// What waits until its event is in the log.
    unlogged: Vec<Unlogged>,
    /// What was told while the log had no room for its events: heard once there is.
    unheard: VecDeque<Told>,
    pub(super) counts: BundleCounts,
    next_tend_ns: u64,
}

/// What is done with a bundle once its event is in the log.
enum Unlogged {
    Keep(String),
    Remove(String),
}

impl Bundles {
    /// Notes a trip, if this is the event of one.
    pub(super) fn note(&mut self, draft: &Draft) {
        let Some((trip, data)) = trips::of(draft) else { return };
        let is_same = |other: &Trip| other.is(&trip.agent, trip.incident.as_deref(), &trip.tripped_at);
        if self.ordered.iter().any(is_same) || self.due.iter().any(|(other, _)| is_same(other)) {
            return;
        }
        self.due.push((trip, data));
    }

    /// Who destroys evidence asks here.
    pub(super) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// The next thing that is told; never, without a service.
    pub(super) async fn told(&mut self) -> Told {
        if let Some(heard) = &mut self.heard
            && let Some(told) = heard.recv().await
        {
            return told;
        }
        std::future::pending().await
    }
}

impl Daemon {
    /// Starts what makes bundles, beside the loop. Containment does not depend on it: what fails is told.
    pub(super) fn start_bundles(&mut self) {
        let origin = Origin {
            host: super::start::host_name(),
            boot_id: self.boot_id.clone(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().into(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        match Service::start(&self.options.state_dir, origin, self.bundles.gate()) {
            Ok((service, heard)) => {
                self.bundles.service = Some(service);
                self.bundles.heard = Some(heard);
            }
            Err(error) => self.complain("bundles", &anyhow::Error::new(error)),
        }
        self.bundles.is_started = true;
        self.bundles.found_open = self.open_now();
        self.order_bundles();
    }

    /// Trips of the agents that are OPEN, apart from those that were just noticed.
    fn open_now(&self) -> Vec<Trip> {
        let views = self.engine.views(clock::now()).into_iter();
        let open = views.filter(|view| State::from(view.state) == State::Open && !view.trip_unrecorded);
        let trips = open.filter_map(|view| {
            let tripped = view.tripped?;
            let by = serde_json::to_value(tripped.by).ok()?.as_str().map(str::to_owned).unwrap_or_default();
            Some(Trip {
                agent: view.id,
                incident: view.incident,
                tripped_at: tripped.at,
                by,
                reason: tripped.reason,
                late: Some("the daemon had stopped before the bundle of this trip was kept".into()),
            })
        });
        trips.filter(|trip| self.bundles.due.iter().all(|(due, _)| due.agent != trip.agent)).collect()
    }

    /// Orders the bundles of the trips that were noticed.
    pub(super) fn order_bundles(&mut self) {
        if !self.bundles.is_started {
            return;
        }
        for (trip, data) in std::mem::take(&mut self.bundles.due) {
            self.order_bundle(trip, data);
        }
    }

    fn order_bundle(&mut self, trip: Trip, data: Value) {
        self.bundles.ordered.push_back(trip.clone());
        if self.bundles.ordered.len() > REMEMBERED {
            self.bundles.ordered.pop_front();
        }
        if !self.config.bundles.enabled {
            return;
        }
        let order = self.bundle_order(clock::now(), trip, data);
        let refused = match &self.bundles.service {
            Some(service) => {
                service.gate().set_patience(Duration::from_nanos(self.config.bundles.wait_ns));
                service.order(order).err().map(|refused| *refused)
            }
            None => Some((order.trip, "the threads that make bundles could not be started".into())),
        };
        if let Some((trip, error)) = refused {
            self.hear_bundle(Told::Failed { trip, error });
        }
    }

    /// Says now and then what is configured and whose incidents are open; goes on with what waited for the log.
    pub(super) fn tend_bundles(&mut self, now: Time) {
        self.hear_unheard();
        self.confirm_bundles();
        if now.mono_ns < self.bundles.next_tend_ns {
            return;
        }
        self.bundles.next_tend_ns = now.mono_ns + TEND_NS;
        self.expire_recordings();
        let views = self.engine.views(now).into_iter();
        let open: BTreeSet<_> = views.filter_map(|view| Some((view.id, view.incident?))).collect();
        if let Some(service) = &self.bundles.service {
            service.tend(&self.config.bundles, open);
        }
    }

    /// Goes on with bundles whose events are in the log.
    fn confirm_bundles(&mut self) {
        if self.log.counts().queued > 0 {
            return;
        }
        let Some(service) = &self.bundles.service else { return };
        for unlogged in self.bundles.unlogged.drain(..) {
            match unlogged {
                Unlogged::Keep(id) => service.logged(&id),
                Unlogged::Remove(id) => service.remove(&id),
            }
        }
    }

    /// Waits, for a bounded time, until what is being collected is on the disk, and records it.
    pub(super) fn settle_bundles(&mut self) {
        let Some(service) = &self.bundles.service else { return };
        service.settle(Duration::from_nanos(self.config.bundles.wait_ns));
        while let Some(told) = self.bundles.heard.as_mut().and_then(|heard| heard.try_recv().ok()) {
            self.hear_bundle(told);
        }
    }

    /// Once the log has ended: what waited for it is noted, so that the next daemon does not tell it again.
    pub(super) fn finish_bundles(&mut self) {
        self.confirm_bundles();
        if let Some(service) = &self.bundles.service {
            service.finish(Duration::from_secs(1));
        }
    }
}
