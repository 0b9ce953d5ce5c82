//! The loop's side of anchors and retention: it starts them, hands them a new configuration, and records what they
//! tell. It waits for neither.

use super::Daemon;
use crate::clock;
use crate::config::LogConfig;
use crate::core::Draft;
use crate::record::anchor::Anchors;
use crate::record::anchor::state::States;
use crate::record::retention::Retention;
use tokio::sync::mpsc;

/// What works on the log beside its writer.
#[derive(Debug, Default)]
pub(super) struct Outside {
    anchors: Option<Anchors>,
    retention: Option<Retention>,
}

impl Outside {
    /// Takes a new configuration.
    pub(super) fn reconfigure(&self, config: &LogConfig) {
        if let Some(anchors) = &self.anchors {
            anchors.reconfigure(config.anchors.clone());
        }
        if let Some(retention) = &self.retention {
            retention.reconfigure(config.clone());
        }
    }

    /// How it stands with each anchor.
    pub(super) fn anchor_states(&self) -> States {
        self.anchors.as_ref().map(Anchors::states).unwrap_or_default()
    }
}

impl Daemon {
    /// Starts both. Containment depends on neither: what fails is told.
    pub(super) fn start_outside(&mut self) -> mpsc::UnboundedReceiver<Draft> {
        let (sender, drafts) = mpsc::unbounded_channel();
        let (state, config) = (self.options.state_dir.clone(), self.config.log.clone());
        let tell = sender.clone();
        let anchors = Anchors::start(
            config.anchors.clone(),
            &state,
            Box::new(move |told| drop(tell.send(told.draft(clock::now())))),
        );
        let retention = Retention::start(
            config,
            &state,
            Box::new(move |told| drop(sender.send(told.draft(clock::now())))),
        );
        self.outside.anchors = self.or_complain("anchors", anchors);
        self.outside.retention = self.or_complain("retention", retention);
        drafts
    }

    fn or_complain<T>(&mut self, about: &str, started: std::io::Result<T>) -> Option<T> {
        started.map_err(|error| self.complain(about, &anyhow::Error::new(error))).ok()
    }
}
