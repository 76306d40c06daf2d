//! Messages over AMQP 1.0: to an event hub, a queue or a topic, or an address of any container.
//!
//! A message is told as readers of the Event Hubs-compatible endpoint get it, and counts as taken once its receiver has
//! accepted it. Several are under way at once, in their order. Start at [`Outbound::transfer`].

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dialect::hub::events_amqp::event::outgoing;
use domain::route::{AmqpAddress, Parcel, Refusal};
use proto::amqp::{
    ClientOpening, CloseReason, Connection, DeliveryState, Event, Limits, LinkId, LinkTerms, Map, Outgoing, Role,
    SaslInit, Settlement, Source, Symbol, Target, Text, Unsent,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::dial::Stream;
use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, Outbound, SEND_TIMEOUT};

/// Bytes read at once.
const READ_BYTES: usize = 8 * 1_024;

/// A link to the address, and the connection that it is on.
struct Sender {
    stream: Box<dyn Stream>,
    connection: Connection,
    link: Option<LinkId>,
}

impl Outbound {
    /// Transfers `parcels`.
    pub(super) async fn transfer(
        &self,
        amqp: &AmqpAddress,
        parcels: &[Parcel],
        taken: &mut usize,
    ) -> Result<(), Refusal> {
        let opening = timeout(CONNECT_TIMEOUT, self.attach(amqp)).await;
        let mut sender = opening.unwrap_or_else(|_| Err(Refusal::of_all("no link in time")))?;
        let sent = timeout(SEND_TIMEOUT, sender.transfer_all(parcels, taken)).await;
        let outcome = sent.unwrap_or_else(|_| Err(Refusal::of_all("it takes messages too slowly")));
        sender.leave().await;
        outcome
    }

    async fn attach(&self, amqp: &AmqpAddress) -> Result<Sender, Refusal> {
        let stream = self.dial(&amqp.url, amqp.authority.as_deref()).await?;
        let opening = ClientOpening {
            container_id: Text::from_static("muster"),
            hostname: Some(amqp.url.host.as_str().into()),
            properties: Map::EMPTY,
            with_sasl: true,
        };
        let connection = Connection::client(Arc::new(Limits::default()), opening, Instant::now());
        let mut sender = Sender { stream, connection, link: None };
        sender.introduce(amqp).await?;
        sender.attach(&amqp.address).await?;
        Ok(sender)
    }
}

impl Sender {
    /// What the container does next.
    async fn hear(&mut self) -> Result<Event, Refusal> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.connection.poll_event() {
                Some(Event::Closed(reason)) => return Err(closed(&reason)),
                Some(event) => return Ok(event),
                None => {}
            }
            self.flush().await?;
            let heard = timeout(ANSWER_TIMEOUT, self.stream.read(&mut buffer)).await;
            match heard.map_err(|_| Refusal::of_all("no answer in time"))? {
                Ok(0) | Err(_) => self.connection.handle_eof(),
                Ok(count) => self.connection.handle_input(buffer.get(..count).unwrap_or_default(), Instant::now()),
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Refusal> {
        loop {
            let bytes = self.connection.output().to_vec();
            if bytes.is_empty() {
                return Ok(());
            }
            let written = async {
                self.stream.write_all(&bytes).await?;
                self.stream.flush().await
            };
            written.await.map_err(|error| Refusal::of_all(format!("the connection broke off: {error}")))?;
            self.connection.handle_written(bytes.len(), Instant::now());
        }
    }

    /// Shows the credential, if there is one.
    async fn introduce(&mut self, amqp: &AmqpAddress) -> Result<(), Refusal> {
        let Event::SaslMechanisms(offered) = self.hear().await? else {
            return Err(Refusal::of_all("it offers no SASL mechanisms"));
        };
        let (mechanism, response) = match &amqp.user {
            Some(user) => {
                let secret = amqp.secret.as_ref().map_or("", |secret| secret.expose());
                ("PLAIN", format!("\0{user}\0{secret}"))
            }
            None => ("ANONYMOUS", String::new()),
        };
        if !offered.iter().any(|offered| offered.as_str() == mechanism) {
            return Err(Refusal::of_all(format!("it does not offer {mechanism}")));
        }
        let init = SaslInit {
            mechanism: Symbol::from_static(mechanism),
            initial_response: Some(Bytes::from(response)),
            hostname: Some(amqp.url.host.as_str().into()),
        };
        self.connection.sasl_init(init, Instant::now()).map_err(unsent)?;
        match self.hear().await? {
            Event::Open(_) => Ok(()),
            _ => Err(Refusal::of_all("it does not answer the credential")),
        }
    }

    async fn attach(&mut self, address: &str) -> Result<(), Refusal> {
        self.connection.begin().map_err(unsent)?;
        let session = loop {
            if let Event::Begin { session } = self.hear().await? {
                break session;
            }
        };
        let terms = LinkTerms::between(Source::default(), Target::at(address), 0);
        let name: Text = format!("muster-{address}").as_str().into();
        let link = self.connection.attach(session, name, Role::Sender, terms).map_err(unsent)?;
        loop {
            match self.hear().await? {
                Event::Attached { attach, .. } if attach.target.is_some() => break,
                // Some containers answer without a target to links that they take, which then get credit; one that is
                // refused is detached next.
                Event::Credit { .. } => break,
                Event::Detach { error, .. } | Event::End { error, .. } => return Err(ended(error.as_deref())),
                _ => {}
            }
        }
        self.link = Some(link);
        Ok(())
    }

    async fn transfer_all(&mut self, parcels: &[Parcel], taken: &mut usize) -> Result<(), Refusal> {
        let link = self.link.ok_or_else(|| Refusal::of_all("there is no link"))?;
        let mut outcomes: Vec<Option<Result<(), Refusal>>> = vec![None; parcels.len()];
        let mut sent = 0;
        loop {
            while let Some(next) = outcomes.get(*taken) {
                match next {
                    Some(Ok(())) => *taken += 1,
                    Some(Err(refusal)) => return Err(refusal.clone()),
                    None => break,
                }
            }
            if *taken == parcels.len() {
                return Ok(());
            }
            while let Some(parcel) = parcels.get(sent) {
                match self.connection.send(link, delivery(sent, parcel)) {
                    Ok(()) => sent += 1,
                    Err(Unsent::Full) => break,
                    // Told when its turn comes, so that those before it are taken first.
                    Err(error @ Unsent::TooLarge { .. }) if sent == *taken => {
                        return Err(Refusal::of_message(error.to_string()));
                    }
                    Err(Unsent::TooLarge { .. }) => break,
                    Err(error) => return Err(unsent(error)),
                }
            }
            match self.hear().await? {
                Event::Outcome { tag, state, .. } => {
                    let number = tag.first_chunk().map(|bytes: &[u8; 4]| u32::from_be_bytes(*bytes) as usize);
                    if let Some(outcome) = number.and_then(|number| outcomes.get_mut(number)) {
                        *outcome = Some(judge(state.as_ref()));
                    }
                }
                Event::Detach { error, .. } | Event::End { error, .. } => return Err(ended(error.as_deref())),
                _ => {}
            }
        }
    }

    /// Says goodbye; whoever does not hear it loses nothing.
    async fn leave(mut self) {
        self.connection.close(None, Instant::now());
        let leaving = async { while self.hear().await.is_ok() {} };
        let _ = timeout(ANSWER_TIMEOUT, leaving).await;
    }
}

/// A message under the number that its outcome names it by.
fn delivery(number: usize, parcel: &Parcel) -> Outgoing {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    Outgoing {
        tag: Bytes::copy_from_slice(&number.to_be_bytes()),
        message_format: 0,
        settlement: Settlement::Unsettled,
        payload: vec![outgoing(parcel).to_bytes()],
    }
}

/// What became of a message (AMQP 1.0, part 3, section 3.4).
fn judge(state: Option<&DeliveryState>) -> Result<(), Refusal> {
    match state {
        Some(DeliveryState::Accepted) => Ok(()),
        Some(DeliveryState::Rejected(rejected)) => {
            let why = rejected.error.as_ref().map(words).unwrap_or_default();
            Err(Refusal::of_message(format!("it rejects the message{why}")))
        }
        Some(DeliveryState::Released | DeliveryState::Modified(_)) => Err(Refusal::of_all("it gives the message back")),
        _ => Err(Refusal::of_all("it does not say whether it took the message")),
    }
}

fn words(error: &proto::amqp::Error) -> String {
    match &error.description {
        Some(description) => format!(": {}: {description}", error.condition),
        None => format!(": {}", error.condition),
    }
}

fn ended(error: Option<&proto::amqp::Error>) -> Refusal {
    Refusal::of_all(format!("it ends the link{}", error.map(words).unwrap_or_default()))
}

fn unsent(error: Unsent) -> Refusal {
    Refusal::of_all(format!("it cannot be sent to: {error}"))
}

fn closed(reason: &CloseReason) -> Refusal {
    Refusal::of_all(format!("the connection ends: {reason}"))
}
