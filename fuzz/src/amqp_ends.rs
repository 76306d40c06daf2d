//! Both ends of an AMQP connection without a socket: a client's machine and the dialect's session.
//!
//! What the session asks, and what is promised of it, is the target's business. Start at [`Ends::open`].

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dialect::amqp::Session;
use dialect::session::Session as _;
use proto::amqp::{ClientOpening, Connection, Limits, LinkId, Map, SessionId};

use crate::refusal::SameRefusals;
use crate::script::Script;

/// The two ends, and the client's links.
pub struct Ends {
    pub client: Connection,
    pub session: Session,
    pub now: Instant,
    pub link_session: Option<SessionId>,
    pub links: Vec<LinkId>,
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
        Self { client, session, now, link_session: None, links: Vec::new() }
    }

    /// Begins the session that links are attached to.
    pub fn begin(&mut self) {
        self.link_session = self.client.begin().ok();
    }

    /// Ends that session, if the script has it so; whether it did.
    pub fn end(&mut self, script: &mut Script<'_>) -> bool {
        let ended = self.link_session.take_if(|_| script.byte().is_multiple_of(4));
        ended.inspect(|session| self.client.end_session(*session, None)).is_some()
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
