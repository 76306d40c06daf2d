//! A device at a hub over MQTT (`contract/hub-device.md 2`).
//!
//! CONNECT is judged by the service before it is answered. Every publish is acknowledged when it has been dealt with, a
//! twin request included: so the window of the connection bounds what waits here, and a client whose answer was lost with
//! the connection sends its request again. Nothing here stores a message or tells who may connect. Start at
//! [`Device::open`], then at the [`Machine`] implementation.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use domain::cloud_to_device::{Delivery, Settlement};
use domain::ids::{LockToken, MethodRequestId};
use domain::message::{Draft, InvalidMessage, RETAIN_MARK};
use domain::method::{self as call, Payload};
use domain::operation::identity::IdentityName;
use domain::operation::session::{
    Answer, Ask, Connect as Introduction, ConnectedDevice, CutOff, Filter as Known, Memory, QualityOfService,
    Subscriptions,
};
use domain::operation::{ErrorKind, Failure, Lane, Operation, Push, Reply, cloud_to_device, method, telemetry, twin};
use domain::sas::SasToken;
use proto::mqtt::{
    Connect, Event, Filter, Message, PacketId, QoS, Refusal, SubackCode, Text, Ticket, Unpublished, Will,
};

use super::deliveries::Deliveries;
use super::desired::{Feed, Next};
use super::topics::{self, Publication};
use super::twin_answer::{self, TwinAnswer, no_text};
use super::{property_bag, user_name::UserName};
use crate::error;
use crate::mqtt::{Machine, Port};
use crate::session::{AskId, CloseReason, cut};

#[cfg(test)]
mod tests;

/// Messages that a client has at once: it has no other way to say how many it takes.
const HELD_MAX: usize = 4;

/// One device's connection.
#[derive(Debug)]
pub struct Device {
    stage: Stage,
    token: Option<SasToken>,
    /// Whether the client wants nothing to be remembered of it.
    is_clean: bool,
    /// What is subscribed: for a client that is remembered, what the store has.
    subscriptions: Subscriptions,
    /// What was asked and not answered, in the order asked.
    waiting: VecDeque<(AskId, Waiting)>,
    /// Answers that the connection had no room for.
    answers: VecDeque<Message>,
    feed: Feed,
    /// Method requests to be sent; as many as are awaited at once.
    requests: VecDeque<call::Request>,
    deliveries: Deliveries<PacketId>,
}

#[derive(Debug)]
enum Stage {
    /// CONNECT was read: what to ask for, or why it is refused.
    Introduced(Result<Box<Introduction>, String>),
    /// The service judges.
    Connecting,
    /// Let in.
    Seated(ConnectedDevice),
    /// Over.
    Left,
}

/// What to do when an answer comes.
#[derive(Debug)]
enum Waiting {
    /// Answer CONNECT.
    Connect,
    /// The subscriptions are remembered: these are in force, and these packets are answered.
    Subscriptions(Subscriptions, Vec<Granted>),
    /// Acknowledge a message.
    Telemetry(Ticket, QoS),
    /// Acknowledge a twin request and answer it under the ID it gave.
    Twin(Ticket, Box<str>),
    /// Acknowledge the answer to a method request.
    MethodResult(Ticket),
    /// Send the messages, of which so many were wished for.
    Messages(usize),
    /// Ask for more messages.
    Settled,
}

/// The answer to a SUBSCRIBE or UNSUBSCRIBE.
#[derive(Debug)]
enum Granted {
    Subscribed(PacketId, Vec<SubackCode>),
    Unsubscribed(PacketId),
}

impl Device {
    /// Takes CONNECT apart; `None` if the user name is none of a hub.
    pub fn open(connect: &Connect) -> Option<Self> {
        let name = UserName::parse(connect.username.as_deref()?)?;
        let (introduced, token) = match introduce(&name, connect) {
            Ok((introduction, token)) => (Ok(Box::new(introduction)), token),
            Err(reason) => (Err(reason), None),
        };
        Some(Self {
            stage: Stage::Introduced(introduced),
            token,
            is_clean: connect.clean_session,
            subscriptions: Subscriptions::default(),
            waiting: VecDeque::new(),
            answers: VecDeque::new(),
            feed: Feed::default(),
            requests: VecDeque::new(),
            deliveries: Deliveries::new(HELD_MAX),
        })
    }

    fn ask(&mut self, operation: Operation, lane: Lane, waiting: Waiting, port: &mut Port<'_>) {
        let id = port.ask(operation, lane);
        self.waiting.push_back((id, waiting));
    }

    /// What waits for the answer to `id`. Most answers come in the order asked, so the first is looked at first.
    fn take_waiting(&mut self, id: AskId) -> Option<Waiting> {
        let index = match self.waiting.front() {
            Some((first, _)) if *first == id => 0,
            _ => self.waiting.binary_search_by_key(&id, |(id, _)| *id).ok()?,
        };
        let (_, waiting) = self.waiting.remove(index)?;
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(waiting)
    }

    fn connect(&mut self, port: &mut Port<'_>) {
        match std::mem::replace(&mut self.stage, Stage::Connecting) {
            Stage::Introduced(Ok(introduction)) => {
                let connect = Operation::Session(Ask::Connect(introduction));
                let id = port.ask_with(self.token.take(), connect, Lane::Serial);
                self.waiting.push_back((id, Waiting::Connect));
            }
            Stage::Introduced(Err(reason)) => {
                self.stage = Stage::Left;
                port.refuse(Refusal::NotAuthorized, CloseReason::Refused(reason));
            }
            other => self.stage = other,
        }
    }

    fn connected(&mut self, reply: Result<Reply, Failure>, port: &mut Port<'_>, now: Instant) {
        if !matches!(self.stage, Stage::Connecting) {
            return;
        }
        let (refusal, reason) = match reply {
            Ok(Reply::Session(Answer::Connected { device, subscriptions, session_present })) => {
                self.stage = Stage::Seated(device);
                self.subscriptions = subscriptions;
                port.connection.accept(session_present, now);
                self.deliver(port);
                return;
            }
            Ok(_) => (Refusal::ServerUnavailable, "the service answered something else".to_owned()),
            Err(failure) => (error::connack(failure.kind), failure.to_string()),
        };
        self.stage = Stage::Left;
        port.refuse(refusal, CloseReason::Refused(reason));
    }

    fn subscribe(&mut self, packet_id: PacketId, filters: &[Filter], port: &mut Port<'_>) {
        let Stage::Seated(device) = &self.stage else { return };
        let mut wanted = self.wanted();
        let mut codes = Vec::with_capacity(filters.len());
        for filter in filters {
            let Some(known) = topics::parse_filter(&filter.topic, &device.name) else {
                port.note_refused_filter(&filter.topic);
                codes.push(SubackCode::Failure);
                continue;
            };
            let (code, quality) = grant(filter.qos);
            wanted.insert(known, quality);
            codes.push(code);
        }
        self.remember(wanted, Granted::Subscribed(packet_id, codes), port);
    }

    fn unsubscribe(&mut self, packet_id: PacketId, filters: &[Text], port: &mut Port<'_>) {
        let Stage::Seated(device) = &self.stage else { return };
        let mut wanted = self.wanted();
        for known in filters.iter().filter_map(|filter| topics::parse_filter(filter, &device.name)) {
            wanted.remove(known);
        }
        self.remember(wanted, Granted::Unsubscribed(packet_id), port);
    }

    /// The subscriptions as they will be when everything asked is done.
    fn wanted(&self) -> Subscriptions {
        let asked = self.waiting.iter().rev().find_map(|(_, waiting)| match waiting {
            Waiting::Subscriptions(wanted, _) => Some(*wanted),
            _ => None,
        });
        asked.unwrap_or(self.subscriptions)
    }

    /// Has `wanted` put in force, and written if the client is remembered, before `granted` is said. What is so already is
    /// not asked for (`rules.md` 14); what is being asked for is waited for.
    fn remember(&mut self, wanted: Subscriptions, granted: Granted, port: &mut Port<'_>) {
        let Stage::Seated(device) = &self.stage else { return };
        let last = self.waiting.iter_mut().rev().find_map(|(_, waiting)| match waiting {
            Waiting::Subscriptions(asked, answers) => Some((asked, answers)),
            _ => None,
        });
        match last {
            Some((asked, answers)) if *asked == wanted => answers.push(granted),
            None if self.subscriptions == wanted => granted.send(port),
            Some(_) | None => {
                let ask = Ask::Subscribe { device: device.clone(), subscriptions: wanted, is_kept: !self.is_clean };
                let waiting = Waiting::Subscriptions(wanted, vec![granted]);
                self.ask(Operation::Session(ask), Lane::Serial, waiting, port);
            }
        }
    }

    fn publish(&mut self, ticket: Ticket, message: &Message, port: &mut Port<'_>) {
        let Stage::Seated(device) = &self.stage else { return };
        let device = device.clone();
        match topics::parse_publication(&message.topic, &device.name) {
            Some(Publication::Telemetry { bag }) => match draft(bag, &message.payload, message.retain) {
                Ok(draft) => {
                    let ask = telemetry::Ask::Send { device, message: Box::new(draft) };
                    self.ask(Operation::Telemetry(ask), Lane::Telemetry, Waiting::Telemetry(ticket, message.qos), port);
                }
                Err(invalid) => port.close(CloseReason::Message(invalid)),
            },
            Some(Publication::ReadTwin { request_id }) => {
                let waiting = Waiting::Twin(ticket, request_id.into());
                self.ask(Operation::Twin(twin::Ask::Read(device)), Lane::Serial, waiting, port);
            }
            Some(Publication::Report { request_id, expected_version }) => match std::str::from_utf8(&message.payload) {
                Ok(patch) => {
                    let ask = twin::Ask::Report { device, patch: patch.to_owned(), expected_version };
                    let waiting = Waiting::Twin(ticket, request_id.into());
                    self.ask(Operation::Twin(ask), Lane::Serial, waiting, port);
                }
                Err(_) => self.refuse_patch(ticket, request_id, port),
            },
            Some(Publication::MethodResult { status, request_id }) => match MethodRequestId::parse(request_id) {
                Some(request) => {
                    let payload = Payload::parse(message.payload.clone());
                    let response =
                        payload.map(|payload| call::Response { status, payload }).map_err(call::NoResponse::from);
                    let ask = method::Ask::Respond { device, request, response };
                    self.ask(Operation::Method(ask), Lane::Serial, Waiting::MethodResult(ticket), port);
                }
                // Not an ID that was ever given out (`contract/hub-device.md 2.10`).
                None => port.connection.acknowledge(ticket),
            },
            None => port.close(CloseReason::Topic(cut(&message.topic))),
        }
    }

    fn refuse_patch(&mut self, ticket: Ticket, request_id: &str, port: &mut Port<'_>) {
        let answer = TwinAnswer::refused(&port.failure(no_text()));
        self.answer_twin(ticket, twin_result(answer, request_id), port);
    }

    /// PUBACK first, then the answer.
    fn answer_twin(&mut self, ticket: Ticket, answer: Message, port: &mut Port<'_>) {
        port.connection.acknowledge(ticket);
        self.answers.push_back(answer);
        self.flush(port);
    }

    /// Sends what there is room for: answers, after them method requests, and after them, unless an answer about the twin is under way, changes of
    /// desired properties.
    fn flush(&mut self, port: &mut Port<'_>) {
        while let Some(answer) = self.answers.front() {
            if port.connection.publish(answer) == Err(Unpublished::OutputFull) {
                return;
            }
            self.answers.pop_front();
        }
        self.send_requests(port);
        if !matches!(self.stage, Stage::Seated(_)) || self.awaits_twin() {
            return;
        }
        let is_listening = self.subscriptions.granted(Known::Desired).is_some();
        while !port.connection.is_output_full() && !port.connection.is_closed() {
            match self.feed.poll(is_listening) {
                Some(Next::Tell(change)) => send_change(&change, port),
                Some(Next::Gap { known, found }) => return port.close(CloseReason::Gap { known, found }),
                None => return,
            }
        }
    }

    /// Sends the method requests that somebody still waits for, to a client that listens or is about to.
    fn send_requests(&mut self, port: &mut Port<'_>) {
        const METHODS: Known = Known::Methods;

        if self.requests.is_empty() || self.wanted().granted(METHODS).is_none() {
            self.requests = VecDeque::new();
            return;
        }
        if self.subscriptions.granted(METHODS).is_none() {
            return;
        }
        while !port.connection.is_output_full() && !port.connection.is_closed() {
            let Some(request) = self.requests.pop_front() else { break };
            if request.is_awaited() {
                let topic = topics::method_request(&request.method, request.id);
                // An output that has room takes a message; one that closes takes no more.
                let _ = port.connection.publish(&message(topic, request.payload.bytes().clone()));
            }
        }
        if self.requests.is_empty() {
            self.requests = VecDeque::new();
        }
    }

    /// Sends the messages that the connection has, and asks for more if there may be more, as far as they are subscribed
    /// to.
    fn deliver(&mut self, port: &mut Port<'_>) {
        let Stage::Seated(device) = &self.stage else { return };
        let device = device.clone();
        let Some(quality) = self.subscriptions.granted(Known::CloudToDevice) else {
            return;
        };
        while let Some(delivery) = self.deliveries.next() {
            // An output that is full is tried again when it has been written; one that is closed, never.
            let Ok(packet_id) = port.connection.publish(&cloud_to_device_message(delivery, &device.name, quality))
            else {
                break;
            };
            self.deliveries.sent(packet_id);
        }
        if !port.connection.is_closed()
            && let Some(limit) = self.deliveries.poll_wish(usize::MAX)
        {
            let ask = cloud_to_device::Ask::Receive { receiver: cloud_to_device::Receiver::Connected(device), limit };
            self.ask(Operation::CloudToDevice(ask), Lane::Serial, Waiting::Messages(limit), port);
        }
    }

    fn complete(&mut self, lock: LockToken, port: &mut Port<'_>) {
        let Stage::Seated(device) = &self.stage else { return };
        let receiver = cloud_to_device::Receiver::Connected(device.clone());
        let ask = cloud_to_device::Ask::Settle { receiver, lock, settlement: Settlement::Complete };
        self.ask(Operation::CloudToDevice(ask), Lane::Serial, Waiting::Settled, port);
    }

    /// Whoever gets messages at QoS 0 has them once they are written.
    fn complete_written(&mut self, port: &mut Port<'_>) {
        if port.connection.output().is_empty() {
            for lock in self.deliveries.written() {
                self.complete(lock, port);
            }
        }
    }

    fn take_messages(&mut self, reply: Result<Reply, Failure>, wished: usize, port: &mut Port<'_>) {
        match reply {
            Ok(Reply::CloudToDevice(cloud_to_device::Answer::Received(deliveries))) => {
                self.deliveries.received(deliveries, wished, None);
                self.deliver(port);
            }
            Ok(_) => port.close(CloseReason::Undelivered("the service answered something else".to_owned())),
            Err(failure) => port.close(CloseReason::Undelivered(failure.to_string())),
        }
    }

    fn awaits_twin(&self) -> bool {
        self.waiting.iter().any(|(_, waiting)| matches!(waiting, Waiting::Twin(..)))
    }

    fn cut_off(&mut self, reason: CutOff, port: &mut Port<'_>) {
        self.answers.clear();
        self.feed.clear();
        self.requests = VecDeque::new();
        port.cut_off(reason);
    }

    /// The will of a client whose connection broke becomes telemetry, unless it has lost the right to send.
    fn closed(&mut self, will: Option<Box<Will>>, port: &mut Port<'_>) {
        let Stage::Seated(device) = std::mem::replace(&mut self.stage, Stage::Left) else { return };
        let has_lost_its_right = matches!(port.closed, Some(CloseReason::CutOff(reason)) if ends_rights(*reason));
        let Some(will) = will.filter(|_| !has_lost_its_right) else { return };
        let Some(bag) = topics::parse_telemetry(&will.topic, &device.name) else { return };
        if let Ok(draft) = draft(bag, &will.payload, will.retain) {
            let ask = telemetry::Ask::Will { device, message: Box::new(draft) };
            port.ask(Operation::Telemetry(ask), Lane::Telemetry);
        }
    }
}

/// What CONNECT asks for, and the signature it shows; or why it is refused without asking.
fn introduce(name: &UserName<'_>, connect: &Connect) -> Result<(Introduction, Option<SasToken>), String> {
    let claimed = name.identity().map_err(|invalid| format!("the user name holds no identity: {invalid}"))?;
    if *connect.client_id != *claimed.to_string() {
        return Err("the client ID is not the identity of the user name".to_owned());
    }
    let token = match connect.password.as_deref() {
        None | Some(b"") => None,
        Some(password) => {
            let text = std::str::from_utf8(password).map_err(|_| "the password is not UTF-8".to_owned())?;
            Some(SasToken::parse(text).map_err(|invalid| format!("the password is no signature: {invalid}"))?)
        }
    };
    if let Some(will) = &connect.will {
        let bag = topics::parse_telemetry(&will.topic, &claimed).filter(|_| will.qos != QoS::ExactlyOnce);
        let bag = bag.ok_or("the will is no telemetry of the device")?;
        draft(bag, &will.payload, will.retain).map_err(|invalid| format!("the will: {invalid}"))?;
    }
    let introduction = Introduction {
        host: name.host.to_owned(),
        claimed,
        memory: if connect.clean_session { Memory::Forget } else { Memory::Resume },
        model_id: name.parameter("model-id").filter(|model| !model.is_empty()),
        client: name.parameter("DeviceClientType"),
    };
    Ok((introduction, token))
}

/// The message with its properties, if it keeps the limits.
fn draft(bag: &str, payload: &Bytes, retain: bool) -> Result<Draft, InvalidMessage> {
    let mut draft = Draft { body: payload.clone(), ..Draft::default() };
    property_bag::decode(bag, &mut draft)?;
    draft.check()?;
    Ok(if retain { draft.marked(RETAIN_MARK) } else { draft })
}

fn grant(wanted: QoS) -> (SubackCode, QualityOfService) {
    match wanted {
        QoS::AtMostOnce => (SubackCode::Granted(QoS::AtMostOnce), QualityOfService::AtMostOnce),
        QoS::AtLeastOnce | QoS::ExactlyOnce => (SubackCode::Granted(QoS::AtLeastOnce), QualityOfService::AtLeastOnce),
    }
}

const fn ends_rights(reason: CutOff) -> bool {
    match reason {
        CutOff::Disabled | CutOff::Deleted | CutOff::Rekeyed | CutOff::HubDeleted => true,
        CutOff::Displaced | CutOff::TokenExpired | CutOff::CertificateExpired | CutOff::Overrun => false,
    }
}

/// The answer to a twin request, as a message.
fn twin_result(answer: TwinAnswer, request_id: &str) -> Message {
    let TwinAnswer { status, version, body, .. } = answer;
    message(topics::twin_result(status, request_id, version), body)
}

fn send_change(change: &twin::DesiredChange, port: &mut Port<'_>) {
    let sent = port.connection.publish(&message(topics::desired_change(change.version), twin_answer::change(change)));
    if sent.is_err() {
        port.close(CloseReason::CutOff(CutOff::Overrun));
    }
}

/// A message to the device; twins and methods are QoS 0 whatever was granted (`contract/hub-device.md 2.6`).
fn message(topic: String, payload: Bytes) -> Message {
    let topic = Text::try_from(topic).expect("the parts are text of MQTT, and short");
    Message::new(topic, payload, QoS::AtMostOnce)
}

/// A cloud-to-device message as the device gets it. Its properties are bounded so that they fit into a topic, and every
/// byte that no topic may hold is written as three that it may.
fn cloud_to_device_message(delivery: &Delivery, own: &IdentityName, quality: QualityOfService) -> Message {
    let bag = property_bag::encode_delivery(delivery, &topics::cloud_to_device_address(own));
    let topic = Text::try_from(topics::cloud_to_device(own, &bag)).expect("properties are bounded, and encoded");
    let qos = match quality {
        QualityOfService::AtMostOnce => QoS::AtMostOnce,
        QualityOfService::AtLeastOnce => QoS::AtLeastOnce,
    };
    Message::new(topic, delivery.message.body.clone(), qos)
}

impl Granted {
    fn send(self, port: &mut Port<'_>) {
        match self {
            Self::Subscribed(packet_id, codes) => port.connection.suback(packet_id, codes),
            Self::Unsubscribed(packet_id) => port.connection.unsuback(packet_id),
        }
    }
}

impl Machine for Device {
    fn handle_event(&mut self, event: Event, port: &mut Port<'_>, _: Instant) {
        match event {
            Event::Connect(_) => self.connect(port),
            Event::Publish { ticket, message } => self.publish(ticket, &message, port),
            Event::Subscribe { packet_id, filters } => self.subscribe(packet_id, &filters, port),
            Event::Unsubscribe { packet_id, filters } => self.unsubscribe(packet_id, &filters, port),
            Event::Acknowledged { packet_id } => {
                if let Some(lock) = self.deliveries.acknowledged(&packet_id) {
                    self.complete(lock, port);
                }
            }
            Event::Closed(closed) => self.closed(closed.will, port),
        }
    }

    fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, port: &mut Port<'_>, now: Instant) {
        match (self.take_waiting(id), reply) {
            (None, _) => {}
            (Some(Waiting::Connect), reply) => self.connected(reply, port, now),
            (Some(Waiting::Subscriptions(subscriptions, answers)), Ok(_)) => {
                self.subscriptions = subscriptions;
                for granted in answers {
                    granted.send(port);
                }
                self.flush(port);
                self.deliver(port);
            }
            // Several SDKs take no notice of a refused subscription, and would stay deaf: they have to connect again.
            (Some(Waiting::Subscriptions(..)), Err(failure)) => {
                port.close(CloseReason::Subscriptions(failure.to_string()));
            }
            (Some(Waiting::MethodResult(ticket)), _) => port.connection.acknowledge(ticket),
            (Some(Waiting::Messages(wished)), reply) => self.take_messages(reply, wished, port),
            (Some(Waiting::Settled), Ok(_)) => self.deliver(port),
            // Another has it by now, or it is gone: who settles late has lost nothing that could be given back.
            (Some(Waiting::Settled), Err(failure)) if failure.kind == ErrorKind::LockLost => self.deliver(port),
            (Some(Waiting::Settled), Err(failure)) => port.close(CloseReason::Undelivered(failure.to_string())),
            (Some(Waiting::Telemetry(ticket, _)), Ok(_)) => port.connection.acknowledge(ticket),
            // A message of QoS 0 may be lost, and its sender would not send it again.
            (Some(Waiting::Telemetry(ticket, QoS::AtMostOnce)), Err(_)) => port.connection.acknowledge(ticket),
            (Some(Waiting::Telemetry(..)), Err(failure)) => port.close(CloseReason::Unstored(failure.to_string())),
            (Some(Waiting::Twin(ticket, request_id)), reply) => {
                let answer = TwinAnswer::new(reply, |refused| port.failure(refused));
                // Answers leave in order, and all of them as long as the connection lives.
                if let Some(version) = answer.desired {
                    self.feed.read(version);
                }
                self.answer_twin(ticket, twin_result(answer, &request_id), port);
            }
        }
    }

    fn handle_push(&mut self, push: Push, port: &mut Port<'_>, _: Instant) {
        match push {
            Push::Desired(change) => match self.feed.push(change) {
                Ok(()) => self.flush(port),
                Err(_) => self.cut_off(CutOff::Overrun, port),
            },
            Push::Method(request) => {
                self.requests.retain(call::Request::is_awaited);
                self.requests.push_back(request);
                self.flush(port);
            }
            Push::MessagesWaiting => {
                self.deliveries.wake();
                self.deliver(port);
            }
            Push::CutOff(reason) => self.cut_off(reason, port),
        }
    }

    fn handle_room(&mut self, port: &mut Port<'_>, _: Instant) {
        self.flush(port);
        self.deliver(port);
        self.complete_written(port);
    }

    fn handle_timeout(&mut self, _: &mut Port<'_>, _: Instant) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
