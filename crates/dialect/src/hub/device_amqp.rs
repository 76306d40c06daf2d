//! A hub's devices over AMQP (`contract/hub-device.md 4.4` to `4.8`).
//!
//! Several devices may share a connection. Each is seated when the first link of its own is attached, with the token that
//! was put for it or with the certificate of the handshake, and leaves with its last link. A link is for one purpose and
//! one direction; of two alike the later one stays. Nothing here stores a message or tells who may connect. Start at
//! [`Devices::attach`].

use std::collections::BTreeMap;
use std::time::Instant;

use domain::cloud_to_device::DEVICE_LOCK;
use domain::message::MESSAGE_BYTES_MAX;
use domain::operation::identity::IdentityName;
use domain::operation::session::{self, Ask, Connect, ConnectedDevice, CutOff, Memory};
use domain::operation::{ErrorKind, Failure, Lane, Operation, Push, Reply, telemetry, twin};
use proto::amqp::{Attach, Delivery, DeliveryId, DeliveryState, LinkId, Message, MessageId, Role, SessionId, Value};

use self::device::{Answer, Device, Kind, Link};
use super::amqp::Arrival;
use super::cbs::{Cbs, PutToken};
use super::cut_off;
use super::link_address::{LinkAddress, Purpose};
use super::telemetry_amqp;
use super::twin_amqp::{self, TwinRequest};
use super::twin_answer::TwinAnswer;
use crate::amqp::Port;
use crate::amqp::links::{self, Credit, Sender};
use crate::error::{self, Refused};
use crate::session::AskId;

mod device;
mod messages;
mod methods;
#[cfg(test)]
pub(super) mod tests;

/// Telemetry transfers that may be under way on a link.
const TELEMETRY_CREDIT: u32 = 128;
/// Requests and method results that may be under way on a link.
const REQUEST_CREDIT: u32 = 32;
/// Bytes that a connection may have under way, by messages, requests, results and asks, before nothing more is read.
const ASKED_BYTES_MAX: usize = 1024 * 1024;
/// What each ask counts for, beside what the client sent.
const ASK_BYTES: usize = 512;
/// Links that may wait, and devices that may be judged, before nothing more is read; nobody has proved anything by one.
const ARRIVING_MAX: usize = 16;
/// Longest request about a twin: a section of 32 KiB, with room for how clients write it.
const TWIN_REQUEST_BYTES_MAX: u64 = 128 * 1024;
/// Longest message to a device (`contract/hub-device.md 4.5`).
const DEVICE_BOUND_BYTES_MAX: u64 = 64 * 1024;

/// The devices of one connection.
#[derive(Debug, Default)]
pub struct Devices {
    present: BTreeMap<IdentityName, Device>,
    /// Whose each link is.
    links: BTreeMap<LinkId, Owner>,
    waiting: BTreeMap<AskId, Waiting>,
    /// What the asks in `waiting` count for. A link that is gone has left some behind, which end by themselves.
    asked_bytes: usize,
    /// When a lock of a message runs out, or sooner.
    locks_due: Option<Instant>,
    /// Why somebody was cut off who was, until that is taken.
    cut_off: Option<CutOff>,
}

#[derive(Debug)]
struct Owner {
    identity: IdentityName,
    kind: Kind,
    session: SessionId,
}

/// What to do when an answer comes.
#[derive(Debug)]
enum Waiting {
    /// Let a device in.
    Seat(IdentityName),
    /// Settle a transfer of so many bytes.
    Telemetry { link: LinkId, delivery: Option<DeliveryId>, bytes: usize },
    /// Answer a request about the twin, of so many bytes.
    Twin { identity: IdentityName, link: LinkId, correlation_id: Option<MessageId>, bytes: usize },
    /// Have a device be known by another model.
    Announced(IdentityName),
    /// Accept the link on which a device is called.
    Listening(IdentityName),
    /// Settle the result of a method, of so many bytes.
    MethodResult { link: LinkId, delivery: Option<DeliveryId>, bytes: usize },
    /// Send the messages, of which so many were wished for.
    Messages { link: LinkId, wished: usize },
    /// Tell a client that waits for it what became of the message it settled, and ask for more.
    Settled { link: LinkId, told: Option<(DeliveryId, DeliveryState)> },
    /// Nothing.
    Nothing,
}

impl Waiting {
    /// The link that it is about.
    const fn link(&self) -> Option<LinkId> {
        match self {
            Self::Telemetry { link, .. }
            | Self::Twin { link, .. }
            | Self::MethodResult { link, .. }
            | Self::Messages { link, .. }
            | Self::Settled { link, .. } => Some(*link),
            Self::Seat(_) | Self::Announced(_) | Self::Listening(_) | Self::Nothing => None,
        }
    }

    /// What it counts for.
    const fn bytes(&self) -> usize {
        match self {
            Self::Telemetry { bytes, .. } | Self::Twin { bytes, .. } | Self::MethodResult { bytes, .. } => {
                ASK_BYTES + *bytes
            }
            Self::Messages { .. }
            | Self::Settled { .. }
            | Self::Seat(_)
            | Self::Announced(_)
            | Self::Listening(_)
            | Self::Nothing => ASK_BYTES,
        }
    }
}

impl Devices {
    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// Whether somebody was let in.
    pub fn has_seats(&self) -> bool {
        self.present.values().any(|device| device.seat.is_some())
    }

    /// Whether so much is under way that nothing more is to be read.
    pub fn is_full(&self) -> bool {
        // Who is judged counts also once its links are gone again.
        let arriving = |device: &Device| device.arriving.len().max(usize::from(device.seat.is_none()));
        self.asked_bytes >= ASKED_BYTES_MAX || self.present.values().map(arriving).sum::<usize>() >= ARRIVING_MAX
    }

    /// Why somebody was cut off who was, since this was last asked.
    pub const fn take_cut_off(&mut self) -> Option<CutOff> {
        self.cut_off.take()
    }

    /// Whether one of those who are here is among those that `put` is for.
    pub fn needs(&self, put: &PutToken) -> bool {
        self.present.keys().any(|identity| put.is_for(identity))
    }

    /// Remembers what to do when the answer to `ask` comes.
    fn wait_for(&mut self, ask: AskId, waiting: Waiting) {
        self.asked_bytes += waiting.bytes();
        self.waiting.insert(ask, waiting);
    }

    /// What to do about the answer to `ask`, or about there never being one.
    fn take_waiting(&mut self, ask: AskId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&ask)?;
        self.asked_bytes -= waiting.bytes();
        Some(waiting)
    }

    /// Takes a link that a client attaches; `false` if its address is none of a device's. It is answered once its device is
    /// seated.
    pub fn attach(&mut self, arrival: Arrival<'_>, tokens: &Cbs, port: &mut Port<'_>) -> bool {
        let Arrival { link, session, attach, address } = arrival;
        let Ok(LinkAddress { identity, purpose }) = LinkAddress::read(address) else { return false };
        let kind = Kind { purpose, role: attach.role };
        if !kind.is_known(&identity) {
            return false;
        }
        self.links.insert(link, Owner { identity: identity.clone(), kind, session });
        let device = self.present.entry(identity.clone()).or_default();
        device.arriving.push((link, Box::new(attach.clone())));
        if device.seat.is_some() {
            self.accept_arrived(&identity, port);
        } else if !device.is_asked {
            device.is_asked = true;
            let put = tokens.token_for(&identity);
            device.has_token = put.is_some();
            device.model_id = device::model_of(attach).map(str::to_owned);
            let operation = Operation::Session(Ask::Connect(Box::new(connect(&identity, arrival, port))));
            let ask = port.ask_with(put.map(|put| put.token.clone()), operation, Lane::Serial);
            self.wait_for(ask, Waiting::Seat(identity));
        }
        true
    }

    /// Asks that a newer token count for the devices that it is for.
    pub fn renew(&mut self, put: &PutToken, port: &mut Port<'_>) {
        let is_meant = |(identity, device): &(&IdentityName, &Device)| device.has_token && put.is_for(identity);
        let meant = self.present.iter().filter(is_meant).filter_map(|(_, device)| device.seat.clone());
        for device in meant.collect::<Vec<_>>() {
            let operation = Operation::Session(Ask::Renew { device });
            let ask = port.ask_with(Some(put.token.clone()), operation, Lane::Serial);
            self.wait_for(ask, Waiting::Nothing);
        }
    }

    /// Takes a message of a client.
    pub fn deliver(&mut self, delivery: &Delivery, port: &mut Port<'_>) {
        // Nothing counts that comes on a link which is given up.
        let Some(Owner { identity, kind, .. }) = self.links.get(&delivery.link) else { return };
        let (identity, purpose) = (identity.clone(), kind.purpose);
        let Some(seat) = self.present.get(&identity).and_then(|device| device.seat.clone()) else { return };
        match purpose {
            Purpose::Events => self.take_telemetry(seat, delivery, port),
            Purpose::Twin => self.take_twin_request(seat, delivery, port),
            Purpose::Methods => self.take_method_result(seat, delivery, port),
            // No client sends here: such links are not accepted.
            Purpose::DeviceBound => {}
        }
    }

    fn take_telemetry(&mut self, device: ConnectedDevice, delivery: &Delivery, port: &mut Port<'_>) {
        let mut drafts = match telemetry_amqp::decode(delivery.message_format, &delivery.payload) {
            Ok(drafts) => drafts,
            Err(invalid) => {
                let refused = port.refuse(invalid.kind(), invalid.to_string());
                settle(delivery, DeliveryState::rejected(error::hub_amqp(&refused)), port);
                return self.use_credit(delivery.link, port);
            }
        };
        let ask = match drafts.pop() {
            Some(message) if drafts.is_empty() => telemetry::Ask::Send { device, message: Box::new(message) },
            last => {
                drafts.extend(last);
                telemetry::Ask::SendBatch { device, messages: drafts }
            }
        };
        let ask = port.ask(Operation::Telemetry(ask), Lane::Telemetry);
        let answered = (!delivery.is_settled).then_some(delivery.id);
        let bytes = delivery.payload.len();
        self.wait_for(ask, Waiting::Telemetry { link: delivery.link, delivery: answered, bytes });
    }

    /// Disposition first, then the answer.
    fn take_twin_request(&mut self, device: ConnectedDevice, delivery: &Delivery, port: &mut Port<'_>) {
        settle(delivery, DeliveryState::Accepted, port);
        let identity = device.name.clone();
        let message = Message::decode(&delivery.payload);
        let correlation_id = message.as_ref().ok().and_then(|message| message.correlation_id().cloned());
        let request = match &message {
            Ok(message) => TwinRequest::parse(message),
            Err(malformed) => Err(Refused::new(ErrorKind::InvalidArgument, malformed.to_string())),
        };
        let ask = match request {
            Ok(TwinRequest::Read) => twin::Ask::Read(device),
            Ok(TwinRequest::Report { patch, expected_version }) => {
                twin::Ask::Report { device, patch, expected_version }
            }
            Ok(request @ (TwinRequest::Listen | TwinRequest::Cease)) => {
                if let Some(device) = self.present.get_mut(&identity) {
                    device.is_listening = request == TwinRequest::Listen;
                }
                return self.answer_twin(&identity, delivery.link, (twin_amqp::done(), correlation_id), port);
            }
            Err(refused) => {
                let answer = (TwinAnswer::refused(&port.refuse(refused.kind, refused.public)), correlation_id);
                return self.answer_twin(&identity, delivery.link, answer, port);
            }
        };
        if let Some(device) = self.present.get_mut(&identity) {
            device.twin_requests += 1;
        }
        let ask = port.ask(Operation::Twin(ask), Lane::Serial);
        let bytes = delivery.payload.len();
        self.wait_for(ask, Waiting::Twin { identity, link: delivery.link, correlation_id, bytes });
    }

    fn answer_twin(
        &mut self,
        identity: &IdentityName,
        link: LinkId,
        (answer, correlation_id): (TwinAnswer, Option<MessageId>),
        port: &mut Port<'_>,
    ) {
        // A device that has left, or attached the link afresh, does not wait for it.
        if self.links.contains_key(&link)
            && let Some(device) = self.present.get_mut(identity)
        {
            let desired = answer.desired;
            device.answers.push_back(Answer { link, message: twin_amqp::response(answer, correlation_id), desired });
        }
        self.flush_device(identity, port);
    }

    /// The answer to an earlier ask.
    pub fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, port: &mut Port<'_>, now: Instant) {
        match self.take_waiting(id) {
            None | Some(Waiting::Nothing) => {}
            Some(Waiting::Announced(identity)) => self.announced(&identity, id, reply, port),
            Some(Waiting::Listening(identity)) => self.listening(&identity, id, reply, port),
            Some(Waiting::MethodResult { link, delivery, .. }) => {
                if let Some(delivery) = delivery {
                    port.connection.settle(delivery, outcome(reply));
                }
                self.use_credit(link, port);
            }
            Some(Waiting::Messages { link, wished }) => {
                self.take_messages((link, wished), reply, now + DEVICE_LOCK, port);
            }
            Some(Waiting::Settled { link, told }) => self.settled(link, told, reply, port),
            Some(Waiting::Seat(identity)) => self.seated(&identity, reply, port),
            Some(Waiting::Telemetry { link, delivery, .. }) => {
                if let Some(delivery) = delivery {
                    port.connection.settle(delivery, outcome(reply));
                }
                self.use_credit(link, port);
            }
            Some(Waiting::Twin { identity, link, correlation_id, .. }) => {
                let Some(device) = self.present.get_mut(&identity) else { return };
                device.twin_requests = device.twin_requests.saturating_sub(1);
                let answer = TwinAnswer::new(reply, |refused| port.refuse(refused.kind, refused.public));
                self.answer_twin(&identity, link, (answer, correlation_id), port);
            }
        }
    }

    fn seated(&mut self, identity: &IdentityName, reply: Result<Reply, Failure>, port: &mut Port<'_>) {
        let failed = match reply {
            Ok(Reply::Session(session::Answer::Connected { device: seat, .. })) => {
                if let Some(device) = self.present.get_mut(identity) {
                    device.seat = Some(seat);
                    self.accept_arrived(identity, port);
                    self.let_go(identity, port);
                } else {
                    self.leave(seat, port);
                }
                return;
            }
            Ok(_) => error::hub_amqp(&port.refuse(ErrorKind::Internal, "Internal error.")),
            Err(failure) => error::hub_amqp(&failure),
        };
        let Some(device) = self.present.remove(identity) else { return };
        for (link, _) in device.arriving {
            if let Some(owner) = self.links.remove(&link) {
                port.refuse_link(link, &owner.identity.to_string(), failed.clone());
            }
        }
    }

    /// Has a device be known by the model that its link announces, if that is another than before. Whether the link has to
    /// wait: what comes on it is of that model.
    fn announces(&mut self, identity: &IdentityName, attach: &Attach, port: &mut Port<'_>) -> bool {
        let Some(device) = self.present.get_mut(identity) else { return false };
        let Some(seat) = device.seat.clone() else { return false };
        if device.announcing.is_some() {
            return true;
        }
        let Some(model_id) = device::model_of(attach).filter(|model| device.model_id.as_deref() != Some(*model)) else {
            return false;
        };
        device.model_id = Some(model_id.to_owned());
        let announce = Ask::Announce { device: seat, model_id: model_id.to_owned() };
        let ask = port.ask(Operation::Session(announce), Lane::Serial);
        device.announcing = Some(ask);
        self.wait_for(ask, Waiting::Announced(identity.clone()));
        true
    }

    fn announced(&mut self, identity: &IdentityName, ask: AskId, reply: Result<Reply, Failure>, port: &mut Port<'_>) {
        // It may have left meanwhile, and come again.
        let is_it = |device: &&mut Device| device.announcing == Some(ask);
        let Some(device) = self.present.get_mut(identity).filter(is_it) else { return };
        device.announcing = None;
        match reply {
            Ok(Reply::Session(session::Answer::Announced(seat))) => {
                device.seat = Some(seat);
                self.accept_arrived(identity, port);
            }
            Ok(_) => {
                let failed = error::hub_amqp(&port.refuse(ErrorKind::Internal, "Internal error."));
                self.end(identity, &failed, port);
            }
            Err(failure) => self.end(identity, &error::hub_amqp(&failure), port),
        }
    }

    /// Accepts the links that waited for their device to be seated. One on which it is called waits on, until calls come.
    fn accept_arrived(&mut self, identity: &IdentityName, port: &mut Port<'_>) {
        let Some(device) = self.present.get_mut(identity) else { return };
        let arrived = std::mem::take(&mut device.arriving);
        for (id, attach) in arrived {
            let Some(kind) = self.links.get(&id).map(|owner| owner.kind) else { continue };
            if self.announces(identity, &attach, port) || kind == Kind::CALLS && !self.listens(identity, port) {
                if let Some(device) = self.present.get_mut(identity) {
                    device.arriving.push((id, attach));
                }
            } else {
                self.accept(identity, (id, kind), &attach, port);
            }
        }
        self.flush_device(identity, port);
    }

    fn accept(&mut self, identity: &IdentityName, (id, kind): (LinkId, Kind), attach: &Attach, port: &mut Port<'_>) {
        let message_bytes_max = match kind {
            Kind::MESSAGES => DEVICE_BOUND_BYTES_MAX,
            Kind::TWIN_REQUESTS => TWIN_REQUEST_BYTES_MAX,
            _ => MESSAGE_BYTES_MAX as u64,
        };
        links::accept(id, attach, message_bytes_max, port.connection);
        let credit = match (kind.role, kind.purpose) {
            (Role::Receiver, _) => None,
            (Role::Sender, Purpose::Events) => Some(TELEMETRY_CREDIT),
            (Role::Sender, _) => Some(REQUEST_CREDIT),
        };
        let link = Link {
            id,
            pair: device::pair_of(attach),
            credit: credit.map(|count| Credit::grant(id, count, port.connection)),
            sender: (kind.role == Role::Receiver && kind != Kind::MESSAGES).then(|| Sender::new(id, attach)),
        };
        let Some(device) = self.present.get_mut(identity) else { return };
        let stolen = device.enter(kind, link);
        if kind == Kind::MESSAGES {
            self.give_back(identity, port);
        }
        for stolen in stolen {
            self.links.remove(&stolen);
            let error = cut_off::of_device(CutOff::Displaced, port);
            port.connection.detach(stolen, true, Some(error));
        }
        self.cease_if_deaf(identity, port);
    }

    /// The client may send another message on a link.
    fn use_credit(&mut self, link: LinkId, port: &mut Port<'_>) {
        let Some(owner) = self.links.get(&link) else { return };
        let device = self.present.get_mut(&owner.identity);
        if let Some(credit) = device.and_then(|device| device.credit_of(owner.kind)) {
            credit.use_one(port.connection);
        }
    }

    /// Tells a device something unasked.
    pub fn handle_push(&mut self, seat: &ConnectedDevice, push: Push, port: &mut Port<'_>) {
        let identity = &seat.name;
        let Some(device) = self.present.get_mut(identity) else { return };
        if !device.seat.as_ref().is_some_and(|present| present.is_same_seat(seat)) {
            return;
        }
        let reason = match push {
            Push::Desired(change) => match device.feed.push(change) {
                Ok(()) => return self.flush_device(identity, port),
                Err(_) => CutOff::Overrun,
            },
            Push::Method(request) => {
                device.requests.push_back(request);
                return self.flush_device(identity, port);
            }
            Push::MessagesWaiting => {
                device.deliveries.wake();
                return self.flush_device(identity, port);
            }
            Push::CutOff(reason) => reason,
        };
        self.cut_off(identity, reason, port);
    }

    fn cut_off(&mut self, identity: &IdentityName, reason: CutOff, port: &mut Port<'_>) {
        self.cut_off = Some(reason);
        let error = cut_off::of_device(reason, port);
        self.end(identity, &error, port);
    }

    /// Detaches all links of a device; what it asked and was not begun is never begun.
    fn end(&mut self, identity: &IdentityName, error: &proto::amqp::Error, port: &mut Port<'_>) {
        let Some(device) = self.present.remove(identity) else { return };
        let mut links = Vec::new();
        self.links.retain(|link, owner| {
            let stays = owner.identity != *identity;
            if !stays {
                links.push(*link);
            }
            stays
        });
        let asked = self.waiting.iter().filter(|(_, waiting)| waiting.link().is_some_and(|link| links.contains(&link)));
        let asked: Vec<AskId> = asked.map(|(ask, _)| *ask).collect();
        for ask in port.forget(&asked) {
            self.take_waiting(ask);
        }
        for link in links {
            port.connection.detach(link, true, Some(error.clone()));
        }
        if let Some(seat) = device.seat {
            self.leave(seat, port);
        }
    }

    /// Sends what there is room for on all links.
    pub fn flush(&mut self, port: &mut Port<'_>) {
        let waiting = self.present.iter().filter(|(_, device)| device.has_something_to_say());
        let identities: Vec<IdentityName> = waiting.map(|(identity, _)| identity.clone()).collect();
        for identity in identities {
            self.flush_device(&identity, port);
        }
    }

    /// Sends what there is room for to whom `link` belongs.
    pub fn flush_link(&mut self, link: LinkId, port: &mut Port<'_>) {
        if let Some(owner) = self.links.get(&link) {
            let identity = owner.identity.clone();
            self.flush_device(&identity, port);
        }
    }

    /// Sends what there is room for.
    fn flush_device(&mut self, identity: &IdentityName, port: &mut Port<'_>) {
        let Some(device) = self.present.get_mut(identity) else { return };
        let flushed = device.flush(port);
        for link in flushed.answered {
            self.use_credit(link, port);
        }
        // Versions are missing: the device reads its twin afresh when it comes back.
        if flushed.has_gap {
            return self.cut_off(identity, CutOff::Overrun, port);
        }
        self.call(identity, port);
        self.hand_out(identity, port);
    }

    /// Forgets a link that is over, and lets its device go with its last one.
    pub fn forget_link(&mut self, link: LinkId, port: &mut Port<'_>) {
        let Some(Owner { identity, kind, .. }) = self.links.remove(&link) else { return };
        let Some(device) = self.present.get_mut(&identity) else { return };
        let is_current = device.link(kind) == Some(link);
        device.forget(link);
        self.let_go(&identity, port);
        if is_current && kind == Kind::MESSAGES {
            self.give_back(&identity, port);
        }
        self.cease_if_deaf(&identity, port);
    }

    /// Forgets the links of a session that is over.
    pub fn forget_session(&mut self, session: SessionId, port: &mut Port<'_>) {
        let over = self.links.iter().filter(|(_, owner)| owner.session == session);
        let over: Vec<LinkId> = over.map(|(link, _)| *link).collect();
        for link in over {
            self.forget_link(link, port);
        }
    }

    fn let_go(&mut self, identity: &IdentityName, port: &mut Port<'_>) {
        // Who is judged is let go once that is over.
        if self.present.get(identity).is_some_and(|device| device.seat.is_some() && device.has_no_links())
            && let Some(seat) = self.present.remove(identity).and_then(|device| device.seat)
        {
            self.leave(seat, port);
        }
    }

    fn leave(&mut self, device: ConnectedDevice, port: &mut Port<'_>) {
        let ask = port.ask(Operation::Session(Ask::Disconnect { device }), Lane::Serial);
        self.wait_for(ask, Waiting::Nothing);
    }
}

fn settle(delivery: &Delivery, state: DeliveryState, port: &mut Port<'_>) {
    if !delivery.is_settled {
        port.connection.settle(delivery.id, state);
    }
}

/// A refusal always says why: Node takes one without a reason for success (`contract/hub-device.md 4.6`).
fn outcome(reply: Result<Reply, Failure>) -> DeliveryState {
    match reply {
        Ok(_) => DeliveryState::Accepted,
        Err(failure) => DeliveryState::rejected(error::hub_amqp(&failure)),
    }
}

/// How the device introduces itself by its first link.
fn connect(identity: &IdentityName, arrival: Arrival<'_>, port: &Port<'_>) -> Connect {
    let client = arrival.attach.properties.find("com.microsoft:client-version").and_then(Value::as_str);
    Connect {
        host: arrival.said_host(port),
        claimed: identity.clone(),
        memory: Memory::LeaveAlone,
        model_id: device::model_of(arrival.attach).map(str::to_owned),
        client: client.map(str::to_owned),
    }
}
