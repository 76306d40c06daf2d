//! What the fuzz targets check: one module per target, each a function from bytes that panics when a promise breaks.

pub mod certificate;
pub mod enrollment_json;
#[expect(dead_code, reason = "the decoder alone is wanted: the server around it would be compiled for nothing")]
#[path = "../../crates/server/src/websocket/frame.rs"]
mod frame;
pub mod hub_topic;
pub mod identity_json;
pub mod mqtt_decode;
pub mod mqtt_dialect;
pub mod mqtt_session;
pub mod property_bag;
pub mod sas_token;
pub mod twin_patch;
pub mod user_name;
pub mod websocket_frame;
