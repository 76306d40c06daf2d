//! Why devices were admitted or refused, as operators ask.

use domain::operation::decision::{Answer, Ask};
use domain::operation::{Caller, ErrorKind};

use crate::Service;
use crate::error::Error;

/// Most decisions of one answer.
const DECISIONS_MAX: usize = 100;

impl Service {
    /// Performs `ask` for an operator of the management API.
    pub(crate) async fn perform_decision(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        self.authorize_operator(caller)?;
        match ask {
            Ask::Find(tracking) => match self.0.store.find_decision(tracking).await? {
                Some(decision) => Ok(Answer::Decision(Box::new(decision))),
                None => Err(Error::new(ErrorKind::ResourceNotFound, "No decision has this tracking ID.")),
            },
            Ask::List { registration_id, limit } => {
                let limit = limit.clamp(1, DECISIONS_MAX);
                let decisions = self.0.store.list_decisions(&registration_id, limit).await?;
                Ok(Answer::Decisions { decisions, lost: self.0.store.lost_refusals() })
            }
        }
    }
}
