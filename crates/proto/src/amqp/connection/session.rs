//! What is known of one session: its channel, its windows, its deliveries.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::forgotten::Forgotten;
use super::{LinkId, SessionId};
use crate::amqp::performative::{Begin, Flow};
use crate::amqp::value::Map;

/// How many transfers we say we may send: as many as the peer takes.
const OUTGOING_WINDOW: u32 = u32::MAX;

/// Where a session stands (part 2, section 2.5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionState {
    /// We began, the peer has not answered.
    Beginning,
    /// Both began.
    Mapped,
    /// We ended, the peer has not answered. `is_reported` if the caller knows that it is over.
    Ending { is_reported: bool },
}

/// A delivery that was received and is not settled.
#[derive(Debug)]
pub(super) struct ReceivedDelivery {
    pub(super) link: LinkId,
    /// Whether the sender settles first.
    pub(super) settles_second: bool,
}

/// A delivery that was sent and is not settled.
#[derive(Debug)]
pub(super) struct SentDelivery {
    pub(super) link: LinkId,
    pub(super) tag: Bytes,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) state: SessionState,
    pub(super) local_channel: u16,
    /// `None` until the peer has begun.
    pub(super) remote_channel: Option<u16>,
    next_incoming_id: u32,
    incoming_window: u32,
    next_outgoing_id: u32,
    remote_incoming_window: u32,
    next_delivery_id: u32,
    peer_handle_max: u32,
    /// The peer's handles.
    pub(super) handles: BTreeMap<u32, LinkId>,
    /// Our handles.
    pub(super) local_handles: BTreeSet<u32>,
    pub(super) received: BTreeMap<u32, ReceivedDelivery>,
    pub(super) sent: BTreeMap<u32, SentDelivery>,
    pub(super) forgotten: Forgotten,
    /// Links that wait for the peer's window.
    pub(super) blocked: Vec<LinkId>,
}

impl Session {
    pub(super) fn new(local_channel: u16, window: u32) -> Self {
        Self {
            state: SessionState::Beginning,
            local_channel,
            remote_channel: None,
            next_incoming_id: 0,
            incoming_window: window,
            next_outgoing_id: 0,
            remote_incoming_window: 0,
            next_delivery_id: 0,
            peer_handle_max: 0,
            handles: BTreeMap::new(),
            local_handles: BTreeSet::new(),
            received: BTreeMap::new(),
            sent: BTreeMap::new(),
            forgotten: Forgotten::default(),
            blocked: Vec::new(),
        }
    }

    /// What we say to begin, or to answer a begin on `remote_channel`.
    pub(super) fn begin(&self, handle_max: u32) -> Begin {
        Begin {
            remote_channel: self.remote_channel,
            next_outgoing_id: self.next_outgoing_id,
            incoming_window: self.incoming_window,
            outgoing_window: OUTGOING_WINDOW,
            handle_max,
            offered_capabilities: Vec::new(),
            desired_capabilities: Vec::new(),
            properties: Map::EMPTY,
        }
    }

    /// Takes what the peer said.
    pub(super) fn handle_begin(&mut self, begin: &Begin, remote_channel: u16) {
        self.remote_channel = Some(remote_channel);
        self.next_incoming_id = begin.next_outgoing_id;
        self.remote_incoming_window = begin.incoming_window;
        self.peer_handle_max = begin.handle_max;
        self.state = SessionState::Mapped;
    }

    /// The lowest handle that is free and that the peer takes; from here on in use.
    pub(super) fn take_handle(&mut self) -> Option<u32> {
        let free = (0u32..).zip(&self.local_handles).find(|(candidate, taken)| candidate != *taken);
        let handle = free.map_or(self.local_handles.len() as u32, |(candidate, _)| candidate);
        (handle <= self.peer_handle_max && self.local_handles.insert(handle)).then_some(handle)
    }

    /// Counts a transfer of the peer; `false` if the window has no place for it (part 2, section 2.5.6).
    pub(super) fn count_incoming(&mut self) -> bool {
        let Some(rest) = self.incoming_window.checked_sub(1) else { return false };
        self.incoming_window = rest;
        self.next_incoming_id = self.next_incoming_id.wrapping_add(1);
        true
    }

    /// Whether half of the window is used up, and the peer has to hear of more.
    pub(super) const fn needs_flow(&self, window: u32) -> bool {
        self.incoming_window <= window / 2
    }

    /// Whether the peer takes another transfer.
    pub(super) const fn is_window_open(&self) -> bool {
        self.remote_incoming_window > 0
    }

    /// Counts a transfer of ours.
    pub(super) fn count_outgoing(&mut self) {
        self.remote_incoming_window = self.remote_incoming_window.saturating_sub(1);
        self.next_outgoing_id = self.next_outgoing_id.wrapping_add(1);
    }

    /// A number for a delivery of ours.
    pub(super) fn next_delivery_id(&mut self) -> u32 {
        let number = self.next_delivery_id;
        self.next_delivery_id = number.wrapping_add(1);
        number
    }

    /// Takes the peer's windows (part 2, section 2.5.6).
    pub(super) fn handle_flow(&mut self, flow: &Flow) {
        self.next_incoming_id = flow.next_outgoing_id;
        // Before it has seen our begin, the peer counts from the number we began with.
        let under_way = self.next_outgoing_id.wrapping_sub(flow.next_incoming_id.unwrap_or(0));
        self.remote_incoming_window = flow.incoming_window.saturating_sub(under_way);
    }

    /// The state of the session, with the whole window open again.
    pub(super) fn flow(&mut self, window: u32) -> Flow {
        self.incoming_window = window;
        Flow {
            // Before the peer has begun there is none.
            next_incoming_id: self.remote_channel.map(|_| self.next_incoming_id),
            incoming_window: self.incoming_window,
            next_outgoing_id: self.next_outgoing_id,
            outgoing_window: OUTGOING_WINDOW,
            handle: None,
            delivery_count: None,
            link_credit: None,
            available: None,
            drain: false,
            echo: false,
            properties: Map::EMPTY,
        }
    }

    /// Forgets a link and its deliveries. Returns how many received ones were not settled.
    pub(super) fn forget_deliveries(&mut self, link: LinkId) -> usize {
        let before = self.received.len();
        self.received.retain(|_, delivery| delivery.link != link);
        self.sent.retain(|_, delivery| delivery.link != link);
        before - self.received.len()
    }
}

/// The numbers from `first` to `last`, both included, that `deliveries` holds. Numbers go round (part 2, 2.8.10).
pub(super) fn numbers_in<T>(deliveries: &BTreeMap<u32, T>, first: u32, last: u32) -> Vec<u32> {
    if first <= last {
        return deliveries.range(first..=last).map(|(number, _)| *number).collect();
    }
    let (high, low) = (deliveries.range(first..), deliveries.range(..=last));
    high.chain(low).map(|(number, _)| *number).collect()
}

/// The sessions of a connection, by our name for them and by the peer's channel.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<SessionId, Box<Session>>,
    by_remote_channel: BTreeMap<u16, SessionId>,
    /// Channels of the peer on which there was a session and is none: as many as there are channels at most.
    ended: BTreeSet<u16>,
    next: u64,
}

impl Sessions {
    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id).map(|session| &mut **session)
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id).map(|session| &**session)
    }

    pub(super) fn on_remote_channel(&self, channel: u16) -> Option<SessionId> {
        self.by_remote_channel.get(&channel).copied()
    }

    /// Whether there was a session on the peer's `channel`, and is none.
    pub(super) fn has_ended_on(&self, channel: u16) -> bool {
        self.ended.contains(&channel)
    }

    /// The session that we began on `channel`, and the peer has not answered.
    pub(super) fn beginning_on(&self, channel: u16) -> Option<SessionId> {
        let is_it = |session: &Session| session.local_channel == channel && session.remote_channel.is_none();
        self.by_id.iter().find(|(_, session)| is_it(session)).map(|(id, _)| *id)
    }

    /// A channel of ours that is free: the wished one, or the lowest.
    pub(super) fn free_channel(&self, wished: Option<u16>, channel_max: u16) -> Option<u16> {
        let is_free = |channel: &u16| self.by_id.values().all(|session| session.local_channel != *channel);
        let wished = wished.filter(|channel| *channel <= channel_max && is_free(channel));
        wished.or_else(|| (0..=channel_max).find(is_free))
    }

    pub(super) fn insert(&mut self, session: Session) -> SessionId {
        let id = SessionId(self.next);
        self.next += 1;
        if let Some(channel) = session.remote_channel {
            self.map(id, channel);
        }
        self.by_id.insert(id, Box::new(session));
        id
    }

    /// Notes which channel the peer has chosen for a session of ours.
    pub(super) fn map(&mut self, id: SessionId, remote_channel: u16) {
        self.by_remote_channel.insert(remote_channel, id);
        self.ended.remove(&remote_channel);
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Box<Session>> {
        let session = self.by_id.remove(&id)?;
        if let Some(channel) = session.remote_channel {
            self.by_remote_channel.remove(&channel);
            self.ended.insert(channel);
        }
        Some(session)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.by_id.keys().copied().collect()
    }
}
