//! What the hub says of a message beside what the device said, under the names that readers know
//! (`contract/hub-device.md 7`). Start at [`annotations`].

use std::borrow::Cow;

use domain::clock::UnixTime;
use domain::message::{EventSource, Message, Origin};
use domain::operation::session::AuthenticationMethod;

/// What an annotation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<'m> {
    /// Text.
    Text(Cow<'m, str>),
    /// A moment, which readers see in milliseconds.
    Moment(UnixTime),
}

/// The hub's annotations of `message`: those that there are.
pub fn annotations<'m>(message: &'m Message, enqueued_at: UnixTime) -> impl Iterator<Item = (&'static str, Said<'m>)> {
    let sender = &message.sender;
    let system = &message.draft.system;
    let text = |text: &'m Option<String>| text.as_deref().map(|text| Said::Text(text.into()));
    // What the hub tells by itself was let in by nobody's credential.
    let (authentication, generation) = match message.origin {
        Origin::Telemetry(method) => {
            (Some(authentication_text(message, method)), Some(Said::Text(message.generation.as_str().into())))
        }
        Origin::Hub(_) => (None, None),
    };
    [
        ("iothub-connection-device-id", Some(Said::Text(sender.device.as_str().into()))),
        ("iothub-connection-module-id", sender.module.as_ref().map(|module| Said::Text(module.as_str().into()))),
        ("iothub-connection-auth-method", authentication.map(|method| Said::Text(method.into()))),
        ("iothub-connection-auth-generation-id", generation),
        ("iothub-enqueuedtime", Some(Said::Moment(enqueued_at))),
        ("iothub-message-source", Some(Said::Text(source(message.origin).into()))),
        ("dt-dataschema", text(&message.model_id)),
        ("dt-subject", text(&system.component)),
        ("iothub-interface-id", text(&system.interface_id)),
        ("iothub-creation-time-utc", text(&system.created_at)),
        ("Diagnostic-Id", text(&system.diagnostic_id)),
        ("Correlation-Context", text(&system.correlation_context)),
    ]
    .into_iter()
    .filter_map(|(name, said)| Some((name, said?)))
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
        AuthenticationMethod::X509 => (owner, "x509", "iothub"),
    };
    format!("{{\"scope\":\"{scope}\",\"type\":\"{kind}\",\"issuer\":\"{issuer}\",\"acceptingIpFilterRule\":null}}")
}
