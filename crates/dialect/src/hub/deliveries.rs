//! Which cloud-to-device messages a connection has, and when it asks for more (`contract/hub-device.md 2.8` and `4.7`).
//!
//! Messages are sent in the order enqueued, a few at a time, since some clients acknowledge only when the application has
//! done its work. What is not acknowledged stays the connection's own until its lock runs out, if it ever does: it is sent
//! again only after that, or if the client gives it back. Knows lock tokens and what the transport calls a message it has
//! sent, and neither topics nor bytes. Start at [`Deliveries::poll_wish`].

use std::collections::VecDeque;
use std::time::Instant;

use domain::cloud_to_device::Delivery;
use domain::ids::LockToken;

/// Messages that wait to be sent.
const WAITING_MAX: usize = 4;

/// A message that was sent.
#[derive(Debug)]
struct Sent<Name> {
    name: Name,
    lock: LockToken,
    /// When the lock runs out, if it does.
    until: Option<Instant>,
}

/// The messages of one connection, which its transport calls `Name` from being sent to being acknowledged.
#[derive(Debug)]
pub struct Deliveries<Name> {
    /// To be sent, oldest first.
    waiting: VecDeque<(Delivery, Option<Instant>)>,
    /// Sent, to be acknowledged; in the order in which locks run out.
    sent: Vec<Sent<Name>>,
    /// Sent for good, and not known to be written.
    unwritten: Vec<LockToken>,
    /// Whether an ask for messages is under way.
    is_asking: bool,
    /// Whether there may be messages that nobody has.
    may_wait: bool,
    held_max: usize,
}

impl<Name: PartialEq> Deliveries<Name> {
    /// Of a connection that has at most `held_max` messages at once, sent or not. Nothing is known of the queue, so that
    /// there may be messages.
    pub const fn new(held_max: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            sent: Vec::new(),
            unwritten: Vec::new(),
            is_asking: false,
            may_wait: true,
            held_max,
        }
    }

    /// Takes note that there may be messages.
    pub const fn wake(&mut self) {
        self.may_wait = true;
    }

    /// Whether there are, or may be in a moment, messages that nobody else gets.
    pub fn holds_any(&self) -> bool {
        self.is_asking || !self.waiting.is_empty() || !self.sent.is_empty() || !self.unwritten.is_empty()
    }

    /// Whether there is, or may be in a moment, a message to be sent.
    pub fn has_next(&self) -> bool {
        self.is_asking || !self.waiting.is_empty()
    }

    /// How many messages are to be asked for where the client has room for `room`; `None` if none are, at present. The
    /// answer is for [`Self::received`].
    pub fn poll_wish(&mut self, room: usize) -> Option<usize> {
        let waiting = self.waiting.len();
        let held = waiting + self.sent.len() + self.unwritten.len();
        let wished = self.held_max.saturating_sub(held).min(room.min(WAITING_MAX).saturating_sub(waiting));
        if !self.may_wait || self.is_asking || wished == 0 {
            return None;
        }
        self.is_asking = true;
        self.may_wait = false;
        Some(wished)
    }

    /// Takes the messages of an ask for up to `wished`, whose locks run out `until` then, if they do. As many as that mean
    /// that there may be more.
    pub fn received(&mut self, deliveries: Vec<Delivery>, wished: usize, until: Option<Instant>) {
        self.is_asking = false;
        self.may_wait |= deliveries.len() >= wished;
        self.waiting.extend(deliveries.into_iter().map(|delivery| (delivery, until)));
    }

    /// When the next lock runs out.
    pub fn next_expiry(&self) -> Option<Instant> {
        let sent = self.sent.first().and_then(|sent| sent.until);
        sent.or_else(|| self.waiting.front().and_then(|(_, until)| *until))
    }

    /// Forgets the messages whose locks have run out by `now`: they are nobody's, or another's. Gives the names of those
    /// that were sent.
    pub fn expire(&mut self, now: Instant) -> Vec<Name> {
        let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        while self.waiting.front().is_some_and(|(_, until)| is_over(*until)) {
            let _ = self.pass_over();
        }
        let over = self.sent.iter().take_while(|sent| is_over(sent.until)).count();
        self.sent.drain(..over).map(|sent| sent.name).collect()
    }

    /// The message to be sent next. Whoever has sent it says so by [`Self::sent`].
    pub fn next(&self) -> Option<&Delivery> {
        self.waiting.front().map(|(delivery, _)| delivery)
    }

    /// The next message is in the output, under this name unless nobody acknowledges it.
    pub fn sent(&mut self, name: Option<Name>) {
        let Some((lock, until)) = self.take_next() else { return };
        match name {
            Some(name) => self.sent.push(Sent { name, lock, until }),
            None => self.unwritten.push(lock),
        }
    }

    /// Takes out the next message, which cannot be sent.
    pub fn pass_over(&mut self) -> Option<LockToken> {
        self.take_next().map(|(lock, _)| lock)
    }

    fn take_next(&mut self) -> Option<(LockToken, Option<Instant>)> {
        let (delivery, until) = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some((delivery.lock, until))
    }

    /// The message that the client acknowledges by its name, to be settled.
    pub fn acknowledged(&mut self, name: &Name) -> Option<LockToken> {
        let index = self.sent.iter().position(|sent| sent.name == *name)?;
        Some(self.sent.remove(index).lock)
    }

    /// Everything in the output is written: the messages that are complete with that.
    pub fn written(&mut self) -> Vec<LockToken> {
        std::mem::take(&mut self.unwritten)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::clock::UnixTime;
    use domain::cloud_to_device::Draft;

    use super::*;

    /// Messages that the connections of these tests have at once.
    const HELD_MAX: usize = 4;

    fn deliveries() -> Deliveries<u16> {
        Deliveries::new(HELD_MAX)
    }

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

    #[test]
    fn a_few_are_asked_for_and_more_as_soon_as_some_are_done() {
        let mut deliveries = deliveries();
        assert_eq!(deliveries.poll_wish(usize::MAX), Some(HELD_MAX));
        assert_eq!(deliveries.poll_wish(usize::MAX), None, "one ask at a time");
        deliveries.received((1..=4).map(delivery).collect(), HELD_MAX, None);
        for number in 1..=4 {
            assert_eq!(deliveries.next().map(|next| next.sequence), Some(number.into()));
            deliveries.sent(Some(number));
        }
        assert_eq!(deliveries.poll_wish(usize::MAX), None, "it has enough");
        assert_eq!(deliveries.acknowledged(&2), Some(LockToken::from_bits(2)));
        assert_eq!(deliveries.acknowledged(&2), None);
        assert_eq!(deliveries.poll_wish(usize::MAX), Some(1));
        deliveries.received(Vec::new(), 1, None);
        assert_eq!(deliveries.acknowledged(&1), Some(LockToken::from_bits(1)));
        assert_eq!(deliveries.poll_wish(usize::MAX), None, "nothing waits");
        deliveries.wake();
        assert_eq!(deliveries.poll_wish(usize::MAX), Some(2));
    }

    #[test]
    fn a_wake_up_while_an_ask_is_under_way_is_not_lost() {
        let mut deliveries = deliveries();
        assert_eq!(deliveries.poll_wish(usize::MAX), Some(HELD_MAX));
        deliveries.wake();
        deliveries.received(Vec::new(), HELD_MAX, None);
        assert_eq!(deliveries.poll_wish(usize::MAX), Some(HELD_MAX));
    }

    #[test]
    fn at_qos_0_what_is_written_is_done() {
        let mut deliveries = deliveries();
        assert_eq!(deliveries.poll_wish(usize::MAX), Some(HELD_MAX));
        deliveries.received((1..=4).map(delivery).collect(), HELD_MAX, None);
        (1..=4).for_each(|_| deliveries.sent(None));
        assert_eq!(deliveries.poll_wish(usize::MAX), None);
        assert_eq!(deliveries.written().len(), 4);
        assert_eq!((deliveries.written(), deliveries.poll_wish(usize::MAX)), (Vec::new(), Some(HELD_MAX)));
    }

    #[test]
    fn no_more_are_asked_for_than_the_client_has_room_for() {
        let mut deliveries = Deliveries::<u16>::new(50);
        assert_eq!(deliveries.poll_wish(0), None, "no room, no ask");
        assert_eq!(deliveries.poll_wish(2), Some(2));
        deliveries.received((1..=2).map(delivery).collect(), 2, None);
        assert_eq!(deliveries.poll_wish(2), None, "what waits takes the room");
        deliveries.sent(Some(1));
        deliveries.sent(Some(2));
        assert_eq!(deliveries.poll_wish(50), Some(WAITING_MAX), "a few at a time, however much room there is");
        deliveries.received(vec![delivery(3)], WAITING_MAX, None);
        assert_eq!(deliveries.pass_over(), Some(LockToken::from_bits(3)));
        assert!(deliveries.holds_any());
        assert!([1, 2].iter().all(|name| deliveries.acknowledged(name).is_some()));
        assert!(!deliveries.holds_any());
    }

    #[test]
    fn a_message_whose_lock_runs_out_makes_room_for_another() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut deliveries = deliveries();
        assert_eq!((deliveries.poll_wish(2), deliveries.next_expiry()), (Some(2), None));
        deliveries.received((1..=2).map(delivery).collect(), 2, Some(after(60)));
        deliveries.sent(Some(1));
        deliveries.sent(Some(2));
        assert_eq!(deliveries.poll_wish(2), Some(2));
        deliveries.received((3..=4).map(delivery).collect(), 2, Some(after(70)));
        deliveries.sent(Some(3));
        assert_eq!((deliveries.next_expiry(), deliveries.expire(after(59))), (Some(after(60)), Vec::new()));
        assert_eq!(deliveries.acknowledged(&1), Some(LockToken::from_bits(1)));
        assert_eq!((deliveries.expire(after(60)), deliveries.next_expiry()), (vec![2], Some(after(70))));
        assert_eq!(deliveries.acknowledged(&2), None, "it is over");
        assert_eq!(deliveries.poll_wish(4), Some(2), "one that waits takes the room of another");
        deliveries.received(Vec::new(), 2, None);
        assert_eq!((deliveries.expire(after(70)), deliveries.next_expiry()), (vec![3], None));
        assert!(!deliveries.holds_any(), "also what was not sent");
    }
}
