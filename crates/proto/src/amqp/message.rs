//! Messages of format 0: sections of annotations, properties and a body (part 3, section 3.2).
//!
//! A payload is a slice of what was received, and so are the strings and bodies in a message decoded from it. Sections
//! may come in any order and any of them may be missing, the body too: clients do both
//! (`contract/hub-device.md` 0 and 4.8).

use bytes::Bytes;

use super::composite::{Composite, Field, Scalar, composite};
use super::decode::{Fault, Malformed, Reader};
use super::descriptor;
use super::encode;
use super::text::{Symbol, Text};
use super::value::{Map, Value};

/// The priority of a message that names none (part 3, section 3.2.1).
const PRIORITY: u8 = 4;

/// A message.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Message {
    /// How it is to be carried.
    pub header: Option<Header>,
    /// For the next node alone. Not written if empty, like the other maps.
    pub delivery_annotations: Map,
    /// For every node.
    pub message_annotations: Map,
    /// What the sender says of it, in the standard's words.
    pub properties: Option<Box<Properties>>,
    /// What the sender says of it, in its own words.
    pub application_properties: Map,
    /// What it is about.
    pub body: Body,
    /// What is known only after the body: digests, signatures.
    pub footer: Map,
}

/// What a message is about (part 3, sections 3.2.6 to 3.2.8).
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Body {
    /// No section at all: the standard forbids it, clients do it.
    #[default]
    Empty,
    /// Bytes, in one section or several. Never empty when decoded; nothing is written for an empty one.
    Data(Vec<Bytes>),
    /// Lists, in one section or several.
    Sequences(Vec<Vec<Value>>),
    /// One value.
    Value(Value),
}

impl Body {
    /// One section of bytes.
    pub fn data(bytes: impl Into<Bytes>) -> Self {
        Self::Data(vec![bytes.into()])
    }

    fn push_data(&mut self, bytes: Bytes) -> Result<(), Fault> {
        match self {
            Self::Empty => *self = Self::Data(vec![bytes]),
            Self::Data(sections) => sections.push(bytes),
            Self::Sequences(_) | Self::Value(_) => return Err(Fault::RepeatedSection),
        }
        Ok(())
    }

    fn push_sequence(&mut self, values: Vec<Value>) -> Result<(), Fault> {
        match self {
            Self::Empty => *self = Self::Sequences(vec![values]),
            Self::Sequences(sections) => sections.push(values),
            Self::Data(_) | Self::Value(_) => return Err(Fault::RepeatedSection),
        }
        Ok(())
    }

    fn set_value(&mut self, value: Value) -> Result<(), Fault> {
        match self {
            Self::Empty => *self = Self::Value(value),
            Self::Data(_) | Self::Sequences(_) | Self::Value(_) => return Err(Fault::RepeatedSection),
        }
        Ok(())
    }
}

composite! {
    /// How a message is to be carried (part 3, section 3.2.1).
    Header = descriptor::HEADER {
        /// Whether it has to survive a crash of what holds it.
        durable: bool = false,
        /// More is more urgent.
        priority: u8 = PRIORITY,
        /// How long it is of use, in milliseconds.
        ttl: Option<u32>,
        /// Whether nobody acquired it before.
        first_acquirer: bool = false,
        /// How often it was tried before.
        delivery_count: u32 = 0,
    }
}

impl Default for Header {
    fn default() -> Self {
        Self { durable: false, priority: PRIORITY, ttl: None, first_acquirer: false, delivery_count: 0 }
    }
}

composite! {
    /// What the sender says of a message, in the standard's words (part 3, section 3.2.4).
    #[derive(Default)]
    Properties = descriptor::PROPERTIES {
        /// Names the message.
        message_id: Option<MessageId>,
        /// Who made it.
        user_id: Option<Bytes>,
        /// The node it goes to.
        to: Option<Text>,
        /// What it is about.
        subject: Option<Text>,
        /// The node an answer goes to.
        reply_to: Option<Text>,
        /// Names what this answers.
        correlation_id: Option<MessageId>,
        /// A MIME type of the body.
        content_type: Option<Symbol>,
        /// How the body is encoded.
        content_encoding: Option<Symbol>,
        /// When it is of no use any more, in milliseconds since the start of 1970.
        absolute_expiry_time: Option<i64>,
        /// When it was made, in milliseconds since the start of 1970.
        creation_time: Option<i64>,
        /// Names the group it belongs to.
        group_id: Option<Text>,
        /// Its place in the group.
        group_sequence: Option<u32>,
        /// Names the group of an answer.
        reply_to_group_id: Option<Text>,
    }
}

/// Names a message. An answer has to repeat the type too: clients compare it (`contract/hub-device.md` 4.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MessageId {
    /// A number.
    Ulong(u64),
    /// A UUID.
    Uuid([u8; 16]),
    /// Bytes.
    Binary(Bytes),
    /// Characters.
    String(Text),
}

impl From<MessageId> for Value {
    fn from(id: MessageId) -> Self {
        match id {
            MessageId::Ulong(number) => Self::Ulong(number),
            MessageId::Uuid(bytes) => Self::Uuid(bytes),
            MessageId::Binary(bytes) => Self::Binary(bytes),
            MessageId::String(text) => Self::String(text),
        }
    }
}

impl Scalar for MessageId {
    fn read(reader: &mut Reader<'_>, code: u8) -> Result<Self, Malformed> {
        match code {
            0x44 | 0x53 | 0x80 => reader.ulong(code).map(Self::Ulong),
            0x98 => reader.array().map(Self::Uuid),
            0xa0 | 0xb0 => reader.binary(code).map(Self::Binary),
            0xa1 | 0xb1 => reader.text(code).map(Self::String),
            _ => Err(reader.wrong_type("message identifier", code)),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ulong(number) => encode::ulong(*number, out),
            Self::Uuid(bytes) => encode::fixed(0x98, bytes, out),
            Self::Binary(bytes) => encode::binary(bytes, out),
            Self::String(text) => encode::text(text, out),
        }
    }
}

impl Message {
    /// Reads a whole payload.
    pub fn decode(payload: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let mut message = Self::default();
        let mut seen = Sections::default();
        while !reader.is_empty() {
            let offset = reader.offset();
            let descriptor = read_descriptor(&mut reader)?;
            if !seen.note(descriptor) {
                return Err(Malformed { offset, fault: Fault::RepeatedSection });
            }
            message.read_section(descriptor, &mut reader, offset)?;
        }
        Ok(message)
    }

    fn read_section(&mut self, descriptor: u64, reader: &mut Reader<'_>, offset: usize) -> Result<(), Malformed> {
        let malformed = |fault| Malformed { offset, fault };
        match descriptor {
            descriptor::HEADER => self.header = Some(Header::read_list(reader)?),
            descriptor::DELIVERY_ANNOTATIONS => self.delivery_annotations = read_map(reader)?,
            descriptor::MESSAGE_ANNOTATIONS => self.message_annotations = read_map(reader)?,
            descriptor::PROPERTIES => self.properties = Some(Box::new(Properties::read_list(reader)?)),
            descriptor::APPLICATION_PROPERTIES => self.application_properties = read_map(reader)?,
            descriptor::DATA => {
                let code = reader.u8()?;
                self.body.push_data(reader.binary(code)?).map_err(malformed)?;
            }
            descriptor::AMQP_SEQUENCE => {
                let code = reader.u8()?;
                self.body.push_sequence(reader.list(code)?).map_err(malformed)?;
            }
            descriptor::AMQP_VALUE => self.body.set_value(reader.value()?).map_err(malformed)?,
            descriptor::FOOTER => self.footer = read_map(reader)?,
            _ => return Err(malformed(Fault::Descriptor { expected: "section" })),
        }
        Ok(())
    }

    /// Appends the payload, its sections in the standard's order.
    pub fn encode(&self, output: &mut Vec<u8>) {
        if let Some(header) = &self.header {
            Composite::write(header, output);
        }
        write_map(descriptor::DELIVERY_ANNOTATIONS, &self.delivery_annotations, output);
        write_map(descriptor::MESSAGE_ANNOTATIONS, &self.message_annotations, output);
        if let Some(properties) = &self.properties {
            Composite::write(&**properties, output);
        }
        write_map(descriptor::APPLICATION_PROPERTIES, &self.application_properties, output);
        match &self.body {
            Body::Empty => {}
            Body::Data(sections) => {
                for bytes in sections {
                    encode::descriptor(descriptor::DATA, output);
                    encode::binary(bytes, output);
                }
            }
            Body::Sequences(sections) => {
                for values in sections {
                    encode::descriptor(descriptor::AMQP_SEQUENCE, output);
                    encode::list(values, output);
                }
            }
            Body::Value(value) => {
                encode::descriptor(descriptor::AMQP_VALUE, output);
                encode::value(value, output);
            }
        }
        write_map(descriptor::FOOTER, &self.footer, output);
    }

    /// The payload.
    pub fn to_bytes(&self) -> Bytes {
        let mut output = Vec::new();
        self.encode(&mut output);
        output.into()
    }

    /// Names the message, if it has a name.
    pub fn message_id(&self) -> Option<&MessageId> {
        self.properties.as_ref()?.message_id.as_ref()
    }

    /// Names what the message answers, if it says so.
    pub fn correlation_id(&self) -> Option<&MessageId> {
        self.properties.as_ref()?.correlation_id.as_ref()
    }
}

/// Which sections were seen, those of bodies left out: they watch over themselves.
#[derive(Default)]
struct Sections(u16);

impl Sections {
    /// `false` if a section that may occur once was seen before.
    fn note(&mut self, descriptor: u64) -> bool {
        let bit = match descriptor {
            descriptor::HEADER..descriptor::DATA | descriptor::FOOTER => 1u16 << (descriptor - descriptor::HEADER),
            _ => return true,
        };
        let was_seen = self.0 & bit != 0;
        self.0 |= bit;
        !was_seen
    }
}

fn read_descriptor(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    let offset = reader.offset();
    let unknown = Malformed { offset, fault: Fault::Descriptor { expected: "section" } };
    if reader.u8()? != 0x00 {
        return Err(unknown);
    }
    reader.descriptor()?.ok_or(unknown)
}

/// A map, or null for an empty one.
fn read_map(reader: &mut Reader<'_>) -> Result<Map, Malformed> {
    match reader.u8()? {
        0x40 => Ok(Map::EMPTY),
        code => reader.map(code),
    }
}

fn write_map(descriptor: u64, map: &Map, output: &mut Vec<u8>) {
    if !map.is_empty() {
        encode::descriptor(descriptor, output);
        Field::write(map, output);
    }
}
