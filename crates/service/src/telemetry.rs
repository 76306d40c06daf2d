//! Telemetry: stamped, kept, and only then acknowledged.

use domain::message::{Draft, WILL_MARK};
use domain::operation::ErrorKind;
use domain::operation::session::Seat;
use domain::operation::telemetry::{Answer, Ask};

use crate::Service;
use crate::error::Error;

impl Service {
    /// Performs `ask`; answers once the message is durable.
    pub(crate) async fn perform_telemetry(&self, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::Send { device, message } => self.keep(&device, *message).await,
            Ask::Will { device, message } => self.keep(&device, message.marked(WILL_MARK)).await,
        }
    }

    async fn keep(&self, seat: &Seat, draft: Draft) -> Result<Answer, Error> {
        draft.check().map_err(|invalid| Error::new(ErrorKind::TooLarge, invalid.to_string()))?;
        let resources = self.resources();
        let hub = resources.hub(seat.hub).ok_or_else(|| Error::new(ErrorKind::HubNotFound, "The hub is gone."))?;
        self.0.telemetry.append(draft.stamp(seat, hub.partitions)).await?;
        Ok(Answer::Stored)
    }
}
