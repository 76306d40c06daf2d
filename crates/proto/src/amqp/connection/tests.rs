//! Scripts against the server's end: what arrives, what is reported, what is sent, at which time.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::amqp::frame::{self, FrameType, ProtocolHeader};
use crate::amqp::performative::{Begin, Detach, End, Flow, ReceiverSettleMode, Role, SenderSettleMode, Transfer};
use crate::amqp::sasl::SaslFrame;
use crate::amqp::terminus::{AttachTarget, Coordinator, Source, Target};

mod lifetime;
mod link;
mod opening;
mod pair;
mod violations;

/// A connection with the driver's part played by hand. Time stands still until it is moved.
struct Script {
    connection: Connection,
    now: Instant,
}

impl Script {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        let mechanisms = vec![Symbol::from_static("MSSBCBS"), Symbol::from_static("PLAIN")];
        Self { connection: Connection::server(Arc::new(limits), "hub".into(), mechanisms, now), now }
    }

    /// A connection that is open, with what was said so far out of the way.
    fn open(limits: Limits) -> Self {
        Self::open_with(limits, open())
    }

    fn open_with(limits: Limits, open: Open) -> Self {
        let mut script = Self::new(limits);
        script.receive_bytes(&ProtocolHeader::Amqp.to_bytes());
        script.receive(&[(0, Performative::Open(Box::new(open.clone())))]);
        assert_eq!(script.events(), [Event::Open(Box::new(open))]);
        script.connection.open(Map::EMPTY, script.now);
        let sent = script.sent_bytes();
        assert_eq!(sent[..8], ProtocolHeader::Amqp.to_bytes());
        script
    }

    /// An open connection with a session on the peer's channel 1.
    fn with_session(limits: Limits) -> (Self, SessionId) {
        let mut script = Self::open(limits);
        let session = script.begin();
        (script, session)
    }

    fn begin(&mut self) -> SessionId {
        self.receive(&[(1, Performative::Begin(Box::new(begin())))]);
        let [Event::Begin { session }] = self.events()[..] else { panic!("no session") };
        let sent = self.sent();
        assert!(
            matches!(&sent[..], [(1, Performative::Begin(begin), _)] if begin.remote_channel == Some(1)),
            "{sent:?}"
        );
        session
    }

    /// A link on which the peer has `role`, accepted, with what was said so far out of the way.
    fn link(&mut self, handle: u32, role: Role) -> LinkId {
        self.link_with(&attach(handle, role), |_| {})
    }

    fn link_with(&mut self, attach: &Attach, change: impl FnOnce(&mut LinkTerms)) -> LinkId {
        let link = self.attached(attach.clone());
        let mut terms = LinkTerms::echo(attach, 1000);
        change(&mut terms);
        self.connection.accept_link(link, terms);
        assert!(matches!(self.sent()[..], [(1, Performative::Attach(_), _)]));
        link
    }

    /// A link that the peer has attached, and that is not answered.
    fn attached(&mut self, attach: Attach) -> LinkId {
        self.receive(&[(1, Performative::Attach(Box::new(attach)))]);
        let events = self.events();
        let [Event::Attach { link, .. }] = events[..] else { panic!("no link: {events:?}") };
        link
    }

    fn receive(&mut self, frames: &[(u16, Performative)]) {
        for (channel, performative) in frames {
            self.receive_with(*channel, performative, b"");
        }
    }

    fn receive_with(&mut self, channel: u16, performative: &Performative, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::encode_frame(&mut bytes, FrameType::Amqp, channel, |out| {
            performative.encode(out);
            out.extend_from_slice(payload);
        });
        self.receive_bytes(&bytes);
    }

    fn receive_bytes(&mut self, bytes: &[u8]) {
        self.connection.handle_input(bytes, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.connection.handle_timeout(self.now);
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.connection.poll_event()).collect()
    }

    fn sent_bytes(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let piece = self.connection.output().to_vec();
            self.connection.handle_written(piece.len(), self.now);
            if piece.is_empty() {
                return all;
            }
            all.extend(piece);
        }
    }

    /// The frames that were sent: channel, performative, payload. Empty frames are left out.
    fn sent(&mut self) -> Vec<(u16, Performative, Bytes)> {
        frames(&self.sent_bytes())
    }

    fn performatives(&mut self) -> Vec<Performative> {
        self.sent().into_iter().map(|(_, performative, _)| performative).collect()
    }

    fn closed(&mut self) -> CloseReason {
        match self.events().pop() {
            Some(Event::Closed(reason)) => reason,
            other => panic!("not closed: {other:?}"),
        }
    }

    fn delivery(&mut self) -> Delivery {
        let events = self.events();
        let [Event::Delivery(delivery)] = &events[..] else { panic!("no delivery: {events:?}") };
        delivery.clone()
    }
}

/// The frames that `bytes` are, without the empty ones.
fn frames(bytes: &[u8]) -> Vec<(u16, Performative, Bytes)> {
    let mut bytes = BytesMut::from(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = frame::decode_frame(&mut bytes, FrameType::Amqp, u32::MAX).unwrap() {
        if !frame.body.is_empty() {
            let (performative, payload) = Performative::decode(&frame.body).unwrap();
            frames.push((frame.channel, performative, payload));
        }
    }
    assert!(bytes.is_empty());
    frames
}

fn open() -> Open {
    Open {
        container_id: "device".into(),
        hostname: Some("127.0.0.9".into()),
        max_frame_size: u32::MAX,
        channel_max: u16::MAX,
        idle_time_out: None,
        outgoing_locales: Vec::new(),
        incoming_locales: Vec::new(),
        offered_capabilities: Vec::new(),
        desired_capabilities: Vec::new(),
        properties: Map::EMPTY,
    }
}

fn begin() -> Begin {
    Begin {
        remote_channel: None,
        next_outgoing_id: 0,
        incoming_window: 100,
        outgoing_window: 100,
        handle_max: u32::MAX,
        offered_capabilities: Vec::new(),
        desired_capabilities: Vec::new(),
        properties: Map::EMPTY,
    }
}

fn attach(handle: u32, role: Role) -> Attach {
    Attach {
        name: format!("link-{handle}").as_str().into(),
        handle,
        role,
        snd_settle_mode: SenderSettleMode::Mixed,
        rcv_settle_mode: ReceiverSettleMode::First,
        source: Some(Box::new(Source::at("$cbs"))),
        target: Some(Box::new(Target::at("$cbs").into())),
        unsettled: Map::EMPTY,
        incomplete_unsettled: false,
        initial_delivery_count: (role == Role::Sender).then_some(0),
        max_message_size: None,
        offered_capabilities: Vec::new(),
        desired_capabilities: Vec::new(),
        properties: Map::EMPTY,
    }
}

fn flow(handle: u32, delivery_count: u32, link_credit: u32) -> Flow {
    Flow {
        next_incoming_id: Some(0),
        incoming_window: 100,
        next_outgoing_id: 0,
        outgoing_window: 100,
        handle: Some(handle),
        delivery_count: Some(delivery_count),
        link_credit: Some(link_credit),
        available: None,
        drain: false,
        echo: false,
        properties: Map::EMPTY,
    }
}

/// A whole unsettled delivery.
fn transfer(handle: u32, number: u32) -> Transfer {
    Transfer {
        handle,
        delivery_id: Some(number),
        delivery_tag: Some(Bytes::copy_from_slice(&number.to_le_bytes())),
        message_format: Some(0),
        settled: Some(false),
        more: false,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    }
}

fn disposition(role: Role, first: u32, last: u32, settled: bool, state: DeliveryState) -> Performative {
    let state = Some(state);
    Performative::Disposition(Disposition { role, first, last: Some(last), settled, state, batchable: false })
}

fn outgoing(tag: &'static [u8], payload: &'static [u8]) -> Outgoing {
    Outgoing {
        tag: Bytes::from_static(tag),
        message_format: 0,
        settlement: Settlement::Unsettled,
        payload: vec![Bytes::from_static(payload)],
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
