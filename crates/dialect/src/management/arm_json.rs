//! Hubs, provisioning services and what belongs to them as Resource Manager writes them
//! (`contract/control-plane.md 4`).
//!
//! Keys leave only where [`Keys::Shown`] is said or a policy was asked for by name; a link's key never does. Start at
//! [`parse_hub`] and [`show_hub`].

mod file_settings;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::certificate::Certificate;
use domain::cloud_to_device::QueueSettings;
use domain::ids::{Etag, PolicyName};
use domain::operation::ErrorKind;
use domain::operation::resource::{
    Answer, HubDraft, LinkCredential, LinkDraft, NameRefusal, Place, PolicyDraft, QueueDraft, ResourceName,
    ServiceDraft, ShownHub, ShownService,
};
use domain::resource::{CaCertificate, ConsumerGroup, LinkedHub, Policy, ResourceGroup};
use domain::sas::SymmetricKey;
use serde_json::{Map, Value, json};

use super::{routing_json, unenforced};
use crate::error::Refused;
use crate::json::{InvalidJson, boolean, object, text};
use crate::provisioning::service_json::{allocation_word, parse_allocation_word};
use crate::time;

const HUB_TYPE: &str = "Microsoft.Devices/IotHubs";
const SERVICE_TYPE: &str = "Microsoft.Devices/ProvisioningServices";
/// Most tags of a resource.
const TAGS_MAX: usize = 50;
/// Longest name of a tag.
const TAG_NAME_CHARS_MAX: usize = 512;
/// Longest value of a tag.
const TAG_VALUE_CHARS_MAX: usize = 256;
/// What stands in the place of a link's key.
const MASK: &str = "****";
/// Properties that are answered and never taken: they come back in every change that a client makes.
const READ_ONLY: [&str; 11] = [
    "state",
    "provisioningState",
    "hostName",
    "idScope",
    "serviceOperationsHostName",
    "deviceProvisioningHostName",
    "privateEndpointConnections",
    "locations",
    "eventHubEndpoints",
    "authorizationPolicies",
    "rootCertificate",
];

/// How much of the keys an answer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// All of them.
    Shown,
    /// None.
    Hidden,
}

/// The spelling of an etag: hexadecimal, so that it can stand in a header bare.
pub fn etag_text(etag: Etag) -> String {
    format!("{:016x}", etag.number())
}

/// Reads what [`etag_text`] wrote, and nothing else.
pub fn parse_etag(text: &str) -> Option<Etag> {
    let etag = Etag::from_number(u64::from_str_radix(text, 16).ok()?);
    Some(etag).filter(|etag| etag_text(*etag) == text)
}

/// The labels of a resource: at most [`TAGS_MAX`] texts, each with a name, within Resource Manager's bounds.
pub fn parse_tags(body: &Value) -> Result<Option<Map<String, Value>>, InvalidJson> {
    let tags = map(body, "tags")?;
    let is_tag = |(name, value): (&String, &Value)| {
        let fits = |text: &str, chars_max| text.chars().count() <= chars_max;
        fits(name, TAG_NAME_CHARS_MAX) && value.as_str().is_some_and(|value| fits(value, TAG_VALUE_CHARS_MAX))
    };
    match &tags {
        Some(tags) if tags.len() > TAGS_MAX || !tags.iter().all(is_tag) => {
            Err(InvalidJson::Type { member: "tags", wanted: "an object of at most 50 short texts" })
        }
        _ => Ok(tags),
    }
}

fn map(body: &Value, member: &'static str) -> Result<Option<Map<String, Value>>, InvalidJson> {
    Ok(object(body, member)?.and_then(Value::as_object).cloned())
}

fn number(document: &Value, member: &'static str) -> Result<Option<u64>, InvalidJson> {
    match document.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(InvalidJson::Type { member, wanted: "a whole number" }),
    }
}

fn list<'a>(document: &'a Value, member: &'static str) -> Result<Option<&'a [Value]>, InvalidJson> {
    match document.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(_) => Err(InvalidJson::Type { member, wanted: "a list" }),
    }
}

fn invalid(member: &str, problem: impl std::fmt::Display) -> Refused {
    Refused::new(ErrorKind::InvalidArgument, format!("{member}: {problem}."))
}

/// Reads a hub.
pub fn parse_hub(body: &Value) -> Result<HubDraft, Refused> {
    let properties = object(body, "properties")?.unwrap_or(&Value::Null);
    unenforced::judge(properties)?;
    let endpoints = object(properties, "eventHubEndpoints")?.unwrap_or(&Value::Null);
    let events = object(endpoints, "events")?.unwrap_or(&Value::Null);
    // A number that no field can hold is out of range for the domain as well.
    let count =
        |member| Ok::<_, InvalidJson>(number(events, member)?.map(|count| u16::try_from(count).unwrap_or(u16::MAX)));
    Ok(HubDraft {
        location: text(body, "location")?,
        tags: parse_tags(body)?,
        sku: map(body, "sku")?,
        policies: parse_policies(properties)?,
        partition_count: count("partitionCount")?,
        retention_days: count("retentionTimeInDays")?,
        cloud_to_device: parse_queue(properties)?,
        routing: routing_json::parse(properties)?,
        files: file_settings::parse(properties)?,
        extra: rest(
            properties,
            &["cloudToDevice", "routing", "storageEndpoints", "messagingEndpoints", "enableFileUploadNotifications"],
        ),
    })
}

/// Reads how messages to devices are treated (`contract/control-plane.md 4.2`).
fn parse_queue(properties: &Value) -> Result<QueueDraft, Refused> {
    let queue = object(properties, "cloudToDevice")?.unwrap_or(&Value::Null);
    let feedback = object(queue, "feedback")?.unwrap_or(&Value::Null);
    Ok(QueueDraft {
        default_ttl: duration(queue, "defaultTtlAsIso8601")?,
        deliveries_max: count(queue, "maxDeliveryCount")?,
        feedback_ttl: duration(feedback, "ttlAsIso8601")?,
        feedback_deliveries_max: count(feedback, "maxDeliveryCount")?,
        feedback_lock: duration(feedback, "lockDurationAsIso8601")?,
    })
}

/// A number that no field can hold is out of range for the domain as well.
fn count(of: &Value, member: &'static str) -> Result<Option<u32>, InvalidJson> {
    Ok(number(of, member)?.map(|count| u32::try_from(count).unwrap_or(u32::MAX)))
}

fn duration(of: &Value, member: &'static str) -> Result<Option<Duration>, Refused> {
    let written = text(of, member)?;
    let parsed = written.map(|text| time::parse_duration(&text).ok_or_else(|| invalid(member, NO_DURATION)));
    parsed.transpose()
}

const NO_DURATION: &str = "not a duration as ISO 8601 writes it, such as PT1H";

/// Reads a provisioning service.
pub fn parse_service(body: &Value) -> Result<ServiceDraft, Refused> {
    let properties = object(body, "properties")?.unwrap_or(&Value::Null);
    unenforced::judge(properties)?;
    let allocation = text(properties, "allocationPolicy")?;
    let allocation = allocation.map(|word| {
        parse_allocation_word(&word).ok_or_else(|| invalid("allocationPolicy", "none of Hashed, GeoLatency, Static"))
    });
    let links = list(properties, "iotHubs")?;
    Ok(ServiceDraft {
        location: text(body, "location")?,
        tags: parse_tags(body)?,
        sku: map(body, "sku")?,
        policies: parse_policies(properties)?,
        allocation: allocation.transpose()?,
        links: links.map(|links| links.iter().map(parse_link).collect()).transpose()?,
        extra: rest(properties, &["allocationPolicy", "iotHubs"]),
    })
}

/// The properties that nothing is known about.
fn rest(properties: &Value, known: &[&str]) -> Map<String, Value> {
    let is_known = |name: &str| READ_ONLY.contains(&name) || known.contains(&name);
    let members = properties.as_object().into_iter().flatten();
    members.filter(|(name, _)| !is_known(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn parse_policies(properties: &Value) -> Result<Option<Vec<PolicyDraft>>, Refused> {
    let Some(items) = list(properties, "authorizationPolicies")? else { return Ok(None) };
    items.iter().map(parse_policy).collect::<Result<_, _>>().map(Some)
}

fn parse_policy(item: &Value) -> Result<PolicyDraft, Refused> {
    let name = text(item, "keyName")?.ok_or(InvalidJson::Missing { member: "keyName" })?;
    let key = |member| {
        let written = text(item, member)?.filter(|key| !key.is_empty());
        written.map(|key| SymmetricKey::parse(&key).map_err(|problem| invalid(member, problem))).transpose()
    };
    Ok(PolicyDraft {
        name: PolicyName::parse(&name).map_err(|problem| invalid("keyName", problem))?,
        rights: text(item, "rights")?.ok_or(InvalidJson::Missing { member: "rights" })?,
        primary: key("primaryKey")?,
        secondary: key("secondaryKey")?,
    })
}

/// A link is found again by its host name, which its connection string says, since names are not sent back; a masked key
/// stands for the one that is stored (section 3.5).
fn parse_link(item: &Value) -> Result<LinkDraft, Refused> {
    let connection = text(item, "connectionString")?.unwrap_or_default();
    let part = |name: &str| {
        let mut parts = connection.split(';').filter_map(|part| part.split_once('='));
        parts.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    };
    let host_name = match part("HostName") {
        Some(host_name) => host_name,
        None => text(item, "hostName")?
            .or(text(item, "name")?)
            .ok_or_else(|| invalid("iotHubs", "a link has neither a connection string nor a host name"))?,
    };
    let credential = match (part("SharedAccessKeyName"), part("SharedAccessKey")) {
        (Some(policy), Some(key)) if !is_masked(&key) => Some(LinkCredential {
            policy: PolicyName::parse(&policy).map_err(|problem| invalid("connectionString", problem))?,
            key: SymmetricKey::parse(&key).map_err(|problem| invalid("connectionString", problem))?,
        }),
        _ => None,
    };
    let weight = number(item, "allocationWeight")?.unwrap_or(1);
    Ok(LinkDraft {
        host_name,
        credential,
        location: text(item, "location")?,
        apply_allocation_policy: boolean(item, "applyAllocationPolicy")?.unwrap_or(true),
        weight: u32::try_from(weight).unwrap_or(u32::MAX),
    })
}

fn is_masked(key: &str) -> bool {
    key.bytes().all(|byte| byte == b'*')
}

/// Reads a certificate, flat or in `properties`: the content of a file in base64, or PEM text (section 3.6). Whether the
/// caller vouches for it is said beside.
pub fn parse_certificate(body: &Value) -> Result<(Certificate, bool), Refused> {
    let body = object(body, "properties")?.unwrap_or(body);
    let written = text(body, "certificate")?.ok_or(InvalidJson::Missing { member: "certificate" })?;
    let certificate = Certificate::from_upload(&written).map_err(|problem| invalid("certificate", problem))?;
    Ok((certificate, boolean(body, "isVerified")?.unwrap_or(false)))
}

/// Shows a hub.
pub fn show_hub(shown: &ShownHub, keys: Keys) -> Value {
    let hub = &shown.hub;
    let mut properties = hub_defaults();
    properties.extend(hub.extra.clone());
    let partitions: Vec<String> = (0..hub.partitions).map(|partition| partition.to_string()).collect();
    let policies: Option<Vec<Value>> = (keys == Keys::Shown).then(|| hub.policies.iter().map(show_policy).collect());
    overlay(
        &mut properties,
        json!({
            "state": "Active",
            "provisioningState": "Succeeded",
            "hostName": shown.host_name,
            "authorizationPolicies": policies,
            "eventHubEndpoints": { "events": {
                "retentionTimeInDays": hub.retention_days,
                "partitionCount": hub.partitions,
                "partitionIds": partitions,
                "path": hub.name.as_str(),
                "endpoint": format!("sb://{}/", shown.host_name),
            } },
            "cloudToDevice": show_queue(&hub.cloud_to_device),
            "routing": routing_json::show(&hub.routing),
            "storageEndpoints": file_settings::show_storage(&hub.files),
            "messagingEndpoints": file_settings::show_messaging(&hub.files),
            "enableFileUploadNotifications": hub.files.notifies,
            "locations": [{ "location": hub.location, "role": "primary" }],
        }),
    );
    let place = Place { subscription: shown.subscription.clone(), group: Some(hub.group.clone()) };
    let mut document = show_resource(&place, (&ResourceName::Hub(hub.name.clone()), hub.etag), &hub.location);
    overlay(
        &mut document,
        json!({
            "tags": hub.tags,
            "sku": show_sku(&hub.sku),
            "identity": { "type": "None" },
            "properties": properties,
            "systemData": { "createdAt": time::rfc3339(hub.created_at) },
        }),
    );
    Value::Object(document)
}

fn show_queue(settings: &QueueSettings) -> Value {
    json!({
        "maxDeliveryCount": settings.deliveries_max,
        "defaultTtlAsIso8601": time::duration(settings.default_ttl),
        "feedback": {
            "lockDurationAsIso8601": time::duration(settings.feedback.lock),
            "ttlAsIso8601": time::duration(settings.feedback.ttl),
            "maxDeliveryCount": settings.feedback.deliveries_max,
        },
    })
}

/// What a hub says of features that nobody set.
fn hub_defaults() -> Map<String, Value> {
    let mut defaults = Map::new();
    overlay(
        &mut defaults,
        json!({
            "ipFilterRules": [],
            "publicNetworkAccess": "Enabled",
            "minTlsVersion": "1.2",
            "privateEndpointConnections": [],
            "features": "None",
            "enableDataResidency": false,
        }),
    );
    defaults
}

/// Shows a provisioning service; its keys are asked for on their own.
pub fn show_service(shown: &ShownService) -> Value {
    let service = &shown.service;
    let mut properties = Map::new();
    overlay(
        &mut properties,
        json!({
            "publicNetworkAccess": "Enabled",
            "ipFilterRules": [],
            "privateEndpointConnections": [],
            "enableDataResidency": false,
        }),
    );
    properties.extend(service.extra.clone());
    let links = service.links.iter().zip(&shown.link_host_names);
    overlay(
        &mut properties,
        json!({
            "state": "Active",
            "provisioningState": "Succeeded",
            "iotHubs": links.map(|(link, host_name)| show_link(link, host_name)).collect::<Vec<_>>(),
            "allocationPolicy": capitalised(allocation_word(service.allocation)),
            "serviceOperationsHostName": shown.operations_host_name,
            "deviceProvisioningHostName": shown.device_host_name,
            "idScope": service.id_scope.as_str(),
            // Empty would be taken for the wish to have none when it comes back.
            "authorizationPolicies": null,
        }),
    );
    let place = Place { subscription: shown.subscription.clone(), group: Some(service.group.clone()) };
    let name = ResourceName::Service(service.name.clone());
    let mut document = show_resource(&place, (&name, service.etag), &service.location);
    overlay(
        &mut document,
        json!({
            "tags": service.tags,
            "sku": show_sku(&service.sku),
            "properties": properties,
            "systemData": { "createdAt": time::rfc3339(service.created_at) },
        }),
    );
    Value::Object(document)
}

fn show_link(link: &LinkedHub, host_name: &str) -> Value {
    json!({
        "name": host_name,
        "connectionString":
            format!("HostName={host_name};SharedAccessKeyName={};SharedAccessKey={MASK}", link.policy),
        "location": link.location,
        "applyAllocationPolicy": link.applies,
        "allocationWeight": link.weight,
        "hostName": host_name,
        "authenticationType": "KeyBased",
    })
}

fn capitalised(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(characters).collect()
}

fn overlay(below: &mut Map<String, Value>, above: Value) {
    if let Value::Object(above) = above {
        below.extend(above);
    }
}

/// What both kinds begin with. The two members in small letters are nobody's standard: clients read them to find the
/// group of a resource (section 2).
fn show_resource(place: &Place, (name, etag): (&ResourceName, Etag), location: &str) -> Map<String, Value> {
    let (kind, short) = match name {
        ResourceName::Hub(name) => (HUB_TYPE, name.as_str()),
        ResourceName::Service(name) => (SERVICE_TYPE, name.as_str()),
    };
    let mut document = Map::new();
    overlay(
        &mut document,
        json!({
            "id": resource_id(place, name),
            "name": short,
            "type": kind,
            "location": location,
            "etag": etag_text(etag),
            "resourcegroup": place.group,
            "subscriptionid": place.subscription,
        }),
    );
    document
}

fn resource_id(place: &Place, name: &ResourceName) -> String {
    let group = group_id(&place.subscription, place.group.as_deref().unwrap_or_default());
    match name {
        ResourceName::Hub(name) => format!("{group}/providers/Microsoft.Devices/IotHubs/{name}"),
        ResourceName::Service(name) => format!("{group}/providers/Microsoft.Devices/provisioningServices/{name}"),
    }
}

fn group_id(subscription: &str, group: &str) -> String {
    format!("/subscriptions/{subscription}/resourceGroups/{group}")
}

/// The size of a resource, with its tier. Whatever it is, nothing is throttled by it.
fn show_sku(sku: &Map<String, Value>) -> Value {
    let name = sku.get("name").and_then(Value::as_str).unwrap_or("S1");
    let tier = match name.bytes().next() {
        Some(b'F' | b'f') => "Free",
        Some(b'B' | b'b') => "Basic",
        _ => "Standard",
    };
    let capacity = sku.get("capacity").cloned().unwrap_or_else(|| json!(1));
    json!({ "name": name, "tier": tier, "capacity": capacity })
}

/// The sizes that the resource of `answer` can have.
pub fn sizes(answer: &Answer) -> Vec<Value> {
    match answer {
        Answer::Service { .. } => vec![json!({ "name": "S1" })],
        _ => ["F1", "B1", "B2", "B3", "S1", "S2", "S3"].map(hub_size).to_vec(),
    }
}

fn hub_size(name: &str) -> Value {
    let mut sku = Map::new();
    sku.insert("name".to_owned(), json!(name));
    let mut shown = show_sku(&sku);
    if let Some(members) = shown.as_object_mut() {
        members.remove("capacity");
    }
    let maximum = if name == "F1" { 1 } else { 200 };
    json!({
        "resourceType": HUB_TYPE,
        "sku": shown,
        "capacity": { "minimum": 1, "maximum": maximum, "default": 1, "scaleType": "Manual" },
    })
}

/// Shows a policy with its keys.
pub fn show_policy(policy: &Policy) -> Value {
    json!({
        "keyName": policy.name.as_str(),
        "primaryKey": policy.keys.primary.to_base64(),
        "secondaryKey": policy.keys.secondary.to_base64(),
        "rights": policy.rights.to_string(),
    })
}

/// Says whether a name is free.
pub fn show_name_check(available: bool, reason: Option<&NameRefusal>) -> Value {
    let (reason, message) = match reason {
        None => (None, None),
        Some(NameRefusal::Invalid(text)) => (Some("Invalid"), Some(text.as_str())),
        Some(NameRefusal::Taken) => (Some("AlreadyExists"), Some("The name is in use.")),
    };
    json!({ "nameAvailable": available, "reason": reason, "message": message })
}

/// Shows a CA certificate; its dates are RFC 1123, without which one client fails (section 3.6).
pub fn show_certificate(record: &CaCertificate, (place, owner): (&Place, &ResourceName), with_code: bool) -> Value {
    let certificate = &record.certificate;
    let mut properties = json!({
        "subject": certificate.common_name().unwrap_or_else(|| certificate.subject()),
        "expiry": time::rfc1123(certificate.not_after()),
        "thumbprint": certificate.sha1_hex(),
        "isVerified": record.verified,
        "certificate": STANDARD.encode(certificate.pem()),
        "created": time::rfc1123(record.created_at),
        "updated": time::rfc1123(record.updated_at),
    });
    if let (true, Some(code), Some(members)) = (with_code, &record.verification_code, properties.as_object_mut()) {
        members.insert("verificationCode".to_owned(), json!(code));
    }
    let kind = match owner {
        ResourceName::Hub(_) => HUB_TYPE,
        ResourceName::Service(_) => SERVICE_TYPE,
    };
    json!({
        "id": format!("{}/certificates/{}", resource_id(place, owner), record.name),
        "name": record.name.as_str(),
        "type": format!("{kind}/Certificates"),
        "etag": etag_text(record.etag),
        "properties": properties,
    })
}

/// Shows a resource group.
pub fn show_group(group: &ResourceGroup, subscription: &str) -> Value {
    json!({
        "id": group_id(subscription, &group.name),
        "name": group.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": group.location,
        "tags": group.tags,
        "properties": { "provisioningState": "Succeeded" },
    })
}

/// Shows a consumer group.
pub fn show_consumer_group(group: &ConsumerGroup, (place, hub): (&Place, &ResourceName)) -> Value {
    json!({
        "id": format!("{}/eventHubEndpoints/events/ConsumerGroups/{}", resource_id(place, hub), group.name),
        "name": group.name,
        "type": format!("{HUB_TYPE}/EventHubEndpoints/ConsumerGroups"),
        "properties": { "created": time::rfc1123(group.created_at), "name": group.name },
        "etag": null,
    })
}

/// Shows the deployment's subscription.
pub fn show_subscription(id: &str, tenant: &str) -> Value {
    json!({
        "id": format!("/subscriptions/{id}"),
        "subscriptionId": id,
        "tenantId": tenant,
        "displayName": "Muster",
        "state": "Enabled",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
    })
}

/// Shows the one place where resources are.
pub fn show_location(subscription: &str) -> Value {
    json!({
        "id": format!("/subscriptions/{subscription}/locations/local"),
        "name": "local",
        "displayName": "Local",
        "regionalDisplayName": "Local",
        "type": "Region",
        "metadata": { "regionType": "Physical", "regionCategory": "Recommended", "geographyGroup": "Local" },
    })
}

/// Shows what kinds of resources there are, with the versions that clients were seen to name.
pub fn show_provider(subscription: &str) -> Value {
    let kind = |name: &str, versions: [&str; 3]| json!({ "resourceType": name, "locations": ["local"], "apiVersions": versions });
    json!({
        "id": format!("/subscriptions/{subscription}/providers/Microsoft.Devices"),
        "namespace": "Microsoft.Devices",
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationFree",
        "resourceTypes": [
            kind("IotHubs", ["2023-06-30", "2021-07-02", "2023-06-30-preview"]),
            kind("ProvisioningServices", ["2022-02-05", "2021-10-15", "2025-02-01-preview"]),
        ],
    })
}
