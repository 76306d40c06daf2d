//! Frames of an open connection, each to its session: begin, end, flow and close (part 2, sections 2.4 and 2.5).

use bytes::{Bytes, BytesMut};

use super::session::{Session, SessionState};
use super::{CloseReason, Connection, Event, SessionId, State, Unsent};
use crate::amqp::frame::{FrameType, MIN_MAX_FRAME_SIZE, decode_frame};
use crate::amqp::performative::{Begin, Close, End, Flow, Performative};
use crate::amqp::state::{Error, condition};
use crate::amqp::text::Symbol;

/// Broken rules that wait to be logged; more say nothing new.
const FAULTS_MAX: usize = 8;

impl Connection {
    /// Begins a session. Links can be attached to it once [`Event::Begin`] has named it.
    pub fn begin(&mut self) -> Result<SessionId, Unsent> {
        if !self.is_open() {
            return Err(Unsent::NotOpen);
        }
        let channel_max = self.peer.channel_max.min(self.limits.channel_max());
        let channel = self.sessions.free_channel(None, channel_max).ok_or(Unsent::Exhausted)?;
        let session = Session::new(channel, self.limits.session_window);
        let begin = session.begin(self.limits.handle_max());
        let id = self.sessions.insert(session);
        self.push_frame(channel, &Performative::Begin(Box::new(begin)));
        Ok(id)
    }

    /// Ends a session and its links. [`Event::End`] follows when the peer has done so.
    pub fn end_session(&mut self, id: SessionId, error: Option<Error>) {
        self.start_ending(id, error.map(Box::new), false);
    }

    /// Ends all sessions and their links, for a peer that takes a close for more than it says while it has sessions. An
    /// [`Event::End`] follows for each when the peer has ended it.
    pub fn end_sessions(&mut self) {
        for id in self.sessions.ids() {
            self.start_ending(id, None, false);
        }
    }

    /// How the peer broke the rules of sessions and links since the last call, for a log. Not more than the first few of
    /// them, since each says the same of the peer.
    pub fn take_faults(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.faults)
    }

    /// Takes note that the peer broke a rule.
    pub(super) fn note_fault(&mut self, what: &'static str) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(what);
        }
    }

    /// Ends a session whose peer broke a rule.
    pub(super) fn fail_session(&mut self, id: SessionId, condition: Symbol, what: &'static str) {
        self.note_fault(what);
        let error = Box::new(Error::new(condition, what));
        self.start_ending(id, Some(error.clone()), true);
        self.events.push_back(Event::End { session: id, error: Some(error) });
    }

    fn start_ending(&mut self, id: SessionId, error: Option<Box<Error>>, is_reported: bool) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if matches!(session.state, SessionState::Ending { .. }) {
            return;
        }
        session.state = SessionState::Ending { is_reported };
        let channel = session.local_channel;
        self.forget_links_of(id);
        self.push_frame(channel, &Performative::End(End { error }));
    }

    /// The next frame's channel and body; `None` if there is none, or the connection has ended over it.
    pub(super) fn next_body(&mut self) -> Option<(u16, Bytes)> {
        let frame_bytes_max = self.limits.frame_bytes_max.max(MIN_MAX_FRAME_SIZE);
        match decode_frame(&mut self.input, FrameType::Amqp, frame_bytes_max) {
            Ok(Some(frame)) => {
                self.heard_at = self.received_at;
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                Some((frame.channel, frame.body))
            }
            Ok(None) => None,
            Err(misframed) => {
                let error = Error::new(condition::FRAMING_ERROR, misframed.to_string());
                self.push_close(Some(Box::new(error)));
                self.end(CloseReason::Misframed(misframed));
                None
            }
        }
    }

    /// What a frame says; `None` if the connection has ended over it.
    pub(super) fn decode(&mut self, body: &Bytes) -> Option<(Performative, Bytes)> {
        match Performative::decode(body) {
            Ok(decoded) => Some(decoded),
            Err(malformed) => {
                let error = Error::new(condition::DECODE_ERROR, malformed.to_string());
                self.push_close(Some(Box::new(error)));
                self.end(CloseReason::Malformed(malformed));
                None
            }
        }
    }

    pub(super) fn step_open(&mut self) -> bool {
        let Some((channel, body)) = self.next_body() else { return self.is_closed() };
        // An empty frame is a sign of life (part 2, section 2.4.5).
        if !body.is_empty()
            && let Some((performative, payload)) = self.decode(&body)
        {
            self.handle_performative(channel, performative, payload);
        }
        true
    }

    /// After our close, only the peer's counts.
    pub(super) fn step_closing(&mut self) -> bool {
        let frame_bytes_max = self.limits.frame_bytes_max.max(MIN_MAX_FRAME_SIZE);
        let is_answer = match decode_frame(&mut self.input, FrameType::Amqp, frame_bytes_max) {
            Ok(Some(frame)) => matches!(Performative::decode(&frame.body), Ok((Performative::Close(_), _))),
            Ok(None) => return false,
            Err(_) => true,
        };
        if let State::Closing(reason) = &mut self.state
            && is_answer
        {
            let reason = std::mem::replace(reason, CloseReason::Lost);
            self.end(reason);
        }
        true
    }

    fn handle_performative(&mut self, channel: u16, performative: Performative, payload: Bytes) {
        match performative {
            Performative::Open(_) => return self.violate(condition::ILLEGAL_STATE, "a second open"),
            Performative::Close(close) => return self.handle_close(close),
            Performative::Begin(begin) => return self.handle_begin(channel, &begin),
            _ => {}
        }
        let Some(id) = self.sessions.on_remote_channel(channel) else {
            // rhea ends a session and goes on to settle, to give credit and to detach until that is answered.
            let is_farewell =
                matches!(performative, Performative::Disposition(_) | Performative::Flow(_) | Performative::Detach(_));
            if is_farewell && self.sessions.has_ended_on(channel) {
                return;
            }
            return self.violate(condition::NOT_ALLOWED, "a frame on a channel without a session");
        };
        let is_ending = self.sessions.get(id).is_some_and(|session| session.state != SessionState::Mapped);
        match performative {
            Performative::End(end) => self.handle_end(id, end),
            // What was under way when we ended it.
            _ if is_ending => {}
            Performative::Attach(attach) => self.handle_attach(id, attach),
            Performative::Flow(flow) => self.handle_flow(id, &flow),
            Performative::Transfer(transfer) => self.handle_transfer(id, transfer, payload),
            Performative::Disposition(disposition) => self.handle_disposition(id, disposition),
            Performative::Detach(detach) => self.handle_detach(id, detach),
            Performative::Open(_) | Performative::Begin(_) | Performative::Close(_) => {}
        }
    }

    pub(super) fn handle_close(&mut self, close: Close) {
        self.push_close(None);
        self.end(CloseReason::Peer(close.error));
    }

    fn handle_begin(&mut self, channel: u16, begin: &Begin) {
        if channel > self.limits.channel_max() {
            return self.violate(condition::FRAMING_ERROR, "a channel above channel-max");
        }
        if self.sessions.on_remote_channel(channel).is_some() {
            return self.violate(condition::NOT_ALLOWED, "a second begin on a channel");
        }
        match begin.remote_channel {
            Some(local_channel) => self.handle_begin_answer(channel, local_channel, begin),
            None => self.handle_peer_begin(channel, begin),
        }
    }

    fn handle_begin_answer(&mut self, channel: u16, local_channel: u16, begin: &Begin) {
        let Some(id) = self.sessions.beginning_on(local_channel) else {
            return self.violate(condition::NOT_ALLOWED, "a begin answers nothing");
        };
        self.sessions.map(id, channel);
        let Some(session) = self.sessions.get_mut(id) else { return };
        let was_ended = matches!(session.state, SessionState::Ending { .. });
        let state = session.state;
        session.handle_begin(begin, channel);
        if was_ended {
            session.state = state;
        } else {
            self.events.push_back(Event::Begin { session: id });
        }
    }

    fn handle_peer_begin(&mut self, channel: u16, begin: &Begin) {
        // Ours and the peer's sessions together; ours alone keep below the channels there are.
        let is_full = self.sessions.len() >= usize::from(self.limits.sessions_max.max(1));
        let local_channel = self.sessions.free_channel(Some(channel), self.peer.channel_max);
        let Some(local_channel) = local_channel.filter(|_| !is_full) else {
            return self.violate(condition::RESOURCE_LIMIT_EXCEEDED, "too many sessions");
        };
        let mut session = Session::new(local_channel, self.limits.session_window);
        session.handle_begin(begin, channel);
        let answer = session.begin(self.limits.handle_max());
        let id = self.sessions.insert(session);
        self.push_frame(local_channel, &Performative::Begin(Box::new(answer)));
        self.events.push_back(Event::Begin { session: id });
    }

    fn handle_end(&mut self, id: SessionId, end: End) {
        self.forget_links_of(id);
        let Some(session) = self.sessions.remove(id) else { return };
        let is_reported = match session.state {
            SessionState::Ending { is_reported } => is_reported,
            SessionState::Beginning | SessionState::Mapped => {
                self.push_frame(session.local_channel, &Performative::End(End { error: None }));
                false
            }
        };
        if !is_reported {
            self.events.push_back(Event::End { session: id, error: end.error });
        }
    }

    fn handle_flow(&mut self, id: SessionId, flow: &Flow) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.handle_flow(flow);
        if session.is_window_open() {
            self.ready.extend(std::mem::take(&mut session.blocked));
        }
        let Some(handle) = flow.handle else {
            if flow.echo {
                self.push_session_flow(id);
            }
            return;
        };
        match session.handles.get(&handle) {
            Some(&link) => self.handle_link_flow(link, flow),
            None => self.fail_session(id, condition::UNATTACHED_HANDLE, "a flow for a handle that is not attached"),
        }
    }

    /// Tells the peer the session's state, with the whole window open.
    pub(super) fn push_session_flow(&mut self, id: SessionId) {
        let window = self.limits.session_window;
        let Some(session) = self.sessions.get_mut(id) else { return };
        let (channel, flow) = (session.local_channel, session.flow(window));
        self.push_frame(channel, &Performative::Flow(flow));
    }
}
