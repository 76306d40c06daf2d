//! Both ends of an AMQP connection without a socket: a client's machine and the dialect's session.
//!
//! What the session asks, and what is promised of it, is the target's business. Start at [`Conversation`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dialect::amqp::Session;
use dialect::session::{Ask, Session as _};
use proto::amqp::{ClientOpening, Connection, DeliveryId, Event, Limits, LinkId, LinkTerms, Map, Role, SessionId};

use crate::refusal::SameRefusals;
use crate::script::Script;

/// A target that plays a script between both ends, and what it knows of them from outside.
pub trait Conversation: Sized {
    /// Two ends that have said nothing.
    fn open() -> Self;

    fn ends(&mut self) -> &mut Ends;

    /// One thing that the client or the service does.
    fn step(&mut self, script: &mut Script<'_>);

    /// Looks at what the client was told.
    fn notice(&mut self, _: &Event) {}

    /// Looks at what the session asks.
    fn look_at(&mut self, ask: &Ask);

    /// Ends the connection, and looks at what is left.
    fn finish(self);

    /// Reads `input` as a script: a byte for what is done, and what it takes.
    fn play(input: &[u8]) {
        let mut script = Script(input);
        let mut conversation = Self::open();
        conversation.pump();
        conversation.ends().link_session = conversation.ends().client.begin().ok();
        conversation.pump();
        while !script.is_over() {
            conversation.step(&mut script);
            conversation.pump();
        }
        conversation.finish();
    }

    /// Carries bytes to and fro, and looks at what is told and what is asked.
    fn pump(&mut self) {
        loop {
            let has_moved = self.ends().exchange();
            while let Some(event) = self.ends().client.poll_event() {
                self.ends().notice(&event);
                self.notice(&event);
            }
            while let Some(ask) = self.ends().session.poll_ask() {
                self.look_at(&ask);
                self.ends().open.push_back(ask);
            }
            if !has_moved {
                return;
            }
        }
    }

    /// Takes all links away.
    fn detach_all(&mut self) {
        for link in std::mem::take(&mut self.ends().links) {
            self.ends().client.detach(link, true, None);
            self.pump();
        }
    }

    /// Ends the session that links are attached to and begins another, if the script has it so.
    fn begin_again(&mut self, script: &mut Script<'_>) {
        let ended = self.ends().link_session.take_if(|_| script.byte().is_multiple_of(4));
        if let Some(session) = ended {
            self.ends().client.end_session(session, None);
            self.pump();
            self.ends().link_session = self.ends().client.begin().ok();
        }
    }
}

/// The two ends, the client's links, and what is under way.
pub struct Ends {
    pub client: Connection,
    pub session: Session,
    pub now: Instant,
    pub link_session: Option<SessionId>,
    pub links: Vec<LinkId>,
    /// What the client was sent and has not settled.
    pub unsettled: Vec<DeliveryId>,
    /// What was asked and has no reply.
    pub open: VecDeque<Ask>,
}

impl Ends {
    /// A client that has opened a connection to `hostname` with a certificate, and has yet to begin a session.
    pub fn open(hostname: &str) -> Self {
        let (limits, now) = (Arc::new(Limits::default()), Instant::now());
        let opening = ClientOpening {
            container_id: "client".into(),
            hostname: Some(hostname.into()),
            properties: Map::EMPTY,
            with_sasl: false,
        };
        let client = Connection::client(Arc::clone(&limits), opening, now);
        let session = Session::new(limits, Arc::new(SameRefusals), true, now);
        let (links, unsettled, open) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { client, session, now, link_session: None, links, unsettled, open }
    }

    /// Attaches a link that is named by `prefix` and its number, and gives it credit.
    pub fn attach(&mut self, prefix: &str, role: Role, terms: LinkTerms, script: &mut Script<'_>) {
        let Some(session) = self.link_session else { return };
        let name = format!("{prefix}{}", self.links.len());
        if let Ok(link) = self.client.attach(session, name.into(), role, terms) {
            self.client.grant_credit(link, u32::from(script.byte()));
            self.links.push(link);
        }
    }

    /// Something that was asked, taken from what has no reply.
    pub fn pick(&mut self, script: &mut Script<'_>) -> Option<Ask> {
        let index = script.index(self.open.len())?;
        self.open.remove(index)
    }

    /// Ends the bytes: the connection is over.
    ///
    /// # Panics
    /// When the session does not end with them.
    pub fn cut(&mut self) {
        self.session.handle_eof(self.now);
        assert!(self.session.closed().is_some(), "a connection ends with its bytes");
    }

    fn notice(&mut self, event: &Event) {
        match event {
            Event::Detach { link, .. } => self.links.retain(|kept| kept != link),
            Event::Delivery(delivery) if !delivery.is_settled => self.unsettled.push(delivery.id),
            _ => {}
        }
    }

    /// Has a link detached or closed.
    pub fn detach(&mut self, script: &mut Script<'_>) {
        if let Some(link) = script.choose(&self.links) {
            self.client.detach(link, script.byte().is_multiple_of(2), None);
        }
    }

    /// Gives a link credit.
    pub fn grant(&mut self, script: &mut Script<'_>) {
        if let Some(link) = script.choose(&self.links) {
            self.client.grant_credit(link, u32::from(script.byte()));
        }
    }

    /// Hands each end what the other has written; whether anything was.
    pub fn exchange(&mut self) -> bool {
        let up = Bytes::copy_from_slice(self.client.output());
        self.client.handle_written(up.len(), self.now);
        if !up.is_empty() && self.session.closed().is_none() {
            self.session.handle_input(&up, self.now);
        }
        let down = Bytes::copy_from_slice(self.session.output());
        self.session.handle_written(down.len(), self.now);
        if !down.is_empty() {
            self.client.handle_input(&down, self.now);
        }
        !up.is_empty() || !down.is_empty()
    }
}
