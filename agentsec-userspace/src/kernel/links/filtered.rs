//! Attachments by clsact filters: see `filters.rs`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::{Held, Links, TakenOver, is_gone};
use crate::kernel::filters::Filters;
use crate::kernel::hook::{Hook, LinkName};

impl Links {
    /// Puts our programs into the filters of an earlier daemon, or back to where such a filter should be.
    pub(super) fn take_over_filters(&mut self, taken: &mut TakenOver) -> Result<()> {
        for name in self.filters.remembered() {
            let was_there = Filters::is_there(&name)?;
            match self.put_filter(&name) {
                Ok(()) => {
                    self.held.entry(name.hook).or_default().insert(name.side, Held::Filter);
                    if !was_there {
                        taken.repaired.push(name.hook);
                    }
                }
                Err(error) if is_gone(&error) => {
                    self.filters.remove(&name)?;
                    taken.gone.push(name.hook);
                }
                Err(error) => return Err(error.context(format!("taking over the filter {name}"))),
            }
        }
        Ok(())
    }

    pub(super) fn put_filter(&mut self, name: &LinkName) -> Result<()> {
        let program = self.programs.fd(name.program().context("a hook has no such program")?)?;
        self.filters.put(name, program)
    }

    /// Puts the filters back that somebody has taken off. The hooks where that was so, and whether it could be done; an
    /// interface that is gone is none of them.
    pub fn repair(&mut self) -> Vec<(Hook, Result<()>)> {
        let mut repaired = BTreeMap::new();
        for name in self.filters_held() {
            let result = match Filters::is_there(&name) {
                Ok(true) => continue,
                Ok(false) => self.put_filter(&name),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if is_gone(&error) => {}
                Err(error) => drop(repaired.insert(name.hook, Err(error))),
                Ok(()) => drop(repaired.entry(name.hook).or_insert(Ok(()))),
            }
        }
        repaired.into_iter().collect()
    }

    fn filters_held(&self) -> Vec<LinkName> {
        let held = self.held.iter().flat_map(|(&hook, sides)| {
            let filters = sides.iter().filter(|(_, held)| matches!(held, Held::Filter));
            filters.map(move |(&side, _)| LinkName { hook, side })
        });
        held.collect()
    }

    /// What our programs on an interface are attached by: `tcx` or `clsact`.
    #[must_use]
    pub fn attached_by(&self, hook: Hook) -> &'static str {
        let is_filtered = |sides: &BTreeMap<_, Held>| sides.values().any(|held| matches!(held, Held::Filter));
        if self.held.get(&hook).is_some_and(is_filtered) { "clsact" } else { "tcx" }
    }
}
