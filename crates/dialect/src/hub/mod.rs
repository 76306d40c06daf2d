//! The hub's dialects: devices over MQTT and HTTPS, operators' programs over HTTPS.
//!
//! What is only grammar stands by itself and knows no session: [`user_name`], [`topics`], [`property_bag`] for devices,
//! [`registry_json`], [`twin_json`] and [`method_json`] for operators. Nothing here decides who may do what. Start at [`device_mqtt`].

pub mod amqp;
pub mod annotations;
pub mod cbs;
pub mod deliveries;
pub mod desired;
pub mod device_amqp;
pub mod device_http;
pub mod device_mqtt;
pub mod method_json;
pub mod property_bag;
pub mod registry_json;
pub mod service_http;
pub mod topics;
pub mod twin_json;
pub mod user_name;
pub mod words;
