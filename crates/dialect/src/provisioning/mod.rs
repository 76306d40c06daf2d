//! The provisioning service's dialects: devices over MQTT and HTTPS, operators' programs over HTTPS.
//!
//! [`device_json`] holds what both device dialects say alike. Start at [`device_mqtt`].

pub mod device_http;
pub mod device_json;
pub mod device_mqtt;
pub mod service_http;
pub mod service_json;
