//! One AMQP connection of a client, with one session: links, messages and what became of them.
//!
//! What devices, readers of telemetry and senders to other servers have in common is here, and nothing of what they say.
//! Whatever ends a link, the session or the connection is an error: nobody here goes on with half of them. Start at
//! [`AmqpConnection::introduce`].

pub(crate) mod exchange;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::amqp::{
    ClientOpening, CloseReason, Connection, DeliveryState, Error, Event, Limits, LinkId, LinkTerms, Map, Outgoing,
    Role, SaslInit, SessionId, Settlement, Symbol, Text, Unsent,
};
use tokio::time::Instant;

use crate::driver::{Driver, in_time, machine};
use crate::wire::{Wire, WireError};

/// Messages that the server may send on a link before any is accepted.
const CREDIT: u32 = 50;

/// Why a connection, or what was asked on it, came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum AmqpError {
    /// The bytes do not get through.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Closed(Box<CloseReason>),
    /// The server ended a link or the session.
    #[error("the server ended a link{}", words(.0.as_deref()))]
    Ended(Option<Box<Error>>),
    /// Nothing was sent.
    #[error("nothing was sent: {0}")]
    Unsent(#[from] Unsent),
    /// The server rejected a message.
    #[error("the server rejected a message{}", words(.0.as_deref()))]
    Rejected(Option<Box<Error>>),
    /// The server does not say whether it took a message, or gave it back.
    #[error("the server does not say that it took a message")]
    Undecided,
    /// The server does not offer the SASL mechanism.
    #[error("the server does not offer {0}")]
    NotOffered(&'static str),
}

impl AmqpError {
    /// What the server said of it, if it did.
    pub(crate) fn said(&self) -> Option<&Error> {
        match self {
            Self::Closed(reason) => match &**reason {
                CloseReason::Peer(error) => error.as_deref(),
                _ => None,
            },
            Self::Ended(error) | Self::Rejected(error) => error.as_deref(),
            Self::Wire(_) | Self::Unsent(_) | Self::Undecided | Self::NotOffered(_) => None,
        }
    }
}

/// An error in the server's words, to stand behind one's own.
pub(crate) fn words(error: Option<&Error>) -> String {
    match error {
        None => String::new(),
        Some(Error { condition, description: None, .. }) => format!(": {condition}"),
        Some(Error { condition, description: Some(description), .. }) => format!(": {condition}: {description}"),
    }
}

/// How a client shows who it is.
pub(crate) enum Sasl {
    /// Not by SASL: by its certificate, or not at all.
    Absent,
    /// As nobody; what it may do is shown on links.
    Anonymous,
    /// By a user name and a password (RFC 4616).
    Plain {
        /// The user name.
        user: String,
        /// The password.
        password: String,
    },
}

impl Sasl {
    fn choose(self) -> (&'static str, Option<Bytes>) {
        match self {
            Self::Absent | Self::Anonymous => ("ANONYMOUS", Some(Bytes::new())),
            Self::Plain { user, password } => ("PLAIN", Some(format!("\0{user}\0{password}").into())),
        }
    }
}

/// How a client introduces itself.
pub(crate) struct Introduction<'a> {
    /// What it calls itself.
    pub(crate) container_id: &'static str,
    /// Whom it dials.
    pub(crate) host: &'a str,
    /// How it shows who it is.
    pub(crate) sasl: Sasl,
    /// Time for the answer to whatever is waited for.
    pub(crate) answer_timeout: Duration,
}

/// An open connection. Dropping it closes the socket without a goodbye.
pub(crate) struct AmqpConnection {
    driver: Driver<Connection>,
    session: SessionId,
    answer_timeout: Duration,
    /// Messages sent, which names each.
    sent: u64,
}

machine!(Connection, Event, Connection::handle_input);

impl AmqpConnection {
    /// Opens a connection on `wire`, and begins a session.
    pub(crate) async fn introduce(wire: Wire, introduction: Introduction<'_>) -> Result<Self, AmqpError> {
        let Introduction { container_id, host, sasl, answer_timeout } = introduction;
        let opening = ClientOpening {
            container_id: Text::from_static(container_id),
            hostname: Some(host.into()),
            properties: Map::EMPTY,
            with_sasl: !matches!(sasl, Sasl::Absent),
        };
        let connection = Connection::client(Arc::new(Limits::default()), opening, Instant::now().into_std());
        let mut driver = Driver::new(wire, connection);
        let (mechanism, initial_response) = sasl.choose();
        loop {
            match next(&mut driver).await? {
                Event::SaslMechanisms(offered) => {
                    if !offered.iter().any(|offered| offered.as_str() == mechanism) {
                        return Err(AmqpError::NotOffered(mechanism));
                    }
                    let mechanism = Symbol::from_static(mechanism);
                    let initial_response = initial_response.clone();
                    let init = SaslInit { mechanism, initial_response, hostname: Some(host.into()) };
                    driver.machine.sasl_init(init, Instant::now().into_std())?;
                }
                Event::Open(_) => {
                    driver.machine.begin()?;
                }
                Event::Begin { session } => return Ok(Self { driver, session, answer_timeout, sent: 0 }),
                _ => {}
            }
        }
    }

    /// Attaches a link, and waits until the server has taken it. Nothing comes on it before [`Self::grant`].
    pub(crate) async fn attach(&mut self, name: Text, role: Role, terms: LinkTerms) -> Result<LinkId, AmqpError> {
        let wanted = self.driver.machine.attach(self.session, name, role, terms)?;
        let is_refusal = |attach: &proto::amqp::Attach| match role {
            Role::Sender => attach.target.is_none(),
            Role::Receiver => attach.source.is_none(),
        };
        let attached = self.wait("the link", |event| match event {
            // Of one that is refused, the end follows, with the reason.
            Event::Attached { link, attach } if link == wanted && !is_refusal(&attach) => Ok(Some(())),
            // Some containers answer without a target to links that they take, which then get credit.
            Event::Credit { link } if link == wanted => Ok(Some(())),
            _ => Ok::<_, AmqpError>(None),
        });
        attached.await?;
        Ok(wanted)
    }

    /// Lets messages come on a link. What comes while something else is awaited is for whoever awaits that to keep.
    pub(crate) fn grant(&mut self, link: LinkId) {
        self.driver.machine.grant_credit(link, CREDIT);
    }

    /// What the server does next. Writes, reads and keeps the connection alive meanwhile; dropping the future loses
    /// nothing. Messages are accepted, and make room for as many more.
    pub(crate) async fn next(&mut self) -> Result<Event, AmqpError> {
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
    pub(crate) async fn wait<T, E: From<AmqpError> + From<WireError>>(
        &mut self,
        what: &'static str,
        mut pick: impl FnMut(Event) -> Result<Option<T>, E>,
    ) -> Result<T, E> {
        let after = self.answer_timeout;
        let waiting = async {
            loop {
                if let Some(found) = pick(self.next().await?)? {
                    return Ok(found);
                }
            }
        };
        in_time(what, after, waiting).await
    }

    /// Puts a message into the output, under a name that no other message of the connection has; it leaves with the next
    /// await.
    pub(crate) fn put(&mut self, link: LinkId, message: Bytes) -> Result<Bytes, Unsent> {
        let tag = Bytes::copy_from_slice(&(self.sent + 1).to_be_bytes());
        let outgoing =
            Outgoing { tag: tag.clone(), message_format: 0, settlement: Settlement::Unsettled, payload: vec![message] };
        self.driver.machine.send(link, outgoing)?;
        self.sent += 1;
        Ok(tag)
    }

    /// Sends a message, and waits until the server has accepted it. `keep` gets what belongs to others.
    pub(crate) async fn send<E: From<AmqpError> + From<WireError>>(
        &mut self,
        link: LinkId,
        message: Bytes,
        mut keep: impl FnMut(Event) -> Result<(), E>,
    ) -> Result<(), E> {
        let sent = self.put(link, message).map_err(AmqpError::from)?;
        self.wait("the message", |event| match event {
            Event::Outcome { tag, state, .. } if tag == sent => Ok(accepted(state).map(Some)?),
            other => keep(other).map(|()| None),
        })
        .await
    }

    /// Says goodbye, and waits for the server to close.
    pub(crate) async fn close(mut self) {
        self.driver.machine.close(None, Instant::now().into_std());
        self.driver.close().await;
    }
}

/// Whether a message was taken (part 3, section 3.4).
pub(crate) fn accepted(state: Option<DeliveryState>) -> Result<(), AmqpError> {
    match state {
        Some(DeliveryState::Accepted) => Ok(()),
        Some(DeliveryState::Rejected(rejected)) => Err(AmqpError::Rejected(rejected.error.map(Box::new))),
        _ => Err(AmqpError::Undecided),
    }
}

/// The next event; what ends a link, the session or the connection is an error.
async fn next(driver: &mut Driver<Connection>) -> Result<Event, AmqpError> {
    let closed = |reason| Err(AmqpError::Closed(Box::new(reason)));
    let mut event = driver.next().await?;
    // Whatever it tells a second time, what was sent is settled.
    while let Some(Event::UnknownOutcome { deliveries, state }) = event {
        driver.machine.settle_unknown(&deliveries, &state);
        event = driver.next().await?;
    }
    match event {
        Some(Event::Closed(reason)) => closed(reason),
        // A hub that stops ends the session and then the connection, and says why with the latter.
        Some(Event::End { error: None, .. }) if let Some(Event::Closed(reason)) = driver.machine.poll_event() => {
            closed(reason)
        }
        Some(Event::Detach { error, .. } | Event::End { error, .. }) => Err(AmqpError::Ended(error)),
        Some(event) => Ok(event),
        None => Err(Unsent::NotOpen.into()),
    }
}
