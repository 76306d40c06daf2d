//! AMQP 1.0 (OASIS standard, 29 October 2012) for both ends of a connection: parts 1 to 3, and SASL of part 5.
//!
//! [`Value`] is the type system, [`Performative`] and [`SaslFrame`] are what frames say, [`Message`] is what transfers
//! carry, [`frame`] cuts bytes into frames. [`Connection`] is either end of a connection: it takes bytes and the time, and
//! gives events and bytes; sessions, windows, credit and settlement are in it. Nothing here knows what a mechanism, an address or a message format other
//! than 0 means. Nothing received can cause a panic, nor make this hold more than the caller's [`Limits`] allow.
//!
//! Start at [`Connection`] for the loop a driver runs, at [`Value::decode`] for what is accepted from the wire.

mod composite;
mod connection;
mod decode;
mod descriptor;
mod encode;
pub mod frame;
mod message;
mod performative;
mod sasl;
mod state;
mod terminus;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use connection::{
    ClientOpening, CloseReason, Connection, Delivery, DeliveryId, Event, Limits, LinkId, LinkTerms, Outgoing,
    SessionId, Settlement, UnknownDeliveries, Unsent,
};
pub use decode::{DEPTH_MAX, Fault, Malformed, VALUES_MAX};
pub use message::{Body, Header, Message, MessageId, Properties};
pub use performative::{
    Attach, Begin, Close, DELIVERY_TAG_BYTES_MAX, Detach, Disposition, End, Flow, Open, Performative,
    ReceiverSettleMode, Role, SenderSettleMode, Transfer,
};
pub use sasl::{SaslChallenge, SaslCode, SaslFrame, SaslInit, SaslMechanisms, SaslOutcome, SaslResponse};
pub use state::{DeliveryState, Error, Modified, Received, Rejected, condition};
pub use terminus::{AttachTarget, Coordinator, Source, Target};
pub use text::{NotText, Symbol, Text};
pub use value::{Array, Described, Map, MixedArray, Value};
