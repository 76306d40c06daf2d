//! A device at a provisioning service over AMQP (`contract/dps-device.md 4`).
//!
//! A connection is one registration's. Links are let in when they are plausible; whether the credential holds is said in
//! the outcome of each request, since the enrollment may change meanwhile: only what PLAIN presents is judged at once as
//! well. The outcome of a request leaves before its answer. Start at [`Device`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::attestation::Rejection;
use domain::decision::OutsideText;
use domain::operation::registration::{Ask, Request, Unfit};
use domain::operation::session::ConnectedDevice;
use domain::operation::{ErrorKind, Failure, Lane, Operation, Push, Reply};
use domain::sas::SasToken;
use proto::amqp::{
    Attach, Body, Delivery, DeliveryId, DeliveryState, Event, LinkId, LinkTerms, Map, Message, MessageId, Outgoing,
    Properties, Role, SaslCode, Value, condition,
};

use super::device_json::{self, BODY_BYTES_MAX, Shown};
use crate::amqp::body::bytes_of;
use crate::amqp::links::{Credit, Sender};
use crate::amqp::{Machine, Plain, Port, address_of};
use crate::error::{self, Refused};
use crate::json::to_ascii;
use crate::session::{AskId, CloseReason, cut};

/// How long an answer is held back for a client that sends a request and only afterwards listens for the answer
/// (`contract/dps-device.md 3.6`, rule 2).
const HELD_BACK: Duration = Duration::from_millis(100);
/// How the names of that client's links begin.
const LISTENS_LATE: &str = "provision_";
/// Most requests and links that wait for an answer at once; no SDK has more than two. What comes on top is told to come
/// later.
const WAITING_MAX: usize = 4;
/// Seconds until then.
const RETRY_AFTER_S: u32 = 3;
/// Requests that a client may send without hearing of any (`contract/dps-device.md 4.5`).
const CREDIT: u32 = 10;
/// Longest message: a body and what is around it.
const MESSAGE_BYTES_MAX: u64 = BODY_BYTES_MAX as u64 + 4 * 1_024;

/// One device's connection.
#[derive(Debug, Default)]
pub struct Device {
    /// The ID scope and the registration ID that the connection is for, once it has said so.
    name: Option<(String, String)>,
    token: Option<SasToken>,
    requests: Option<(LinkId, Credit)>,
    answers: Option<Answers>,
    waiting: Vec<(AskId, Waiting)>,
    held_back: VecDeque<(Instant, Outgoing)>,
    /// Whether the service has taken what PLAIN presents, or has dealt with a request.
    has_proof: bool,
}

/// The link on which the client listens.
#[derive(Debug)]
struct Answers {
    sender: Sender,
    listens_late: bool,
}

/// What waits for an answer of the service.
#[derive(Debug)]
enum Waiting {
    /// What PLAIN presents.
    Entrance,
    /// A link that is refused, as soon as that is recorded.
    Link { link: LinkId, address: String },
    /// A request.
    Request(Asked),
}

/// A request that is not answered.
#[derive(Debug)]
struct Asked {
    delivery: DeliveryId,
    correlation_id: Option<MessageId>,
    received_at: Instant,
}

impl Device {
    /// A connection that has said nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn ask(&mut self, request: Request, waiting: Waiting, port: &mut Port<'_>) {
        let (id_scope, registration_id) = self.name.clone().unwrap_or_default();
        let ask = Operation::Registration(Ask { id_scope, registration_id, request });
        let id = port.ask_with(self.token.clone(), ask, Lane::Serial);
        self.waiting.push((id, waiting));
    }

    /// Has what PLAIN presents judged; the links' addresses must then agree with its user name.
    fn enter(&mut self, plain: &Plain, port: &mut Port<'_>, now: Instant) {
        let Some((id_scope, registration_id)) = plain.registration() else {
            return port.tell_outcome(SaslCode::Auth, now);
        };
        let request = match plain.token() {
            Err(invalid) => Request::Refuse(Unfit::Credential(Rejection::Unreadable(invalid))),
            Ok(token) if token.is_for_registration(&id_scope, &registration_id) => {
                self.token = Some(token);
                Request::LookUp
            }
            Ok(token) => {
                let named = OutsideText::new(token.resource());
                Request::Refuse(Unfit::Credential(Rejection::Resource { named }))
            }
        };
        self.name = Some((id_scope, registration_id));
        self.ask(request, Waiting::Entrance, port);
    }

    fn attach(&mut self, link: LinkId, attach: &Attach, port: &mut Port<'_>) {
        let address = address_of(attach);
        let written = address.as_ref().map(|address| cut(address.path())).unwrap_or_default();
        let Some(wanted) = address.and_then(|address| address.registration()) else {
            let refused = Refused::new(ErrorKind::ResourceNotFound, "There is nothing at this address.");
            return refuse_link(link, &written, &refused, port);
        };
        let is_known = self.name.is_some();
        let name = self.name.get_or_insert_with(|| wanted.clone());
        let is_same = name.0.eq_ignore_ascii_case(&wanted.0) && name.1.eq_ignore_ascii_case(&wanted.1);
        if is_known && !is_same {
            let unfit = Unfit::Name("the link's address is of another registration than the connection");
            return self.refuse_link(link, written, unfit, port);
        }
        if self.token.is_none() && !port.opened.has_certificate {
            return self.refuse_link(link, written, Unfit::Credential(Rejection::NoCredential), port);
        }
        let is_taken = match attach.role {
            Role::Sender => self.requests.is_some(),
            Role::Receiver => self.answers.is_some(),
        };
        if is_taken {
            let refused = Refused::new(ErrorKind::NotSupported, "There is such a link already.");
            return refuse_link(link, &written, &refused, port);
        }
        port.connection.accept_link(link, LinkTerms::echo(attach, MESSAGE_BYTES_MAX));
        match attach.role {
            Role::Sender => {
                self.requests = Some((link, Credit::grant(link, CREDIT, port.connection)));
            }
            Role::Receiver => {
                let listens_late = attach.name.starts_with(LISTENS_LATE);
                self.answers = Some(Answers { sender: Sender::new(link, attach), listens_late });
            }
        }
    }

    /// Refuses a link for what the service records.
    fn refuse_link(&mut self, link: LinkId, address: String, unfit: Unfit, port: &mut Port<'_>) {
        if self.waiting.len() >= WAITING_MAX {
            return refuse_link(link, &address, &too_many(), port);
        }
        self.ask(Request::Refuse(unfit), Waiting::Link { link, address }, port);
    }

    fn request(&mut self, delivery: &Delivery, port: &mut Port<'_>, now: Instant) {
        if let Some((_, credit)) = &mut self.requests {
            credit.use_one(port.connection);
        }
        let id = delivery.id;
        if self.answers.is_none() {
            let refused = Refused::new(ErrorKind::NotSupported, "There is no link to answer on.");
            return reject(id, &refused, port);
        }
        if self.waiting.len() + self.held_back.len() >= WAITING_MAX {
            // Nothing is asked, not even for a tracking ID: what waits is bounded.
            return reject(id, &too_many(), port);
        }
        let (request, correlation_id) = match read(delivery) {
            Ok((request, correlation_id)) => (request, correlation_id),
            Err(Refused { kind, public }) => (Request::Refuse(Unfit::Request { kind, public }), None),
        };
        let waiting = Waiting::Request(Asked { delivery: id, correlation_id, received_at: now });
        self.ask(request, waiting, port);
    }

    fn answer(&mut self, asked: Asked, shown: &Shown, port: &mut Port<'_>, now: Instant) {
        let Some(Answers { sender, listens_late }) = &mut self.answers else { return };
        let outgoing = sender.transfer(&message(shown, asked.correlation_id));
        let due = asked.received_at + HELD_BACK;
        if *listens_late && now < due {
            self.held_back.push_back((due, outgoing));
        } else {
            self.send(outgoing, port, now);
        }
    }

    /// A client that takes none of its answers is sent away.
    fn send(&self, outgoing: Outgoing, port: &mut Port<'_>, now: Instant) {
        let Some(answers) = &self.answers else { return };
        if port.connection.send(answers.sender.link(), outgoing).is_err() {
            let reason = CloseReason::Refused("the client does not take its answers".to_owned());
            let error = proto::amqp::Error::new(condition::RESOURCE_LIMIT_EXCEEDED, "Too many answers are not taken.");
            port.close(reason, Some(error), now);
        }
    }

    fn forget_link(&mut self, link: LinkId) {
        self.requests.take_if(|(requests, _)| *requests == link);
        if self.answers.as_ref().is_some_and(|answers| answers.sender.link() == link) {
            self.answers = None;
            self.held_back.clear();
        }
    }
}

/// Tells what came of PLAIN.
fn entered(reply: Result<Reply, Failure>, port: &mut Port<'_>, now: Instant) {
    let code = match reply {
        Ok(_) => SaslCode::Ok,
        Err(failure) => {
            port.note(CloseReason::Refused(failure.to_string()));
            error::sasl_code(failure.kind)
        }
    };
    port.tell_outcome(code, now);
}

fn too_many() -> Refused {
    Refused::new(ErrorKind::Throttled, "Too many requests at once.")
}

fn retry_after_s(refused: &Refused) -> Option<u32> {
    (refused.kind == ErrorKind::Throttled).then_some(RETRY_AFTER_S)
}

fn refuse_link(link: LinkId, address: &str, refused: &Refused, port: &mut Port<'_>) {
    let body = error::provisioning_refusal(refused);
    port.refuse_link(link, address, error::amqp_error(refused.kind, &body, retry_after_s(refused)));
}

fn reject(delivery: DeliveryId, refused: &Refused, port: &mut Port<'_>) {
    let body = error::provisioning_refusal(refused);
    let error = error::amqp_error(refused.kind, &body, retry_after_s(refused));
    port.connection.settle(delivery, DeliveryState::rejected(error));
}

/// The request and what its answer repeats (`contract/dps-device.md 4.6`).
fn read(delivery: &Delivery) -> Result<(Request, Option<MessageId>), Refused> {
    const FORMAT: u32 = 0;
    if delivery.message_format != FORMAT {
        return Err(Refused::new(ErrorKind::InvalidArgument, "The message's format is not understood."));
    }
    let message = Message::decode(&delivery.payload)
        .map_err(|malformed| Refused::not_understood(ErrorKind::InvalidBody, &malformed))?;
    let word = |key| match message.application_properties.find(key) {
        Some(Value::String(text)) => Some(text.as_str()),
        Some(Value::Symbol(symbol)) => Some(symbol.as_str()),
        _ => None,
    };
    let request = match word("iotdps-operation-type") {
        Some("iotdps-register") => {
            let mut registration = device_json::parse_registration(&body(&message.body)?).map_err(Refused::from)?;
            let force = message.application_properties.find("iotdps-forceRegistration");
            registration.force = matches!(force, Some(Value::Boolean(true)));
            Request::Register(Box::new(registration))
        }
        // Some clients repeat the registration when they poll, or send no body at all; it says nothing there.
        Some("iotdps-get-operationstatus") => {
            Request::Poll { operation: word("iotdps-operation-id").unwrap_or_default().to_owned() }
        }
        Some("iotdps-get-registration") => Request::LookUp,
        _ => return Err(Refused::new(ErrorKind::InvalidArgument, "iotdps-operation-type is not one that is known.")),
    };
    Ok((request, message.properties.and_then(|properties| properties.correlation_id)))
}

/// The bytes of a body, however a client wraps them.
fn body(body: &Body) -> Result<Bytes, Refused> {
    let Some(bytes) = bytes_of(body) else {
        return Err(Refused::new(ErrorKind::InvalidBody, "The body is neither bytes nor text."));
    };
    if bytes.len() > BODY_BYTES_MAX {
        return Err(Refused::new(ErrorKind::TooLarge, "The message is too long."));
    }
    Ok(bytes)
}

/// An answer (`contract/dps-device.md 4.7`): one section of bytes, keys that are strings, and how long to wait under both
/// names that clients look for.
fn message(shown: &Shown, correlation_id: Option<MessageId>) -> Message {
    let mut application_properties = Map::EMPTY;
    application_properties.push("iotdps-status", Value::Int(i32::from(shown.status)));
    if let Some(seconds) = shown.retry_after_s {
        let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
        application_properties.push("retry-after", Value::Int(seconds));
        application_properties.push("Retry-After", Value::Int(seconds));
    }
    Message {
        properties: correlation_id.map(|id| Box::new(Properties { correlation_id: Some(id), ..Properties::default() })),
        application_properties,
        body: Body::data(to_ascii(&shown.body)),
        ..Message::default()
    }
}

impl Machine for Device {
    fn handle_event(&mut self, event: Event, port: &mut Port<'_>, now: Instant) {
        match event {
            Event::SaslInit(_) => {
                if let Some(plain) = &port.opened.plain {
                    let plain = std::sync::Arc::clone(plain);
                    self.enter(&plain, port, now);
                }
            }
            Event::Attach { link, attach, .. } => self.attach(link, &attach, port),
            Event::Delivery(delivery) => self.request(&delivery, port, now),
            Event::Detach { link, .. } => self.forget_link(link),
            Event::End { .. } => {
                // A client has one session: whatever it had attached is gone.
                (self.requests, self.answers) = (None, None);
                self.held_back.clear();
            }
            // Nothing of what is sent here is kept until it is settled: whatever the client says is so.
            Event::UnknownOutcome { deliveries, state } => port.connection.settle_unknown(&deliveries, &state),
            Event::Closed(_) => self.held_back.clear(),
            Event::SaslMechanisms(_)
            | Event::SaslChallenge(_)
            | Event::SaslResponse(_)
            | Event::Open(_)
            | Event::Begin { .. }
            | Event::Attached { .. }
            | Event::Credit { .. }
            | Event::Outcome { .. } => {}
        }
    }

    fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, port: &mut Port<'_>, now: Instant) {
        let Some(index) = self.waiting.iter().position(|(asked, _)| *asked == id) else { return };
        match self.waiting.remove(index).1 {
            Waiting::Entrance => {
                self.has_proof |= reply.is_ok();
                entered(reply, port, now);
            }
            Waiting::Link { link, address } => {
                // Refusing is all that was asked for.
                let Err(failure) = reply else { return };
                let body = error::provisioning_body(&failure);
                port.refuse_link(link, &address, error::amqp_error(failure.kind, &body, failure.retry_after_s));
            }
            Waiting::Request(asked) => match reply {
                Ok(Reply::Registration(answer)) => {
                    self.has_proof = true;
                    port.connection.settle(asked.delivery, DeliveryState::Accepted);
                    self.answer(asked, &device_json::show(&answer), port, now);
                }
                Ok(_) => reject(asked.delivery, &Refused::new(ErrorKind::Internal, "Internal error."), port),
                Err(failure) => {
                    let body = error::provisioning_body(&failure);
                    let error = error::amqp_error(failure.kind, &body, failure.retry_after_s);
                    port.connection.settle(asked.delivery, DeliveryState::rejected(error));
                }
            },
        }
    }

    fn handle_push(&mut self, _: &ConnectedDevice, _: Push, _: &mut Port<'_>, _: Instant) {}

    fn handle_timeout(&mut self, port: &mut Port<'_>, now: Instant) {
        while self.held_back.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, outgoing)) = self.held_back.pop_front() {
                self.send(outgoing, port, now);
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.held_back.front().map(|(due, _)| *due)
    }

    fn has_proof(&self) -> bool {
        self.has_proof
    }

    fn holds_back(&self) -> bool {
        !self.held_back.is_empty()
    }
}
