//! Azure's spellings: packets and HTTP messages turned into operations, and replies turned back.
//!
//! Sans-IO: nothing here awaits, reads a clock or opens a socket. A dialect knows `domain::operation` and never `service`.
//! Start at [`session`] for what a connection is to its driver, at [`mqtt`] and [`amqp`] for how a connection finds its
//! dialect, at [`http`] for how a request does.

pub mod amqp;
pub mod error;
pub mod http;
pub mod hub;
pub mod json;
pub mod management;
pub mod mqtt;
pub mod provisioning;
pub mod session;
pub mod time;
#[cfg(test)]
mod vectors;
