//! What is known of one link: its ends, its credit, the delivery that is under way.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::SessionId;
use crate::amqp::performative::{Attach, Flow, ReceiverSettleMode, Role, SenderSettleMode, Transfer};
use crate::amqp::terminus::{AttachTarget, Source, Target};
use crate::amqp::text::{Symbol, Text};
use crate::amqp::value::Map;

/// Where a link stands (part 2, section 2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// We attached, the peer has not answered.
    Attaching,
    /// The peer attached, the caller has not answered.
    Deciding,
    /// Both attached.
    Attached,
    /// We detached, the peer has not answered. `is_reported` if the caller knows that it is over.
    Detaching { is_reported: bool },
}

/// How a link is to be answered, or made.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkTerms {
    /// Where messages come from.
    pub source: Option<Box<Source>>,
    /// Where messages go to.
    pub target: Option<Box<AttachTarget>>,
    /// How the sender settles.
    pub snd_settle_mode: SenderSettleMode,
    /// How the receiver settles.
    pub rcv_settle_mode: ReceiverSettleMode,
    /// The longest message, in bytes; 0 for any. Always said: the C client sends nothing without it
    /// (`contract/hub-device.md` 4.5). Held against what is received.
    pub max_message_size: u64,
    /// Extensions that this end has.
    pub offered_capabilities: Vec<Symbol>,
    /// Extensions that this end would use.
    pub desired_capabilities: Vec<Symbol>,
    /// More about the link.
    pub properties: Map,
}

impl LinkTerms {
    /// The terms that `attach` asks for, with a bound on messages: same ends, same settle modes.
    ///
    /// A peer that sends gets a receiver that settles first, whatever it asks for: Python's uAMQP asks for second, and
    /// then waits for ever instead of settling.
    pub fn echo(attach: &Attach, max_message_size: u64) -> Self {
        let rcv_settle_mode = match attach.role {
            Role::Sender => ReceiverSettleMode::First,
            Role::Receiver => attach.rcv_settle_mode,
        };
        Self {
            source: attach.source.clone(),
            target: attach.target.clone(),
            snd_settle_mode: attach.snd_settle_mode,
            rcv_settle_mode,
            max_message_size,
            offered_capabilities: Vec::new(),
            desired_capabilities: Vec::new(),
            properties: Map::EMPTY,
        }
    }

    /// Terms from one address to another, settled by the receiver at once.
    pub fn between(source: Source, target: impl Into<AttachTarget>, max_message_size: u64) -> Self {
        Self {
            source: Some(Box::new(source)),
            target: Some(Box::new(target.into())),
            snd_settle_mode: SenderSettleMode::Mixed,
            rcv_settle_mode: ReceiverSettleMode::First,
            max_message_size,
            offered_capabilities: Vec::new(),
            desired_capabilities: Vec::new(),
            properties: Map::EMPTY,
        }
    }
}

/// How a delivery that is sent is to be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// At once; the peer has no say.
    Settled,
    /// When the peer has told its state.
    Unsettled,
    /// It looks unsettled to the peer, and nothing is kept: for peers that settle when they like, or never
    /// (`contract/eventhub-endpoint.md` 0). A state that is told for it is answered and not reported.
    Forgotten,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Names the delivery on its link, at most 32 bytes; unique among those that are not settled.
    pub tag: Bytes,
    /// The format of the payload; 0 is a [`Message`](crate::amqp::Message).
    pub message_format: u32,
    /// How it is settled.
    pub settlement: Settlement,
    /// The message, in as many pieces as are at hand. They are sent one after the other.
    pub payload: Vec<Bytes>,
}

/// A message that waits to be sent, or is under way.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) tag: Bytes,
    pub(super) message_format: u32,
    pub(super) settlement: Settlement,
    pub(super) payload: VecDeque<Bytes>,
    /// Bytes that are not sent.
    pub(super) bytes_left: usize,
    /// The number of the delivery, once its first transfer has left.
    pub(super) number: Option<u32>,
}

impl From<Outgoing> for Queued {
    fn from(outgoing: Outgoing) -> Self {
        let Outgoing { tag, message_format, settlement, payload } = outgoing;
        let bytes_left = payload.iter().map(Bytes::len).sum();
        Self { tag, message_format, settlement, payload: payload.into(), bytes_left, number: None }
    }
}

impl Queued {
    /// Moves the next `count` bytes of the payload to `out`.
    pub(super) fn move_payload(&mut self, count: usize, out: &mut Vec<u8>) {
        let mut wanted = count.min(self.bytes_left);
        self.bytes_left -= wanted;
        while wanted > 0 {
            let Some(piece) = self.payload.front_mut() else { return };
            let taken = piece.split_to(wanted.min(piece.len()));
            wanted -= taken.len();
            out.extend_from_slice(&taken);
            if piece.is_empty() {
                self.payload.pop_front();
            }
        }
    }
}

/// A delivery of which more is to come.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) number: u32,
    pub(super) tag: Bytes,
    pub(super) message_format: u32,
    pub(super) is_settled: bool,
    pub(super) settle_mode: Option<ReceiverSettleMode>,
    first: Bytes,
    rest: BytesMut,
}

impl Partial {
    /// Starts with the first transfer; `None` if a field is missing that a first transfer must have.
    pub(super) fn start(transfer: Transfer) -> Option<Self> {
        Some(Self {
            number: transfer.delivery_id?,
            tag: transfer.delivery_tag?,
            message_format: transfer.message_format.unwrap_or(0),
            is_settled: false,
            settle_mode: transfer.rcv_settle_mode,
            first: Bytes::new(),
            rest: BytesMut::new(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// Appends what a transfer carries. A payload in one piece stays a slice of its frame.
    pub(super) fn push(&mut self, payload: Bytes) {
        if self.len() == 0 {
            self.first = payload;
        } else {
            if self.rest.is_empty() {
                self.rest.extend_from_slice(&std::mem::take(&mut self.first));
            }
            self.rest.extend_from_slice(&payload);
        }
    }

    /// The whole payload.
    pub(super) fn finish(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}

/// One link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) session: SessionId,
    pub(super) state: LinkState,
    pub(super) name: Text,
    /// What we are.
    pub(super) role: Role,
    pub(super) local_handle: u32,
    pub(super) peer_handle: Option<u32>,
    pub(super) rcv_settle_mode: ReceiverSettleMode,
    /// What this end takes, if it receives; what the peer takes, if it sends. `None` for any.
    pub(super) message_bytes_max: Option<u64>,
    delivery_count: u32,
    credit: u32,
    pub(super) is_draining: bool,
    /// Whether its credit is kept although it is to drain.
    pub(super) is_credit_held: bool,
    /// The delivery that is being received.
    pub(super) partial: Option<Box<Partial>>,
    /// What is to be sent; the first may be under way.
    pub(super) queue: VecDeque<Queued>,
    /// Deliveries that were queued or sent, and are not settled.
    pub(super) in_flight: usize,
    /// Whether the link stands in a queue of links that can send.
    pub(super) is_ready: bool,
}

impl Link {
    pub(super) fn new(session: SessionId, state: LinkState, name: Text, role: Role, local_handle: u32) -> Self {
        Self {
            session,
            state,
            name,
            role,
            local_handle,
            peer_handle: None,
            rcv_settle_mode: ReceiverSettleMode::First,
            message_bytes_max: None,
            delivery_count: 0,
            credit: 0,
            is_draining: false,
            is_credit_held: false,
            partial: None,
            queue: VecDeque::new(),
            in_flight: 0,
            is_ready: false,
        }
    }

    /// Takes what the peer said when it attached.
    pub(super) fn handle_attach(&mut self, attach: &Attach) {
        self.peer_handle = Some(attach.handle);
        match self.role {
            Role::Sender => self.message_bytes_max = attach.max_message_size.filter(|&bytes| bytes > 0),
            Role::Receiver => self.delivery_count = attach.initial_delivery_count.unwrap_or(0),
        }
    }

    /// What we say to attach.
    pub(super) fn attach(&mut self, terms: LinkTerms) -> Attach {
        self.rcv_settle_mode = terms.rcv_settle_mode;
        if self.role == Role::Receiver {
            self.message_bytes_max = Some(terms.max_message_size).filter(|&bytes| bytes > 0);
        }
        Attach {
            name: self.name.clone(),
            handle: self.local_handle,
            role: self.role,
            snd_settle_mode: terms.snd_settle_mode,
            rcv_settle_mode: terms.rcv_settle_mode,
            source: terms.source,
            target: terms.target,
            unsettled: Map::EMPTY,
            incomplete_unsettled: false,
            initial_delivery_count: (self.role == Role::Sender).then_some(self.delivery_count),
            max_message_size: Some(terms.max_message_size),
            offered_capabilities: terms.offered_capabilities,
            desired_capabilities: terms.desired_capabilities,
            properties: terms.properties,
        }
    }

    /// What we say to attach where there is nothing to attach to (part 2, section 2.6.3): the terminus that the peer asks
    /// for is absent, its own is there because Python's decoder wants one (`contract/eventhub-endpoint.md` 3.1).
    pub(super) fn refusal(&mut self) -> Attach {
        let mut terms = LinkTerms::between(Source::default(), Target::default(), 0);
        match self.role {
            Role::Sender => terms.source = None,
            Role::Receiver => terms.target = None,
        }
        self.attach(terms)
    }

    /// How many deliveries the receiver still takes.
    pub(super) const fn credit(&self) -> u32 {
        self.credit
    }

    /// Takes one credit for a delivery that begins; `false` if there is none (part 2, section 2.6.7).
    pub(super) fn take_credit(&mut self) -> bool {
        let Some(rest) = self.credit.checked_sub(1) else { return false };
        self.credit = rest;
        self.delivery_count = self.delivery_count.wrapping_add(1);
        true
    }

    /// Gives the sender more credit.
    pub(super) fn add_credit(&mut self, count: u32, credit_max: u32) {
        self.credit = self.credit.saturating_add(count).min(credit_max);
    }

    /// Takes the peer's word on credit, or, if the peer sends, on what it has given up of it. Returns whether there is
    /// more to send with.
    pub(super) fn handle_flow(&mut self, flow: &Flow) -> bool {
        let before = self.credit;
        match self.role {
            Role::Sender => {
                if let Some(link_credit) = flow.link_credit {
                    // Before it has seen our attach, the receiver counts from the number we began with.
                    let under_way = self.delivery_count.wrapping_sub(flow.delivery_count.unwrap_or(0));
                    self.credit = link_credit.saturating_sub(under_way);
                }
                self.is_draining = flow.drain;
                self.credit > before
            }
            Role::Receiver => {
                // A sender can give up what credit it has; any other count is a mistake, and changes nothing.
                if let Some(delivery_count) = flow.delivery_count
                    && let Some(rest) = self.credit.checked_sub(delivery_count.wrapping_sub(self.delivery_count))
                {
                    self.credit = rest;
                    self.delivery_count = delivery_count;
                }
                false
            }
        }
    }

    /// Gives up what credit is left, as a receiver that drains asks for.
    pub(super) fn give_up_credit(&mut self) {
        self.delivery_count = self.delivery_count.wrapping_add(self.credit);
        self.credit = 0;
    }

    /// Adds the state of the link to that of its session.
    pub(super) fn flow(&self, session: Flow) -> Flow {
        Flow {
            handle: Some(self.local_handle),
            // A receiver does not know it before the sender has attached (part 2, section 2.7.4).
            delivery_count: (self.role == Role::Sender || self.peer_handle.is_some()).then_some(self.delivery_count),
            link_credit: Some(self.credit),
            available: (self.role == Role::Sender).then_some(self.queue.len() as u32),
            drain: self.is_draining,
            ..session
        }
    }

    /// Bytes that wait to be sent.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.iter().map(|queued| queued.bytes_left).sum()
    }

    /// Bytes of a delivery of which more is to come.
    pub(super) fn partial_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.len())
    }
}
