//! Deliveries that are received, and how deliveries are settled (part 2, sections 2.6.12 and 2.6.13).

use bytes::Bytes;

use super::forgotten::Part;
use super::link::{LinkState, Partial};
use super::session::{ReceivedDelivery, numbers_in};
use super::{Connection, Delivery, DeliveryId, Event, LinkId, SessionId, UnknownDeliveries};
use crate::amqp::performative::{
    DELIVERY_TAG_BYTES_MAX, Disposition, Performative, ReceiverSettleMode, Role, Transfer,
};
use crate::amqp::state::{DeliveryState, condition};
use crate::amqp::text::Symbol;

/// A rule that a transfer broke: what the peer is told, and what it did.
type Broken = (Symbol, &'static str);

impl Connection {
    /// Tells the peer what became of a delivery, and settles it as far as that is this end's to do: at once, unless the
    /// link is one whose receiver settles second and we receive. Does nothing for a delivery that is settled or gone.
    ///
    /// Settled in any order; neighbours with the same outcome leave in one disposition.
    pub fn settle(&mut self, delivery: DeliveryId, state: DeliveryState) {
        let DeliveryId { session: id, is_received, number } = delivery;
        let Some(session) = self.sessions.get_mut(id) else { return };
        let channel = session.local_channel;
        let (role, settled) = if is_received {
            let Some(received) = session.received.get(&number) else { return };
            let settles_second = received.settles_second;
            if !settles_second {
                session.received.remove(&number);
                self.unsettled -= 1;
            }
            (Role::Receiver, !settles_second)
        } else {
            let Some(sent) = session.sent.remove(&number) else { return };
            self.count_settled(sent.link);
            (Role::Sender, true)
        };
        let disposition =
            Disposition { role, first: number, last: Some(number), settled, state: Some(state), batchable: false };
        self.push_disposition(channel, disposition);
    }

    /// Settles deliveries of which nothing is kept. Does nothing if their session is gone.
    pub fn settle_unknown(&mut self, deliveries: &UnknownDeliveries, state: &DeliveryState) {
        let UnknownDeliveries { session, ranges } = deliveries;
        let Some(channel) = self.sessions.get(*session).map(|session| session.local_channel) else { return };
        for &range in ranges {
            self.push_disposition(channel, settled_by_us(range, Some(state.clone())));
        }
    }

    /// A delivery of ours is settled: the link has space for another.
    fn count_settled(&mut self, link: LinkId) {
        if let Some(link) = self.links.get_mut(&link) {
            link.in_flight = link.in_flight.saturating_sub(1);
        }
    }

    /// Continues the disposition that waits, or sends it and lets this one wait.
    fn push_disposition(&mut self, channel: u16, disposition: Disposition) {
        if let Some((waiting_channel, waiting)) = &mut self.disposition {
            let is_next = waiting.last.unwrap_or(waiting.first).wrapping_add(1) == disposition.first;
            let is_alike = *waiting_channel == channel
                && waiting.role == disposition.role
                && waiting.settled == disposition.settled
                && waiting.state == disposition.state;
            if is_next && is_alike {
                waiting.last = disposition.last;
                return;
            }
        }
        self.flush_disposition();
        self.disposition = Some((channel, disposition));
    }

    /// Sends the disposition that waits.
    pub(super) fn flush_disposition(&mut self) {
        if let Some((channel, disposition)) = self.disposition.take() {
            self.push_frame(channel, &Performative::Disposition(disposition));
        }
    }

    pub(super) fn handle_transfer(&mut self, session_id: SessionId, transfer: Transfer, payload: Bytes) {
        let window = self.limits.session_window;
        let Some(session) = self.sessions.get_mut(session_id) else { return };
        if !session.count_incoming() {
            return self.fail_session(session_id, condition::WINDOW_VIOLATION, "a transfer beyond the window");
        }
        let found = session.handles.get(&transfer.handle).copied();
        if session.needs_flow(window) {
            self.push_session_flow(session_id);
        }
        let Some(id) = found else {
            let what = "a transfer for a handle that is not attached";
            return self.fail_session(session_id, condition::UNATTACHED_HANDLE, what);
        };
        if let Err((condition, what)) = self.take_transfer(id, transfer, payload) {
            self.fail_link(id, condition, what);
        }
    }

    fn take_transfer(&mut self, id: LinkId, mut transfer: Transfer, payload: Bytes) -> Result<(), Broken> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        if matches!(link.state, LinkState::Detaching { .. }) {
            return Ok(());
        }
        if link.role != Role::Receiver {
            return Err((condition::NOT_ALLOWED, "a transfer from the receiver"));
        }
        let (more, aborted, settled) = (transfer.more, transfer.aborted, transfer.settled.unwrap_or(false));
        let number = transfer.delivery_id;
        let mut partial = if let Some(partial) = link.partial.take() {
            partial
        } else {
            if !link.take_credit() {
                return Err((condition::TRANSFER_LIMIT_EXCEEDED, "a transfer beyond the credit"));
            }
            // A slice of the frame would keep all of it for as long as the caller keeps the tag.
            transfer.delivery_tag = transfer.delivery_tag.map(|tag| Bytes::copy_from_slice(&tag));
            let partial = Partial::start(transfer);
            Box::new(partial.ok_or((condition::INVALID_FIELD, "a delivery without number or tag"))?)
        };
        self.unfinished_bytes -= partial.len();
        if number.is_some_and(|number| number != partial.number) || partial.tag.len() > DELIVERY_TAG_BYTES_MAX {
            return Err((condition::INVALID_FIELD, "a delivery with another number, or too long a tag"));
        }
        // What was received of it is of no use (part 2, section 2.7.5).
        if aborted {
            return Ok(());
        }
        partial.is_settled |= settled;
        let bytes = partial.len() + payload.len();
        if link.message_bytes_max.is_some_and(|max| bytes as u64 > max) {
            return Err((condition::MESSAGE_SIZE_EXCEEDED, "a message longer than max-message-size"));
        }
        partial.push(payload);
        if !more {
            return self.finish_delivery(id, *partial);
        }
        if self.unfinished_bytes + bytes > self.limits.unfinished_bytes_max {
            return Err((condition::RESOURCE_LIMIT_EXCEEDED, "too many bytes of unfinished messages"));
        }
        self.unfinished_bytes += bytes;
        link.partial = Some(partial);
        Ok(())
    }

    fn finish_delivery(&mut self, id: LinkId, partial: Partial) -> Result<(), Broken> {
        let Some(link) = self.links.get(&id) else { return Ok(()) };
        let Some(session) = self.sessions.get_mut(link.session) else { return Ok(()) };
        let number = partial.number;
        if !partial.is_settled {
            if self.unsettled >= self.limits.unsettled_max {
                return Err((condition::RESOURCE_LIMIT_EXCEEDED, "too many deliveries are not settled"));
            }
            // A transfer may say `first` on a link of `second`, and not the other way round (part 2, section 2.7.5): its
            // sender would never settle what this end keeps until then.
            let settles_second = link.rcv_settle_mode == ReceiverSettleMode::Second
                && partial.settle_mode != Some(ReceiverSettleMode::First);
            if session.received.insert(number, ReceivedDelivery { link: id, settles_second }).is_some() {
                // The delivery that had the number is as good as lost: nobody can tell the two apart.
                return Err((condition::INVALID_FIELD, "a delivery with a number that is in use"));
            }
            self.unsettled += 1;
        }
        self.events.push_back(Event::Delivery(Delivery {
            link: id,
            id: DeliveryId { session: link.session, is_received: true, number },
            tag: partial.tag.clone(),
            message_format: partial.message_format,
            is_settled: partial.is_settled,
            payload: partial.finish(),
        }));
        Ok(())
    }

    pub(super) fn handle_disposition(&mut self, session_id: SessionId, disposition: Disposition) {
        let last = disposition.last.unwrap_or(disposition.first);
        match disposition.role {
            Role::Receiver => self.handle_outcomes(session_id, disposition, last),
            Role::Sender if disposition.settled => {
                let Some(session) = self.sessions.get_mut(session_id) else { return };
                for number in numbers_in(&session.received, disposition.first, last) {
                    session.received.remove(&number);
                    self.unsettled -= 1;
                }
            }
            // Where a delivery stands at its sender is of no interest here.
            Role::Sender => {}
        }
    }

    /// The receiver tells what became of deliveries of ours.
    fn handle_outcomes(&mut self, session_id: SessionId, disposition: Disposition, last: u32) {
        let Disposition { first, settled, state, .. } = disposition;
        let has_outcome = state.as_ref().is_some_and(DeliveryState::is_outcome);
        if !settled && !has_outcome {
            return;
        }
        let Some(session) = self.sessions.get_mut(session_id) else { return };
        let channel = session.local_channel;
        let numbers = numbers_in(&session.sent, first, last);
        for &number in &numbers {
            let Some(sent) = session.sent.get(&number) else { continue };
            self.events.push_back(Event::Outcome {
                link: sent.link,
                id: DeliveryId { session: session_id, is_received: false, number },
                tag: sent.tag.clone(),
                state: state.clone(),
                is_settled: settled,
            });
            if settled
                && let Some(sent) = session.sent.remove(&number)
                && let Some(link) = self.links.get_mut(&sent.link)
            {
                link.in_flight = link.in_flight.saturating_sub(1);
            }
        }
        let Some(state) = state.filter(|_| !settled) else { return };
        // Deliveries that nothing is kept of: the receiver waits for them to be settled all the same.
        let gaps = gaps(&numbers, first, last);
        let parts: Vec<Part> =
            gaps.into_iter().flat_map(|(first, last)| session.forgotten.parts(first, last)).collect();
        let mut ranges = Vec::new();
        for Part { first, last, is_forgotten } in parts {
            if is_forgotten {
                self.push_disposition(channel, settled_by_us((first, last), Some(state.clone())));
            } else {
                ranges.push((first, last));
            }
        }
        if !ranges.is_empty() {
            let deliveries = UnknownDeliveries { session: session_id, ranges };
            self.events.push_back(Event::UnknownOutcome { deliveries, state });
        }
    }
}

/// What settles the deliveries of ours from `first` to `last`, both included.
const fn settled_by_us((first, last): (u32, u32), state: Option<DeliveryState>) -> Disposition {
    Disposition { role: Role::Sender, first, last: Some(last), settled: true, state, batchable: false }
}

/// The ranges from `first` to `last`, both included, between `numbers`, which are in order.
fn gaps(numbers: &[u32], first: u32, last: u32) -> Vec<(u32, u32)> {
    let mut gaps = Vec::new();
    let mut next = first;
    for &number in numbers {
        if number != next {
            gaps.push((next, number.wrapping_sub(1)));
        }
        next = number.wrapping_add(1);
    }
    if next != last.wrapping_add(1) || numbers.is_empty() {
        gaps.push((next, last));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_not_kept_lies_between_what_is() {
        let cases: &[(&[u32], u32, u32, &[(u32, u32)])] = &[
            (&[], 3, 7, &[(3, 7)]),
            (&[3, 4, 5], 3, 5, &[]),
            (&[4], 3, 5, &[(3, 3), (5, 5)]),
            (&[3, 6], 3, 7, &[(4, 5), (7, 7)]),
            (&[u32::MAX, 0], u32::MAX - 1, 1, &[(u32::MAX - 1, u32::MAX - 1), (1, 1)]),
            (&[u32::MAX], u32::MAX, u32::MAX, &[]),
        ];
        for (numbers, first, last, expected) in cases {
            assert_eq!(gaps(numbers, *first, *last), *expected, "{numbers:?} in {first} to {last}");
            let kept: BTreeMap<u32, u8> = numbers.iter().map(|number| (*number, 0)).collect();
            assert_eq!(numbers_in(&kept, *first, *last), *numbers, "{first} to {last}");
        }
    }
}
