//! The server's rim: sockets, TLS, HTTP and WebSocket, and the drivers that run the protocols over them.
//!
//! Everything that waits lives here; what the bytes mean is decided in `proto` and `dialect`, and what is done about them
//! in `service`. Nothing here may know a backend of the store. Start reading at [`listener`], then [`tls`].

pub mod amqp;
pub mod balancer;
mod blobs;
pub mod budget;
mod connection;
mod courier;
pub mod door;
mod exchange;
pub mod http;
pub mod listener;
mod log_budget;
pub mod mqtt;
pub mod names;
#[cfg(test)]
#[path = "../../../fuzz/src/replay.rs"]
mod replay;
pub mod routes;
pub mod serve;
pub mod shutdown;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod websocket;
