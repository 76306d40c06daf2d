//! What the fuzz targets check: one module per target, each a function from bytes that panics when a promise breaks.
//!
//! Of the server and the client only the files that read bytes are taken in: the rest of them would be compiled for nothing.

mod amqp_composites;
mod amqp_ends;
pub mod amqp_frame;
mod amqp_reference;
pub mod amqp_session;
pub mod amqp_value;
pub mod balancer_header;
pub mod blob_request;
pub mod certificate;
pub mod digital_twin;
pub mod dps_amqp;
pub mod enrollment_json;
pub mod events_amqp;
#[expect(dead_code, reason = "only what reads is wanted")]
#[path = "../../crates/server/src/websocket/frame.rs"]
mod frame;
#[path = "../../crates/server/src/balancer/header.rs"]
mod header;
#[path = "../../crates/server/src/http/host.rs"]
mod host;
/// What the server reads of a head, as its own files call it.
mod http {
    pub(crate) use crate::host::host_asked;
}
pub mod http_opening;
pub mod http_request;
pub mod hub_amqp;
pub mod hub_service_amqp;
pub mod hub_topic;
pub mod identity_json;
pub mod management_body;
pub mod mqtt_client;
pub mod mqtt_decode;
pub mod mqtt_dialect;
pub mod mqtt_session;
pub mod nats_server;
#[expect(dead_code, reason = "only what reads is wanted")]
#[path = "../../crates/server/src/http/opening.rs"]
mod opening;
pub mod property_bag;
pub mod query_text;
mod refusal;
pub mod sas_token;
mod script;
mod service;
pub mod telemetry_http;
pub mod twin_patch;
#[path = "../../crates/server/src/websocket/upgrade.rs"]
mod upgrade;
pub mod user_name;
pub mod websocket_frame;
#[path = "../../crates/client/src/outbound/nats/wire.rs"]
mod wire;
