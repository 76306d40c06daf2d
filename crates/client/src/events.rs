//! Reading what the devices of a hub sent, at its Event Hubs-compatible endpoint (`contract/eventhub-endpoint.md`): AMQP
//! over TLS, with a token put at `$cbs`, one link for each partition.
//!
//! Any program can read so; nothing here knows another way into a hub. Start at [`Follower::open`], which goes on where a
//! lost connection left off, or at [`EventReader::open`] for one connection.

mod follow;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dialect::hub::cbs;
use dialect::hub::events_amqp::received::Received;
use dialect::hub::events_amqp::{filter, management};
use domain::clock::{Clock, UnixTime};
use domain::operation::events::{Entity, From as Place, MANAGEMENT, Start};
use domain::sas::{SasToken, SymmetricKey};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proto::amqp::{Event as AmqpEvent, LinkId, LinkTerms, Message, Role, Symbol, Target, condition};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

pub use crate::amqp::AmqpError;
pub use crate::wire::WireError;
pub use follow::{Absent, Followed, Follower};

use crate::amqp::exchange::{Answer, Exchange};
use crate::amqp::{AmqpConnection, Introduction, Sasl};
use crate::driver::{ANSWER_TIMEOUT, in_time};
use crate::https::Server;
use crate::service::InvalidConnectionString;
use crate::wire::Wire;

/// Time for a connection on which all partitions are read.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a token holds (`contract/eventhub-endpoint.md 4`).
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);
/// When the next one is put, after the one before.
const TOKEN_RENEWED_AFTER: Duration = Duration::from_secs(2_700);
/// Longest message that is taken, in bytes: the largest of a device, with what the hub says of it.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Refusals by which a server asks to be tried again (`contract/eventhub-endpoint.md 9`).
const PASSING: [Symbol; 5] = [
    condition::CONNECTION_FORCED,
    condition::DETACH_FORCED,
    condition::INTERNAL_ERROR,
    Symbol::from_static("com.microsoft:server-busy"),
    Symbol::from_static("com.microsoft:timeout"),
];

/// An Event Hubs-compatible endpoint, and the right to read there.
#[derive(Clone)]
pub struct EventHub {
    /// Where it is dialled.
    pub server: Server,
    /// What it is called there.
    pub name: String,
    policy: String,
    key: SymmetricKey,
}

impl EventHub {
    /// Takes a connection string apart: `Endpoint=sb://…/;SharedAccessKeyName=…;SharedAccessKey=…;EntityPath=…`. It is
    /// dialled on `port`.
    pub fn parse(text: &str, port: u16) -> Result<Self, InvalidConnectionString> {
        let member = |name| crate::service::member(text, name);
        let endpoint = member("Endpoint")?;
        let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host).trim_end_matches('/');
        // IPv6 addresses stand in brackets; a port is told beside.
        let host = match host.strip_prefix('[') {
            Some(host) => host.split(']').next().unwrap_or(host),
            None => host.split(':').next().unwrap_or(host),
        };
        Ok(Self {
            server: Server { host: host.to_owned(), port },
            name: member("EntityPath")?.to_owned(),
            policy: member("SharedAccessKeyName")?.to_owned(),
            key: SymmetricKey::parse(member("SharedAccessKey")?).map_err(InvalidConnectionString::Key)?,
        })
    }

    fn audience(&self) -> String {
        format!("sb://{}/{}", self.server.host, self.name)
    }

    /// The request to take a fresh token.
    fn put_token(&self, now: UnixTime) -> Message {
        let audience = self.audience();
        let resource = utf8_percent_encode(&audience, NON_ALPHANUMERIC).to_string();
        let token = SasToken::write_by_text(&self.key, &resource, Some(&self.policy), now.plus(TOKEN_LIFETIME));
        cbs::request(&audience, &token)
    }

    fn entity(&self, partition: Option<u16>) -> Entity {
        let partition = partition.map(|partition| partition.to_string());
        Entity { host: String::new(), name: self.name.clone(), partition }
    }
}

impl fmt::Debug for EventHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHub").field("server", &self.server).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why nothing is read, or nothing more.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The connection came to nothing, or ended.
    #[error(transparent)]
    Amqp(#[from] AmqpError),
    /// The server refused a token, or to say what there is.
    #[error("the server refused {what}: {status}: {description}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// As in HTTP.
        status: u16,
        /// The server's words.
        description: String,
    },
    /// What came cannot be read.
    #[error("{what} cannot be read")]
    Unreadable {
        /// What it is.
        what: &'static str,
    },
    /// There is no such endpoint among those that are known.
    #[error("the hub is gone")]
    Gone,
    /// Nobody knows where the endpoint is.
    #[error("no server is running")]
    NoServer,
}

impl From<WireError> for EventsError {
    fn from(error: WireError) -> Self {
        Self::Amqp(error.into())
    }
}

/// What kind of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// It may pass.
    Passing,
    /// There is no such thing.
    NotFound,
    /// It is not allowed.
    Forbidden,
    /// Refused for another reason that does not pass by itself.
    Final,
}

impl EventsError {
    /// Whether it is of use to try again, when a connection was not opened for this reason.
    pub fn finality(&self) -> Finality {
        match self {
            Self::Amqp(error) => match error.said().map(|error| &error.condition) {
                Some(said) if *said == condition::NOT_FOUND => Finality::NotFound,
                Some(said) if *said == condition::UNAUTHORIZED_ACCESS => Finality::Forbidden,
                Some(said) if !PASSING.contains(said) => Finality::Final,
                _ if matches!(error, AmqpError::NotOffered(_)) => Finality::Final,
                _ => Finality::Passing,
            },
            Self::Refused { status: 401 | 403, .. } => Finality::Forbidden,
            Self::Refused { status: 404, .. } | Self::Gone => Finality::NotFound,
            Self::Refused { status: 400..=499, .. } | Self::Unreadable { .. } => Finality::Final,
            Self::Refused { .. } | Self::NoServer => Finality::Passing,
        }
    }
}

/// A message, and the partition that it is of.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionEvent {
    /// Which partition.
    pub partition: u16,
    /// The message.
    pub received: Received,
}

/// Whom a reader trusts, for whom it reads, and by which clock its tokens are made.
#[derive(Clone)]
pub struct Reading {
    /// Whom it trusts; see [`crate::trust::configure`].
    pub tls: Arc<ClientConfig>,
    /// The consumer group.
    pub group: String,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// One connection on which all partitions of an endpoint are read.
pub struct EventReader {
    connection: AmqpConnection,
    hub: EventHub,
    clock: Arc<dyn Clock>,
    tokens: Exchange,
    renew_at: Instant,
    links: BTreeMap<LinkId, u16>,
}

/// Where each partition is read on.
pub type Places = BTreeMap<u16, Place>;

impl EventReader {
    /// Connects, and finds out where all partitions are to be read from: at the same place, or behind what each of them holds
    /// by then, so that nothing is left out that comes from here on.
    pub async fn open(hub: EventHub, reading: &Reading, start: Start) -> Result<(Self, Places), EventsError> {
        in_time("the reader's connection", OPEN_TIMEOUT, async {
            let mut reader = Self::connect(hub, reading).await?;
            let places = reader.find_places(start).await?;
            reader.attach_all(&reading.group, &places).await?;
            Ok((reader, places))
        })
        .await
    }

    /// Connects, and reads on at `places`.
    pub async fn resume(hub: EventHub, reading: &Reading, places: &Places) -> Result<Self, EventsError> {
        in_time("the reader's connection", OPEN_TIMEOUT, async {
            let mut reader = Self::connect(hub, reading).await?;
            reader.attach_all(&reading.group, places).await?;
            Ok(reader)
        })
        .await
    }

    async fn connect(hub: EventHub, reading: &Reading) -> Result<Self, EventsError> {
        let wire = Wire::open(&reading.tls, &hub.server, None).await?;
        Self::greet(wire, hub, Arc::clone(&reading.clock)).await
    }

    /// Opens a connection on `wire`, and proves the right to read.
    async fn greet(wire: Wire, hub: EventHub, clock: Arc<dyn Clock>) -> Result<Self, EventsError> {
        let introduction = Introduction {
            container_id: "muster-reader",
            host: &hub.server.host,
            sasl: Sasl::Anonymous,
            answer_timeout: ANSWER_TIMEOUT,
        };
        let mut connection = AmqpConnection::introduce(wire, introduction).await?;
        let mut tokens = Exchange::attach(&mut connection, cbs::NODE).await?;
        granted("the token", tokens.call(&mut connection, hub.put_token(clock.now())).await?)?;
        let renew_at = Instant::now() + TOKEN_RENEWED_AFTER;
        Ok(Self { connection, hub, clock, tokens, renew_at, links: BTreeMap::new() })
    }

    async fn find_places(&mut self, start: Start) -> Result<Places, EventsError> {
        const WHAT: &str = "the description of the endpoint";

        let mut node = Exchange::attach(&mut self.connection, MANAGEMENT).await?;
        let asked = management::request(&self.hub.entity(None));
        let answer = granted(WHAT, node.call(&mut self.connection, asked).await?)?;
        let partitions = management::read_partitions(&answer).ok_or(EventsError::Unreadable { what: WHAT })?;
        let mut places = Places::new();
        for partition in 0..partitions {
            let place = match start {
                Start::At(place) => place,
                Start::Newest => {
                    let asked = management::request(&self.hub.entity(Some(partition)));
                    let answer = granted(WHAT, node.call(&mut self.connection, asked).await?)?;
                    management::read_end(&answer).ok_or(EventsError::Unreadable { what: WHAT })?
                }
            };
            places.insert(partition, place);
        }
        Ok(places)
    }

    async fn attach_all(&mut self, group: &str, places: &Places) -> Result<(), EventsError> {
        for (&partition, &place) in places {
            let address = format!("{}/ConsumerGroups/{group}/Partitions/{partition}", self.hub.name);
            let source = filter::source(&address, Start::At(place));
            let terms = LinkTerms::between(source, Target::at("muster-reader"), MESSAGE_BYTES_MAX);
            let name = format!("partition-{partition}").as_str().into();
            let link = self.connection.attach(name, Role::Receiver, terms).await?;
            self.links.insert(link, partition);
        }
        // Once all are attached: what came while another link is waited for would be lost.
        for &link in self.links.keys() {
            self.connection.grant(link);
        }
        Ok(())
    }

    /// The next message, however long it takes. Keeps the connection alive, and its token fresh; dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Result<PartitionEvent, EventsError> {
        loop {
            let Ok(event) = timeout_at(self.renew_at, self.connection.next()).await else {
                self.renew_at = Instant::now() + TOKEN_RENEWED_AFTER;
                self.tokens.ask(&mut self.connection, self.hub.put_token(self.clock.now()))?;
                continue;
            };
            let event = event?;
            if let Some(answer) = self.tokens.answer(&event) {
                granted("the token", answer)?;
                continue;
            }
            let AmqpEvent::Delivery(delivery) = event else { continue };
            let Some(&partition) = self.links.get(&delivery.link) else { continue };
            let message = Message::decode(&delivery.payload).ok();
            let received = message.and_then(|message| Received::decode(&message));
            let received = received.ok_or(EventsError::Unreadable { what: "a message" })?;
            return Ok(PartitionEvent { partition, received });
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        self.connection.close().await;
    }
}

impl fmt::Debug for EventReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReader").field("hub", &self.hub).finish_non_exhaustive()
    }
}

/// The message of an answer that grants what was asked.
fn granted(what: &'static str, answer: Answer) -> Result<Message, EventsError> {
    let Answer { status, description, message } = answer;
    match status {
        200..300 => Ok(message),
        status => Err(EventsError::Refused { what, status, description }),
    }
}
