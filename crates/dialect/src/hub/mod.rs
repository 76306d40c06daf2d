//! The hub's dialects: devices over MQTT, AMQP and HTTPS, operators' programs over AMQP and HTTPS.
//!
//! What is only grammar stands by itself and knows no session: [`user_name`], [`topics`], [`property_bag`] for devices over
//! MQTT, [`cbs`], [`link_address`], [`telemetry_amqp`], [`twin_amqp`], [`method_amqp`], [`delivery_amqp`] over AMQP,
//! [`telemetry_http`], [`file_json`] and [`block_list`] over HTTPS, [`registry_json`], [`twin_json`], [`method_json`]
//! and [`transfer_json`] for operators. Nothing here decides who may do what. Start at [`device_mqtt`].

pub mod amqp;
pub mod annotations;
pub mod blob_http;
pub mod block_list;
pub mod cbs;
pub mod cloud_event;
mod configuration_http;
mod cut_off;
pub mod deliveries;
pub mod delivery_amqp;
pub mod desired;
pub mod device_amqp;
pub mod device_http;
pub mod device_mqtt;
pub mod digital_twin_http;
pub mod events_amqp;
mod exchange;
pub mod file_json;
pub mod import_mode;
mod job_http;
pub mod link_address;
pub mod method_amqp;
pub mod method_json;
pub mod property_bag;
pub mod registry_json;
pub mod service_amqp;
pub mod service_http;
pub mod telemetry_amqp;
pub mod telemetry_http;
pub mod topics;
pub(crate) mod transfer_http;
pub mod transfer_json;
pub mod twin_amqp;
pub mod twin_answer;
pub mod twin_json;
pub mod user_name;
pub mod words;
