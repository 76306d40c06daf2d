//! Everything durable: what a store promises ([`ports`]), and the backends that keep the promises.
//!
//! Nothing here knows a wire format or a socket. Each verb is one atomic change; no transaction leaves this crate. Start
//! at [`ports`].

#![deny(missing_docs)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod contents;
mod decisions;
mod error;
pub mod faults;
pub mod folder;
pub mod ports;
#[cfg(feature = "postgres")]
mod postgres;
pub mod seal;
mod sql;
pub mod sqlite;
pub mod stream;

pub use error::{Cause, Error, OpenError, Unavailability};
