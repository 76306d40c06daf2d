//! Routes: tried out, and followed. What goes to an endpoint is read from the log, and never held back from it.
//!
//! An endpoint is told of the log of its hub in the order of each partition by one [`worker`], from a durable cursor: one
//! that is slow or gone holds no device up and no memory. Start at [`Service::perform_route`] and
//! [`Service::run_routes`].

mod health;
mod worker;

use std::time::Duration;

use domain::ids::{EndpointName, HubKey, HubName};
use domain::message::{Message, Origin, StoredPlace};
use domain::operation::identity::IdentityName;
use domain::operation::resource::Place;
use domain::operation::route::{Answer, Ask, Sample};
use domain::operation::session::AuthenticationMethod;
use domain::operation::{Caller, ErrorKind};
use domain::query::document::of_twin;
use domain::query::message::{Surroundings, document};
use domain::resource::Hub;
use domain::route::{Condition, Endpoint, Parcel, Refusal, Route, Routing, Source, events};
use serde_json::{Map, Value};
use store::ports::Told;

use crate::Service;
use crate::error::Error;

pub(crate) use health::Endpoints;

/// Dead letters that one change removes: the writer is not to be held (`rules.md` 11).
const PURGE_PIECE: usize = 100;

/// Sends to endpoints outside. Implemented where sockets are.
#[async_trait::async_trait]
pub trait Courier: Send + Sync {
    /// Counts a delivery as under way until what is given is dropped: the server waits for that when it stops, so that what
    /// was taken is noted. `None` once it stops, when nothing is begun.
    fn begin(&self) -> Option<Box<dyn Send + Sync>>;

    /// Sends `parcels` in their order; gives how many were taken from the first one on, and why not more. Where that is no
    /// refusal, time was up after some: the rest is sent next. Ends in bounded time.
    async fn send(&self, endpoint: &Endpoint, parcels: &[Parcel]) -> (usize, Result<(), Refusal>);
}

/// How endpoints are insisted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteSettings {
    /// How often a message is sent that its endpoint answers and does not take, before it is given up.
    pub attempts_max: u32,
    /// How old a message becomes that its endpoint does not take, before it is given up; less than the log keeps it.
    pub age_max: Duration,
    /// Messages of an endpoint that are kept after they were given up; while there are as many, no more are given up.
    pub dead_letters_max: u64,
    /// The first pause after a failure; each further one is twice as long, with jitter.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl Default for RouteSettings {
    fn default() -> Self {
        Self {
            attempts_max: 10,
            age_max: Duration::from_secs(20 * 3_600),
            dead_letters_max: 1_000,
            pause: Duration::from_millis(500),
            pause_max: Duration::from_secs(60),
        }
    }
}

impl Service {
    /// Performs `ask` for an operator of the management API.
    pub(crate) async fn perform_route(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        self.authorize_operator(caller)?;
        match ask {
            Ask::TestAll { place, hub, source, sample } => {
                self.check_place(&place)?;
                let hub = self.find_hub(&place, &hub)?;
                Ok(Answer::Taking(self.test_all(&hub, source, &sample).await?))
            }
            Ask::TestNew { place, hub, condition, sample } => {
                self.check_place(&place)?;
                let hub = self.find_hub(&place, &hub)?;
                let condition = match Condition::parse(&condition) {
                    Ok(condition) => condition,
                    Err(invalid) => return Ok(Answer::Tested(Err(invalid))),
                };
                let document = self.sample_document(&hub, &sample, &condition).await?;
                Ok(Answer::Tested(Ok(condition.expression().truth(&document))))
            }
            Ask::Health { place, hub } => self.health(&place, &hub).await,
            Ask::ListDeadLetters { hub, endpoint, limit } => {
                let (hub, endpoint) = self.find_endpoint(&hub, &endpoint)?;
                Ok(Answer::DeadLetters(self.0.store.dead_letters(hub, &endpoint, false, limit).await?))
            }
            Ask::Replay { hub, endpoint } => {
                let (hub, endpoint) = self.find_endpoint(&hub, &endpoint)?;
                let replayed = self.0.store.replay_dead_letters(hub, &endpoint).await?;
                self.0.endpoints.wake();
                Ok(Answer::Replayed(replayed))
            }
            Ask::Purge { hub, endpoint } => {
                let (hub, endpoint) = self.find_endpoint(&hub, &endpoint)?;
                let purged = self.purge_letters(hub, &endpoint).await?;
                self.0.endpoints.wake();
                Ok(Answer::Purged(purged))
            }
        }
    }

    async fn purge_letters(&self, hub: HubKey, endpoint: &EndpointName) -> Result<u64, Error> {
        let mut purged = 0;
        loop {
            let piece = self.0.store.purge_dead_letters(hub, endpoint, PURGE_PIECE).await?;
            purged += piece;
            if piece == 0 {
                return Ok(purged);
            }
        }
    }

    fn find_endpoint(&self, hub: &HubName, endpoint: &EndpointName) -> Result<(HubKey, EndpointName), Error> {
        let resources = self.resources();
        let not_found = |what| Error::new(ErrorKind::ResourceNotFound, what);
        let hub = resources.hubs().iter().find(|one| one.name == *hub);
        let hub = hub.ok_or_else(|| not_found("The hub was not found."))?;
        let found = hub.routing.endpoint(endpoint).ok_or_else(|| not_found("The endpoint was not found."))?;
        Ok((hub.key, found.name.clone()))
    }

    async fn test_all(&self, hub: &Hub, source: Option<Source>, sample: &Sample) -> Result<Vec<Route>, Error> {
        let condition = Condition::parse("IS_DEFINED($twin) AND IS_DEFINED($body)").expect("it is a condition");
        let document = self.sample_document(hub, sample, &condition).await?;
        let is_of = |route: &&Route| source.is_none_or(|source| route.source == source);
        let routes = hub.routing.routes.iter().filter(is_of).filter(|route| route.enabled);
        Ok(routes.filter(|route| route.condition.expression().is_true(&document)).cloned().collect())
    }

    /// The document of a message that nobody sent, as far as `condition` looks at it.
    async fn sample_document(
        &self,
        hub: &Hub,
        sample: &Sample,
        condition: &Condition,
    ) -> Result<Map<String, Value>, Error> {
        let message = Message {
            hub: hub.key,
            partition: 0,
            sender: sample.sender.clone(),
            generation: String::new(),
            origin: Origin::Telemetry(AuthenticationMethod::DeviceKey),
            model_id: None,
            draft: sample.message.clone(),
        };
        let expression = condition.expression();
        let twin = match &sample.twin {
            Some(twin) => Some(twin.clone()),
            None if expression.looks_at_twin() => self.twin_document(hub.key, &sample.sender).await?,
            None => None,
        };
        let around = Surroundings { enqueued_at: Some(self.now()), twin: twin.as_ref() };
        Ok(document(&message, around, expression.looks_at_body()))
    }

    async fn twin_document(&self, hub: HubKey, name: &IdentityName) -> Result<Option<Map<String, Value>>, Error> {
        Ok(self.0.store.find_twin(hub, name).await?.map(|(twin, identity)| of_twin(&twin, &identity)))
    }

    /// Whether a message goes to `endpoint`, by the routes of its hub.
    async fn leads_to(
        &self,
        routing: &Routing,
        endpoint: &EndpointName,
        message: &Message,
        place: StoredPlace,
    ) -> Result<bool, Error> {
        let source = Source::of(message.origin);
        if !routing.can_lead_to(endpoint, source) {
            return Ok(false);
        }
        if routing.always_leads_to(endpoint, source) {
            return Ok(true);
        }
        let twin = match routing.looks_at_twin(source) {
            true => self.twin_document(message.hub, &message.sender).await?,
            false => None,
        };
        let around = Surroundings { enqueued_at: Some(place.enqueued_at), twin: twin.as_ref() };
        Ok(routing.leads_to(endpoint, source, &routing.document(message, around)))
    }

    /// Whether a message of the log reaches the built-in endpoint, which Event Hubs' clients read; those of a hub that has
    /// gone do not.
    pub(crate) async fn reaches_events(&self, message: &Message, place: StoredPlace) -> Result<bool, Error> {
        let resources = self.resources();
        let Some(hub) = resources.hub(message.hub) else { return Ok(false) };
        self.leads_to(&hub.routing, &events(), message, place).await
    }

    /// Has every endpoint of a hub begin that has not, behind what is in the log, and forgets those that have gone. To be
    /// called after a hub was changed and before that is answered: what is acknowledged from then on reaches them.
    pub(crate) async fn settle_endpoints(&self, hub: &Hub) -> Result<(), Error> {
        for known in self.0.store.known_endpoints(hub.key).await? {
            if hub.routing.endpoint(&known).is_none() {
                self.purge_letters(hub.key, &known).await?;
                self.0.store.forget_endpoint(hub.key, &known).await?;
                self.0.endpoints.forget(hub.key, &known);
            }
        }
        if hub.routing.endpoints.is_empty() {
            return Ok(());
        }
        let mut newest: Vec<Told> = Vec::with_capacity(usize::from(hub.partitions));
        for partition in 0..hub.partitions {
            let bounds = self.0.telemetry.bounds(hub.key, partition).await?;
            newest.push(bounds.map(|(_, newest)| newest.sequence));
        }
        for endpoint in &hub.routing.endpoints {
            self.0.store.begin_endpoint(hub.key, &endpoint.name, newest.clone()).await?;
        }
        Ok(())
    }

    async fn health(&self, place: &Place, hub: &HubName) -> Result<Answer, Error> {
        self.check_place(place)?;
        let hub = self.find_hub(place, hub)?;
        let mut shown = vec![health::built_in()];
        for endpoint in &hub.routing.endpoints {
            let letters = self.0.store.count_dead_letters(hub.key, &endpoint.name).await?;
            shown.push(self.0.endpoints.health(hub.key, &endpoint.name, letters));
        }
        Ok(Answer::Health(shown))
    }
}
