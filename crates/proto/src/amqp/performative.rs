//! The nine performatives of a connection (part 2, section 2.7).

use bytes::Bytes;

use super::composite::{Composite, Scalar, choices, composite};
use super::decode::{Fault, Malformed, Reader};
use super::descriptor;
use super::encode;
use super::state::{DeliveryState, Error};
use super::terminus::{AttachTarget, Source};
use super::text::{Symbol, Text};
use super::value::Map;

/// The longest that a delivery tag may be, in bytes (part 2, section 2.8.7).
pub const DELIVERY_TAG_BYTES_MAX: usize = 32;

/// What a frame of a connection says.
#[derive(Clone, Debug, PartialEq)]
pub enum Performative {
    /// Negotiates the connection.
    Open(Box<Open>),
    /// Begins a session on a channel.
    Begin(Box<Begin>),
    /// Attaches a link to a session.
    Attach(Box<Attach>),
    /// Tells the state of a session and a link.
    Flow(Flow),
    /// Carries a message, or a part of one.
    Transfer(Transfer),
    /// Tells the state of deliveries.
    Disposition(Disposition),
    /// Detaches a link.
    Detach(Detach),
    /// Ends a session.
    End(End),
    /// Closes the connection.
    Close(Close),
}

impl Performative {
    /// The name in the standard.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Begin(_) => "begin",
            Self::Attach(_) => "attach",
            Self::Flow(_) => "flow",
            Self::Transfer(_) => "transfer",
            Self::Disposition(_) => "disposition",
            Self::Detach(_) => "detach",
            Self::End(_) => "end",
            Self::Close(_) => "close",
        }
    }

    /// Reads the body of a frame: a performative, and what follows it.
    pub fn decode(body: &Bytes) -> Result<(Self, Bytes), Malformed> {
        let mut reader = Reader::new(body);
        let performative = Self::read(&mut reader)?;
        Ok((performative, body.slice(reader.offset()..)))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let unknown = Malformed { offset: 0, fault: Fault::Descriptor { expected: "performative" } };
        if reader.u8()? != 0x00 {
            return Err(unknown);
        }
        Ok(match reader.descriptor()? {
            Some(descriptor::OPEN) => Self::Open(Box::new(Open::read_list(reader)?)),
            Some(descriptor::BEGIN) => Self::Begin(Box::new(Begin::read_list(reader)?)),
            Some(descriptor::ATTACH) => Self::Attach(Box::new(Attach::read_list(reader)?)),
            Some(descriptor::FLOW) => Self::Flow(Flow::read_list(reader)?),
            Some(descriptor::TRANSFER) => Self::Transfer(Transfer::read_list(reader)?),
            Some(descriptor::DISPOSITION) => Self::Disposition(Disposition::read_list(reader)?),
            Some(descriptor::DETACH) => Self::Detach(Detach::read_list(reader)?),
            Some(descriptor::END) => Self::End(End::read_list(reader)?),
            Some(descriptor::CLOSE) => Self::Close(Close::read_list(reader)?),
            _ => return Err(unknown),
        })
    }

    /// Appends the performative; the payload of a transfer follows it.
    pub fn encode(&self, output: &mut Vec<u8>) {
        match self {
            Self::Open(open) => Composite::write(&**open, output),
            Self::Begin(begin) => Composite::write(&**begin, output),
            Self::Attach(attach) => Composite::write(&**attach, output),
            Self::Flow(flow) => Composite::write(flow, output),
            Self::Transfer(transfer) => Composite::write(transfer, output),
            Self::Disposition(disposition) => Composite::write(disposition, output),
            Self::Detach(detach) => Composite::write(detach, output),
            Self::End(end) => Composite::write(end, output),
            Self::Close(close) => Composite::write(close, output),
        }
    }
}

/// Which end of a link somebody is (part 2, section 2.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends messages.
    Sender,
    /// Receives messages.
    Receiver,
}

impl Role {
    /// The other end's role.
    pub const fn opposite(self) -> Self {
        match self {
            Self::Sender => Self::Receiver,
            Self::Receiver => Self::Sender,
        }
    }
}

impl Scalar for Role {
    fn read(reader: &mut Reader<'_>, code: u8) -> Result<Self, Malformed> {
        Ok(if reader.boolean(code)? { Self::Receiver } else { Self::Sender })
    }

    fn write(&self, out: &mut Vec<u8>) {
        encode::boolean(*self == Self::Receiver, out);
    }
}

choices! {
    /// How a sender settles (part 2, section 2.8.2).
    SenderSettleMode {
        /// It sends everything unsettled.
        Unsettled = 0,
        /// It sends everything settled.
        Settled = 1,
        /// It may do either.
        Mixed = 2,
    }
}

choices! {
    /// How a receiver settles (part 2, section 2.8.3).
    ReceiverSettleMode {
        /// It settles by itself.
        First = 0,
        /// It tells the outcome, and settles when the sender has.
        Second = 1,
    }
}

composite! {
    /// Negotiates the connection (part 2, section 2.7.1).
    Open = descriptor::OPEN {
        /// Who speaks.
        container_id: Text,
        /// Whom the speaker dialled.
        hostname: Option<Text>,
        /// The longest frame the speaker takes, in bytes.
        max_frame_size: u32 = u32::MAX,
        /// The highest channel that may be used.
        channel_max: u16 = u16::MAX,
        /// The longest silence the speaker suffers, in milliseconds.
        idle_time_out: Option<u32>,
        /// Languages for texts that the speaker sends.
        outgoing_locales: Vec<Symbol>,
        /// Languages for texts that the speaker wishes.
        incoming_locales: Vec<Symbol>,
        /// Extensions that the speaker has.
        offered_capabilities: Vec<Symbol>,
        /// Extensions that the speaker would use.
        desired_capabilities: Vec<Symbol>,
        /// More about the speaker.
        properties: Map,
    }
}

composite! {
    /// Begins a session (part 2, section 2.7.2).
    Begin = descriptor::BEGIN {
        /// The channel of the begin that this one answers.
        remote_channel: Option<u16>,
        /// The number of the next transfer of the speaker.
        next_outgoing_id: u32,
        /// How many transfers the speaker takes.
        incoming_window: u32,
        /// How many transfers the speaker may send.
        outgoing_window: u32,
        /// The highest handle that may be used.
        handle_max: u32 = u32::MAX,
        /// Extensions that the speaker has.
        offered_capabilities: Vec<Symbol>,
        /// Extensions that the speaker would use.
        desired_capabilities: Vec<Symbol>,
        /// More about the session.
        properties: Map,
    }
}

composite! {
    /// Attaches a link (part 2, section 2.7.3).
    Attach = descriptor::ATTACH {
        /// Names the link, together with the two containers and the direction.
        name: Text,
        /// The speaker's number for the link.
        handle: u32,
        /// What the speaker is.
        role: Role,
        /// How the sender settles.
        snd_settle_mode: SenderSettleMode = SenderSettleMode::Mixed,
        /// How the receiver settles.
        rcv_settle_mode: ReceiverSettleMode = ReceiverSettleMode::First,
        /// Where messages come from.
        source: Option<Box<Source>>,
        /// Where messages go to.
        target: Option<Box<AttachTarget>>,
        /// Deliveries that were not settled when the link was detached.
        unsettled: Map,
        /// Whether `unsettled` is cut short.
        incomplete_unsettled: bool = false,
        /// The sender's delivery count; there if the speaker is the sender.
        initial_delivery_count: Option<u32>,
        /// The longest message that the speaker takes or sends, in bytes. Absent or 0: any.
        max_message_size: Option<u64>,
        /// Extensions that the speaker has.
        offered_capabilities: Vec<Symbol>,
        /// Extensions that the speaker would use.
        desired_capabilities: Vec<Symbol>,
        /// More about the link.
        properties: Map,
    }
}

composite! {
    /// Tells the state of a session and a link (part 2, section 2.7.4).
    Flow = descriptor::FLOW {
        /// The number of the transfer that the speaker expects; absent before it has seen the session begin.
        next_incoming_id: Option<u32>,
        /// How many transfers the speaker takes.
        incoming_window: u32,
        /// The number of the next transfer of the speaker.
        next_outgoing_id: u32,
        /// How many transfers the speaker may send.
        outgoing_window: u32,
        /// The link that the rest is about.
        handle: Option<u32>,
        /// The sender's delivery count.
        delivery_count: Option<u32>,
        /// How many deliveries the receiver takes, counted from `delivery_count`.
        link_credit: Option<u32>,
        /// How many deliveries wait at the sender.
        available: Option<u32>,
        /// Whether credit that cannot be used is given up.
        drain: bool = false,
        /// Whether the speaker wants an answer.
        echo: bool = false,
        /// More about the link.
        properties: Map,
    }
}

composite! {
    /// Carries a message, or a part of one (part 2, section 2.7.5).
    Transfer = descriptor::TRANSFER {
        /// The link.
        handle: u32,
        /// The number of the delivery in the session; there in its first transfer.
        delivery_id: Option<u32>,
        /// Names the delivery on the link; there in its first transfer.
        delivery_tag: Option<Bytes>,
        /// The format of the message; there in its first transfer.
        message_format: Option<u32>,
        /// Whether the sender has settled.
        settled: Option<bool>,
        /// Whether the message goes on in another transfer.
        more: bool = false,
        /// How the receiver is to settle this delivery.
        rcv_settle_mode: Option<ReceiverSettleMode>,
        /// The state at the sender.
        state: Option<DeliveryState>,
        /// Whether this goes on with a delivery of a detached link.
        resume: bool = false,
        /// Whether the delivery is given up.
        aborted: bool = false,
        /// A hint that dispositions may be batched.
        batchable: bool = false,
    }
}

composite! {
    /// Tells the state of deliveries (part 2, section 2.7.6).
    Disposition = descriptor::DISPOSITION {
        /// What the speaker is in those deliveries.
        role: Role,
        /// The first delivery.
        first: u32,
        /// The last delivery; absent if it is the first.
        last: Option<u32>,
        /// Whether the speaker has settled.
        settled: bool = false,
        /// The state at the speaker.
        state: Option<DeliveryState>,
        /// A hint that dispositions may be batched.
        batchable: bool = false,
    }
}

composite! {
    /// Detaches a link (part 2, section 2.7.7).
    Detach = descriptor::DETACH {
        /// The speaker's number for the link.
        handle: u32,
        /// Whether the link is over, not only detached.
        closed: bool = false,
        /// Why.
        error: Option<Box<Error>>,
    }
}

composite! {
    /// Ends a session (part 2, section 2.7.8).
    End = descriptor::END {
        /// Why.
        error: Option<Box<Error>>,
    }
}

composite! {
    /// Closes the connection (part 2, section 2.7.9).
    Close = descriptor::CLOSE {
        /// Why.
        error: Option<Box<Error>>,
    }
}
