//! What operators ask for, carried out and answered.

use agentsec_common::policy;

use crate::api::{
    Operation, OperationOutcome, OperationRefusal, OperationReply, RequestError, RequestErrorCode, Whom,
};
use crate::clock;
use crate::core::{self, Input, Refusal, Target};

use super::Daemon;

impl Daemon {
    /// Carries out an operation. It is an error when it was refused for everybody; of several agents, those for
    /// whom it was refused are in the reply.
    pub(super) fn operate(
        &mut self,
        operation: Operation,
        by: String,
    ) -> Result<OperationReply, RequestError> {
        let request = request(operation);
        let outcomes = self.handle(clock::now(), Input::Operator { request, by });
        self.save();
        let mut reply = OperationReply::default();
        for (agent, outcome) in outcomes {
            match outcome {
                Ok(done) => reply.agents.extend(self.outcome_of(agent, &done)),
                Err(Refusal::UnknownAgent) => return Err(RequestError::no_agent(&agent)),
                Err(Refusal::UnknownTag) => return Err(RequestError::no_tag(&agent, self.engine.tags())),
                Err(refusal) => {
                    reply.refused.push(OperationRefusal { agent, message: refusal.to_string() });
                }
            }
        }
        if reply.agents.is_empty() && !reply.refused.is_empty() {
            return Err(refused_for_all(&reply.refused));
        }
        Ok(reply)
    }

    fn outcome_of(&self, agent: String, done: &core::Done) -> Option<OperationOutcome> {
        let slot = self.roster.slot_of(&agent)?;
        let view = self.engine.view(clock::now(), slot)?;
        Some(OperationOutcome {
            agent,
            state: policy::State::from(view.state).into(),
            mode: policy::Mode::from(view.mode).into(),
            epoch: view.epoch,
            changed: done.changed,
            message: done.text.clone(),
        })
    }
}

fn refused_for_all(refused: &[OperationRefusal]) -> RequestError {
    let each: Vec<String> =
        refused.iter().map(|refusal| format!("{}: {}", refusal.agent, refusal.message)).collect();
    RequestError::new(RequestErrorCode::Refused, each.join("; "))
}

fn request(operation: Operation) -> core::Request {
    let target = |whom| match whom {
        Whom::Agent(id) => Target::Agent(id),
        Whom::Tag(tag) => Target::Tag(tag),
        Whom::All => Target::All,
    };
    match operation {
        Operation::Quarantine { whom, reason, hold } => {
            core::Request::Quarantine { target: target(whom), reason, hold }
        }
        Operation::Release { whom, force } => core::Request::Release { target: target(whom), force },
        Operation::Shadow { whom, on } => core::Request::Shadow { target: target(whom), off: !on },
        Operation::Exempt { whom, on } => core::Request::Exempt { target: target(whom), off: !on },
    }
}
