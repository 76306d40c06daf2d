//! A device that registers over AMQP and does anything, while the service says anything: what is asked is asked for the
//! registration that the connection is for, and of each request the device hears once.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dialect::amqp::Session;
use dialect::session::{Ask, Session as _};
use domain::clock::UnixTime;
use domain::ids::{OperationId, RegistrationId, TrackingId};
use domain::operation::registration::Answer;
use domain::operation::{ErrorKind, Failure, Operation, Reply};
use proto::amqp::{
    Body, ClientOpening, Connection, Event, Limits, LinkId, LinkTerms, Map, Message, MessageId, Outgoing, Properties,
    Role, SenderSettleMode, SessionId, Settlement, Source, Target, Value,
};

use crate::refusal::SameRefusals;

const ADDRESSES: [&str; 5] = [
    "0ne00000001/registrations/dev-1",
    "amqps://127.0.0.1:5671/0NE00000001/Registrations/DEV-1",
    "0ne00000001/registrations/dev-2",
    "/0ne00000001/registrations/",
    "$cbs",
];
const OPERATIONS: [&str; 4] =
    ["iotdps-register", "iotdps-get-operationstatus", "iotdps-get-registration", "iotdps-other"];
const KINDS: [ErrorKind; 4] =
    [ErrorKind::Unauthorized, ErrorKind::Throttled, ErrorKind::InvalidArgument, ErrorKind::Internal];
/// Longer than an answer is held back.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads `input` as a script: a byte for what is done, and what it takes.
///
/// # Panics
/// When a promise of [`Session`] is broken.
pub fn check(input: &[u8]) {
    let mut script = Script(input);
    let mut pair = Pair::open();
    while !script.0.is_empty() {
        pair.step(&mut script);
        pair.pump();
    }
    pair.finish();
}

/// Bytes read as choices. At the end every choice is 0.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(first)
    }

    fn choose<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        let index = self.byte().checked_rem(choices.len())?;
        choices.get(index).copied()
    }

    fn bytes(&mut self) -> &'a [u8] {
        let count = self.byte().min(self.0.len());
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }
}

/// A client's end, and the session.
struct Pair {
    client: Connection,
    session: Session,
    now: Instant,
    link_session: Option<SessionId>,
    links: Vec<LinkId>,
    /// Whether a link was attached.
    has_name: bool,
    open: VecDeque<Ask>,
    /// Requests sent, which names each, and those of which an outcome came.
    sent: u64,
    told: BTreeSet<Bytes>,
}

impl Pair {
    fn open() -> Self {
        let (limits, now) = (Arc::new(Limits::default()), Instant::now());
        let opening = ClientOpening {
            container_id: "client".into(),
            hostname: Some("127.0.0.1".into()),
            properties: Map::EMPTY,
            with_sasl: false,
        };
        let client = Connection::client(Arc::clone(&limits), opening, now);
        let session = Session::new(limits, Arc::new(SameRefusals), true, now);
        let (links, open, told) = (Vec::new(), VecDeque::new(), BTreeSet::new());
        let mut pair = Self { client, session, now, link_session: None, links, has_name: false, open, sent: 0, told };
        pair.pump();
        pair.link_session = pair.client.begin().ok();
        pair.pump();
        pair
    }

    fn step(&mut self, script: &mut Script) {
        match script.byte() % 7 {
            0 => self.attach(script),
            1 | 2 => self.send(script),
            3 => {
                if let Some(link) = script.choose(&self.links) {
                    self.client.detach(link, script.byte().is_multiple_of(2), None);
                }
            }
            4 => self.reply(script),
            5 => self.pass(),
            _ => {
                if let Some(session) = self.link_session.take_if(|_| script.byte().is_multiple_of(4)) {
                    self.client.end_session(session, None);
                    self.pump();
                    self.link_session = self.client.begin().ok();
                }
            }
        }
    }

    fn pass(&mut self) {
        self.now += PAUSE;
        self.session.handle_timeout(self.now);
    }

    fn attach(&mut self, script: &mut Script) {
        let (Some(address), Some(session)) = (script.choose(&ADDRESSES), self.link_session) else { return };
        // The first address makes the connection a provisioning service's.
        let address = if std::mem::replace(&mut self.has_name, true) { address } else { ADDRESSES[0] };
        let choices = script.byte();
        let (role, source, target) = match choices.is_multiple_of(2) {
            true => (Role::Sender, Source::default(), Target::at(address)),
            false => (Role::Receiver, Source::at(address), Target::default()),
        };
        let mut terms = LinkTerms::between(source, target, 0);
        if choices.is_multiple_of(3) {
            terms.snd_settle_mode = SenderSettleMode::Unsettled;
        }
        let begin = if choices.is_multiple_of(5) { "provision_" } else { "link-" };
        let attached = self.client.attach(session, format!("{begin}{}", self.links.len()).into(), role, terms);
        if let Ok(link) = attached {
            self.client.grant_credit(link, script.byte() as u32);
            self.links.push(link);
        }
    }

    fn send(&mut self, script: &mut Script) {
        let Some(link) = script.choose(&self.links) else { return };
        let payload = match script.byte() % 4 {
            0 => Bytes::copy_from_slice(script.bytes()),
            _ => request(script).to_bytes(),
        };
        self.sent += 1;
        let tag = Bytes::copy_from_slice(&self.sent.to_be_bytes());
        let message_format = u32::from(script.byte().is_multiple_of(16));
        let settlement = Settlement::Unsettled;
        // Without a link there is nothing to send on.
        let _ = self.client.send(link, Outgoing { tag, message_format, settlement, payload: vec![payload] });
    }

    fn reply(&mut self, script: &mut Script) {
        let index = script.byte().checked_rem(self.open.len()).unwrap_or_default();
        let Some(ask) = self.open.remove(index) else { return };
        let (operation, retry_after_s) =
            (OperationId::parse("5.0000000000000001.00000000-0000-0000-0000-000000000001"), 3);
        let reply = match (script.byte() % 3, operation, RegistrationId::parse("dev-1")) {
            (0, Some(operation), _) => Ok(Answer::Accepted { operation, retry_after_s }),
            (1, Some(operation), Ok(registration_id)) => {
                Ok(Answer::Assigning { operation, registration_id, retry_after_s })
            }
            _ => Err(failure(script.choose(&KINDS).unwrap_or(ErrorKind::Internal))),
        };
        self.session.handle_reply(ask.id, reply.map(Reply::Registration), self.now);
    }

    /// Carries bytes to and fro, and looks at what is asked and told.
    fn pump(&mut self) {
        loop {
            let up = Bytes::copy_from_slice(self.client.output());
            self.client.handle_written(up.len(), self.now);
            if !up.is_empty() && self.session.closed().is_none() {
                self.session.handle_input(&up, self.now);
            }
            let down = Bytes::copy_from_slice(self.session.output());
            self.session.handle_written(down.len(), self.now);
            if !down.is_empty() {
                self.client.handle_input(&down, self.now);
            }
            while let Some(event) = self.client.poll_event() {
                match event {
                    Event::Detach { link, .. } => self.links.retain(|kept| *kept != link),
                    Event::Outcome { tag, .. } => assert!(self.told.insert(tag), "a request is told of twice"),
                    _ => {}
                }
            }
            while let Some(ask) = self.session.poll_ask() {
                let Operation::Registration(asked) = &ask.operation else { panic!("{:?}", ask.operation) };
                let name = (asked.id_scope.to_ascii_lowercase(), asked.registration_id.to_ascii_lowercase());
                assert!(name.0 == "0ne00000001" && name.1.starts_with("dev-"), "{name:?} was never named");
                self.open.push_back(ask);
            }
            if up.is_empty() && down.is_empty() {
                return;
            }
        }
    }

    fn finish(mut self) {
        while let Some(ask) = self.open.pop_front() {
            self.session.handle_reply(ask.id, Err(failure(ErrorKind::Unavailable)), self.now);
            self.pump();
        }
        self.pass();
        self.pump();
        self.session.handle_eof(self.now);
        assert!(self.session.closed().is_some(), "a connection ends with its bytes");
    }
}

/// A request of which nearly everything is as it should be.
fn request(script: &mut Script) -> Message {
    let mut properties = Map::EMPTY;
    properties.push("iotdps-operation-type", script.choose(&OPERATIONS).unwrap_or_default());
    if script.byte().is_multiple_of(2) {
        properties.push("iotdps-operation-id", "5.1.2");
    }
    let bytes = Bytes::copy_from_slice(script.bytes());
    let body = match script.byte() % 5 {
        0 => Body::Empty,
        1 => Body::data("{\"registrationId\":\"dev-1\"}"),
        2 => Body::data(bytes),
        3 => Body::Value(Value::Binary(bytes)),
        _ => Body::Sequences(vec![vec![]]),
    };
    let correlation_id = script.byte().is_multiple_of(2).then(|| MessageId::Ulong(7));
    let properties_of = Properties { correlation_id, ..Properties::default() };
    Message {
        properties: Some(Box::new(properties_of)),
        application_properties: properties,
        body,
        ..Message::default()
    }
}

fn failure(kind: ErrorKind) -> Failure {
    let tracking = TrackingId::from_bits(1);
    let (public, at) = ("Because.".into(), UnixTime::from_micros(0));
    Failure { kind, public, tracking, retry_after_s: None, at }
}
