//! One AMQP connection of a client, with one session: links, messages and what became of them.
//!
//! A device with a key introduces itself by SASL PLAIN, one with a certificate without SASL, as the SDKs for C# and Node do.
//! Everything that is received is accepted. Start at [`AmqpConnection::open`].

use std::sync::Arc;

use bytes::Bytes;
use proto::amqp::{
    ClientOpening, CloseReason, Connection, DeliveryState, Event, Limits, LinkId, LinkTerms, Map, Message, Outgoing,
    Role, SaslInit, SessionId, Settlement, Source, Symbol, Target, Unsent,
};
use tokio::time::{Instant, timeout};

use super::driver::{self, Driver, in_time};
use super::wire::Wire;
use super::{CONNECT_TIMEOUT, Credential, DeviceError, Dial, Refused};

/// Messages that the server may send on a link before any is accepted.
const CREDIT: u32 = 50;
/// Longest message that is taken: a twin with what is around it.
const MESSAGE_BYTES_MAX: u64 = 256 * 1_024;

/// An open connection. Dropping it closes the socket without a goodbye.
pub(super) struct AmqpConnection {
    driver: Driver<Connection>,
    session: SessionId,
    /// Messages sent, which names each.
    sent: u64,
}

impl driver::Machine for Connection {
    type Event = Event;

    fn poll_event(&mut self) -> Option<Event> {
        self.poll_event()
    }

    fn is_closed(&self) -> bool {
        self.is_closed()
    }

    fn wants_input(&self) -> bool {
        self.wants_input()
    }

    fn handle_input(&mut self, bytes: &[u8], now: std::time::Instant) {
        self.handle_input(bytes, now);
    }

    fn handle_eof(&mut self) {
        self.handle_eof();
    }

    fn handle_written(&mut self, count: usize, now: std::time::Instant) {
        self.handle_written(count, now);
    }

    fn handle_timeout(&mut self, now: std::time::Instant) {
        self.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<std::time::Instant> {
        self.poll_timeout()
    }

    fn output(&mut self) -> &[u8] {
        self.output()
    }
}

/// A user name and a password.
pub(super) struct Plain {
    pub(super) user: String,
    pub(super) password: String,
}

impl AmqpConnection {
    /// Connects, and begins a session.
    pub(super) async fn open(dial: &Dial, credential: &Credential, plain: Option<Plain>) -> Result<Self, DeviceError> {
        let opening = async {
            let wire = Wire::open(&credential.tls, &dial.server, dial.transport).await?;
            Self::introduce(wire, &dial.server.host, plain).await
        };
        let opened = timeout(CONNECT_TIMEOUT, opening).await;
        opened.unwrap_or(Err(DeviceError::Timeout { what: "the connection", after: CONNECT_TIMEOUT }))
    }

    pub(super) async fn introduce(wire: Wire, host: &str, plain: Option<Plain>) -> Result<Self, DeviceError> {
        let opening = ClientOpening {
            container_id: "muster-device".into(),
            hostname: Some(host.into()),
            properties: Map::EMPTY,
            with_sasl: plain.is_some(),
        };
        let connection = Connection::client(Arc::new(Limits::default()), opening, Instant::now().into_std());
        let mut driver = Driver::new(wire, connection);
        loop {
            match next(&mut driver).await? {
                Event::SaslMechanisms(_) => {
                    driver.machine.sasl_init(choose(plain.as_ref()), Instant::now().into_std())?;
                }
                Event::Open(_) => {
                    driver.machine.begin()?;
                }
                Event::Begin { session } => return Ok(Self { driver, session, sent: 0 }),
                _ => {}
            }
        }
    }

    /// Attaches a link to `address`.
    pub(super) async fn attach(
        &mut self,
        (name, role): (&'static str, Role),
        address: &str,
    ) -> Result<LinkId, DeviceError> {
        let (source, target) = match role {
            Role::Sender => (Source::default(), Target::at(address)),
            Role::Receiver => (Source::at(address), Target::default()),
        };
        let terms = LinkTerms::between(source, target, MESSAGE_BYTES_MAX);
        let wanted = self.driver.machine.attach(self.session, name.into(), role, terms)?;
        let is_refusal = |attach: &proto::amqp::Attach| match role {
            Role::Sender => attach.target.is_none(),
            Role::Receiver => attach.source.is_none(),
        };
        // Of one that is refused, the end follows, with the reason.
        let attached = self.wait("the link", |event| match event {
            Event::Attached { link, attach } if link == wanted && !is_refusal(&attach) => Ok(Some(())),
            _ => Ok(None),
        });
        attached.await?;
        if role == Role::Receiver {
            self.driver.machine.grant_credit(wanted, CREDIT);
        }
        Ok(wanted)
    }

    /// What the server does next. Writes, reads and keeps the connection alive meanwhile; dropping the future loses
    /// nothing.
    pub(super) async fn next(&mut self) -> Result<Event, DeviceError> {
        let event = next(&mut self.driver).await?;
        if let Event::Delivery(delivery) = &event {
            if !delivery.is_settled {
                self.driver.machine.settle(delivery.id, DeliveryState::Accepted);
            }
            self.driver.machine.grant_credit(delivery.link, 1);
        }
        Ok(event)
    }

    /// Takes events until `pick` finds what is waited for.
    pub(super) async fn wait<T>(
        &mut self,
        what: &'static str,
        mut pick: impl FnMut(Event) -> Result<Option<T>, DeviceError>,
    ) -> Result<T, DeviceError> {
        let waiting = async {
            loop {
                if let Some(found) = pick(self.next().await?)? {
                    return Ok(found);
                }
            }
        };
        in_time(what, waiting).await
    }

    /// Sends a message, and waits until the server has accepted it. `keep` gets what belongs to others.
    pub(super) async fn send(
        &mut self,
        link: LinkId,
        message: &Message,
        mut keep: impl FnMut(Event) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.sent += 1;
        let sent = Bytes::copy_from_slice(&self.sent.to_be_bytes());
        let outgoing = Outgoing {
            tag: sent.clone(),
            message_format: 0,
            settlement: Settlement::Unsettled,
            payload: vec![message.to_bytes()],
        };
        self.driver.machine.send(link, outgoing)?;
        self.wait("the message", |event| match event {
            Event::Outcome { tag, state, .. } if tag == sent => match state {
                Some(DeliveryState::Accepted) => Ok(Some(())),
                Some(DeliveryState::Rejected(rejected)) => {
                    Err(DeviceError::Refused(rejected.error.as_ref().map(Refused::read_amqp).unwrap_or_default()))
                }
                _ => Err(DeviceError::Unreadable { what: "the message" }),
            },
            other => keep(other).map(|()| None),
        })
        .await
    }

    /// Says goodbye, and waits for the server to close.
    pub(super) async fn close(mut self) {
        self.driver.machine.close(None, Instant::now().into_std());
        self.driver.close().await;
    }
}

/// The next event; what ends a link, the session or the connection is an error.
async fn next(driver: &mut Driver<Connection>) -> Result<Event, DeviceError> {
    let because = |error: Option<Box<proto::amqp::Error>>| error.as_deref().map(Refused::read_amqp).unwrap_or_default();
    let closed = |reason| match reason {
        CloseReason::Peer(Some(error)) => DeviceError::Detached(Refused::read_amqp(&error)),
        reason => DeviceError::AmqpClosed(Box::new(reason)),
    };
    match driver.next().await? {
        Some(Event::Closed(reason)) => Err(closed(reason)),
        // A hub that stops ends the session and then the connection, and says why with the latter.
        Some(Event::End { error: None, .. }) if let Some(Event::Closed(reason)) = driver.machine.poll_event() => {
            Err(closed(reason))
        }
        Some(Event::Detach { error, .. } | Event::End { error, .. }) => Err(DeviceError::Detached(because(error))),
        Some(event) => Ok(event),
        None => Err(Unsent::NotOpen.into()),
    }
}

/// PLAIN (RFC 4616), to whatever is offered: a server that does not offer it says so.
fn choose(plain: Option<&Plain>) -> SaslInit {
    let initial_response = plain.map(|Plain { user, password }| format!("\0{user}\0{password}").into());
    SaslInit { mechanism: Symbol::from_static("PLAIN"), initial_response, hostname: None }
}
