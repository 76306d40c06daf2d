//! Devices that are sent messages (`contract/hub-device.md 4.7`).
//!
//! A message is asked for only while its device has credit, and is the link's own until the device settles it, its lock
//! runs out, the link ends, or the device leaves. Start at [`Devices::hand_out`].

use std::time::Instant;

use domain::cloud_to_device::Settlement;
use domain::ids::LockToken;
use domain::operation::cloud_to_device::{Answer, Ask, Receiver};
use domain::operation::identity::IdentityName;
use domain::operation::{ErrorKind, Failure, Lane, Operation, Reply};
use proto::amqp::{Connection, DeliveryId, DeliveryState, LinkId, Outgoing, Unsent};

use super::device::{self, Device, Kind};
use super::{Devices, Waiting};
use crate::amqp::Port;
use crate::amqp::links::Told;
use crate::error;
use crate::hub::deliveries::Deliveries;
use crate::hub::delivery_amqp;

impl Devices {
    /// Sends the messages that a device has, and asks for more if there may be more, as far as it has credit for them.
    pub(super) fn hand_out(&mut self, identity: &IdentityName, port: &mut Port<'_>) {
        let Some(device) = self.present.get_mut(identity) else { return };
        let (Some(seat), Some(link)) = (device.seat.clone(), device.link(Kind::MESSAGES)) else { return };
        let too_long = send(identity, &mut device.deliveries, link, port.connection);
        let credit = port.connection.credit(link) as usize;
        let wish = device.deliveries.poll_wish(credit);
        port.connection.hold_credit(link, credit > 0 && device.deliveries.has_next());
        for lock in too_long {
            // It will never be taken: its sender hears of it, and those behind it are not held up.
            self.ask_to_settle(identity, (link, lock), (Settlement::Reject, None), port);
        }
        if let Some(limit) = wish {
            let ask = Ask::Receive { receiver: Receiver::Attached(seat), limit };
            let ask = port.ask(Operation::CloudToDevice(ask), Lane::Serial);
            self.wait_for(ask, Waiting::Messages { link, wished: limit });
        }
    }

    /// Takes the messages that were asked for on `link`, and that are its own `until` then. If the link is over, they were
    /// given back.
    pub(super) fn take_messages(
        &mut self,
        (link, wished): (LinkId, usize),
        reply: Result<Reply, Failure>,
        until: Instant,
        port: &mut Port<'_>,
    ) {
        let Some(identity) = self.links.get(&link).map(|owner| owner.identity.clone()) else { return };
        let failed = match reply {
            Ok(Reply::CloudToDevice(Answer::Received(deliveries))) => {
                if let Some(device) = self.present.get_mut(&identity) {
                    device.deliveries.received(deliveries, wished, Some(until));
                    self.locks_due = [self.locks_due, device.deliveries.next_expiry()].into_iter().flatten().min();
                }
                return self.hand_out(&identity, port);
            }
            Ok(_) => error::hub_amqp(&port.refuse(ErrorKind::Internal, "Internal error.")),
            Err(failure) => error::hub_amqp(&failure),
        };
        self.end(&identity, &failed, port);
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.locks_due
    }

    /// Forgets the messages whose locks have run out, so that their devices have room for others. The service locked them
    /// before its answer came, so that by clocks that go alike what has run out here is, or is about to be, free there.
    pub fn handle_timeout(&mut self, port: &mut Port<'_>, now: Instant) {
        if self.locks_due.is_none_or(|due| now < due) {
            return;
        }
        let is_due = |device: &Device| device.deliveries.next_expiry().is_some_and(|at| at <= now);
        let due = self.present.iter().filter(|(_, device)| is_due(device)).map(|(identity, _)| identity.clone());
        for identity in due.collect::<Vec<_>>() {
            let Some(device) = self.present.get_mut(&identity) else { continue };
            let over = device.deliveries.expire(now);
            if let Some(link) = device.link(Kind::MESSAGES) {
                let is_over = |tag: &[u8]| delivery_amqp::read_tag(tag).is_some_and(|lock| over.contains(&lock));
                port.connection.forget(link, is_over);
            }
            self.hand_out(&identity, port);
        }
        self.locks_due = self.present.values().filter_map(|device| device.deliveries.next_expiry()).min();
    }

    /// Takes what a client tells of a message. What it told before is being settled.
    pub fn take_outcome(&mut self, told: Told, port: &mut Port<'_>) {
        let Told { link, id, tag, state, is_settled } = told;
        let Some(identity) = self.links.get(&link).map(|owner| owner.identity.clone()) else { return };
        let Some(settlement) = delivery_amqp::settlement(state.as_ref(), is_settled) else { return };
        let Some(device) = self.present.get_mut(&identity) else { return };
        let lock = delivery_amqp::read_tag(&tag).and_then(|lock| device.deliveries.acknowledged(&lock));
        let Some(lock) = lock else { return };
        let answer = state.filter(|_| !is_settled).map(|state| (id, state));
        self.ask_to_settle(&identity, (link, lock), (settlement, answer), port);
    }

    fn ask_to_settle(
        &mut self,
        identity: &IdentityName,
        (link, lock): (LinkId, LockToken),
        (settlement, told): (Settlement, Option<(DeliveryId, DeliveryState)>),
        port: &mut Port<'_>,
    ) {
        let Some(seat) = self.present.get(identity).and_then(|device| device.seat.clone()) else { return };
        let ask = Ask::Settle { receiver: Receiver::Attached(seat), lock, settlement };
        let ask = port.ask(Operation::CloudToDevice(ask), Lane::Serial);
        self.wait_for(ask, Waiting::Settled { link, told });
    }

    /// A message is settled, or cannot be.
    pub(super) fn settled(
        &mut self,
        link: LinkId,
        told: Option<(DeliveryId, DeliveryState)>,
        reply: Result<Reply, Failure>,
        port: &mut Port<'_>,
    ) {
        let failed = reply.err();
        if let Some((id, state)) = told {
            let state = failed.as_ref().map_or(state, |failure| DeliveryState::rejected(error::hub_amqp(failure)));
            port.connection.settle(id, state);
        }
        let Some(identity) = self.links.get(&link).map(|owner| owner.identity.clone()) else { return };
        match failed {
            // Another has it by now, or it is gone: who settles late has lost nothing that could be given back.
            Some(failure) if failure.kind != ErrorKind::LockLost => {
                self.end(&identity, &error::hub_amqp(&failure), port);
            }
            _ => self.hand_out(&identity, port),
        }
    }

    /// Gives back what a link had that is over, so that the next one gets it.
    pub(super) fn give_back(&mut self, identity: &IdentityName, port: &mut Port<'_>) {
        let Some(device) = self.present.get_mut(identity) else { return };
        let had = std::mem::replace(&mut device.deliveries, device::no_deliveries());
        if let Some(seat) = device.seat.clone().filter(|_| had.holds_any()) {
            let ask = port.ask(Operation::CloudToDevice(Ask::GiveBack(seat)), Lane::Serial);
            self.wait_for(ask, Waiting::Nothing);
        }
    }
}

/// Sends what there is credit for. Gives the locks of those that are longer than the client takes.
fn send(
    own: &IdentityName,
    deliveries: &mut Deliveries<LockToken>,
    link: LinkId,
    connection: &mut Connection,
) -> Vec<LockToken> {
    let mut too_long = Vec::new();
    while connection.credit(link) > 0
        && !connection.is_output_full()
        && let Some(delivery) = deliveries.next()
    {
        let lock = delivery.lock;
        let outgoing = Outgoing {
            tag: delivery_amqp::tag(lock),
            message_format: 0,
            settlement: proto::amqp::Settlement::Unsettled,
            payload: vec![delivery_amqp::message(delivery, own).to_bytes()],
        };
        match connection.send(link, outgoing) {
            Ok(()) => deliveries.sent(Some(lock)),
            Err(Unsent::TooLarge { .. }) => too_long.extend(deliveries.pass_over()),
            // It waits for room, or is given back when the link's end is noticed.
            Err(_) => break,
        }
    }
    too_long
}
