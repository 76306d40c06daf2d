//! A client that sends anything and a caller that does anything, at any time: the server's end keeps its promises.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proto::amqp::frame::{FrameType, ProtocolHeader, decode_frame, encode_frame};
use proto::amqp::{
    Attach, Begin, Connection, DeliveryId, DeliveryState, Detach, Disposition, End, Error, Event, Flow, Limits, LinkId,
    LinkTerms, Map, Open, Outgoing, Performative, ReceiverSettleMode, Role, SaslCode, SaslFrame, SaslInit,
    SenderSettleMode, SessionId, Settlement, Source, Symbol, Target, Transfer, Unsent, condition,
};

use crate::script::Script;

const FRAME_BYTES_MAX: u32 = 600;
const MESSAGE_BYTES_MAX: u64 = 100;
/// The longest answer to one frame: an attach that repeats what it was asked for.
const ANSWER_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX as usize;

/// More than there are frames in the longest input, each of which may be answered in a round of its own.
const ROUNDS_MAX: usize = 10_000;

/// Reads `input` as a script: bytes of limits, then steps.
///
/// # Panics
/// When a promise of [`Connection`] is broken.
pub fn check(input: &[u8]) {
    let mut script = Script(input);
    let limits = Limits {
        frame_bytes_max: FRAME_BYTES_MAX,
        open_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(100),
        sessions_max: script.number(1, 3) as u16,
        links_max: script.number(1, 5) as u32,
        session_window: script.number(0, 5) as u32,
        credit_max: script.number(0, 10) as u32,
        unfinished_bytes_max: script.number(0, 200),
        unsettled_max: script.number(0, 5),
        queued_max: script.number(0, 5),
        queued_bytes_max: script.number(0, 250),
        in_flight_max: script.number(0, 3),
        output_bytes_max: script.number(1, 250),
        ..Limits::default()
    };
    let mut session = Session::new(limits);
    session.introduce(&mut script);
    while !script.is_over() {
        session.step(&mut script);
        session.check();
    }
    session.finish();
}

/// A small number, or now and then a large one.
fn serial(script: &mut Script<'_>) -> u32 {
    match script.byte() {
        255 => u32::MAX,
        254 => 1 << 31,
        small => u32::from(small % 8),
    }
}

fn role(script: &mut Script<'_>) -> Role {
    if script.bit() { Role::Sender } else { Role::Receiver }
}

/// What is known of a link from outside.
struct Link {
    session: SessionId,
    attach: Box<Attach>,
    is_answered: bool,
    granted: u64,
    delivered: u64,
}

/// A connection, and what is known of it from outside.
struct Session {
    connection: Connection,
    limits: Limits,
    now: Instant,
    links: BTreeMap<LinkId, Link>,
    sessions: Vec<SessionId>,
    /// Deliveries that were reported and not settled; some may be gone.
    open: Vec<DeliveryId>,
    written: BytesMut,
    skipped: usize,
    peer_frame_bytes_max: u32,
    was_closed: bool,
}

impl Session {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        let mechanisms = vec![Symbol::from_static("PLAIN")];
        Self {
            connection: Connection::server(Arc::new(limits.clone()), "hub".into(), mechanisms, now),
            limits,
            now,
            links: BTreeMap::new(),
            sessions: Vec::new(),
            open: Vec::new(),
            written: BytesMut::new(),
            skipped: 0,
            peer_frame_bytes_max: 512,
            was_closed: false,
        }
    }

    /// Most scripts get past the opening; some may do what they like with it.
    fn introduce(&mut self, script: &mut Script<'_>) {
        match script.byte() % 4 {
            0 => return,
            1 => {
                let mechanism = Symbol::from_static("PLAIN");
                let init = SaslInit { mechanism, initial_response: None, hostname: None };
                let mut bytes = ProtocolHeader::Sasl.to_bytes().to_vec();
                encode_frame(&mut bytes, FrameType::Sasl, 0, |out| SaslFrame::Init(init).encode(out));
                self.receive(&bytes);
                self.report();
            }
            _ => {}
        }
        self.receive(&ProtocolHeader::Amqp.to_bytes());
        self.peer_frame_bytes_max = if script.bit() { 512 } else { u32::MAX };
        let open = Open {
            container_id: "device".into(),
            hostname: None,
            max_frame_size: self.peer_frame_bytes_max,
            channel_max: script.number(0, 3) as u16,
            idle_time_out: Some(script.number(0, 3) as u32 * 20_000),
            outgoing_locales: Vec::new(),
            incoming_locales: Vec::new(),
            offered_capabilities: Vec::new(),
            desired_capabilities: Vec::new(),
            properties: Map::EMPTY,
        };
        self.receive_frame(0, &Performative::Open(Box::new(open)), b"");
        self.report();
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 24 {
            0 => self.receive(script.bytes_to(64)),
            1 | 2 => self.receive_begin(script),
            3..=5 => self.receive_attach(script),
            6..=8 => self.receive_flow(script),
            9..=11 => self.receive_transfer(script),
            12 | 13 => self.receive_disposition(script),
            14 => self.receive_end(script),
            15 | 16 => self.answer(script),
            17 => self.grant(script),
            18 => self.settle(script),
            19 | 20 => self.send(script),
            21 => self.write(script.number(0, 255)),
            22 => self.pass(Duration::from_secs(script.number(0, 60) as u64)),
            _ => self.end(script),
        }
        self.report();
    }

    fn receive(&mut self, bytes: &[u8]) {
        if self.connection.wants_input() {
            self.connection.handle_input(bytes, self.now);
        }
    }

    fn receive_frame(&mut self, channel: u16, performative: &Performative, payload: &[u8]) {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, FrameType::Amqp, channel, |out| {
            performative.encode(out);
            out.extend_from_slice(payload);
        });
        self.receive(&bytes);
    }

    fn receive_begin(&mut self, script: &mut Script<'_>) {
        let begin = Begin {
            remote_channel: (script.byte() % 16 == 1).then_some(0),
            next_outgoing_id: serial(script),
            incoming_window: serial(script),
            outgoing_window: serial(script),
            handle_max: serial(script),
            offered_capabilities: Vec::new(),
            desired_capabilities: Vec::new(),
            properties: Map::EMPTY,
        };
        self.receive_frame(script.number(0, 3) as u16, &Performative::Begin(Box::new(begin)), b"");
    }

    fn receive_attach(&mut self, script: &mut Script<'_>) {
        let attach = Attach {
            name: if script.bit() { "a".into() } else { "b".into() },
            handle: script.number(0, 5) as u32,
            role: role(script),
            snd_settle_mode: SenderSettleMode::Mixed,
            rcv_settle_mode: if script.bit() { ReceiverSettleMode::First } else { ReceiverSettleMode::Second },
            source: Some(Box::new(Source::at("s"))),
            target: Some(Box::new(Target::at("t").into())),
            unsettled: Map::EMPTY,
            incomplete_unsettled: false,
            initial_delivery_count: Some(serial(script)),
            max_message_size: Some(u64::from(script.byte())),
            offered_capabilities: Vec::new(),
            desired_capabilities: Vec::new(),
            properties: Map::EMPTY,
        };
        self.receive_frame(script.number(0, 3) as u16, &Performative::Attach(Box::new(attach)), b"");
    }

    fn receive_flow(&mut self, script: &mut Script<'_>) {
        let is_of_link = !script.byte().is_multiple_of(4);
        let flow = Flow {
            next_incoming_id: Some(serial(script)),
            incoming_window: serial(script),
            next_outgoing_id: serial(script),
            outgoing_window: serial(script),
            handle: is_of_link.then(|| script.number(0, 5) as u32),
            delivery_count: is_of_link.then(|| serial(script)),
            link_credit: is_of_link.then(|| serial(script)),
            available: None,
            drain: script.byte() % 4 == 1,
            echo: script.byte() % 4 == 1,
            properties: Map::EMPTY,
        };
        self.receive_frame(script.number(0, 3) as u16, &Performative::Flow(flow), b"");
    }

    fn receive_transfer(&mut self, script: &mut Script<'_>) {
        let is_first = !script.byte().is_multiple_of(4);
        let transfer = Transfer {
            handle: script.number(0, 5) as u32,
            delivery_id: is_first.then(|| serial(script)),
            delivery_tag: is_first.then(|| Bytes::from(vec![1; script.number(0, 33)])),
            message_format: Some(0),
            settled: Some(script.bit()),
            more: script.bit(),
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: script.byte() % 8 == 1,
            batchable: false,
        };
        let channel = script.number(0, 3) as u16;
        self.receive_frame(channel, &Performative::Transfer(transfer), script.bytes_to(64));
    }

    fn receive_disposition(&mut self, script: &mut Script<'_>) {
        let disposition = Disposition {
            role: role(script),
            first: serial(script),
            last: script.bit().then(|| serial(script)),
            settled: script.bit(),
            state: script.bit().then_some(DeliveryState::Accepted),
            batchable: false,
        };
        self.receive_frame(script.number(0, 3) as u16, &Performative::Disposition(disposition), b"");
    }

    fn receive_end(&mut self, script: &mut Script<'_>) {
        let channel = script.number(0, 3) as u16;
        let end = if script.byte().is_multiple_of(4) {
            Performative::End(End { error: None })
        } else {
            Performative::Detach(Detach { handle: script.number(0, 5) as u32, closed: script.bit(), error: None })
        };
        self.receive_frame(channel, &end, b"");
    }

    fn pick_link(&self, script: &mut Script<'_>) -> Option<LinkId> {
        let count = self.links.len();
        self.links.keys().nth(script.number(0, count.max(1) - 1)).copied()
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        let Some((&id, link)) = self.links.iter_mut().find(|(_, link)| !link.is_answered) else { return };
        link.is_answered = true;
        if script.byte().is_multiple_of(4) {
            self.connection.refuse_link(id, Error::new(condition::NOT_FOUND, "no"));
        } else {
            self.connection.accept_link(id, LinkTerms::echo(&link.attach, MESSAGE_BYTES_MAX));
        }
    }

    fn grant(&mut self, script: &mut Script<'_>) {
        let Some(id) = self.pick_link(script) else { return };
        let count = script.number(0, 5) as u32;
        self.connection.grant_credit(id, count);
        assert!(self.connection.credit(id) <= self.limits.credit_max.max(u32::from(u8::MAX)) || !self.receives(id));
        if let Some(link) = self.links.get_mut(&id) {
            link.granted += u64::from(count);
        }
    }

    fn receives(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| link.attach.role == Role::Sender)
    }

    fn settle(&mut self, script: &mut Script<'_>) {
        if self.open.is_empty() {
            return;
        }
        let id = self.open.swap_remove(script.number(0, self.open.len() - 1));
        let state = if script.bit() { DeliveryState::Accepted } else { DeliveryState::Released };
        self.connection.settle(id, state);
    }

    fn send(&mut self, script: &mut Script<'_>) {
        let Some(id) = self.pick_link(script) else { return };
        let settlement = match script.byte() % 3 {
            0 => Settlement::Settled,
            1 => Settlement::Unsettled,
            _ => Settlement::Forgotten,
        };
        let payload = vec![Bytes::from(vec![7; script.number(0, 255) * 4]), Bytes::from_static(b"end")];
        let outgoing = Outgoing { tag: Bytes::from_static(&[1; 16]), message_format: 0, settlement, payload };
        match self.connection.send(id, outgoing) {
            Ok(()) => assert!(!self.receives(id)),
            Err(Unsent::Full) => assert!(
                self.connection.queued() > 0
                    || self.limits.queued_max == 0
                    || settlement == Settlement::Unsettled
                    || self.limits.queued_bytes_max == 0
            ),
            Err(_) => {}
        }
    }

    /// Writes up to `count` bytes, and reads them as the client would.
    fn write(&mut self, count: usize) {
        let output = self.connection.output();
        let written = output.get(..count).unwrap_or(output);
        self.written.extend_from_slice(written);
        let count = written.len();
        self.connection.handle_written(count, self.now);
        // Headers, frames of SASL, and headers again: nothing there has a payload.
        while self.written.starts_with(b"AMQP") && self.written.len() >= 8 {
            ProtocolHeader::take(&mut self.written).expect("it is whole");
        }
        loop {
            if self.written.get(5) == Some(&1) {
                let Some(frame) = decode_frame(&mut self.written, FrameType::Sasl, 512).expect("we send frames") else {
                    return;
                };
                SaslFrame::decode(&frame.body).expect("we send SASL");
                self.skipped += 1;
                while self.written.starts_with(b"AMQP") && self.written.len() >= 8 {
                    ProtocolHeader::take(&mut self.written).expect("it is whole");
                }
                continue;
            }
            if self.written.starts_with(b"AMQP") {
                return;
            }
            let max = self.peer_frame_bytes_max.min(ANSWER_BYTES_MAX as u32);
            let Some(frame) = decode_frame(&mut self.written, FrameType::Amqp, max).expect("we send frames") else {
                return;
            };
            if !frame.body.is_empty() {
                Performative::decode(&frame.body).expect("we send performatives");
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let is_due = self.connection.poll_timeout().is_some_and(|at| at <= self.now);
        self.connection.handle_timeout(self.now);
        if is_due && !self.connection.is_closed() {
            let next = self.connection.poll_timeout().expect("time mattered, and it still does");
            assert!(next > self.now, "a driver would spin");
        }
    }

    fn end(&mut self, script: &mut Script<'_>) {
        match script.byte() % 12 {
            0 => self.connection.close(None, self.now),
            1 => self.connection.handle_eof(),
            2 => self.connection.close(Some(Error::new(condition::CONNECTION_FORCED, "bye")), self.now),
            3 => {
                if let Some(&id) = self.sessions.first() {
                    self.connection.end_session(id, None);
                    self.links.retain(|_, link| link.session != id);
                }
            }
            4 => self.connection.begin().map_or((), |id| self.sessions.push(id)),
            5 => self.attach(script),
            6 => {
                if let Some(id) = self.pick_link(script) {
                    self.connection.forget(id, |_| true);
                }
            }
            _ => {
                if let Some(id) = self.pick_link(script) {
                    self.connection.detach(id, script.bit(), None);
                }
            }
        }
    }

    fn attach(&mut self, script: &mut Script<'_>) {
        let Some(&session) = self.sessions.last() else { return };
        let terms = LinkTerms::between(Source::at("s"), Target::at("t"), MESSAGE_BYTES_MAX);
        let _ = self.connection.attach(session, "ours".into(), role(script), terms);
    }

    /// Takes every event.
    fn report(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            assert!(!self.was_closed, "{event:?} after the end");
            match event {
                Event::SaslInit(_) | Event::SaslResponse(_) => {
                    self.connection.sasl_outcome(SaslCode::Ok, self.now).expect("it is short");
                }
                Event::Open(_) => self.connection.open(Map::EMPTY, self.now),
                Event::Begin { session } => self.sessions.push(session),
                Event::End { session, .. } => {
                    self.sessions.retain(|known| *known != session);
                    self.links.retain(|_, link| link.session != session);
                }
                Event::Attach { link, session, attach } => {
                    let new = Link { session, attach, is_answered: false, granted: 0, delivered: 0 };
                    assert!(self.links.insert(link, new).is_none(), "a link is named twice");
                }
                Event::Detach { link, .. } => {
                    self.links.remove(&link);
                }
                Event::Delivery(delivery) => {
                    assert!(delivery.payload.len() as u64 <= MESSAGE_BYTES_MAX);
                    let link = self.links.get_mut(&delivery.link).expect("a delivery on no link");
                    link.delivered += 1;
                    assert!(link.delivered <= link.granted, "more deliveries than credit");
                    if !delivery.is_settled {
                        self.open.push(delivery.id);
                    }
                }
                Event::Outcome { id, is_settled: false, .. } => self.open.push(id),
                Event::UnknownOutcome { deliveries, state } => self.connection.settle_unknown(&deliveries, &state),
                Event::Closed(_) => self.was_closed = true,
                Event::SaslMechanisms(_)
                | Event::SaslChallenge(_)
                | Event::Attached { .. }
                | Event::Credit { .. }
                | Event::Outcome { .. } => {}
            }
        }
    }

    fn check(&mut self) {
        assert_eq!(self.was_closed, self.connection.is_closed());
        assert!(self.connection.unsettled() <= self.limits.unsettled_max);
        assert!(self.connection.queued() <= self.limits.queued_max);
        assert!(self.links.len() <= self.limits.links_max as usize);
        // What was there when input was last wanted, and the answers to the last input and to what the caller did.
        let output_bytes = self.connection.output().len();
        let bound = 2 * self.limits.output_bytes_max + 20 * ANSWER_BYTES_MAX;
        assert!(output_bytes <= bound || !self.connection.wants_input(), "{output_bytes}");
    }

    /// A connection whose output is written goes on, or is over.
    fn finish(mut self) {
        let mut rounds = 0;
        while rounds == 0 || !self.connection.output().is_empty() {
            self.write(usize::MAX);
            self.report();
            self.check();
            rounds += 1;
            assert!(rounds <= ROUNDS_MAX, "it says something for ever");
        }
        assert!(self.connection.wants_input() || self.was_closed, "stuck");
    }
}
