//! What the hub says of a message beside what the device said, under the names that readers know
//! (`contract/hub-device.md 7`).

use domain::clock::UnixTime;
use domain::message::{EventSource, Message, Origin};
use domain::operation::session::AuthenticationMethod;
use serde_json::{Map, Value, json};

use crate::json::members;

/// The hub's annotations of `message`, as text and numbers; moments are milliseconds since 1970.
pub fn annotations(message: &Message, enqueued_at: UnixTime) -> Map<String, Value> {
    let sender = &message.sender;
    let system = &message.draft.system;
    // What the hub tells by itself was let in by nobody's credential.
    let (authentication, generation) = match message.origin {
        Origin::Telemetry(method) => (Some(authentication_text(message, method)), Some(&message.generation)),
        Origin::Hub(_) => (None, None),
    };
    members([
        ("iothub-connection-device-id", json!(sender.device.as_str())),
        ("iothub-connection-module-id", json!(sender.module.as_ref().map(domain::ids::ModuleId::as_str))),
        ("iothub-connection-auth-method", json!(authentication)),
        ("iothub-connection-auth-generation-id", json!(generation)),
        ("iothub-enqueuedtime", json!(enqueued_at.micros().div_euclid(1_000))),
        ("iothub-message-source", json!(source(message.origin))),
        ("dt-dataschema", json!(message.model_id)),
        ("dt-subject", json!(system.component)),
        ("iothub-interface-id", json!(system.interface_id)),
        ("iothub-creation-time-utc", json!(system.created_at)),
    ])
}

/// What readers tell messages of devices and of the hub itself apart by.
pub const fn source(origin: Origin) -> &'static str {
    match origin {
        Origin::Telemetry(_) => "Telemetry",
        Origin::Hub(EventSource::TwinChange) => "twinChangeEvents",
        Origin::Hub(EventSource::Lifecycle) => "deviceLifecycleEvents",
        Origin::Hub(EventSource::ConnectionState) => "deviceConnectionStateEvents",
        Origin::Hub(EventSource::DigitalTwinChange) => "digitalTwinChangeEvents",
    }
}

/// How the sender had authenticated, as the JSON text that readers parse.
fn authentication_text(message: &Message, method: AuthenticationMethod) -> String {
    let owner = if message.sender.module.is_some() { "module" } else { "device" };
    let (scope, kind, issuer) = match method {
        AuthenticationMethod::DeviceKey => (owner, "sas", "iothub"),
        AuthenticationMethod::PolicyKey => ("hub", "sas", "iothub"),
        AuthenticationMethod::X509 => (owner, "x509", "external"),
    };
    format!("{{\"scope\":\"{scope}\",\"type\":\"{kind}\",\"issuer\":\"{issuer}\",\"acceptingIpFilterRule\":null}}")
}
