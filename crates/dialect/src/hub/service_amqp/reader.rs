//! A link on which a back-end program reads what it settles: when to ask for more, and what it has.
//!
//! What is handed out is locked in the store, and the lock is the delivery's tag: C# wants 16 bytes and reads them as the
//! lock (`contract/hub-service.md 9.4`). A program that reads and does not settle has a few at most; their locks run out by
//! themselves. Start at [`Reader::poll_wish`].

use std::collections::BTreeSet;

use bytes::Bytes;
use domain::cloud_to_device::Settlement;
use domain::ids::LockToken;
use proto::amqp::{
    Attach, Connection, DeliveryState, LinkId, Message, Outgoing, SenderSettleMode, Settlement as Sent, Unsent,
};

use super::queue::Queue;

/// Deliveries that a link has at once, sent and not settled.
pub const HELD_MAX: usize = 8;

/// One link.
#[derive(Debug)]
pub struct Reader {
    link: LinkId,
    /// What it reads.
    queue: Queue,
    /// Whether the client settles nothing: what is sent is done with.
    is_settled: bool,
    /// What was sent and is not settled, by its lock.
    held: BTreeSet<LockToken>,
    /// Whether an ask for more is under way.
    is_asking: bool,
    /// Whether there may be something that nobody has.
    may_wait: bool,
}

/// What became of something that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// The client has it, and is to settle it.
    Held,
    /// The client has it, and settles nothing.
    Done,
    /// The link is gone.
    NoLink,
    /// Too much waits to be read.
    Overrun,
    /// It is longer than the client takes.
    TooLarge,
}

impl Reader {
    /// For the link that `attach` asked for. Nothing is known of what waits in `queue`, so that something may.
    pub fn new(link: LinkId, queue: Queue, attach: &Attach) -> Self {
        let is_settled = attach.snd_settle_mode == SenderSettleMode::Settled;
        Self { link, queue, is_settled, held: BTreeSet::new(), is_asking: false, may_wait: true }
    }

    /// What it reads.
    pub const fn queue(&self) -> Queue {
        self.queue
    }

    /// Takes note that something may wait.
    pub const fn wake(&mut self) {
        self.may_wait = true;
    }

    /// Whether an ask for more is under way.
    pub const fn is_asking(&self) -> bool {
        self.is_asking
    }

    /// Whether more is to be asked for: the answer is for [`Self::received`].
    pub fn poll_wish(&mut self, connection: &Connection) -> bool {
        let has_room = connection.credit(self.link) > 0 && !connection.is_output_full() && self.held.len() < HELD_MAX;
        if !self.may_wait || self.is_asking || !has_room {
            return false;
        }
        self.is_asking = true;
        self.may_wait = false;
        true
    }

    /// The ask for more is answered, with or without something.
    pub const fn received(&mut self, is_something: bool) {
        self.is_asking = false;
        self.may_wait |= is_something;
    }

    /// Sends what is locked by `lock`. If the client has taken its credit back meanwhile, it waits for the next.
    pub fn send(&mut self, lock: LockToken, message: &Message, connection: &mut Connection) -> Handed {
        let outgoing = Outgoing {
            tag: Bytes::copy_from_slice(&lock.bits().to_be_bytes()),
            message_format: 0,
            settlement: if self.is_settled { Sent::Settled } else { Sent::Unsettled },
            payload: vec![message.to_bytes()],
        };
        match connection.send(self.link, outgoing) {
            Ok(()) if self.is_settled => Handed::Done,
            Ok(()) => {
                self.held.insert(lock);
                Handed::Held
            }
            Err(Unsent::TooLarge { .. }) => Handed::TooLarge,
            Err(Unsent::Full) => Handed::Overrun,
            Err(_) => Handed::NoLink,
        }
    }

    /// The client told what became of the delivery with this tag; the lock, unless it was told before.
    pub fn settled(&mut self, tag: &[u8]) -> Option<LockToken> {
        let lock = LockToken::from_bits(u128::from_be_bytes(tag.try_into().ok()?));
        self.held.remove(&lock).then_some(lock)
    }

    /// What the client has not settled, and never will.
    pub fn into_held(self) -> BTreeSet<LockToken> {
        self.held
    }
}

/// What an outcome means (`contract/hub-service.md 9.4`). Without one, the delivery is as if it had not been read.
pub fn settlement(state: Option<&DeliveryState>) -> Settlement {
    match state {
        Some(DeliveryState::Accepted) => Settlement::Complete,
        Some(DeliveryState::Rejected(_)) => Settlement::Reject,
        Some(
            DeliveryState::Released | DeliveryState::Modified(_) | DeliveryState::Received(_) | DeliveryState::Other(_),
        )
        | None => Settlement::Abandon,
    }
}
