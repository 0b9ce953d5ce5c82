//! Records what applications tell of their messages.

use crate::api::{Reported, RequestError, RequestErrorCode};
use crate::clock;
use crate::core::interaction::Report;

use super::Daemon;

impl Daemon {
    /// An interaction that an application reports of an agent.
    pub(super) fn report(
        &mut self,
        agent: &str,
        report: &Report,
        by: &str,
    ) -> Result<Reported, RequestError> {
        if self.roster.slot_of(agent).is_none() {
            return Err(RequestError::no_agent(agent));
        }
        report.check().map_err(|wrong| RequestError::new(RequestErrorCode::Invalid, wrong))?;
        if self.room() == 0 {
            let why = "nothing was recorded: the log takes no events now, and too many wait for it in memory";
            return Err(RequestError::new(RequestErrorCode::Unavailable, why));
        }
        let now = clock::now();
        let draft = report.draft(now, agent, by);
        let correlation_id = draft.correlation_id.clone().unwrap_or_default();
        self.record(now, draft);
        Ok(Reported { agent: agent.to_owned(), correlation_id, waits: false })
    }
}
