//! A client's end of a connection to the session, and the service that the session asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use domain::clock::UnixTime;
use domain::ids::{DeviceId, HubKey, ModuleId, TrackingId};
use domain::operation::identity::IdentityName;
use domain::operation::session::{Answer, AuthenticationMethod, ConnectedDevice, Seat, Subscriptions};
use domain::operation::{ErrorKind, Failure, Reply};
use proto::amqp::{
    ClientOpening, Connection, Event, Limits, LinkId, LinkTerms, Map, Message, Outgoing, Role, SaslInit, SessionId,
    Settlement, Source, Symbol, Target,
};

use crate::amqp::Session as AmqpSession;
use crate::error::Refused;
use crate::session::{Ask, Refusals, Session};

/// A signature that reads as one; whether it is good is the service's to say.
pub const SIGNATURE: &str = "sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D&se=1795224005";

pub struct Client {
    pub session: AmqpSession,
    pub connection: Connection,
    pub now: Instant,
    pub link_session: Option<SessionId>,
    /// What the client's end noticed and nobody looked at.
    pub events: VecDeque<Event>,
}

impl Client {
    /// A connection with a session, opened without SASL as Node does.
    pub fn open() -> Self {
        Self::begun(false)
    }

    /// A connection whose handshake showed a certificate.
    pub fn with_certificate() -> Self {
        Self::begun(true)
    }

    fn begun(has_certificate: bool) -> Self {
        let mut client = Self::dial(false, has_certificate);
        client.begin();
        client
    }

    /// A connection whose client chooses PLAIN.
    pub fn plain(user: &str, password: &str) -> Self {
        let mut client = Self::dial(true, true);
        let offered = client.events.pop_front();
        assert!(matches!(offered, Some(Event::SaslMechanisms(_))), "{offered:?}");
        let initial_response = Some(format!("\0{user}\0{password}").into());
        let init = SaslInit { mechanism: Symbol::from_static("PLAIN"), initial_response, hostname: None };
        client.connection.sasl_init(init, client.now).unwrap();
        client.pump();
        client
    }

    fn dial(with_sasl: bool, has_certificate: bool) -> Self {
        let (limits, now) = (Arc::new(Limits::default()), Instant::now());
        let opening = ClientOpening {
            container_id: "client".into(),
            hostname: Some("127.0.0.2".into()),
            properties: Map::EMPTY,
            with_sasl,
        };
        let mut client = Self {
            session: AmqpSession::new(Arc::clone(&limits), Arc::new(Refuses), has_certificate, now),
            connection: Connection::client(limits, opening, now),
            now,
            link_session: None,
            events: VecDeque::new(),
        };
        client.pump();
        client
    }

    pub fn begin(&mut self) -> SessionId {
        let session = self.connection.begin().unwrap();
        self.pump();
        self.events.retain(|event| !matches!(event, Event::Begin { .. } | Event::Open(_)));
        self.link_session = Some(session);
        session
    }

    /// Carries bytes to and fro until both ends are silent.
    pub fn pump(&mut self) {
        loop {
            let up = Bytes::copy_from_slice(self.connection.output());
            self.connection.handle_written(up.len(), self.now);
            if !up.is_empty() && self.session.closed().is_none() {
                self.session.handle_input(&up, self.now);
            }
            let down = Bytes::copy_from_slice(self.session.output());
            self.session.handle_written(down.len(), self.now);
            if !down.is_empty() {
                self.connection.handle_input(&down, self.now);
            }
            while let Some(event) = self.connection.poll_event() {
                self.events.push_back(event);
            }
            if up.is_empty() && down.is_empty() {
                return;
            }
        }
    }

    pub fn asks(&mut self) -> Vec<Ask> {
        self.pump();
        std::iter::from_fn(|| self.session.poll_ask()).collect()
    }

    /// The only ask there is.
    pub fn ask(&mut self) -> Ask {
        let mut asks = self.asks();
        assert_eq!(asks.len(), 1, "{asks:?}");
        asks.pop().unwrap()
    }

    pub fn reply(&mut self, ask: &Ask, reply: Result<Reply, Failure>) {
        self.session.handle_reply(ask.id, reply, self.now);
        self.pump();
    }

    /// Answers the only ask there is, which is `expected`.
    pub fn answer(&mut self, expected: &str, reply: Result<Reply, Failure>) {
        let ask = self.ask();
        assert_eq!(super::show(&ask), expected);
        self.reply(&ask, reply);
    }

    /// Attaches a link to `address`, with room for 50 messages if they come from there.
    pub fn attach(&mut self, name: &str, role: Role, address: &str) -> LinkId {
        self.attach_with(name, role, address, &[])
    }

    pub fn attach_with(&mut self, name: &str, role: Role, address: &str, properties: &[(&str, &str)]) -> LinkId {
        let (source, target) = match role {
            Role::Sender => (Source::default(), Target::at(address)),
            Role::Receiver => (Source::at(address), Target::default()),
        };
        let mut terms = LinkTerms::between(source, target, 0);
        terms.properties = properties
            .iter()
            .map(|(key, value)| (Symbol::try_from((*key).to_owned()).unwrap(), (*value).to_owned()))
            .collect();
        let link = self.connection.attach(self.link_session.unwrap(), name.into(), role, terms).unwrap();
        if role == Role::Receiver {
            self.connection.grant_credit(link, 50);
        }
        self.pump();
        link
    }

    pub fn send(&mut self, link: LinkId, tag: u8, message: &Message) {
        self.send_format(link, tag, (0, Settlement::Unsettled), message.to_bytes());
    }

    pub fn send_format(&mut self, link: LinkId, tag: u8, how: (u32, Settlement), payload: Bytes) {
        let (message_format, settlement) = how;
        let tag = Bytes::copy_from_slice(&[tag]);
        let outgoing = Outgoing { tag, message_format, settlement, payload: vec![payload] };
        self.connection.send(link, outgoing).unwrap();
        self.pump();
    }

    /// What was noticed since the last look, in words; credit is left out.
    pub fn noticed(&mut self) -> Vec<String> {
        self.pump();
        self.events.drain(..).filter_map(show).collect()
    }

    /// The messages that have come on `link` since the last look; everything else that was noticed is forgotten.
    pub fn messages(&mut self, link: LinkId) -> Vec<Message> {
        self.pump();
        let deliveries = self.events.drain(..).filter_map(|event| match event {
            Event::Delivery(delivery) if delivery.link == link => Some(delivery),
            _ => None,
        });
        deliveries.map(|delivery| Message::decode(&delivery.payload).unwrap()).collect()
    }

    /// `dev-1` with a link for telemetry, let in by its certificate.
    pub fn telemetry_ready() -> (Self, LinkId, ConnectedDevice) {
        let mut client = Self::open();
        let link = client.attach("telemetry", Role::Sender, "/devices/dev-1/messages/events");
        let ask = client.ask();
        let seat = seat("dev-1", 1);
        client.reply(&ask, Ok(connected(&seat)));
        assert_eq!(client.noticed(), ["attached"]);
        (client, link, seat)
    }

    /// `dev-1` with both links of the twin; the one it asks on first.
    pub fn twin_ready() -> (Self, [LinkId; 2], ConnectedDevice) {
        let mut client = Self::open();
        let pair = [("com.microsoft:channel-correlation-id", "twin:1")];
        let asking = client.attach_with("a", Role::Sender, "/devices/dev-1/twin", &pair);
        let ask = client.ask();
        let answering = client.attach_with("b", Role::Receiver, "/devices/dev-1/twin", &pair);
        let seat = seat("dev-1", 1);
        client.reply(&ask, Ok(connected(&seat)));
        assert_eq!(client.noticed(), ["attached", "attached"]);
        (client, [asking, answering], seat)
    }
}

pub fn name(text: &str) -> IdentityName {
    let (device, module) = text.split_once('/').map_or((text, None), |(device, module)| (device, Some(module)));
    IdentityName {
        device: DeviceId::parse(device).unwrap(),
        module: module.map(|module| ModuleId::parse(module).unwrap()),
    }
}

pub fn seat(identity: &str, epoch: u64) -> ConnectedDevice {
    ConnectedDevice::seat(Seat {
        hub: HubKey(1),
        name: name(identity),
        generation: "1".into(),
        epoch,
        authentication: AuthenticationMethod::X509,
        model_id: None,
    })
}

pub fn connected(device: &ConnectedDevice) -> Reply {
    let (device, subscriptions) = (device.clone(), Subscriptions::default());
    Reply::Session(Answer::Connected { device, subscriptions, session_present: false })
}

pub const DONE: Reply = Reply::Session(Answer::Done);

/// Whoever knows the time and numbers what is refused.
struct Refuses;

impl Refusals for Refuses {
    fn refuse(&self, refused: Refused) -> Failure {
        Failure { public: refused.public, ..failure(refused.kind) }
    }
}

pub fn failure(kind: ErrorKind) -> Failure {
    let tracking = TrackingId::from_bits(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
    let at = UnixTime::from_micros(1_502_966_924_530_934);
    Failure { kind, public: "Because.".into(), tracking, retry_after_s: None, at }
}

fn show(event: Event) -> Option<String> {
    let because =
        |error: Option<Box<proto::amqp::Error>>| error.map(|error| format!(" {}", error.condition)).unwrap_or_default();
    Some(match event {
        Event::Credit { .. } => return None,
        Event::Attached { attach, .. } if attach.source.is_none() || attach.target.is_none() => "refused".to_owned(),
        Event::Attached { .. } => "attached".to_owned(),
        Event::Detach { error, .. } => format!("detached{}", because(error)),
        Event::Outcome { state, .. } => match state {
            Some(proto::amqp::DeliveryState::Accepted) => "accepted".to_owned(),
            Some(proto::amqp::DeliveryState::Rejected(rejected)) => {
                format!("rejected{}", because(rejected.error.map(Box::new)))
            }
            other => format!("{other:?}"),
        },
        Event::Delivery(_) => "message".to_owned(),
        Event::Closed(reason) => format!("closed: {reason}").chars().take(60).collect(),
        other => format!("{other:?}"),
    })
}
