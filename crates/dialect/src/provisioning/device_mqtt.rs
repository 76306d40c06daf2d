//! A device at a provisioning service over MQTT (`contract/dps-device.md 3`).
//!
//! CONNECT is accepted when it is plausible; whether the credential holds is said in the answer to each request, since
//! the enrollment may change meanwhile. Answers leave after the PUBACK of their request.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::operation::registration::{Ask, Request};
use domain::operation::{Failure, Lane, Operation, Push, Reply};
use domain::sas::SasToken;
use percent_encoding::percent_decode_str;
use proto::mqtt::{Connect, Event, Filter, Message, QoS, Refusal, SubackCode, Text, Ticket};
use serde_json::Value;

use super::device_json;
use crate::error;
use crate::json::to_ascii;
use crate::session::{AskId, CloseReason, Machine, Port, cut};

const RESPONSES: &str = "$dps/registrations/res/#";
const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/";
const STATUS: &str = "$dps/registrations/GET/iotdps-get-operationstatus/";

/// How long an answer is held back for a client that sends a request and only afterwards listens for the answer
/// (`contract/dps-device.md 3.6`, rule 2).
const HELD_BACK: Duration = Duration::from_millis(100);
/// Longest `$rid` that is echoed.
const REQUEST_ID_BYTES_MAX: usize = 256;

/// One device's connection.
#[derive(Debug)]
pub struct Device {
    id_scope: String,
    registration_id: String,
    token: Option<SasToken>,
    /// What CONNECT is answered with, if not accepted.
    refusal: Option<Refusal>,
    /// Whether the client listens late.
    listens_late: bool,
    subscribed: Option<QoS>,
    waiting: HashMap<AskId, Waiting>,
    held_back: VecDeque<(Instant, Message)>,
}

#[derive(Debug)]
struct Waiting {
    request_id: String,
    received_at: Instant,
}

/// The user name taken apart: `{scope}/registrations/{rid}/api-version={v}[&name=value]`.
struct UserName<'a> {
    id_scope: &'a str,
    registration_id: &'a str,
    api_version: &'a str,
    client_version: Option<&'a str>,
}

impl<'a> UserName<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (id_scope, rest) = text.split_once("/registrations/")?;
        let (registration_id, query) = rest.split_once('/')?;
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let api_version = parameter("api-version").filter(|version| !version.is_empty())?;
        let client_version = parameter("ClientVersion");
        Some(Self { id_scope, registration_id, api_version, client_version })
    }
}

impl Device {
    /// Takes CONNECT apart; `None` if the user name is none of a provisioning service.
    pub fn open(connect: &Connect, has_certificate: bool) -> Option<Self> {
        let name = UserName::parse(connect.username.as_deref()?)?;
        let password = connect.password.as_deref().filter(|password| !password.is_empty());
        let token = password.map(|password| std::str::from_utf8(password).ok().map(SasToken::parse));
        let refusal = match &token {
            _ if !connect.client_id.eq_ignore_ascii_case(name.registration_id) => Some(Refusal::BadUsernameOrPassword),
            Some(Some(Ok(token))) if !token.is_for_registration(name.id_scope, name.registration_id) => {
                Some(Refusal::BadUsernameOrPassword)
            }
            Some(Some(Ok(_))) => None,
            Some(_) => Some(Refusal::BadUsernameOrPassword),
            None if has_certificate => None,
            None => Some(Refusal::NotAuthorized),
        };
        let refusal = if connect.client_id.is_empty() { Some(Refusal::IdentifierRejected) } else { refusal };
        Some(Self {
            id_scope: name.id_scope.to_owned(),
            registration_id: name.registration_id.to_owned(),
            token: token.flatten().and_then(Result::ok),
            refusal,
            // The Java client names the API version again as its own version.
            listens_late: name.client_version == Some(name.api_version),
            subscribed: None,
            waiting: HashMap::new(),
            held_back: VecDeque::new(),
        })
    }

    fn subscribe(&mut self, packet_id: proto::mqtt::PacketId, filters: &[Filter], port: &mut Port<'_>) {
        let mut codes = Vec::with_capacity(filters.len());
        for filter in filters {
            if &*filter.topic != RESPONSES {
                codes.push(SubackCode::Failure);
                continue;
            }
            let granted = filter.qos.min(QoS::AtLeastOnce);
            self.subscribed = Some(granted);
            codes.push(SubackCode::Granted(granted));
        }
        port.connection.suback(packet_id, codes);
    }

    fn publish(&mut self, ticket: Ticket, message: &Message, port: &mut Port<'_>, now: Instant) {
        let Some((request, request_id)) = Self::parse_request(message) else {
            port.close(CloseReason::Topic(cut(&message.topic)));
            return;
        };
        port.connection.acknowledge(ticket);
        match request {
            Ok(request) => {
                let ask =
                    Ask { id_scope: self.id_scope.clone(), registration_id: self.registration_id.clone(), request };
                let id = port.ask(Operation::Registration(ask), Lane::Serial);
                self.waiting.insert(id, Waiting { request_id, received_at: now });
            }
            Err(invalid) => {
                let body = serde_json::json!({ "errorCode": 400_012, "message": invalid.to_string() });
                let waiting = Waiting { request_id, received_at: now };
                self.answer(&waiting, (400, None, &body), port, now);
            }
        }
    }

    /// The request and its `$rid`; `None` for a topic that is not one of the two.
    fn parse_request(message: &Message) -> Option<(Result<Request, crate::json::InvalidJson>, String)> {
        let topic = &*message.topic;
        let (is_register, query) = match (topic.strip_prefix(REGISTER), topic.strip_prefix(STATUS)) {
            (Some(query), _) => (true, query),
            (_, Some(query)) => (false, query),
            (None, None) => return None,
        };
        let query = query.strip_prefix('?')?;
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let request_id = parameter("$rid").filter(|id| id.len() <= REQUEST_ID_BYTES_MAX)?.to_owned();
        let request = if is_register {
            device_json::parse_registration(&message.payload)
                .map(|registration| Request::Register(Box::new(registration)))
        } else {
            let operation = parameter("operationId").unwrap_or_default();
            Ok(Request::Poll { operation: percent_decode_str(operation).decode_utf8_lossy().into_owned() })
        };
        Some((request, request_id))
    }

    fn answer(
        &mut self,
        waiting: &Waiting,
        (status, retry_after_s, body): (u16, Option<u32>, &Value),
        port: &mut Port<'_>,
        now: Instant,
    ) {
        let retry = retry_after_s.map(|seconds| format!("&retry-after={seconds}")).unwrap_or_default();
        let topic = format!("$dps/registrations/res/{status}/?$rid={}{retry}", waiting.request_id);
        let (Ok(topic), Some(qos)) = (Text::try_from(topic), self.subscribed) else { return };
        let message = Message::new(topic, Bytes::from(to_ascii(body)), qos);
        let due = waiting.received_at + HELD_BACK;
        if self.listens_late && now < due {
            self.held_back.push_back((due, message));
        } else {
            send(&message, port);
        }
    }
}

/// The window is never full: a device has few requests under way, each answered once. A client that does not read is
/// ended by its own keep-alive.
fn send(message: &Message, port: &mut Port<'_>) {
    if port.connection.publish(message).is_err() {
        port.close(CloseReason::Refused("the client does not take its answers".to_owned()));
    }
}

impl Machine for Device {
    fn handle_event(&mut self, event: Event, port: &mut Port<'_>, now: Instant) {
        match event {
            Event::Connect(_) => match self.refusal {
                Some(refusal) => port.connection.refuse(refusal),
                // No session is ever kept: one SDK takes a present one for a protocol error.
                None => port.connection.accept(false, now),
            },
            Event::Publish { ticket, message } => self.publish(ticket, &message, port, now),
            Event::Subscribe { packet_id, filters } => self.subscribe(packet_id, &filters, port),
            Event::Unsubscribe { packet_id, filters } => {
                if filters.iter().any(|filter| &**filter == RESPONSES) {
                    self.subscribed = None;
                }
                port.connection.unsuback(packet_id);
            }
            Event::Acknowledged { .. } | Event::Closed(_) => {}
        }
    }

    fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, port: &mut Port<'_>, now: Instant) {
        let Some(waiting) = self.waiting.remove(&id) else { return };
        match reply {
            Ok(Reply::Registration(answer)) => {
                let shown = device_json::show(&answer);
                self.answer(&waiting, (shown.status, shown.retry_after_s, &shown.body), port, now);
            }
            Ok(_) => {}
            Err(failure) => {
                let status = error::spelling(failure.kind).status;
                let body = error::provisioning_body(&failure);
                self.answer(&waiting, (status, failure.retry_after_s, &body), port, now);
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

    fn token(&self) -> Option<&SasToken> {
        self.token.as_ref()
    }
}
