//! One MQTT connection from its first byte: it becomes a provisioning or a hub session by its user name.

use std::sync::Arc;
use std::time::Instant;

use domain::operation::session::ConnectedDevice;
use domain::operation::{Failure, Push, Reply};
use proto::mqtt::{Closed, Connect, Connection, Event, Limits, Refusal};

pub use self::machine::{Machine, Port};
use crate::session::{self, Ask, AskId, Asks, CloseReason, Refusals, RefusedNames, cut};
use crate::{hub, provisioning};

mod machine;
#[cfg(test)]
pub(crate) mod script;

/// The session of one MQTT connection. It belongs to at most one device, which every push is for.
pub struct Session {
    connection: Connection,
    machine: Option<Box<dyn Machine>>,
    asks: Asks,
    closed: Option<CloseReason>,
    has_certificate: bool,
    is_stopping: bool,
    refused: RefusedNames,
    refusals: Arc<dyn Refusals>,
}

impl Session {
    /// A session that has heard nothing. `has_certificate` tells whether the TLS handshake showed a client certificate.
    pub fn new(limits: Arc<Limits>, refusals: Arc<dyn Refusals>, has_certificate: bool, now: Instant) -> Self {
        Self {
            connection: Connection::new(limits, now),
            machine: None,
            asks: Asks::default(),
            closed: None,
            has_certificate,
            is_stopping: false,
            refused: RefusedNames::default(),
            refusals,
        }
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
        let Self { connection, asks, closed, refused, refusals, .. } = self;
        let mut port = Port { connection, asks, closed, refused, refusals: refusals.as_ref() };
        act(machine.as_mut(), &mut port);
        self.machine = Some(machine);
    }
}

impl session::Session for Session {
    fn handle_input(&mut self, bytes: &[u8], now: Instant) {
        self.connection.handle_input(bytes, now);
        self.run(now);
    }

    fn handle_eof(&mut self, now: Instant) {
        self.connection.handle_eof();
        self.run(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
        self.with_machine(|machine, port| machine.handle_timeout(port, now));
        self.run(now);
    }

    fn handle_written(&mut self, count: usize, now: Instant) {
        self.connection.handle_written(count);
        self.with_machine(|machine, port| machine.handle_room(port, now));
        self.run(now);
    }

    fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, now: Instant) {
        self.asks.finished(id);
        self.with_machine(|machine, port| machine.handle_reply(id, reply, port, now));
        self.run(now);
    }

    fn handle_push(&mut self, _: &ConnectedDevice, push: Push, now: Instant) {
        self.with_machine(|machine, port| machine.handle_push(push, port, now));
        self.run(now);
    }

    fn stop(&mut self) {
        self.is_stopping = true;
    }

    fn is_opening(&self) -> bool {
        self.connection.is_opening()
    }

    fn is_at_rest(&mut self) -> bool {
        let holds_back = self.machine.as_ref().is_some_and(|machine| machine.poll_timeout().is_some());
        self.asks.is_empty() && self.connection.unanswered() == 0 && !holds_back && self.connection.output().is_empty()
    }

    fn take_refused(&mut self) -> Vec<String> {
        self.refused.take()
    }

    fn close(&mut self, now: Instant) {
        self.connection.close();
        self.run(now);
    }

    fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.poll(self.connection.is_closed() || !self.connection.is_output_full())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let machine = self.machine.as_ref().and_then(|machine| machine.poll_timeout());
        match (self.connection.poll_timeout(), machine) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn output(&mut self) -> &[u8] {
        self.connection.output()
    }

    fn wants_input(&self) -> bool {
        self.connection.wants_input() && (!self.is_stopping || self.is_opening())
    }

    fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref().filter(|_| self.connection.is_closed())
    }
}
