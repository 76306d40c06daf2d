//! Frames into the output, and deliveries that are sent (part 2, sections 2.6.7 and 2.7.5).

use std::collections::VecDeque;

use super::link::{LinkState, Outgoing, Queued, Settlement};
use super::session::SentDelivery;
use super::{CloseReason, Connection, LinkId, Unsent};
use crate::amqp::frame::{FRAME_HEADER_BYTES, FrameType, encode_frame};
use crate::amqp::performative::{DELIVERY_TAG_BYTES_MAX, Performative, Role, Transfer};

/// Why a link's turn ends.
enum Turn {
    /// It has sent a delivery, and may have more.
    Done,
    /// It waits for credit, or has nothing to send.
    Idle,
    /// It waits for the session's window.
    Blocked,
    /// The output is full.
    Full,
}

impl Connection {
    /// Sends a message, or lets it wait for credit, window and space in the output. Messages of a link leave in order.
    pub fn send(&mut self, id: LinkId, outgoing: Outgoing) -> Result<(), Unsent> {
        if !self.is_open() {
            return Err(Unsent::NotOpen);
        }
        let is_full = self.is_queue_full();
        let is_sender = |link: &&mut Box<super::Link>| link.state == LinkState::Attached && link.role == Role::Sender;
        let link = self.links.get_mut(&id).filter(is_sender).ok_or(Unsent::NoLink)?;
        if outgoing.tag.len() > DELIVERY_TAG_BYTES_MAX {
            return Err(Unsent::Tag);
        }
        let queued = Queued::from(outgoing);
        let bytes = queued.bytes_left;
        if let Some(max) = link.message_bytes_max.filter(|&max| bytes as u64 > max) {
            return Err(Unsent::TooLarge { bytes, max });
        }
        let is_tracked = queued.settlement == Settlement::Unsettled;
        if is_full || is_tracked && link.in_flight >= self.limits.in_flight_max {
            return Err(Unsent::Full);
        }
        link.in_flight += usize::from(is_tracked);
        link.queue.push_back(queued);
        self.queued += 1;
        self.queued_bytes += bytes;
        self.make_ready(id);
        Ok(())
    }

    /// Keeps nothing more of the unsettled deliveries of a link whose tags `is_over` knows. One that has not begun to leave is
    /// not sent; an outcome of another is [`Event::UnknownOutcome`](super::Event::UnknownOutcome).
    pub fn forget(&mut self, id: LinkId, is_over: impl Fn(&[u8]) -> bool) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let mut forgotten = 0;
        link.queue.retain(|queued| {
            let goes = queued.settlement == Settlement::Unsettled && queued.number.is_none() && is_over(&queued.tag);
            if goes {
                forgotten += 1;
                self.queued -= 1;
                self.queued_bytes -= queued.bytes_left;
            }
            !goes
        });
        if let Some(session) = self.sessions.get_mut(link.session) {
            let before = session.sent.len();
            session.sent.retain(|_, sent| sent.link != id || !is_over(&sent.tag));
            forgotten += before - session.sent.len();
        }
        link.in_flight = link.in_flight.saturating_sub(forgotten);
    }

    /// Appends a frame; if it is longer than the peer takes, the connection ends instead.
    pub(super) fn push_frame(&mut self, channel: u16, performative: &Performative) {
        if self.is_closed() {
            return;
        }
        if !matches!(performative, Performative::Disposition(_)) {
            // In order: an answer must not pass the disposition before it (`contract/hub-device.md` 4.3).
            self.flush_disposition();
        }
        let before = self.output.back().len();
        let bytes = encode_frame(self.output.back(), FrameType::Amqp, channel, |out| performative.encode(out));
        let max = self.peer.frame_bytes_max;
        // Before the peer has opened, only close follows our open, and is short.
        if bytes > max as usize && !self.is_opening() {
            self.output.back().truncate(before);
            self.end(CloseReason::Oversized { bytes, max });
        }
    }

    /// A frame without a body.
    pub(super) fn push_empty_frame(&mut self) {
        encode_frame(self.output.back(), FrameType::Amqp, 0, |_| {});
    }

    /// Puts a link among those whose turn comes, if it has something to send, or credit to give up.
    pub(super) fn make_ready(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let is_under_way = link.queue.front().is_some_and(|queued| queued.number.is_some());
        let can_send = !link.queue.is_empty() && (link.credit() > 0 || is_under_way);
        let is_draining = link.is_draining && !link.is_credit_held && link.role == Role::Sender;
        if (can_send || is_draining)
            && link.state == LinkState::Attached
            && !std::mem::replace(&mut link.is_ready, true)
        {
            self.ready.push_back(id);
        }
    }

    /// Moves what waits into the output: a disposition, then deliveries, one link after the other, while there is
    /// space.
    pub(super) fn pump(&mut self) {
        self.flush_disposition();
        while !self.is_output_full() {
            let Some(id) = self.ready.pop_front() else { break };
            match self.take_turn(id) {
                Turn::Done => {
                    self.set_idle(id);
                    self.make_ready(id);
                }
                Turn::Idle => self.set_idle(id),
                Turn::Blocked => {
                    let session = self.links.get(&id).map(|link| link.session);
                    if let Some(session) = session.and_then(|session| self.sessions.get_mut(session)) {
                        session.blocked.push(id);
                    }
                }
                Turn::Full => self.ready.push_front(id),
            }
        }
        if self.ready.is_empty() && self.ready.capacity() > 0 {
            self.ready = VecDeque::new();
        }
    }

    fn set_idle(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.is_ready = false;
        }
        self.drain_if_idle(id);
    }

    /// Sends one delivery of a link, or as much of it as there is space for.
    fn take_turn(&mut self, id: LinkId) -> Turn {
        loop {
            let Some(link) = self.links.get_mut(&id).filter(|link| link.state == LinkState::Attached) else {
                return Turn::Idle;
            };
            let Some(session) = self.sessions.get(link.session) else { return Turn::Idle };
            let Some(front) = link.queue.front() else { return Turn::Idle };
            if front.number.is_none() && link.credit() == 0 {
                return Turn::Idle;
            }
            if !session.is_window_open() {
                return Turn::Blocked;
            }
            if self.is_output_full() {
                return Turn::Full;
            }
            match self.send_frame(id) {
                Some(true) => {}
                Some(false) => return Turn::Done,
                None => return Turn::Idle,
            }
        }
    }

    /// Sends the next transfer of a link's first delivery. Returns whether more of the delivery is left; `None` if there
    /// is nothing to send, which the caller has ruled out.
    fn send_frame(&mut self, id: LinkId) -> Option<bool> {
        let frame_bytes_max = self.peer.frame_bytes_max.min(self.limits.frame_bytes_max) as usize;
        let link = self.links.get_mut(&id)?;
        let session = self.sessions.get_mut(link.session)?;
        let is_first = link.queue.front()?.number.is_none();
        if is_first {
            link.take_credit();
        }
        let queued = link.queue.front_mut()?;
        if is_first {
            let number = session.next_delivery_id();
            queued.number = Some(number);
            match queued.settlement {
                Settlement::Unsettled => {
                    session.sent.insert(number, SentDelivery { link: id, tag: queued.tag.clone() });
                }
                Settlement::Settled | Settlement::Forgotten => session.forgotten.insert(number),
            }
        }
        let mut transfer = transfer(link.local_handle, queued, is_first);
        let mut head = Vec::new();
        Performative::Transfer(transfer.clone()).encode(&mut head);
        // Whether more follows takes one byte either way. Every peer takes 512 bytes, and a transfer's head is shorter.
        let space = frame_bytes_max.saturating_sub(FRAME_HEADER_BYTES + head.len()).max(1);
        if queued.bytes_left > space {
            transfer.more = true;
            head.clear();
            Performative::Transfer(transfer).encode(&mut head);
        }
        let before = queued.bytes_left;
        encode_frame(self.output.back(), FrameType::Amqp, session.local_channel, |out| {
            out.extend_from_slice(&head);
            queued.move_payload(space, out);
        });
        session.count_outgoing();
        self.queued_bytes -= before - queued.bytes_left;
        let is_more = queued.bytes_left > 0;
        if !is_more {
            link.queue.pop_front();
            self.queued -= 1;
        }
        Some(is_more)
    }
}

/// The next transfer of a delivery, as if it were the last.
fn transfer(handle: u32, queued: &Queued, is_first: bool) -> Transfer {
    Transfer {
        handle,
        delivery_id: queued.number.filter(|_| is_first),
        delivery_tag: is_first.then(|| queued.tag.clone()),
        message_format: is_first.then_some(queued.message_format),
        settled: Some(queued.settlement == Settlement::Settled),
        more: false,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    }
}
