//! Resource operations in Azure Resource Manager's form (`contract/control-plane.md 2` to `5`).
//!
//! Paths are compared without case and doubled slashes passed over, any api-version is taken, and what a body says beyond
//! what is known is kept. Long operations are answered when they are done, so that nobody polls. Start at [`decode`].

use bytes::Bytes;
use domain::ids::{CertificateName, HubName, InvalidName, PolicyName, Precondition, ServiceName};
use domain::operation::resource::{Answer, Ask, CertificateAsk, ConsumerGroupAsk, Place, ResourceName};
use domain::operation::{ErrorKind, Failure, Operation, Reply};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::arm_json::{self as shape, Keys};
use super::{internal, refuse, routing, transfers};
use crate::error::Refused;
use crate::http::{Target, empty, is, json as respond, parse_precondition, precondition};
use crate::json::{self, InvalidJson, members, object, text};

/// What an answer needs to know of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The subscription, in a list or alone.
    Subscription {
        /// Whether a list was asked for.
        listed: bool,
    },
    /// The tenant.
    Tenants,
    /// Where resources can be.
    Locations,
    /// What kinds of resources there are.
    Provider,
    /// Resource groups of this subscription.
    Group {
        /// As the path names it.
        subscription: String,
        /// Whether only its existence was asked for.
        only_existence: bool,
    },
    /// A hub or a provisioning service; its keys are shown to whoever set them.
    Resource(Keys),
    /// The sizes that a resource can have.
    Sizes,
    /// CA certificates of a resource.
    Certificate {
        /// Where the resource is.
        place: Place,
        /// Which it is.
        owner: ResourceName,
        /// Whether a verification code was asked for, and is shown.
        with_code: bool,
    },
    /// Consumer groups.
    ConsumerGroup {
        /// Where the hub is.
        place: Place,
        /// Which it is.
        hub: ResourceName,
    },
    /// Nothing.
    Other,
}

type Decoded = Result<(Ask, Asked), Refused>;

/// Whether `target` belongs to this dialect.
pub fn owns(target: &Target) -> bool {
    target.segments().first().is_some_and(|first| is(first, "subscriptions") || is(first, "tenants"))
}

/// Turns a request into an operation, or into its refusal.
pub fn decode(request: &Request<Bytes>, target: &Target) -> Result<(Operation, Asked), Refused> {
    target.api_version()?;
    let segments = target.segments();
    if let [word, subscription, groups, group, providers, provider, hubs, name, rest @ ..] = segments.as_slice()
        && is(word, "subscriptions")
        && is(groups, "resourceGroups")
        && is(providers, "providers")
        && is(provider, "Microsoft.Devices")
        && is(hubs, "IotHubs")
        && (routing::owns(rest) || transfers::owns(rest))
    {
        let place = Place { subscription: (*subscription).to_owned(), group: Some((*group).to_owned()) };
        let hub = HubName::parse(name).map_err(|invalid| bad_name(&invalid))?;
        let decode = if routing::owns(rest) { routing::decode } else { transfers::decode };
        return Ok((decode(request, place, hub, rest)?, Asked::Other));
    }
    let (ask, asked) = match segments.as_slice() {
        [word] if is(word, "tenants") => read_only(request, Ask::ListSubscriptions, Asked::Tenants),
        [_] => read_only(request, Ask::ListSubscriptions, Asked::Subscription { listed: true }),
        [word, id, rest @ ..] if is(word, "subscriptions") => decode_inside(request, id, rest),
        _ => Err(Refused::nothing_here()),
    }?;
    Ok((Operation::Resource(ask), asked))
}

fn read_only(request: &Request<Bytes>, ask: Ask, asked: Asked) -> Decoded {
    if request.method() == Method::GET { Ok((ask, asked)) } else { Err(Refused::wrong_method()) }
}

fn decode_inside(request: &Request<Bytes>, subscription: &str, rest: &[&str]) -> Decoded {
    let place = |group: Option<&str>| Place { subscription: subscription.to_owned(), group: group.map(str::to_owned) };
    let find = Ask::FindSubscription(subscription.to_owned());
    match rest {
        [] => read_only(request, find, Asked::Subscription { listed: false }),
        [word] if is(word, "locations") => read_only(request, find, Asked::Locations),
        [word] if is(word, "resourceGroups") => {
            let asked = Asked::Group { subscription: subscription.to_owned(), only_existence: false };
            read_only(request, Ask::ListGroups(place(None)), asked)
        }
        [word, name] if is(word, "resourceGroups") => decode_group(request, place(None), name),
        [word, provider, rest @ ..] if is(word, "providers") && is(provider, "Microsoft.Devices") => {
            decode_devices(request, place(None), rest)
        }
        [word, group, providers, provider, rest @ ..]
            if is(word, "resourceGroups") && is(providers, "providers") && is(provider, "Microsoft.Devices") =>
        {
            decode_devices(request, place(Some(group)), rest)
        }
        _ => Err(Refused::nothing_here()),
    }
}

fn decode_group(request: &Request<Bytes>, place: Place, name: &str) -> Decoded {
    let name = name.to_owned();
    let only_existence = request.method() == Method::HEAD;
    let asked = Asked::Group { subscription: place.subscription.clone(), only_existence };
    let ask = match *request.method() {
        Method::GET | Method::HEAD => Ask::FindGroup { place, name },
        Method::DELETE => Ask::DeleteGroup { place, name },
        Method::PUT => {
            let body = read_object(request.body())?;
            let (location, tags) = (text(&body, "location")?.unwrap_or_default(), shape::parse_tags(&body)?);
            Ask::PutGroup { place, name, location, tags: tags.unwrap_or_default() }
        }
        _ => return Err(Refused::wrong_method()),
    };
    Ok((ask, asked))
}

/// The kinds of resources there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hub,
    Service,
}

impl Kind {
    fn of(collection: &str) -> Option<Self> {
        match () {
            () if is(collection, "IotHubs") => Some(Self::Hub),
            () if is(collection, "provisioningServices") => Some(Self::Service),
            () => None,
        }
    }

    /// The collection of policies in paths.
    const fn policies(self) -> &'static str {
        match self {
            Self::Hub => "IotHubKeys",
            Self::Service => "keys",
        }
    }

    fn name(self, name: &str) -> Result<ResourceName, Refused> {
        Ok(match self {
            Self::Hub => ResourceName::Hub(HubName::parse(name).map_err(|invalid| bad_name(&invalid))?),
            Self::Service => ResourceName::Service(ServiceName::parse(name).map_err(|invalid| bad_name(&invalid))?),
        })
    }
}

fn bad_name(invalid: &InvalidName) -> Refused {
    Refused::new(ErrorKind::InvalidArgument, format!("The name: {invalid}."))
}

fn decode_devices(request: &Request<Bytes>, place: Place, rest: &[&str]) -> Decoded {
    let is_post = request.method() == Method::POST;
    let find = Ask::FindSubscription(place.subscription.clone());
    match rest {
        [] => read_only(request, find, Asked::Provider),
        [word] if is(word, "register") && is_post => Ok((find, Asked::Provider)),
        [word] if is(word, "checkNameAvailability") && is_post => {
            Ok((Ask::CheckHubName { place, name: wanted_name(request.body())? }, Asked::Other))
        }
        [word] if is(word, "checkProvisioningServiceNameAvailability") && is_post => {
            Ok((Ask::CheckServiceName { place, name: wanted_name(request.body())? }, Asked::Other))
        }
        [collection, rest @ ..] => match (Kind::of(collection), rest) {
            (None, _) => Err(Refused::nothing_here()),
            (Some(Kind::Hub), []) => read_only(request, Ask::ListHubs(place), Asked::Other),
            (Some(Kind::Service), []) => read_only(request, Ask::ListServices(place), Asked::Other),
            (Some(kind), [name, rest @ ..]) => decode_resource(request, place, (kind, kind.name(name)?), rest),
        },
    }
}

fn wanted_name(body: &Bytes) -> Result<String, Refused> {
    let body = read_object(body)?;
    Ok(text(&body, "name")?.ok_or(InvalidJson::Missing { member: "name" })?)
}

fn decode_resource(
    request: &Request<Bytes>,
    place: Place,
    (kind, name): (Kind, ResourceName),
    rest: &[&str],
) -> Decoded {
    let is_post = request.method() == Method::POST;
    match rest {
        [] => decode_whole(request, place, name),
        [word] if is(word, "skus") => read_only(request, Ask::Find { place, name }, Asked::Sizes),
        [word] if is(word, "listkeys") && is_post => Ok((Ask::ListPolicies { place, name }, Asked::Other)),
        [word, policy, last] if is(word, kind.policies()) && is(last, "listkeys") && is_post => {
            let policy = PolicyName::parse(policy).map_err(|invalid| bad_name(&invalid))?;
            Ok((Ask::FindPolicy { place, name, policy }, Asked::Other))
        }
        [word, endpoint, groups, rest @ ..]
            if is(word, "eventHubEndpoints") && is(endpoint, EVENTS_ENDPOINT) && is(groups, "ConsumerGroups") =>
        {
            decode_consumer_group(request, place, name, rest)
        }
        [word, rest @ ..] if is(word, "certificates") => {
            let (request, with_code) = decode_certificate(request, rest)?;
            let asked = Asked::Certificate { place: place.clone(), owner: name.clone(), with_code };
            Ok((Ask::Certificate { place, owner: name, request }, asked))
        }
        _ => Err(Refused::nothing_here()),
    }
}

fn decode_whole(request: &Request<Bytes>, place: Place, name: ResourceName) -> Decoded {
    match *request.method() {
        Method::GET => Ok((Ask::Find { place, name }, Asked::Resource(Keys::Hidden))),
        Method::DELETE => Ok((Ask::Delete { place, name }, Asked::Other)),
        Method::PATCH => {
            let body = read_object(request.body())?;
            let tags = shape::parse_tags(&body)?.ok_or(InvalidJson::Missing { member: "tags" })?;
            Ok((Ask::PatchTags { place, name, tags }, Asked::Resource(Keys::Hidden)))
        }
        Method::PUT => {
            let body = read_object(request.body())?;
            let precondition = demanded(request, &body)?;
            Ok(match name {
                ResourceName::Hub(name) => {
                    let draft = Box::new(shape::parse_hub(&body)?);
                    // One client reads the policies that it put from the answer (section 3.7).
                    let keys = if draft.policies.is_some() { Keys::Shown } else { Keys::Hidden };
                    (Ask::PutHub { place, name, draft, precondition }, Asked::Resource(keys))
                }
                ResourceName::Service(name) => {
                    let draft = Box::new(shape::parse_service(&body)?);
                    (Ask::PutService { place, name, draft, precondition }, Asked::Resource(Keys::Hidden))
                }
            })
        }
        _ => Err(Refused::wrong_method()),
    }
}

/// The version that must be present: the header's or, since one client sends no other, the body's (section 2).
fn demanded(request: &Request<Bytes>, body: &Value) -> Result<Precondition, Refused> {
    Ok(match precondition(request.headers(), shape::parse_etag) {
        Precondition::None => parse_precondition(&text(body, "etag")?.unwrap_or_default(), shape::parse_etag),
        demanded => demanded,
    })
}

/// The one endpoint of a hub that is read like an event hub.
const EVENTS_ENDPOINT: &str = "events";

fn decode_consumer_group(request: &Request<Bytes>, place: Place, hub: ResourceName, rest: &[&str]) -> Decoded {
    let ResourceName::Hub(name) = &hub else { return Err(Refused::nothing_here()) };
    let asked = match (request.method(), rest) {
        (&Method::GET, []) => ConsumerGroupAsk::List,
        (&Method::GET, [group]) => ConsumerGroupAsk::Find((*group).to_owned()),
        (&Method::PUT, [group]) => ConsumerGroupAsk::Put((*group).to_owned()),
        (&Method::DELETE, [group]) => ConsumerGroupAsk::Delete((*group).to_owned()),
        (_, [] | [_]) => return Err(Refused::wrong_method()),
        _ => return Err(Refused::nothing_here()),
    };
    let ask = Ask::ConsumerGroup { place: place.clone(), hub: name.clone(), request: asked };
    Ok((ask, Asked::ConsumerGroup { place, hub }))
}

/// Whether the answer shows a verification code is said beside.
fn decode_certificate(request: &Request<Bytes>, rest: &[&str]) -> Result<(CertificateAsk, bool), Refused> {
    let precondition = precondition(request.headers(), shape::parse_etag);
    let name = |text: &str| CertificateName::parse(text).map_err(|invalid| bad_name(&invalid));
    let (with_code, without) = (true, false);
    Ok(match (request.method(), rest) {
        (&Method::GET, []) => (CertificateAsk::List, without),
        (&Method::GET, [text]) => (CertificateAsk::Find(name(text)?), without),
        (&Method::DELETE, [text]) => (CertificateAsk::Delete { name: name(text)?, precondition }, without),
        (&Method::PUT, [text]) => {
            let (certificate, verified) = shape::parse_certificate(&read_object(request.body())?)?;
            let certificate = Box::new(certificate);
            (CertificateAsk::Put { name: name(text)?, certificate, verified, precondition }, without)
        }
        (&Method::POST, [text, step]) if is(step, "generateVerificationCode") => {
            (CertificateAsk::GenerateCode { name: name(text)?, precondition }, with_code)
        }
        (&Method::POST, [text, step]) if is(step, "verify") => {
            let (proof, _) = shape::parse_certificate(&read_object(request.body())?)?;
            (CertificateAsk::Verify { name: name(text)?, proof: Box::new(proof), precondition }, without)
        }
        (_, [] | [_]) => return Err(Refused::wrong_method()),
        _ => return Err(Refused::nothing_here()),
    })
}

fn read_object(body: &Bytes) -> Result<Value, Refused> {
    let body = json::parse(body)?;
    // Reads nothing: it refuses properties that are no object before anybody looks into them.
    object(&body, "properties")?;
    if body.is_object() { Ok(body) } else { Err(InvalidJson::Type { member: "the body", wanted: "an object" }.into()) }
}

/// Turns the reply into a response.
pub fn encode(reply: Result<Reply, Failure>, asked: &Asked) -> Response<Bytes> {
    let answer = match reply {
        Ok(Reply::Resource(answer)) => answer,
        Ok(Reply::Route(answer)) => return routing::encode(Ok(Reply::Route(answer))),
        Ok(Reply::Transfer(answer)) => return transfers::encode(&answer),
        Ok(_) => return internal(),
        Err(failure) => return refuse(&failure),
    };
    match answer {
        Answer::Subscription { id, tenant } => respond(StatusCode::OK, &show_subscription(&id, &tenant, asked)),
        Answer::Group(_) if matches!(asked, Asked::Group { only_existence: true, .. }) => empty(StatusCode::NO_CONTENT),
        Answer::Group(group) => respond(StatusCode::OK, &shape::show_group(&group, subscription_of(asked))),
        Answer::Groups(groups) => {
            list(groups.iter().map(|group| shape::show_group(group, subscription_of(asked))).collect())
        }
        Answer::Hub { .. } | Answer::Service { .. } if *asked == Asked::Sizes => list(shape::sizes(&answer)),
        Answer::Hub { hub, created } => respond(made(created), &shape::show_hub(&hub, keys_of(asked))),
        Answer::Service { service, created } => respond(made(created), &shape::show_service(&service)),
        Answer::Hubs(hubs) => list(hubs.iter().map(|hub| shape::show_hub(hub, Keys::Hidden)).collect()),
        Answer::Services(services) => list(services.iter().map(shape::show_service).collect()),
        Answer::Deleted { existed: true } => empty(StatusCode::OK),
        Answer::Deleted { existed: false } => empty(StatusCode::NO_CONTENT),
        Answer::Policies(policies) => list(policies.iter().map(shape::show_policy).collect()),
        Answer::Policy(policy) => respond(StatusCode::OK, &shape::show_policy(&policy)),
        Answer::NameCheck { available, reason } => {
            respond(StatusCode::OK, &shape::show_name_check(available, reason.as_ref()))
        }
        // Clients of provisioning services take no other status, not even for a new one (section 3.6).
        Answer::Certificate { certificate, .. } => match asked {
            Asked::Certificate { place, owner, with_code } => {
                respond(StatusCode::OK, &shape::show_certificate(&certificate, (place, owner), *with_code))
            }
            _ => internal(),
        },
        Answer::ConsumerGroup(group) => match asked {
            Asked::ConsumerGroup { place, hub } => {
                respond(StatusCode::OK, &shape::show_consumer_group(&group, (place, hub)))
            }
            _ => internal(),
        },
        Answer::ConsumerGroups(groups) => match asked {
            Asked::ConsumerGroup { place, hub } => {
                list(groups.iter().map(|group| shape::show_consumer_group(group, (place, hub))).collect())
            }
            _ => internal(),
        },
        Answer::Certificates(certificates) => match asked {
            Asked::Certificate { place, owner, .. } => {
                let show = |certificate| shape::show_certificate(certificate, (place, owner), false);
                respond(StatusCode::OK, &json!({ "value": certificates.iter().map(show).collect::<Vec<_>>() }))
            }
            _ => internal(),
        },
    }
}

fn show_subscription(id: &str, tenant: &str, asked: &Asked) -> Value {
    match asked {
        Asked::Subscription { listed: false } => shape::show_subscription(id, tenant),
        Asked::Tenants => json!({ "value": [{ "id": format!("/tenants/{tenant}"), "tenantId": tenant }] }),
        Asked::Locations => json!({ "value": [shape::show_location(id)] }),
        Asked::Provider => shape::show_provider(id),
        _ => json!({ "value": [shape::show_subscription(id, tenant)], "nextLink": null }),
    }
}

fn subscription_of(asked: &Asked) -> &str {
    match asked {
        Asked::Group { subscription, .. } => subscription,
        _ => "",
    }
}

const fn keys_of(asked: &Asked) -> Keys {
    match asked {
        Asked::Resource(keys) => *keys,
        _ => Keys::Hidden,
    }
}

const fn made(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::OK }
}

fn list(items: Vec<Value>) -> Response<Bytes> {
    respond(StatusCode::OK, &Value::Object(members([("value", Value::Array(items)), ("nextLink", Value::Null)])))
}

#[cfg(test)]
mod tests;
