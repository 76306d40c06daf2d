//! Delivery states and errors (part 3, section 3.4; part 2, sections 2.8.14 to 2.8.18).

use super::composite::{Composite, Field, Scalar, composite};
use super::decode::{Malformed, Reader};
use super::descriptor;
use super::encode;
use super::text::{Symbol, Text};
use super::value::{Described, Map, Value};

/// Why something failed (part 2, section 2.8.14).
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// One word for it.
    pub condition: Symbol,
    /// More words for it.
    pub description: Option<Text>,
    /// More about it. Written even if empty: Python's decoder wants it there (`contract/eventhub-endpoint.md` 3.1).
    pub info: Map,
}

impl Error {
    /// An error with a condition and a description.
    pub fn new(condition: Symbol, description: impl Into<Text>) -> Self {
        Self { condition, description: Some(description.into()), info: Map::EMPTY }
    }
}

impl Composite for Error {
    const CODE: u64 = descriptor::ERROR;
    const NAME: &'static str = "Error";

    fn read_list(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.fields(|fields| {
            Ok(Self {
                condition: fields.field("condition")?,
                description: fields.field("description")?,
                info: fields.field("info")?,
            })
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        encode::descriptor(Self::CODE, out);
        encode::compound(0xc0, 3, out, |out| {
            encode::symbol(&self.condition, out);
            Field::write(&self.description, out);
            encode::map(&self.info, out);
        });
    }
}

impl Scalar for Error {
    fn read(reader: &mut Reader<'_>, code: u8) -> Result<Self, Malformed> {
        super::composite::read_composite(reader, code)
    }

    fn write(&self, out: &mut Vec<u8>) {
        Composite::write(self, out);
    }
}

/// Conditions that the standard names (part 2, sections 2.8.15 to 2.8.18).
pub mod condition {
    use crate::amqp::text::Symbol;

    macro_rules! conditions {
        ($($(#[$meta:meta])* $constant:ident = $name:literal;)*) => {
            $($(#[$meta])* pub const $constant: Symbol = Symbol::from_static($name);)*
        };
    }

    conditions! {
        /// The speaker failed.
        INTERNAL_ERROR = "amqp:internal-error";
        /// There is no such thing.
        NOT_FOUND = "amqp:not-found";
        /// Not for this peer.
        UNAUTHORIZED_ACCESS = "amqp:unauthorized-access";
        /// Bytes that are no frame or no value.
        DECODE_ERROR = "amqp:decode-error";
        /// More than the speaker takes.
        RESOURCE_LIMIT_EXCEEDED = "amqp:resource-limit-exceeded";
        /// Never allowed.
        NOT_ALLOWED = "amqp:not-allowed";
        /// A field that contradicts the rest.
        INVALID_FIELD = "amqp:invalid-field";
        /// Possible in the standard, not here.
        NOT_IMPLEMENTED = "amqp:not-implemented";
        /// Not as things stand.
        ILLEGAL_STATE = "amqp:illegal-state";
        /// A frame longer than the speaker takes.
        FRAME_SIZE_TOO_SMALL = "amqp:frame-size-too-small";
        /// The speaker has to close the connection.
        CONNECTION_FORCED = "amqp:connection:forced";
        /// Bytes that cannot be cut into frames.
        FRAMING_ERROR = "amqp:connection:framing-error";
        /// More transfers than the window allows.
        WINDOW_VIOLATION = "amqp:session:window-violation";
        /// An attach with a handle that is in use.
        HANDLE_IN_USE = "amqp:session:handle-in-use";
        /// A frame for a handle that is not attached.
        UNATTACHED_HANDLE = "amqp:session:unattached-handle";
        /// The speaker has to detach the link.
        DETACH_FORCED = "amqp:link:detach-forced";
        /// More deliveries than the credit allows.
        TRANSFER_LIMIT_EXCEEDED = "amqp:link:transfer-limit-exceeded";
        /// A message longer than the speaker takes.
        MESSAGE_SIZE_EXCEEDED = "amqp:link:message-size-exceeded";
        /// The link is elsewhere.
        REDIRECT = "amqp:link:redirect";
        /// The link was attached elsewhere.
        STOLEN = "amqp:link:stolen";
    }
}

composite! {
    /// How far a delivery got (part 3, section 3.4.1).
    Received = descriptor::RECEIVED {
        /// Sections that came whole.
        section_number: u32,
        /// Bytes of the next one.
        section_offset: u64,
    }
}

composite! {
    /// A message that cannot be processed (part 3, section 3.4.3).
    Rejected = descriptor::REJECTED {
        /// Why.
        error: Option<Error>,
    }
}

composite! {
    /// A message that was not processed, and is changed (part 3, section 3.4.5).
    Modified = descriptor::MODIFIED {
        /// Whether the attempt counts as failed.
        delivery_failed: bool = false,
        /// Whether it must not come here again.
        undeliverable_here: bool = false,
        /// Annotations to add.
        message_annotations: Map,
    }
}

/// The state of a delivery at one of its ends.
#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryState {
    /// It is under way.
    Received(Received),
    /// It was processed.
    Accepted,
    /// It cannot be processed.
    Rejected(Box<Rejected>),
    /// It was not processed, and may go elsewhere.
    Released,
    /// It was not processed, and is changed.
    Modified(Box<Modified>),
    /// A state of another part of the standard (transactions, say), as it came.
    Other(Box<Described>),
}

impl DeliveryState {
    /// Rejected for `error`.
    pub fn rejected(error: Error) -> Self {
        Self::Rejected(Box::new(Rejected { error: Some(error) }))
    }

    /// Whether this is an outcome: a state that a delivery does not leave (part 3, section 3.4).
    pub const fn is_outcome(&self) -> bool {
        !matches!(self, Self::Received(_) | Self::Other(_))
    }
}

impl Scalar for DeliveryState {
    fn read(reader: &mut Reader<'_>, code: u8) -> Result<Self, Malformed> {
        if code != 0x00 {
            return Err(reader.wrong_type("delivery state", code));
        }
        let descriptor = reader.value()?;
        Ok(match descriptor::code(&descriptor) {
            Some(descriptor::RECEIVED) => Self::Received(Received::read_list(reader)?),
            Some(descriptor::ACCEPTED) => reader.fields(|_| Ok(Self::Accepted))?,
            Some(descriptor::REJECTED) => Self::Rejected(Box::new(Rejected::read_list(reader)?)),
            Some(descriptor::RELEASED) => reader.fields(|_| Ok(Self::Released))?,
            Some(descriptor::MODIFIED) => Self::Modified(Box::new(Modified::read_list(reader)?)),
            _ => Self::Other(Box::new(Described { descriptor, value: reader.value()? })),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Received(received) => Composite::write(received, out),
            Self::Accepted => plain(descriptor::ACCEPTED, out),
            Self::Rejected(rejected) => Composite::write(&**rejected, out),
            Self::Released => plain(descriptor::RELEASED, out),
            Self::Modified(modified) => Composite::write(&**modified, out),
            Self::Other(described) => encode::value(&Value::Described(described.clone()), out),
        }
    }
}

/// A descriptor and a list without fields.
fn plain(code: u64, out: &mut Vec<u8>) {
    encode::descriptor(code, out);
    encode::list(&[], out);
}
