//! The other end of the wire: programs that talk to a Muster, or to whatever speaks the same protocols.
//!
//! Nothing here sees the server, the service or the store: what the command line does, everybody can do. Start at
//! [`endpoints`] for how a running Muster is found, at [`https`] for how it is spoken to, at [`device`] for what devices
//! do, at [`events`] for how their telemetry is read, at [`outbound`] for what a server sends where its operators say.

mod amqp;
pub mod device;
mod driver;
pub mod endpoints;
pub mod events;
pub mod https;
pub mod management;
pub mod outbound;
#[cfg(test)]
#[path = "../../../fuzz/src/replay.rs"]
mod replay;
pub mod service;
pub mod trust;
mod wire;
