//! From the first byte to the peer's open: protocol headers and SASL (part 2, section 2.2; part 5, section 5.3).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{CloseReason, Connection, Event, PeerLimits, State, Unsent};
use crate::amqp::frame::{FrameType, MIN_MAX_FRAME_SIZE, ProtocolHeader, decode_frame, encode_frame};
use crate::amqp::performative::{Open, Performative};
use crate::amqp::sasl::{SaslChallenge, SaslCode, SaslFrame, SaslInit, SaslMechanisms, SaslOutcome, SaslResponse};
use crate::amqp::state::condition;
use crate::amqp::text::{Symbol, Text};
use crate::amqp::value::Map;

/// How a client introduces itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientOpening {
    /// Who it is.
    pub container_id: Text,
    /// Whom it dials.
    pub hostname: Option<Text>,
    /// More about it.
    pub properties: Map,
    /// Whether it begins with a SASL exchange.
    pub with_sasl: bool,
}

/// What comes next, before both have opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A client's first header, of SASL or of AMQP.
    FirstHeader,
    /// A server's header of SASL.
    SaslHeader,
    /// A header of AMQP: a client's after SASL, or a server's.
    AmqpHeader,
    /// A frame of the SASL exchange.
    Sasl,
    /// The caller's next frame of the SASL exchange.
    SaslDeciding,
    /// The peer's open.
    Open,
    /// The caller's open, at a server.
    OpenDeciding,
}

impl Phase {
    /// Whether it is the caller's turn.
    pub(super) const fn is_deciding(self) -> bool {
        matches!(self, Self::SaslDeciding | Self::OpenDeciding)
    }

    /// Whether the peer knows that AMQP is spoken, so that it can be told of a close.
    pub(super) const fn can_close(self) -> bool {
        matches!(self, Self::Open | Self::OpenDeciding)
    }
}

/// What is needed until the connection is open.
#[derive(Debug)]
pub(super) struct Opening {
    is_client: bool,
    container_id: Text,
    hostname: Option<Text>,
    properties: Map,
    /// A server's.
    mechanisms: Vec<Symbol>,
    /// Whether the first frame of the peer's SASL exchange was taken.
    was_sasl_started: bool,
    was_open_sent: bool,
    /// When the caller last answered within the SASL exchange.
    answered_at: Option<Instant>,
}

impl Opening {
    pub(super) fn server(container_id: Text, mechanisms: Vec<Symbol>) -> Self {
        Self {
            is_client: false,
            container_id,
            hostname: None,
            properties: Map::EMPTY,
            mechanisms,
            was_sasl_started: false,
            was_open_sent: false,
            answered_at: None,
        }
    }

    pub(super) fn client(client: ClientOpening) -> Self {
        let ClientOpening { container_id, hostname, properties, .. } = client;
        Self {
            is_client: true,
            container_id,
            hostname,
            properties,
            mechanisms: Vec::new(),
            was_sasl_started: false,
            was_open_sent: false,
            answered_at: None,
        }
    }
}

impl Connection {
    /// Chooses a SASL mechanism, as [`Event::SaslMechanisms`] asks for. Does nothing if it is not the client's turn.
    pub fn sasl_init(&mut self, init: SaslInit, now: Instant) -> Result<(), Unsent> {
        self.answer_sasl(&SaslFrame::Init(init), Phase::Sasl, now)
    }

    /// Answers [`Event::SaslChallenge`]. Does nothing if it is not the client's turn.
    pub fn sasl_response(&mut self, response: Bytes, now: Instant) -> Result<(), Unsent> {
        self.answer_sasl(&SaslFrame::Response(SaslResponse { response }), Phase::Sasl, now)
    }

    /// Answers [`Event::SaslInit`] or [`Event::SaslResponse`] with a question. Does nothing if it is not the server's
    /// turn.
    pub fn sasl_challenge(&mut self, challenge: Bytes, now: Instant) -> Result<(), Unsent> {
        self.answer_sasl(&SaslFrame::Challenge(SaslChallenge { challenge }), Phase::Sasl, now)
    }

    /// Answers [`Event::SaslInit`] or [`Event::SaslResponse`] with a verdict. Any but `Ok` ends the connection. Does
    /// nothing if it is not the server's turn.
    pub fn sasl_outcome(&mut self, code: SaslCode, now: Instant) -> Result<(), Unsent> {
        let outcome = SaslFrame::Outcome(SaslOutcome { code, additional_data: None });
        self.answer_sasl(&outcome, Phase::AmqpHeader, now)?;
        if code != SaslCode::Ok && self.is_opening() {
            self.end(CloseReason::Sasl(code));
        }
        Ok(())
    }

    /// Answers [`Event::Open`] at a server: the connection is open. Does nothing if there is none to answer.
    pub fn open(&mut self, properties: Map, now: Instant) {
        if matches!(self.state, State::Opening(Phase::OpenDeciding)) {
            self.push_open(properties);
            self.start(now);
        }
    }

    /// Sends the caller's frame. The time it took to decide is none of the peer's.
    fn answer_sasl(&mut self, frame: &SaslFrame, next: Phase, now: Instant) -> Result<(), Unsent> {
        if !matches!(self.state, State::Opening(Phase::SaslDeciding)) {
            return Ok(());
        }
        let before = self.output.back().len();
        if self.push_sasl(frame) > MIN_MAX_FRAME_SIZE as usize {
            self.output.back().truncate(before);
            return Err(Unsent::Sasl);
        }
        if let Some(opening) = &mut self.opening {
            // What lay ready behind an earlier frame was not looked at before that was answered.
            let asked_at = opening.answered_at.map_or(self.received_at, |at| at.max(self.received_at));
            opening.answered_at = Some(now);
            self.deadline = self.deadline.map(|deadline| deadline + now.saturating_duration_since(asked_at));
        }
        self.state = State::Opening(next);
        Ok(())
    }

    fn push_sasl(&mut self, frame: &SaslFrame) -> usize {
        encode_frame(self.output.back(), FrameType::Sasl, 0, |out| frame.encode(out))
    }

    /// Sends a client's first header. The open follows that of AMQP at once: nothing in it depends on the answer.
    pub(super) fn introduce(&mut self, with_sasl: bool) {
        if with_sasl {
            self.output.push_bytes(&ProtocolHeader::Sasl.to_bytes());
        } else {
            self.output.push_bytes(&ProtocolHeader::Amqp.to_bytes());
            self.push_open(Map::EMPTY);
        }
    }

    /// Sends our open, once.
    pub(super) fn push_open(&mut self, properties: Map) {
        let Some(opening) = &mut self.opening else { return };
        if std::mem::replace(&mut opening.was_open_sent, true) {
            return;
        }
        let open = Open {
            container_id: opening.container_id.clone(),
            hostname: opening.hostname.clone(),
            max_frame_size: self.limits.frame_bytes_max.max(MIN_MAX_FRAME_SIZE),
            channel_max: self.limits.channel_max(),
            idle_time_out: Some(u32::try_from(self.limits.idle_timeout.as_millis()).unwrap_or(u32::MAX)),
            outgoing_locales: Vec::new(),
            incoming_locales: Vec::new(),
            offered_capabilities: Vec::new(),
            desired_capabilities: Vec::new(),
            properties: if opening.is_client { opening.properties.clone() } else { properties },
        };
        // What the peer takes is in its own open; a client's goes out before that (part 2, section 2.4.1).
        let performative = Performative::Open(Box::new(open));
        encode_frame(self.output.back(), FrameType::Amqp, 0, |out| performative.encode(out));
    }

    pub(super) fn step_opening(&mut self, phase: Phase) -> bool {
        match phase {
            Phase::FirstHeader | Phase::SaslHeader | Phase::AmqpHeader => self.step_header(phase),
            Phase::Sasl => self.step_sasl(),
            Phase::Open => self.step_peer_open(),
            Phase::SaslDeciding | Phase::OpenDeciding => false,
        }
    }

    fn step_header(&mut self, phase: Phase) -> bool {
        let Some(header) = ProtocolHeader::take(&mut self.input) else { return false };
        let is_client = self.is_client();
        match (phase, header) {
            (Phase::FirstHeader, ProtocolHeader::Sasl) => {
                self.output.push_bytes(&ProtocolHeader::Sasl.to_bytes());
                let offered = self.opening.as_ref().map(|opening| opening.mechanisms.clone());
                let mechanisms = SaslMechanisms { sasl_server_mechanisms: offered.unwrap_or_default() };
                self.push_sasl(&SaslFrame::Mechanisms(mechanisms));
                self.state = State::Opening(Phase::Sasl);
            }
            (Phase::SaslHeader, ProtocolHeader::Sasl) => self.state = State::Opening(Phase::Sasl),
            (Phase::FirstHeader | Phase::AmqpHeader, ProtocolHeader::Amqp) => {
                if !is_client {
                    self.output.push_bytes(&ProtocolHeader::Amqp.to_bytes());
                }
                self.state = State::Opening(Phase::Open);
            }
            (_, other) => {
                if !is_client {
                    self.output.push_bytes(&ProtocolHeader::Amqp.to_bytes());
                }
                self.end(CloseReason::ForeignProtocol(other.to_bytes()));
            }
        }
        true
    }

    fn step_sasl(&mut self) -> bool {
        let frame = match decode_frame(&mut self.input, FrameType::Sasl, self.limits.sasl_frame_bytes_max) {
            Ok(Some(frame)) => frame,
            Ok(None) => return false,
            Err(misframed) => {
                self.end(CloseReason::Misframed(misframed));
                return true;
            }
        };
        match SaslFrame::decode(&frame.body) {
            Ok(frame) => self.handle_sasl(frame),
            Err(malformed) => self.end(CloseReason::Malformed(malformed)),
        }
        true
    }

    fn handle_sasl(&mut self, frame: SaslFrame) {
        let Some(opening) = &mut self.opening else { return };
        let is_first = !std::mem::replace(&mut opening.was_sasl_started, true);
        let event = match (opening.is_client, is_first, frame) {
            (false, true, SaslFrame::Init(init)) => {
                if !opening.mechanisms.contains(&init.mechanism) {
                    let outcome = SaslOutcome { code: SaslCode::Auth, additional_data: None };
                    self.push_sasl(&SaslFrame::Outcome(outcome));
                    return self.end(CloseReason::SaslMechanism(init.mechanism));
                }
                Event::SaslInit(init)
            }
            (false, false, SaslFrame::Response(response)) => Event::SaslResponse(response.response),
            (true, true, SaslFrame::Mechanisms(offered)) => Event::SaslMechanisms(offered.sasl_server_mechanisms),
            (true, false, SaslFrame::Challenge(challenge)) => Event::SaslChallenge(challenge.challenge),
            (true, false, SaslFrame::Outcome(SaslOutcome { code: SaslCode::Ok, .. })) => {
                self.introduce(false);
                self.state = State::Opening(Phase::AmqpHeader);
                return;
            }
            (true, false, SaslFrame::Outcome(outcome)) => return self.end(CloseReason::Sasl(outcome.code)),
            _ => {
                let what = "a SASL frame out of turn";
                return self.end(CloseReason::Violation { condition: condition::ILLEGAL_STATE, what });
            }
        };
        self.state = State::Opening(Phase::SaslDeciding);
        self.events.push_back(event);
    }

    fn step_peer_open(&mut self) -> bool {
        let Some((_, body)) = self.next_body() else { return self.is_closed() };
        if body.is_empty() {
            return true;
        }
        match self.decode(&body) {
            Some((Performative::Open(open), _)) => self.handle_open(open),
            Some((Performative::Close(close), _)) => self.handle_close(close),
            Some(_) => self.violate(condition::ILLEGAL_STATE, "a frame before open"),
            None => {}
        }
        true
    }

    fn handle_open(&mut self, open: Box<Open>) {
        if open.max_frame_size < MIN_MAX_FRAME_SIZE {
            return self.violate(condition::INVALID_FIELD, "max-frame-size is below 512");
        }
        let idle = open.idle_time_out.filter(|&ms| ms > 0);
        self.peer = PeerLimits {
            frame_bytes_max: open.max_frame_size,
            channel_max: open.channel_max,
            // Half of it, so that a late frame is in time (part 2, section 2.4.5).
            heartbeat: idle.map(|ms| Self::HEARTBEAT_MIN.max(Duration::from_millis(u64::from(ms) / 2))),
        };
        if self.is_client() {
            self.start(self.received_at);
        } else {
            self.state = State::Opening(Phase::OpenDeciding);
        }
        self.events.push_back(Event::Open(open));
    }

    /// Both have opened.
    fn start(&mut self, now: Instant) {
        self.state = State::Open;
        self.opening = None;
        self.deadline = None;
        self.heard_at = now;
        self.written_at = now;
    }

    fn is_client(&self) -> bool {
        self.opening.as_ref().is_some_and(|opening| opening.is_client)
    }
}
