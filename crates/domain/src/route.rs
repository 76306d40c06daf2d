//! Routes: which of a hub's messages go to which endpoints (`contract/control-plane.md 4.2`).
//!
//! A hub has routes, endpoints, and a fallback for what no route takes. A condition is of the query language
//! ([`crate::query::parse_condition`]) and was understood before a route exists. Nothing here sends anything. Start at
//! [`Routing`].

mod endpoint;

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::ids::{EndpointName, HubName, RouteName};
use crate::message::{EventSource, Message, Origin, StoredPlace};
use crate::query::message::{Surroundings, document};
use crate::query::{Expression, InvalidQuery, parse_condition};

pub use endpoint::{
    AmqpAddress, AmqpKind, Endpoint, InvalidEndpoint, MASK, NatsSubject, SecretText, Target, Url, Webhook, WebhookMode,
};

/// Most routes of a hub.
pub const ROUTES_MAX: usize = 100;
/// Most endpoints of a hub beside the built-in one.
pub const ENDPOINTS_MAX: usize = 10;
/// The built-in endpoint, which the Event Hubs-compatible side of a hub reads.
pub const EVENTS: &str = "events";
/// Names that no endpoint can be given.
const RESERVED: [&str; 4] = [EVENTS, "fileNotifications", "$default", "operationsMonitoringEvents"];

/// What a hub does with its messages.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Routing {
    /// Endpoints beside the built-in one.
    pub endpoints: Vec<Endpoint>,
    /// Routes in the operator's order; all are tried.
    pub routes: Vec<Route>,
    /// Where messages go that no route takes.
    pub fallback: Fallback,
}

/// Routes and endpoints as an operator writes them, secrets perhaps masked.
#[derive(Clone, Debug)]
pub struct RoutingDraft {
    /// What is written.
    pub routing: Routing,
    /// Kinds of endpoints that were not written of at all, and stay as they are: clients made for Azure know none of
    /// them, and send back what they know.
    pub unsaid: Vec<OwnKind>,
}

/// Kinds of endpoints that Azure has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnKind {
    /// Webhooks.
    Webhook,
    /// NATS subjects.
    Nats,
    /// AMQP addresses that are neither event hub, queue nor topic.
    Container,
}

/// A route.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// What it looks at.
    pub source: Source,
    /// What it takes of that.
    pub condition: Condition,
    /// Where that goes.
    pub endpoint: EndpointName,
    /// Whether it takes anything.
    pub enabled: bool,
}

/// Where messages of devices go that no route takes.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Fallback {
    /// Its name.
    pub name: RouteName,
    /// Where they go.
    pub endpoint: EndpointName,
    /// Whether they go anywhere.
    pub enabled: bool,
}

/// What a route looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Source {
    /// What devices send.
    DeviceMessages,
    /// Changes of twins.
    TwinChangeEvents,
    /// Identities made and removed.
    DeviceLifecycleEvents,
    /// Devices that connect and disconnect.
    DeviceConnectionStateEvents,
    /// Changes of digital twins.
    DigitalTwinChangeEvents,
}

impl Source {
    /// All sources.
    pub const ALL: [Self; 5] = [
        Self::DeviceMessages,
        Self::TwinChangeEvents,
        Self::DeviceLifecycleEvents,
        Self::DeviceConnectionStateEvents,
        Self::DigitalTwinChangeEvents,
    ];

    /// As routes and conditions write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceMessages => "DeviceMessages",
            Self::TwinChangeEvents => "TwinChangeEvents",
            Self::DeviceLifecycleEvents => "DeviceLifecycleEvents",
            Self::DeviceConnectionStateEvents => "DeviceConnectionStateEvents",
            Self::DigitalTwinChangeEvents => "DigitalTwinChangeEvents",
        }
    }

    /// What a message is to routes.
    pub const fn of(origin: Origin) -> Self {
        match origin {
            Origin::Telemetry(_) => Self::DeviceMessages,
            Origin::Hub(EventSource::TwinChange) => Self::TwinChangeEvents,
            Origin::Hub(EventSource::Lifecycle) => Self::DeviceLifecycleEvents,
            Origin::Hub(EventSource::ConnectionState) => Self::DeviceConnectionStateEvents,
            Origin::Hub(EventSource::DigitalTwinChange) => Self::DigitalTwinChangeEvents,
        }
    }

    /// The source of this name, in any letter case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name().eq_ignore_ascii_case(name))
    }
}

/// A condition that was understood. Kept as its text.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Condition {
    text: String,
    expression: Expression,
}

impl Condition {
    /// Reads a condition; nothing at all takes everything.
    pub fn parse(text: &str) -> Result<Self, InvalidQuery> {
        let read = if text.trim().is_empty() { "true" } else { text };
        Ok(Self { text: read.to_owned(), expression: parse_condition(read)? })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it means.
    pub fn expression(&self) -> &Expression {
        &self.expression
    }
}

impl TryFrom<String> for Condition {
    type Error = InvalidQuery;

    fn try_from(text: String) -> Result<Self, InvalidQuery> {
        Self::parse(&text)
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.text
    }
}

/// Why a hub cannot route as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRouting {
    /// More routes than a hub has.
    #[error("a hub has at most {ROUTES_MAX} routes")]
    TooManyRoutes,
    /// More endpoints than a hub has.
    #[error("a hub has at most {ENDPOINTS_MAX} endpoints beside the built-in one")]
    TooManyEndpoints,
    /// Two routes of one name.
    #[error("route {0} is named twice")]
    RouteTwice(RouteName),
    /// Two endpoints of one name.
    #[error("endpoint {0} is named twice")]
    EndpointTwice(EndpointName),
    /// The name of an endpoint means something else.
    #[error("{0} is the name of a built-in endpoint")]
    Reserved(EndpointName),
    /// A route leads to an endpoint that is not there.
    #[error("route {route} leads to {endpoint}, which is no endpoint of the hub")]
    NoEndpoint {
        /// Which route.
        route: RouteName,
        /// Which endpoint.
        endpoint: EndpointName,
    },
    /// An endpoint cannot be as it is written.
    #[error("endpoint {endpoint}: {reason}")]
    Endpoint {
        /// Which.
        endpoint: EndpointName,
        /// Why.
        reason: InvalidEndpoint,
    },
}

impl Default for Routing {
    /// Everything goes to the built-in endpoint.
    fn default() -> Self {
        Self { endpoints: Vec::new(), routes: Vec::new(), fallback: Fallback::default() }
    }
}

impl Default for Fallback {
    fn default() -> Self {
        Self {
            name: RouteName::parse("$fallback").expect("the name keeps the rules"),
            endpoint: EndpointName::parse(EVENTS).expect("the name keeps the rules"),
            enabled: true,
        }
    }
}

impl Routing {
    /// Checks what an operator wrote over `present`, from which masked secrets are taken.
    pub fn settle(draft: RoutingDraft, present: &Self) -> Result<Self, InvalidRouting> {
        let RoutingDraft { mut routing, unsaid } = draft;
        let stays = |endpoint: &&Endpoint| endpoint.target.own_kind().is_some_and(|kind| unsaid.contains(&kind));
        routing.endpoints.extend(present.endpoints.iter().filter(stays).cloned());
        routing.check(present)
    }

    fn check(mut self, present: &Self) -> Result<Self, InvalidRouting> {
        if self.routes.len() > ROUTES_MAX {
            return Err(InvalidRouting::TooManyRoutes);
        }
        if self.endpoints.len() > ENDPOINTS_MAX {
            return Err(InvalidRouting::TooManyEndpoints);
        }
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(endpoint.name.as_str())) {
                return Err(InvalidRouting::Reserved(endpoint.name.clone()));
            }
            if self.endpoints.iter().skip(index + 1).any(|other| other.name == endpoint.name) {
                return Err(InvalidRouting::EndpointTwice(endpoint.name.clone()));
            }
        }
        for endpoint in &mut self.endpoints {
            let kept = present.endpoint(&endpoint.name);
            endpoint
                .settle(kept)
                .map_err(|reason| InvalidRouting::Endpoint { endpoint: endpoint.name.clone(), reason })?;
        }
        for (index, route) in self.routes.iter().enumerate() {
            if self.routes.iter().skip(index + 1).any(|other| other.name == route.name) {
                return Err(InvalidRouting::RouteTwice(route.name.clone()));
            }
            self.check_target(&route.name, &route.endpoint)?;
        }
        self.check_target(&self.fallback.name, &self.fallback.endpoint)?;
        Ok(self)
    }

    fn check_target(&self, route: &RouteName, endpoint: &EndpointName) -> Result<(), InvalidRouting> {
        if is_events(endpoint) || self.endpoint(endpoint).is_some() {
            return Ok(());
        }
        Err(InvalidRouting::NoEndpoint { route: route.clone(), endpoint: endpoint.clone() })
    }

    /// The endpoint of this name, the built-in one aside.
    pub fn endpoint(&self, name: &EndpointName) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.name == *name)
    }

    /// Routes that take from `source`.
    fn active(&self, source: Source) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |route| route.enabled && route.source == source)
    }

    /// The routes that take a message of `source` with this document ([`crate::query::message`]).
    pub fn taking<'a>(&'a self, source: Source, document: &'a Map<String, Value>) -> impl Iterator<Item = &'a Route> {
        self.active(source).filter(|route| route.condition.expression.is_true(document))
    }

    /// Whether a message of `source` with this document goes to `endpoint`; one that several routes take goes there once.
    pub fn leads_to(&self, endpoint: &EndpointName, source: Source, document: &Map<String, Value>) -> bool {
        let is_fallback = self.falls_back_to(endpoint, source);
        let mut is_taken = false;
        for route in self.taking(source, document) {
            if route.endpoint == *endpoint {
                return true;
            }
            is_taken = true;
            // Whether another one takes it as well matters only to where it goes.
            if !self.active(source).any(|route| route.endpoint == *endpoint) {
                return false;
            }
        }
        is_fallback && !is_taken
    }

    /// Whether messages of devices that no route takes go to `endpoint`.
    fn falls_back_to(&self, endpoint: &EndpointName, source: Source) -> bool {
        source == Source::DeviceMessages && self.fallback.enabled && self.fallback.endpoint == *endpoint
    }

    /// Whether anybody wants what is of `source`.
    pub fn takes(&self, source: Source) -> bool {
        self.active(source).next().is_some() || (source == Source::DeviceMessages && self.fallback.enabled)
    }

    /// Whether anything of `source` can go to `endpoint`.
    pub fn can_lead_to(&self, endpoint: &EndpointName, source: Source) -> bool {
        self.falls_back_to(endpoint, source) || self.active(source).any(|route| route.endpoint == *endpoint)
    }

    /// Whether everything of `source` goes to `endpoint`, whatever it is.
    pub fn always_leads_to(&self, endpoint: &EndpointName, source: Source) -> bool {
        self.active(source).next().is_none() && self.falls_back_to(endpoint, source)
    }

    /// Whether the sender's twin decides where something of `source` goes.
    pub fn looks_at_twin(&self, source: Source) -> bool {
        self.active(source).any(|route| route.condition.expression.looks_at_twin())
    }

    /// The document of a message, as far as the routes of its source look at it.
    pub fn document(&self, message: &Message, around: Surroundings<'_>) -> Map<String, Value> {
        let source = Source::of(message.origin);
        let with_body = self.active(source).any(|route| route.condition.expression.looks_at_body());
        document(message, around, with_body)
    }
}

/// Whether the built-in endpoint is meant.
pub fn is_events(endpoint: &EndpointName) -> bool {
    endpoint.as_str().eq_ignore_ascii_case(EVENTS)
}

/// The name of the built-in endpoint.
pub fn events() -> EndpointName {
    EndpointName::parse(EVENTS).expect("the name keeps the rules")
}

/// What is sent to an endpoint: a message, where it stands, and of which hub it is.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The name of the hub.
    pub hub: HubName,
    /// Where the message stands in its partition.
    pub place: StoredPlace,
    /// The message.
    pub message: Arc<Message>,
}

/// Why an endpoint did not take what it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    text: Box<str>,
    /// Whether it was this message that it would not take, as opposed to any.
    pub is_of_message: bool,
}

impl Refusal {
    /// Most characters of its text: an endpoint may say anything, and it is kept with each message that is given up.
    pub const TEXT_CHARS_MAX: usize = 500;

    /// The endpoint takes nothing, for now.
    pub fn of_all(text: impl AsRef<str>) -> Self {
        Self { text: bounded(text.as_ref()), is_of_message: false }
    }

    /// The endpoint does not take this message.
    pub fn of_message(text: impl AsRef<str>) -> Self {
        Self { text: bounded(text.as_ref()), is_of_message: true }
    }

    /// In words, without secrets and without control characters.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn bounded(text: &str) -> Box<str> {
    let plain = |character: char| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
    text.chars().take(Refusal::TEXT_CHARS_MAX).map(plain).collect::<String>().into()
}

#[cfg(test)]
mod tests;
