//! Reading a partition through the Event Hubs-compatible endpoint, from an offset on, as any consumer would.

use bytes::Bytes;
use proto::amqp::{
    Body, CloseReason, DeliveryState, Described, Event, LinkId, LinkTerms, Map, Message, MessageId, Outgoing,
    Properties, Role, SaslInit, SessionId, Settlement, Source, Symbol, Target, Value,
};
use std::time::Instant;
use testkit::amqp_client::AmqpClient;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::server::Door;
use crate::story::Access;
use crate::trouble::{During as _, Result, Trouble};

/// Messages that may be on their way at once.
const CREDIT: u32 = 300;
/// Longest message that is taken, in bytes.
const MESSAGE_BYTES_MAX: u64 = 256 * 1_024;
/// The name of the filter that says where to begin (`contract/eventhub-endpoint.md 6.3`).
const SELECTOR: &str = "apache.org:selector-filter:string";
/// Where the endpoint tells of itself.
const MANAGEMENT: &str = "$management";

type Client = AmqpClient<TlsStream<TcpStream>>;

/// Whoever owns the hub.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The hub, and a signature for it.
    pub access: Access,
    /// The policy that signed.
    pub policy: String,
    /// What the endpoint calls the hub's telemetry.
    pub event_hub: String,
}

/// A message as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its number in the partition.
    pub sequence: i64,
    /// Where reading is resumed behind it.
    pub offset: String,
    /// Who sent it, as the hub says.
    pub device: String,
    /// What was sent.
    pub body: String,
}

/// Reads one partition, and goes on where it stopped.
pub struct Reader {
    owner: Owner,
    /// Which.
    pub partition: usize,
    /// Everything so far.
    pub read: Vec<Read>,
}

impl Reader {
    /// One that has read nothing.
    pub const fn new(owner: Owner, partition: usize) -> Self {
        Self { owner, partition, read: Vec::new() }
    }

    /// Reads on, as messages come, until the server is gone.
    pub async fn follow(&mut self, door: &Door) -> Result<()> {
        self.read_while(door, |_| true).await
    }

    /// Reads on until the message with the number `end` has been read; there is none such below 0.
    pub async fn read_to(&mut self, door: &Door, end: i64) -> Result<()> {
        self.read_while(door, |last| last < end).await
    }

    /// The number of the last message, or one below all.
    fn last(&self) -> i64 {
        self.read.last().map_or(-1, |read| read.sequence)
    }

    async fn read_while(&mut self, door: &Door, wanted: impl Fn(i64) -> bool) -> Result<()> {
        if !wanted(self.last()) {
            return Ok(());
        }
        let (mut client, session) = enter(door, &self.owner).await?;
        let link = self.attach(&mut client, session).await?;
        let mut credit = CREDIT;
        client.connection.grant_credit(link, credit);
        while wanted(self.last()) {
            match hear(&mut client).await? {
                Event::Delivery(delivery) => {
                    client.connection.settle(delivery.id, DeliveryState::Accepted);
                    self.read.push(read(&delivery.payload)?);
                }
                other => return Err(Trouble::new(format!("instead of a message came {other:?}"))),
            }
            credit -= 1;
            if credit <= CREDIT / 2 {
                client.connection.grant_credit(link, CREDIT - credit);
                credit = CREDIT;
            }
        }
        leave(client).await;
        Ok(())
    }

    /// Attaches a link that begins behind what has been read.
    async fn attach(&self, client: &mut Client, session: SessionId) -> Result<LinkId> {
        let Self { owner: Owner { event_hub, .. }, partition, read } = self;
        let offset = read.last().map_or("-1", |read| &*read.offset);
        let expression = format!("amqp.annotation.x-opt-offset > '{offset}'");
        let selector = Symbol::from_static(SELECTOR);
        let described = Described { descriptor: Value::Symbol(selector.clone()), value: Value::from(expression) };
        let mut source = Source::at(format!("{event_hub}/ConsumerGroups/$Default/Partitions/{partition}"));
        source.filter.push(selector, Value::Described(Box::new(described)));
        let terms = LinkTerms::between(source, Target::default(), MESSAGE_BYTES_MAX);
        attach(client, session, Role::Receiver, terms).await
    }
}

/// The number of the last message of each partition; below all where there is none.
pub async fn ends(door: &Door, owner: &Owner) -> Result<Vec<i64>> {
    let (mut client, session) = enter(door, owner).await?;
    let node = || (Source::at(MANAGEMENT), Target::at(MANAGEMENT));
    let (source, target) = node();
    let requests =
        attach(&mut client, session, Role::Sender, LinkTerms::between(source, target, MESSAGE_BYTES_MAX)).await?;
    let (source, target) = node();
    let answers =
        attach(&mut client, session, Role::Receiver, LinkTerms::between(source, target, MESSAGE_BYTES_MAX)).await?;
    client.connection.grant_credit(answers, CREDIT);
    let asked = [("type", "com.microsoft:eventhub"), ("name", &owner.event_hub)];
    let count = number(&ask(&mut client, requests, &asked).await?, "partition_count")?;
    let mut ends = Vec::new();
    for partition in 0..count {
        let partition = partition.to_string();
        let asked = [("type", "com.microsoft:partition"), ("name", &owner.event_hub), ("partition", &partition)];
        ends.push(number(&ask(&mut client, requests, &asked).await?, "last_enqueued_sequence_number")?);
    }
    leave(client).await;
    Ok(ends)
}

fn number(answer: &Map, name: &str) -> Result<i64> {
    answer.find(name).and_then(Value::as_i64).ok_or_else(|| Trouble::new(format!("no {name} in {answer:?}")))
}

/// Asks the endpoint about itself (`contract/eventhub-endpoint.md 5`).
async fn ask(client: &mut Client, link: LinkId, asked: &[(&str, &str)]) -> Result<Map> {
    let said = asked.iter().chain(&[("operation", "READ")]);
    let message = Message {
        properties: Some(Box::new(Properties { message_id: Some(MessageId::Ulong(0)), ..Properties::default() })),
        application_properties: said.map(|(name, value)| (*name, Value::from(*value))).collect(),
        ..Message::default()
    };
    let payload = vec![message.to_bytes()];
    let tag = Bytes::from_static(b"ask");
    while client.connection.credit(link) == 0 {
        hear(client).await?;
    }
    client.connection.send(link, Outgoing { tag, message_format: 0, settlement: Settlement::Settled, payload })?;
    loop {
        let Event::Delivery(delivery) = hear(client).await? else { continue };
        match Message::decode(&delivery.payload)?.body {
            Body::Value(Value::Map(answer)) => return Ok(answer),
            other => return Err(Trouble::new(format!("the endpoint tells {other:?} of itself"))),
        }
    }
}

/// A connection of the hub's owner, by PLAIN, and a session on it.
async fn enter(door: &Door, owner: &Owner) -> Result<(Client, SessionId)> {
    let Owner { access, policy, .. } = owner;
    let stream = client::https::connect(&door.tls, &door.amqps(&access.host)).await?;
    let mut client = AmqpClient::new(stream, &access.host, true);
    loop {
        match hear(&mut client).await? {
            Event::SaslMechanisms(_) => {
                let response = format!("\0{policy}@sas.root.hub\0{}", access.token);
                let initial_response = Some(response.into());
                let mechanism = Symbol::from_static("PLAIN");
                client
                    .connection
                    .sasl_init(SaslInit { mechanism, initial_response, hostname: None }, Instant::now())?;
            }
            Event::Open(_) => drop(client.connection.begin()?),
            Event::Begin { session } => return Ok((client, session)),
            _ => {}
        }
    }
}

async fn attach(client: &mut Client, session: SessionId, role: Role, terms: LinkTerms) -> Result<LinkId> {
    let name = match role {
        Role::Sender => "requests",
        Role::Receiver => "messages",
    };
    let link = client.connection.attach(session, name.into(), role, terms)?;
    loop {
        match hear(client).await? {
            Event::Attached { attach, .. } if attach.source.is_some() && attach.target.is_some() => return Ok(link),
            _ => {}
        }
    }
}

/// What happens next, unless that is the end of anything.
async fn hear(client: &mut Client) -> Result<Event> {
    match client.hear().await.ok_or_else(|| Trouble::new("the endpoint says nothing"))? {
        Event::Closed(CloseReason::Peer(Some(error))) => Err(Trouble::new(format!("the endpoint closes: {error:?}"))),
        Event::Closed(reason) => Err(reason.into()),
        Event::Detach { error, .. } | Event::End { error, .. } => {
            Err(Trouble::new(format!("the endpoint ends the link: {error:?}")))
        }
        event => Ok(event),
    }
}

/// Says goodbye; whether it is heard makes no difference.
async fn leave(mut client: Client) {
    client.connection.close(None, Instant::now());
    while hear(&mut client).await.is_ok() {}
}

fn read(payload: &Bytes) -> Result<Read> {
    let message = Message::decode(payload)?;
    let said = |name: &str| {
        let value = message.message_annotations.find(name);
        value.ok_or_else(|| Trouble::new(format!("a message without {name}")))
    };
    let text = |name: &str| {
        let text = said(name)?.as_str().ok_or_else(|| Trouble::new(format!("{name} is no text")))?;
        Ok::<_, Trouble>(text.to_owned())
    };
    let sequence = said("x-opt-sequence-number")?.as_i64();
    let Body::Data(sections) = &message.body else { return Err(Trouble::new("a message without data")) };
    Ok(Read {
        sequence: sequence.ok_or_else(|| Trouble::new("a sequence number is none"))?,
        offset: text("x-opt-offset")?,
        device: text("iothub-connection-device-id")?,
        body: String::from_utf8(sections.concat()).during("reading a body")?,
    })
}
