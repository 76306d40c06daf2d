//! Which cloud-to-device messages a connection has, and when it asks for more (`contract/hub-device.md 2.8`).
//!
//! Messages are sent in the order enqueued, a few at a time, since some clients acknowledge only when the application has
//! done its work. What is not acknowledged stays the connection's own: nothing is ever sent twice on one connection.
//! Knows packet identifiers and lock tokens, and neither topics nor bytes. Start at [`Deliveries::poll_wish`].

use std::collections::VecDeque;

use domain::cloud_to_device::Delivery;
use domain::ids::LockToken;
use proto::mqtt::PacketId;

/// Messages that a connection has at once, sent or not.
pub const HELD_MAX: usize = 4;

/// The messages of one connection.
#[derive(Debug)]
pub struct Deliveries {
    /// To be sent, oldest first.
    waiting: VecDeque<Delivery>,
    /// Sent at QoS 1 and not acknowledged.
    sent: Vec<(PacketId, LockToken)>,
    /// Sent at QoS 0 and not known to be written.
    unwritten: Vec<LockToken>,
    /// Whether an ask for messages is under way.
    is_asking: bool,
    /// Whether there may be messages that nobody has.
    may_wait: bool,
}

impl Default for Deliveries {
    /// Nothing is known of the queue, so that there may be messages.
    fn default() -> Self {
        Self { waiting: VecDeque::new(), sent: Vec::new(), unwritten: Vec::new(), is_asking: false, may_wait: true }
    }
}

impl Deliveries {
    /// Takes note that there may be messages.
    pub const fn wake(&mut self) {
        self.may_wait = true;
    }

    /// How many messages are to be asked for; `None` if none are, at present. The answer is for [`Self::received`].
    pub fn poll_wish(&mut self) -> Option<usize> {
        let held = self.waiting.len() + self.sent.len() + self.unwritten.len();
        if !self.may_wait || self.is_asking || held >= HELD_MAX {
            return None;
        }
        self.is_asking = true;
        self.may_wait = false;
        Some(HELD_MAX - held)
    }

    /// Takes the messages of an ask for up to `wished`. As many as that mean that there may be more.
    pub fn received(&mut self, deliveries: Vec<Delivery>, wished: usize) {
        self.is_asking = false;
        self.may_wait |= deliveries.len() >= wished;
        self.waiting.extend(deliveries);
    }

    /// The message to be sent next. Whoever has sent it says so by [`Self::sent`].
    pub fn next(&self) -> Option<&Delivery> {
        self.waiting.front()
    }

    /// The next message is in the output, under this identifier unless it was sent at QoS 0.
    pub fn sent(&mut self, packet_id: Option<PacketId>) {
        let Some(delivery) = self.waiting.pop_front() else { return };
        match packet_id {
            Some(packet_id) => self.sent.push((packet_id, delivery.lock)),
            None => self.unwritten.push(delivery.lock),
        }
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }

    /// The message that the client acknowledges by `packet_id`, to be completed.
    pub fn acknowledged(&mut self, packet_id: PacketId) -> Option<LockToken> {
        let index = self.sent.iter().position(|(sent, _)| *sent == packet_id)?;
        Some(self.sent.remove(index).1)
    }

    /// Everything in the output is written: the messages that are complete with that.
    pub fn written(&mut self) -> Vec<LockToken> {
        std::mem::take(&mut self.unwritten)
    }
}

#[cfg(test)]
mod tests {
    use domain::clock::UnixTime;
    use domain::cloud_to_device::Draft;

    use super::*;

    fn delivery(number: u64) -> Delivery {
        Delivery {
            lock: LockToken::from_bits(number.into()),
            sequence: number,
            enqueued_at: UnixTime::from_seconds(0),
            expires_at: UnixTime::from_seconds(1),
            delivery_count: 0,
            message: Draft::default(),
        }
    }

    fn id(number: u16) -> PacketId {
        PacketId::new(number).unwrap()
    }

    #[test]
    fn a_few_are_asked_for_and_more_as_soon_as_some_are_done() {
        let mut deliveries = Deliveries::default();
        assert_eq!(deliveries.poll_wish(), Some(HELD_MAX));
        assert_eq!(deliveries.poll_wish(), None, "one ask at a time");
        deliveries.received((1..=4).map(delivery).collect(), HELD_MAX);
        for number in 1..=4 {
            assert_eq!(deliveries.next().map(|next| next.sequence), Some(number.into()));
            deliveries.sent(Some(id(number)));
        }
        assert_eq!(deliveries.poll_wish(), None, "it has enough");
        assert_eq!(deliveries.acknowledged(id(2)), Some(LockToken::from_bits(2)));
        assert_eq!(deliveries.acknowledged(id(2)), None);
        assert_eq!(deliveries.poll_wish(), Some(1));
        deliveries.received(Vec::new(), 1);
        assert_eq!(deliveries.acknowledged(id(1)), Some(LockToken::from_bits(1)));
        assert_eq!(deliveries.poll_wish(), None, "nothing waits");
        deliveries.wake();
        assert_eq!(deliveries.poll_wish(), Some(2));
    }

    #[test]
    fn a_wake_up_while_an_ask_is_under_way_is_not_lost() {
        let mut deliveries = Deliveries::default();
        assert_eq!(deliveries.poll_wish(), Some(HELD_MAX));
        deliveries.wake();
        deliveries.received(Vec::new(), HELD_MAX);
        assert_eq!(deliveries.poll_wish(), Some(HELD_MAX));
    }

    #[test]
    fn at_qos_0_what_is_written_is_done() {
        let mut deliveries = Deliveries::default();
        assert_eq!(deliveries.poll_wish(), Some(HELD_MAX));
        deliveries.received((1..=4).map(delivery).collect(), HELD_MAX);
        (1..=4).for_each(|_| deliveries.sent(None));
        assert_eq!(deliveries.poll_wish(), None);
        assert_eq!(deliveries.written().len(), 4);
        assert_eq!((deliveries.written(), deliveries.poll_wish()), (Vec::new(), Some(HELD_MAX)));
    }
}
