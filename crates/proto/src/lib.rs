//! Wire protocols as machines without I/O: bytes and the time go in, events and bytes come out.
//!
//! Nothing here opens a socket, reads a clock, awaits, or knows what a device, a hub or Azure is. Start at [`mqtt`] or [`amqp`].

#![deny(missing_docs)]

pub mod amqp;
pub mod mqtt;
mod output;
