//! Messages over AMQP 1.0: to an event hub, a queue or a topic, or an address of any container.
//!
//! A message is told as readers of the Event Hubs-compatible endpoint get it, and counts as taken once its receiver has
//! accepted it. Several are under way at once, in their order. Start at [`Outbound::transfer`].

use dialect::hub::events_amqp::event::outgoing;
use domain::route::{AmqpAddress, Parcel, Refusal};
use proto::amqp::{DeliveryState, Event, LinkId, LinkTerms, Role, Source, Target, Unsent};
use tokio::time::timeout;

use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, Outbound, SEND_TIMEOUT};
use crate::amqp::{AmqpConnection, AmqpError, Introduction, Sasl, accepted, words};
use crate::driver::in_time;
use crate::wire::{Wire, WireError};

/// A link to the address, and the connection that it is on.
struct Sender {
    connection: AmqpConnection,
    link: LinkId,
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
        sender.connection.close().await;
        outcome
    }

    async fn attach(&self, amqp: &AmqpAddress) -> Result<Sender, Refusal> {
        let stream = self.dial(&amqp.url, amqp.authority.as_deref()).await?;
        let secret = amqp.secret.as_ref().map_or("", |secret| secret.expose());
        let sasl = match &amqp.user {
            Some(user) => Sasl::Plain { user: user.clone(), password: secret.to_owned() },
            None => Sasl::Anonymous,
        };
        let host = amqp.url.host.as_str();
        let introduction = Introduction { container_id: "muster", host, sasl, answer_timeout: ANSWER_TIMEOUT };
        let opened = AmqpConnection::introduce(Wire::Stream(Box::new(stream)), introduction).await;
        let mut connection = opened.map_err(|error| refusal(&error))?;
        let terms = LinkTerms::between(Source::default(), Target::at(amqp.address.as_str()), 0);
        let name = format!("muster-{}", amqp.address).as_str().into();
        let attached = connection.attach(name, Role::Sender, terms).await;
        Ok(Sender { link: attached.map_err(|error| refusal(&error))?, connection })
    }
}

impl Sender {
    async fn transfer_all(&mut self, parcels: &[Parcel], taken: &mut usize) -> Result<(), Refusal> {
        let mut outcomes: Vec<Option<Result<(), Refusal>>> = vec![None; parcels.len()];
        let mut tags = Vec::with_capacity(parcels.len());
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
            while let Some(parcel) = parcels.get(tags.len()) {
                match self.connection.put(self.link, outgoing(parcel).to_bytes()) {
                    Ok(tag) => tags.push(tag),
                    Err(Unsent::Full) => break,
                    // Told when its turn comes, so that those before it are taken first.
                    Err(error @ Unsent::TooLarge { .. }) if tags.len() == *taken => {
                        return Err(Refusal::of_message(error.to_string()));
                    }
                    Err(Unsent::TooLarge { .. }) => break,
                    Err(error) => return Err(refusal(&error.into())),
                }
            }
            let heard = in_time("what was sent", ANSWER_TIMEOUT, self.connection.next()).await;
            if let Event::Outcome { tag, state, .. } = heard.map_err(|error| refusal(&error))? {
                let place = tags.iter().position(|sent| *sent == tag);
                if let Some(outcome) = place.and_then(|place| outcomes.get_mut(place)) {
                    *outcome = Some(judge(state));
                }
            }
        }
    }
}

/// What became of a message.
fn judge(state: Option<DeliveryState>) -> Result<(), Refusal> {
    let is_back = matches!(state, Some(DeliveryState::Released | DeliveryState::Modified(_)));
    accepted(state).map_err(|error| match error {
        AmqpError::Rejected(error) => Refusal::of_message(format!("it rejects the message{}", words(error.as_deref()))),
        _ if is_back => Refusal::of_all("it gives the message back"),
        _ => Refusal::of_all("it does not say whether it took the message"),
    })
}

/// Why nothing more goes there, as its operator is told.
fn refusal(error: &AmqpError) -> Refusal {
    Refusal::of_all(match error {
        AmqpError::Wire(WireError::Timeout { .. }) => "no answer in time".to_owned(),
        AmqpError::Wire(WireError::Io(error)) => format!("the connection broke off: {error}"),
        AmqpError::Wire(error) => format!("the connection broke off: {error}"),
        AmqpError::Closed(reason) => format!("the connection ends: {reason}"),
        AmqpError::Ended(error) => format!("it ends the link{}", words(error.as_deref())),
        AmqpError::Unsent(error) => format!("it cannot be sent to: {error}"),
        AmqpError::NotOffered(mechanism) => format!("it does not offer {mechanism}"),
        error @ (AmqpError::Rejected(_) | AmqpError::Undecided) => error.to_string(),
    })
}
