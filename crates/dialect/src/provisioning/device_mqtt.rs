//! A device at a provisioning service over MQTT (`contract/dps-device.md 3`).
//!
//! CONNECT is accepted when it is plausible; whether the credential holds is said in the answer to each request, since
//! the enrollment may change meanwhile. The PUBACK of a request leaves before its answer. Nothing outlives the
//! connection. Start at [`Device::open`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::attestation::Rejection;
use domain::decision::OutsideText;
use domain::ids::RegistrationId;
use domain::operation::registration::{Ask, Request, Unfit};
use domain::operation::{ErrorKind, Failure, Lane, Operation, Push, Reply};
use domain::sas::{InvalidToken, SasToken};
use percent_encoding::percent_decode_str;
use proto::mqtt::{Connect, Event, Filter, Message, PacketId, QoS, Refusal, SubackCode, Text, Ticket};
use serde_json::Value;

use super::device_json::{self, BODY_BYTES_MAX};
use crate::error::{self, Refused};
use crate::json::to_ascii;
use crate::mqtt::{Machine, Port};
use crate::session::{AskId, CloseReason, cut};

const RESPONSES: &str = "$dps/registrations/res/#";
const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?";
const STATUS: &str = "$dps/registrations/GET/iotdps-get-operationstatus/?";

/// How long an answer is held back for a client that sends a request and only afterwards listens for the answer
/// (`contract/dps-device.md 3.6`, rule 2).
const HELD_BACK: Duration = Duration::from_millis(100);
/// Longest `$rid` that is echoed.
const REQUEST_ID_BYTES_MAX: usize = 256;
/// Most requests that wait for an answer at once; no SDK has more than one. What comes on top is told to come later.
const REQUESTS_WAITING_MAX: usize = 4;
/// Most requests that wait to be told so. A client that sends more without listening is sent away.
const REFUSALS_WAITING_MAX: usize = 4;

/// One device's connection.
#[derive(Debug)]
pub struct Device {
    id_scope: Box<str>,
    registration_id: Box<str>,
    token: Option<SasToken>,
    entrance: Entrance,
    /// Whether the client listens late.
    listens_late: bool,
    subscribed: Option<QoS>,
    waiting: Vec<(AskId, Waiting)>,
    held_back: VecDeque<(Instant, Message)>,
}

/// How far CONNECT is.
#[derive(Debug)]
enum Entrance {
    /// It is accepted, or will be.
    Plausible,
    /// It will be refused.
    Implausible(Refusal, Unfit),
    /// The service records why; then it is refused.
    Recording(AskId, Refusal, Unfit),
}

/// A request that is not answered.
#[derive(Debug)]
struct Waiting {
    request_id: String,
    received_at: Instant,
}

/// What is said to a request.
struct Answer<'a> {
    status: u16,
    retry_after_s: Option<u32>,
    body: &'a Value,
}

/// The user name taken apart: `{scope}/registrations/{registration ID}/api-version={v}[&name=value]`.
struct UserName<'a> {
    id_scope: &'a str,
    registration_id: &'a str,
    api_version: &'a str,
    client_version: Option<&'a str>,
}

impl<'a> UserName<'a> {
    /// Whether `text` is meant for a provisioning service. A hub's device or module may be called `registrations` too, but
    /// a hub's user names begin with a host, which holds a dot; an ID scope does not.
    fn is_meant(text: &str) -> bool {
        let mut segments = text.split('/');
        segments.next().is_some_and(|first| !first.contains('.')) && segments.next() == Some("registrations")
    }

    fn parse(text: &'a str) -> Option<Self> {
        let (id_scope, rest) = text.split_once('/').filter(|(id_scope, _)| !id_scope.is_empty())?;
        let (registration_id, query) = rest.strip_prefix("registrations/")?.split_once('/')?;
        let api_version = parameter(query, "api-version").filter(|version| !version.is_empty())?;
        Some(Self { id_scope, registration_id, api_version, client_version: parameter(query, "ClientVersion") })
    }
}

/// The first value of a `name=value` pair, undecoded.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

impl Device {
    /// Takes CONNECT apart; `None` if it is not meant for a provisioning service.
    pub fn open(connect: &Connect, has_certificate: bool) -> Option<Self> {
        let text = connect.username.as_deref().filter(|text| UserName::is_meant(text))?;
        let name = UserName::parse(text);
        let (token, entrance) = match judge(connect, name.as_ref(), has_certificate) {
            Ok(token) => (token, Entrance::Plausible),
            Err((refusal, unfit)) => (None, Entrance::Implausible(refusal, unfit)),
        };
        // Whoever looks for the decision knows the client ID, if nothing else can be read or it is what is wrong.
        let is_wrong_id = matches!(entrance, Entrance::Implausible(_, Unfit::RegistrationId));
        let named = name.as_ref().filter(|_| !is_wrong_id || connect.client_id.is_empty());
        let registration_id = named.map(|name| name.registration_id).filter(|id| !id.is_empty());
        Some(Self {
            id_scope: text.split('/').next().unwrap_or_default().into(),
            registration_id: registration_id.unwrap_or(&connect.client_id).into(),
            token,
            entrance,
            // The Java client names the API version again as its own version.
            listens_late: name.is_some_and(|name| name.client_version == Some(name.api_version)),
            subscribed: None,
            waiting: Vec::new(),
            held_back: VecDeque::new(),
        })
    }

    fn connect(&mut self, port: &mut Port<'_>, now: Instant) {
        match std::mem::replace(&mut self.entrance, Entrance::Plausible) {
            Entrance::Implausible(refusal, unfit) => {
                let id = self.ask(Request::Refuse(unfit.clone()), port);
                self.entrance = Entrance::Recording(id, refusal, unfit);
            }
            // No session is ever kept: one SDK takes a present one for a protocol error.
            Entrance::Plausible | Entrance::Recording(..) => port.connection.accept(false, now),
        }
    }

    fn ask(&self, request: Request, port: &mut Port<'_>) -> AskId {
        let (id_scope, registration_id) = (self.id_scope.to_string(), self.registration_id.to_string());
        let ask = Operation::Registration(Ask { id_scope, registration_id, request });
        port.ask_with(self.token.clone(), ask, Lane::Serial)
    }

    fn subscribe(&mut self, packet_id: PacketId, filters: &[Filter], port: &mut Port<'_>) {
        let grant = |filter: &Filter| {
            if &*filter.topic != RESPONSES {
                port.note_refused_filter(&filter.topic);
                return SubackCode::Failure;
            }
            let granted = filter.qos.min(QoS::AtLeastOnce);
            self.subscribed = Some(granted);
            SubackCode::Granted(granted)
        };
        let codes = filters.iter().map(grant).collect();
        port.connection.suback(packet_id, codes);
    }

    fn publish(&mut self, ticket: Ticket, message: &Message, port: &mut Port<'_>, now: Instant) {
        let Some((request, request_id)) = parse_request(message) else {
            port.close(CloseReason::Topic(cut(&message.topic)));
            return;
        };
        let unanswered = self.waiting.len() + self.held_back.len();
        if unanswered >= REQUESTS_WAITING_MAX + REFUSALS_WAITING_MAX {
            port.close(CloseReason::Refused("the client does not wait for its answers".to_owned()));
            return;
        }
        // Before anything is answered, since one client takes an answer that comes first for a protocol error.
        port.connection.acknowledge(ticket);
        let request = match request {
            Ok(_) if unanswered >= REQUESTS_WAITING_MAX => {
                Err(Refused::new(ErrorKind::Throttled, "Too many requests."))
            }
            request => request,
        };
        // A refusal is asked for too: who answers has a clock, and a tracking ID to find it by.
        let request = request
            .unwrap_or_else(|refused| Request::Refuse(Unfit::Request { kind: refused.kind, public: refused.public }));
        let waiting = Waiting { request_id: request_id.to_owned(), received_at: now };
        let id = self.ask(request, port);
        self.waiting.push((id, waiting));
    }

    fn answer(&mut self, waiting: &Waiting, answer: &Answer<'_>, port: &mut Port<'_>, now: Instant) {
        let Answer { status, retry_after_s, body } = answer;
        let retry = retry_after_s.map(|seconds| format!("&retry-after={seconds}")).unwrap_or_default();
        let topic = format!("$dps/registrations/res/{status}/?$rid={}{retry}", waiting.request_id);
        let (Ok(topic), Some(qos)) = (Text::try_from(topic), self.subscribed) else { return };
        let message = Message::new(topic, Bytes::from(to_ascii(body)), qos);
        let due = waiting.received_at + HELD_BACK;
        if self.listens_late && now < due && self.held_back.len() < REQUESTS_WAITING_MAX {
            self.held_back.push_back((due, message));
        } else {
            send(&message, port);
        }
    }
}

/// Whether CONNECT is plausible (`contract/dps-device.md 3.7`): the token that came as password, or how it is refused.
fn judge(
    connect: &Connect,
    name: Option<&UserName<'_>>,
    has_certificate: bool,
) -> Result<Option<SasToken>, (Refusal, Unfit)> {
    let bad = |unfit| Err((Refusal::BadUsernameOrPassword, unfit));
    if RegistrationId::parse(&connect.client_id).is_err() {
        return Err((Refusal::IdentifierRejected, Unfit::RegistrationId));
    }
    let Some(UserName { id_scope, registration_id, .. }) = name else {
        return bad(Unfit::Name("the user name is not one of a provisioning service"));
    };
    if !connect.client_id.eq_ignore_ascii_case(registration_id) {
        return bad(Unfit::Name("the user name is of another registration ID than the client ID"));
    }
    let Some(password) = connect.password.as_deref().filter(|password| !password.is_empty()) else {
        let nothing = Unfit::Credential(Rejection::NoCredential);
        return if has_certificate { Ok(None) } else { Err((Refusal::NotAuthorized, nothing)) };
    };
    // Bytes that are no text do not begin with the scheme's name either.
    let token = std::str::from_utf8(password).map_err(|_| InvalidToken::Scheme).and_then(SasToken::parse);
    match token {
        Ok(token) if token.is_for_registration(id_scope, registration_id) => Ok(Some(token)),
        Ok(token) => {
            let named = OutsideText::new(token.resource());
            bad(Unfit::Credential(Rejection::Resource { named }))
        }
        Err(invalid) => bad(Unfit::Credential(Rejection::Unreadable(invalid))),
    }
}

/// The request and its `$rid`; `None` for a topic that is not one of the two.
fn parse_request(message: &Message) -> Option<(Result<Request, Refused>, &str)> {
    let topic = &*message.topic;
    let registers = topic.strip_prefix(REGISTER);
    let query = registers.or_else(|| topic.strip_prefix(STATUS))?;
    let request_id = parameter(query, "$rid").filter(|id| id.len() <= REQUEST_ID_BYTES_MAX)?;
    // Some clients repeat the registration when they poll; it says nothing there.
    if registers.is_none() {
        let operation = percent_decode_str(parameter(query, "operationId").unwrap_or_default());
        return Some((Ok(Request::Poll { operation: operation.decode_utf8_lossy().into_owned() }), request_id));
    }
    if message.payload.len() > BODY_BYTES_MAX {
        return Some((Err(Refused::new(ErrorKind::TooLarge, "The message is too long.")), request_id));
    }
    let registration = device_json::parse_registration(&message.payload).map_err(Refused::from);
    Some((registration.map(|registration| Request::Register(Box::new(registration))), request_id))
}

/// The window is never full: a device has few requests under way, each answered once. One that acknowledges none of its
/// answers is sent away.
fn send(message: &Message, port: &mut Port<'_>) {
    if port.connection.publish(message).is_err() {
        port.close(CloseReason::Refused("the client does not take its answers".to_owned()));
    }
}

impl Machine for Device {
    fn handle_event(&mut self, event: Event, port: &mut Port<'_>, now: Instant) {
        match event {
            Event::Connect(_) => self.connect(port, now),
            Event::Publish { ticket, message } => self.publish(ticket, &message, port, now),
            Event::Subscribe { packet_id, filters } => self.subscribe(packet_id, &filters, port),
            Event::Unsubscribe { packet_id, filters } => {
                if filters.iter().any(|filter| &**filter == RESPONSES) {
                    self.subscribed = None;
                }
                port.connection.unsuback(packet_id);
            }
            Event::Acknowledged { .. } => {}
            Event::Closed(_) => self.held_back.clear(),
        }
    }

    fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, port: &mut Port<'_>, now: Instant) {
        if let Entrance::Recording(asked, refusal, unfit) = &self.entrance
            && *asked == id
        {
            // One that is not heard at all is told so, and to come again.
            let passing = reply.err().map(|failure| error::connack(failure.kind));
            let refusal = passing.filter(|passing| *passing == Refusal::ServerUnavailable).unwrap_or(*refusal);
            return port.refuse(refusal, CloseReason::Refused(unfit.to_string()));
        }
        let Some(index) = self.waiting.iter().position(|(asked, _)| *asked == id) else { return };
        let (_, waiting) = self.waiting.remove(index);
        match reply {
            Ok(Reply::Registration(answer)) => {
                let shown = device_json::show(&answer);
                let answer = Answer { status: shown.status, retry_after_s: shown.retry_after_s, body: &shown.body };
                self.answer(&waiting, &answer, port, now);
            }
            Ok(_) => {
                let refused = Refused::new(ErrorKind::Internal, "Internal error.");
                let (status, body) = (error::spelling(refused.kind).status, error::provisioning_refusal(&refused));
                self.answer(&waiting, &Answer { status, retry_after_s: None, body: &body }, port, now);
            }
            Err(failure) => {
                let (status, body) = (error::spelling(failure.kind).status, error::provisioning_body(&failure));
                let answer = Answer { status, retry_after_s: failure.retry_after_s, body: &body };
                self.answer(&waiting, &answer, port, now);
            }
        }
    }

    fn handle_push(&mut self, _: Push, _: &mut Port<'_>, _: Instant) {}

    fn handle_timeout(&mut self, port: &mut Port<'_>, now: Instant) {
        while self.held_back.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, message)) = self.held_back.pop_front() {
                send(&message, port);
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.held_back.front().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests;
