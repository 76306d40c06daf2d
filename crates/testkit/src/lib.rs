//! What tests of the whole need: a Muster in this process, and clients that send what no library would.
//!
//! Nothing of the product may depend on it outside of tests, and nothing here decides what is right: it only carries.
//! Start at [`whole::Muster`].

pub mod amqp_client;
pub mod golden;
pub mod raw_http;
pub mod raw_mqtt;
pub mod raw_websocket;
pub mod whole;
