//! Telemetry: stamped, kept, and only then acknowledged. Start at [`Service::perform_telemetry`].

use domain::message::{Draft, Message, WILL_MARK};
use domain::operation::identity::IdentityName;
use domain::operation::session::Seat;
use domain::operation::telemetry::{Answer, Ask};
use domain::operation::{Caller, ErrorKind};

use crate::Service;
use crate::error::Error;

/// Most bytes of messages that were sent over HTTPS and wait to be durable: so many that they are kept as fast as the disk
/// takes them, and so few that connected devices find room in the log.
pub(crate) const POSTS_BYTES_MAX: usize = 8 << 20;

impl Service {
    /// Performs `ask`; what a device sends is answered once it is durable.
    pub(crate) async fn perform_telemetry(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::Send { device, message } => {
                let kept = self.keep(&device, *message).await;
                self.hear(&device);
                kept
            }
            Ask::SendBatch { device, messages } => {
                let kept = self.keep_all(&device, messages).await;
                self.hear(&device);
                kept
            }
            Ask::Post { name, messages } => self.post(caller, &name, messages).await,
            Ask::Will { device, message } => self.keep(&device, message.marked(WILL_MARK)).await,
        }
    }

    /// Keeps what a device without a connection sends. Nothing holds back who sends like that, so that whoever finds as
    /// much under way as may be is told to come again.
    async fn post(&self, caller: &Caller, name: &IdentityName, messages: Vec<Draft>) -> Result<Answer, Error> {
        let seat = self.seat_for_request(caller, name).await?;
        let bytes = messages.iter().map(Draft::size).sum::<usize>();
        let room = u32::try_from(bytes).ok().and_then(|bytes| self.0.posts.try_acquire_many(bytes).ok());
        let _room = room.ok_or_else(|| Error::new(ErrorKind::Throttled, "The hub is busy; try again later."))?;
        let kept = self.keep_all(&seat, messages).await?;
        self.0.directory.hear_unseated(&seat, self.now());
        Ok(kept)
    }

    /// Nothing is awaited before the append, so that the messages of a device are kept in the order in which their
    /// futures are first polled.
    async fn keep(&self, seat: &Seat, draft: Draft) -> Result<Answer, Error> {
        let message = self.stamp(seat, draft)?;
        self.0.telemetry.append(message).await?;
        Ok(Answer::Stored)
    }

    /// Keeps all of `drafts`, in their order. One that breaks a limit keeps all out; where the log fails, none is kept, so
    /// that a sender who is told sends the batch again, and nothing comes twice.
    async fn keep_all(&self, seat: &Seat, drafts: Vec<Draft>) -> Result<Answer, Error> {
        let messages = drafts.into_iter().map(|draft| self.stamp(seat, draft)).collect::<Result<_, _>>()?;
        self.0.telemetry.append_all(messages).await?;
        Ok(Answer::Stored)
    }

    /// The message that a draft of `seat` becomes, if it breaks no limit.
    fn stamp(&self, seat: &Seat, draft: Draft) -> Result<Message, Error> {
        draft.check().map_err(|invalid| Error::new(ErrorKind::TooLarge, invalid.to_string()))?;
        let resources = self.resources();
        let hub = resources.hub(seat.hub).ok_or_else(|| Error::new(ErrorKind::HubNotFound, "The hub is gone."))?;
        Ok(draft.stamp(seat, hub.partitions))
    }
}
