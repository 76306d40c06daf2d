//! One MQTT connection from its first byte: it becomes a provisioning or a hub session by its user name.

use std::sync::Arc;
use std::time::Instant;

use domain::operation::{Failure, Push, Reply};
use domain::sas::SasToken;
use proto::mqtt::{Closed, Connect, Connection, Event, Limits, Refusal};

use crate::session::{Ask, AskId, Asks, CloseReason, Machine, Port, cut};
use crate::{hub, provisioning};

#[cfg(test)]
pub(crate) mod script;

/// The sans-IO session of one connection. A driver repeats: one `handle_` call; [`Session::poll_ask`] until `None`; write
/// [`Session::output`]; wait until [`Session::poll_timeout`], reading only while [`Session::wants_input`].
pub struct Session {
    connection: Connection,
    machine: Option<Box<dyn Machine>>,
    asks: Asks,
    closed: Option<CloseReason>,
    has_certificate: bool,
    is_stopping: bool,
    refused_filters: Vec<String>,
}

impl Session {
    /// A session that has heard nothing. `has_certificate` tells whether the TLS handshake showed a client certificate.
    pub fn new(limits: Arc<Limits>, has_certificate: bool, now: Instant) -> Self {
        Self {
            connection: Connection::new(limits, now),
            machine: None,
            asks: Asks::default(),
            closed: None,
            has_certificate,
            is_stopping: false,
            refused_filters: Vec::new(),
        }
    }

    /// Takes what the client sent.
    pub fn handle_input(&mut self, bytes: &[u8], now: Instant) {
        self.connection.handle_input(bytes, now);
        self.run(now);
    }

    /// The client's bytes have ended.
    pub fn handle_eof(&mut self, now: Instant) {
        self.connection.handle_eof();
        self.run(now);
    }

    /// The time that [`Session::poll_timeout`] named has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
        self.with_machine(|machine, port| machine.handle_timeout(port, now));
        self.run(now);
    }

    /// The first `count` bytes of the output are written.
    pub fn handle_written(&mut self, count: usize, now: Instant) {
        self.connection.handle_written(count);
        self.with_machine(|machine, port| machine.handle_room(port, now));
        self.run(now);
    }

    /// The answer to an ask.
    pub fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, now: Instant) {
        self.asks.finished(id);
        self.with_machine(|machine, port| machine.handle_reply(id, reply, port, now));
        self.run(now);
    }

    /// Something unasked.
    pub fn handle_push(&mut self, push: Push, now: Instant) {
        self.with_machine(|machine, port| machine.handle_push(push, port, now));
        self.run(now);
    }

    /// The server is about to stop: from here on only a CONNECT is read, which is told to come again. Everything else
    /// that was read is still dealt with.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Whether the client has still to introduce itself, so that it is owed nothing.
    pub fn is_opening(&self) -> bool {
        self.connection.is_opening()
    }

    /// Whether everything that was read is dealt with and answered, as far as nothing that was asked still runs.
    pub fn is_at_rest(&self) -> bool {
        let holds_back = self.machine.as_ref().is_some_and(|machine| machine.poll_timeout().is_some());
        self.asks.is_empty() && self.connection.unanswered() == 0 && !holds_back && self.output().is_empty()
    }

    /// The filters to which a subscription was refused since the last call, cut for the log.
    pub fn take_refused_filters(&mut self) -> Vec<String> {
        std::mem::take(&mut self.refused_filters)
    }

    /// Ends the connection from our side.
    pub fn close(&mut self, now: Instant) {
        self.connection.close();
        self.run(now);
    }

    /// The next thing to be performed.
    pub fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.poll(self.connection.is_closed() || !self.connection.is_output_full())
    }

    /// When [`Session::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let machine = self.machine.as_ref().and_then(|machine| machine.poll_timeout());
        match (self.connection.poll_timeout(), machine) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// What to write.
    pub fn output(&self) -> &[u8] {
        self.connection.output()
    }

    /// Whether to read.
    pub fn wants_input(&self) -> bool {
        self.connection.wants_input() && (!self.is_stopping || self.is_opening())
    }

    /// Why the session is over, once it is; the last output may still be unwritten.
    pub fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref().filter(|_| self.connection.is_closed())
    }

    /// The signature that came as password.
    pub fn token(&self) -> Option<&SasToken> {
        self.machine.as_ref().and_then(|machine| machine.token())
    }

    fn run(&mut self, now: Instant) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Connect(connect) if self.machine.is_none() => self.identify(*connect, now),
                Event::Closed(closed) => {
                    self.closed.get_or_insert(CloseReason::Mqtt(closed.reason));
                    let event = Event::Closed(Closed { reason: closed.reason, will: closed.will });
                    self.with_machine(|machine, port| machine.handle_event(event, port, now));
                }
                event => self.with_machine(|machine, port| machine.handle_event(event, port, now)),
            }
        }
    }

    fn identify(&mut self, connect: Connect, now: Instant) {
        if self.is_stopping {
            self.closed.get_or_insert(CloseReason::Stopping);
            self.connection.refuse(Refusal::ServerUnavailable);
            return;
        }
        let name = connect.username.as_deref().unwrap_or_default();
        // A device or module at a hub may be called `registrations`, so that the word alone decides nothing.
        let provisioning = provisioning::device_mqtt::Device::open(&connect, self.has_certificate);
        let machine = match provisioning {
            Some(device) => Some(Box::new(device) as Box<dyn Machine>),
            None => hub::device_mqtt::Device::open(&connect).map(|device| Box::new(device) as Box<dyn Machine>),
        };
        let Some(machine) = machine else {
            self.closed.get_or_insert(CloseReason::UserName(cut(name)));
            self.connection.refuse(Refusal::BadUsernameOrPassword);
            return;
        };
        self.machine = Some(machine);
        let event = Event::Connect(Box::new(connect));
        self.with_machine(|machine, port| machine.handle_event(event, port, now));
    }

    fn with_machine(&mut self, act: impl FnOnce(&mut dyn Machine, &mut Port<'_>)) {
        let Some(mut machine) = self.machine.take() else { return };
        let Self { connection, asks, closed, refused_filters, .. } = self;
        let mut port = Port { connection, asks, closed, refused_filters };
        act(machine.as_mut(), &mut port);
        self.machine = Some(machine);
    }
}
