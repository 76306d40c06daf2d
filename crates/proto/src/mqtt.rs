//! MQTT 3.1.1 (OASIS standard, 29 October 2014) for both ends of a connection.
//!
//! [`codec`] turns bytes into [`packet`]s and back. [`Connection`] is the server's end and [`ClientConnection`] the
//! client's: each takes bytes and the time, and gives events and bytes. Both know packets, packet identifiers, windows
//! and time-outs; neither knows what a topic means, nor who may connect. Nothing received can make them panic, or
//! hold more than the caller's [`Limits`] allow.
//!
//! Start at [`Connection`] for the loop a driver runs, at [`codec::decode`] for what is accepted from the wire.

mod client;
pub mod codec;
mod connection;
mod in_flight;
mod input;
mod keep_alive;
mod outbound;
mod output;
pub mod packet;
mod text;
mod window;

pub use client::{Acknowledgement, ClientCloseReason, ClientConnection, ClientEvent, ClientLimits};
pub use codec::{Malformed, Oversized};
pub use connection::{CloseReason, Closed, Connection, Event, Limits};
pub use outbound::Unpublished;
pub use packet::{
    Connack, Connect, Delivery, Filter, Message, Packet, PacketId, PacketType, Publish, QoS, Refusal, SubackCode, Will,
};
pub use text::{InvalidText, Text};
pub use window::Ticket;
