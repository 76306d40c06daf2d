//! One AMQP connection from its first byte: it becomes a provisioning service's or a hub's by the user name of SASL, else
//! by the address of its first link.
//!
//! A connection that says neither stays nobody's until it does: most clients open without SASL, and hub clients prove
//! themselves on links (`contract/hub-device.md 4.1`). Start at [`Session`]; what a dialect does with its connection is a
//! [`Machine`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::operation::backend::Backend;
use domain::operation::session::ConnectedDevice;
use domain::operation::{Failure, Push, Reply};
use proto::amqp::{self, Connection, Event, Limits, LinkId, Map, SaslCode, SaslInit, Symbol, Text, Value, condition};

pub use self::address::{Address, address_of};
pub use self::machine::{Farewell, Machine, Opened, Port};
pub use self::sasl::Plain;
use crate::session::{self, Ask, AskId, Asks, CloseReason, Refusals, RefusedNames};
use crate::{hub, provisioning};

mod address;
pub mod body;
pub mod links;
mod machine;
mod sasl;
#[cfg(test)]
mod tests;
pub mod tpm;

/// How long a connection that showed a certificate may be without a link. Whose certificate it is shows at the first one,
/// and Node attaches a link when an application uses it, perhaps with a message much later.
const UNLINKED_MAX: Duration = Duration::from_secs(3_600);
/// Seconds after which a client that is sent away may come again.
const COME_AGAIN_AFTER_S: u32 = 3;

/// The session of one AMQP connection. Several devices may share it, each with links and proof of its own.
pub struct Session {
    connection: Connection,
    machine: Option<Box<dyn Machine>>,
    asks: Asks,
    opened: Opened,
    closed: Option<CloseReason>,
    /// How long a client that is let in has to prove something; with a certificate, since its first link.
    proof_timeout: Duration,
    /// When that time is up; `None` before the client is let in, and once something is proven.
    proof_due: Option<Instant>,
    is_stopping: bool,
    refused: RefusedNames,
    refusals: Arc<dyn Refusals>,
}

impl Session {
    /// A session that has heard nothing. `has_certificate` tells whether the TLS handshake showed a client certificate.
    pub fn new(limits: Arc<Limits>, refusals: Arc<dyn Refusals>, has_certificate: bool, now: Instant) -> Self {
        let container_id = Text::from_static("muster");
        let proof_timeout = limits.open_timeout;
        Self {
            connection: Connection::server(limits, container_id, sasl::mechanisms(has_certificate), now),
            machine: None,
            asks: Asks::default(),
            opened: Opened { has_certificate, ..Opened::default() },
            closed: None,
            proof_timeout,
            proof_due: None,
            is_stopping: false,
            refused: RefusedNames::default(),
            refusals,
        }
    }

    fn run(&mut self, now: Instant) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::SaslInit(init) => self.choose_mechanism(init, now),
                Event::Open(open) => {
                    self.opened.host = open.hostname.as_ref().map(|host| host.as_str().into());
                    if self.is_stopping {
                        self.send_away(now);
                    } else {
                        self.connection.open(Map::EMPTY, now);
                        self.proof_due = Some(now + self.time_to_prove());
                        self.look_for_proof();
                    }
                }
                Event::Closed(reason) => {
                    self.closed.get_or_insert_with(|| CloseReason::Amqp(Box::new(reason.clone())));
                    self.with_machine(|machine, port| machine.handle_event(Event::Closed(reason), port, now));
                }
                Event::Attach { link, session, attach } => {
                    self.proof_due = self.proof_due.map(|due| due.min(now + self.proof_timeout));
                    if self.machine.is_none() {
                        self.become_by_address(link, address_of(&attach));
                    }
                    let event = Event::Attach { link, session, attach };
                    self.with_machine(|machine, port| machine.handle_event(event, port, now));
                }
                event => self.with_machine(|machine, port| machine.handle_event(event, port, now)),
            }
        }
    }

    /// Answers the client's choice. What PLAIN presents is judged by whom it is for; the mechanisms that present nothing
    /// are let pass, since their clients prove themselves on links.
    fn choose_mechanism(&mut self, init: SaslInit, now: Instant) {
        let outcome = match init.mechanism.as_str() {
            sasl::PLAIN => match Plain::parse(init.initial_response.as_deref().unwrap_or_default()) {
                Ok(plain) => {
                    self.machine = Some(match plain.registration() {
                        Some(_) => Box::new(provisioning::device_amqp::Device::new()),
                        None => Box::new(hub::amqp::Side::new()),
                    });
                    self.opened.plain = Some(Arc::new(plain));
                    return self.with_machine(|machine, port| machine.handle_event(Event::SaslInit(init), port, now));
                }
                Err(invalid) => {
                    self.closed.get_or_insert(CloseReason::Refused(invalid.to_string()));
                    SaslCode::Auth
                }
            },
            sasl::TPM => {
                let reason = "the challenge of a TPM is not made over AMQP";
                self.closed.get_or_insert(CloseReason::Refused(reason.to_owned()));
                SaslCode::Auth
            }
            _ => SaslCode::Ok,
        };
        machine::tell_outcome(&mut self.connection, outcome, now);
    }

    fn become_by_address(&mut self, link: LinkId, address: Option<Address>) {
        self.machine = match address {
            Some(address) if address.is_registration() => Some(Box::new(provisioning::device_amqp::Device::new())),
            Some(_) => Some(Box::new(hub::amqp::Side::new())),
            None => {
                let error = amqp::Error::new(condition::INVALID_FIELD, "The link has no address.");
                self.connection.refuse_link(link, error);
                None
            }
        };
    }

    const fn time_to_prove(&self) -> Duration {
        if self.opened.has_certificate { UNLINKED_MAX } else { self.proof_timeout }
    }

    fn look_for_proof(&mut self) {
        if self.machine.as_ref().is_some_and(|machine| machine.has_proof()) {
            self.proof_due = None;
        }
    }

    /// When whoever has proved nothing is sent away. What the service takes to judge is not the client's time.
    fn proof_deadline(&self) -> Option<Instant> {
        self.proof_due.filter(|_| self.connection.is_open() && self.asks.is_empty())
    }

    fn end_unproven(&mut self, now: Instant) {
        if self.proof_deadline().is_some_and(|due| now >= due) {
            self.closed.get_or_insert(CloseReason::Unproven);
            // Who never tried to prove anything is not told that it failed: Node would not come back.
            let is_unlinked = self.opened.has_certificate && self.machine.is_none();
            let error = match is_unlinked {
                true => amqp::Error::new(condition::CONNECTION_FORCED, "No link was attached in time."),
                false => amqp::Error::new(condition::UNAUTHORIZED_ACCESS, "Nothing was proven in time."),
            };
            self.connection.close(Some(error), now);
        }
    }

    fn send_away(&mut self, now: Instant) {
        self.closed.get_or_insert(CloseReason::Stopping);
        let farewell = self.machine.as_ref().map_or(Farewell::Links, |machine| machine.farewell());
        let mut error = amqp::Error::new(farewell.condition(), "The server is stopping; come again.");
        for key in ["Retry-After", "retry-after"] {
            error.info.push(Symbol::from_static(key), Value::Uint(COME_AGAIN_AFTER_S));
        }
        if farewell == Farewell::Links {
            self.connection.end_sessions();
        }
        self.connection.close(Some(error), now);
    }

    fn with_machine(&mut self, act: impl FnOnce(&mut dyn Machine, &mut Port<'_>)) {
        let Some(mut machine) = self.machine.take() else { return };
        let Self { connection, asks, opened, closed, refused, refusals, .. } = self;
        let mut port = Port { connection, opened, asks, closed, refused, refusals: refusals.as_ref() };
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
        self.end_unproven(now);
        self.run(now);
    }

    fn handle_written(&mut self, count: usize, now: Instant) {
        self.connection.handle_written(count, now);
        self.with_machine(|machine, port| machine.handle_room(port, now));
        self.run(now);
    }

    fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, now: Instant) {
        self.asks.finished(id);
        self.with_machine(|machine, port| machine.handle_reply(id, reply, port, now));
        self.look_for_proof();
        self.run(now);
    }

    fn handle_push(&mut self, device: &ConnectedDevice, push: Push, now: Instant) {
        self.with_machine(|machine, port| machine.handle_push(device, push, port, now));
        self.run(now);
    }

    fn handle_backend_push(&mut self, backend: &Backend, push: Push, now: Instant) {
        self.with_machine(|machine, port| machine.handle_backend_push(backend, push, port, now));
        self.run(now);
    }

    fn stop(&mut self) {
        self.is_stopping = true;
        self.with_machine(|machine, port| machine.stop(port));
    }

    fn is_opening(&self) -> bool {
        self.connection.is_opening()
    }

    fn is_at_rest(&mut self) -> bool {
        let holds_back = self.machine.as_ref().is_some_and(|machine| machine.holds_back());
        self.asks.is_empty() && self.connection.unsettled() == 0 && !holds_back && self.connection.output().is_empty()
    }

    fn take_refused(&mut self) -> Vec<String> {
        self.refused.take()
    }

    fn take_faults(&mut self) -> Vec<&'static str> {
        self.connection.take_faults()
    }

    fn close(&mut self, now: Instant) {
        self.send_away(now);
        self.run(now);
    }

    fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.poll(self.connection.is_closed() || !self.connection.is_output_full())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let machine = self.machine.as_ref().and_then(|machine| machine.poll_timeout());
        [self.connection.poll_timeout(), machine, self.proof_deadline()].into_iter().flatten().min()
    }

    fn output(&mut self) -> &[u8] {
        self.connection.output()
    }

    fn wants_input(&self) -> bool {
        // Once it is closing, only the peer's close is looked at.
        let has_room = self.machine.as_ref().is_none_or(|machine| machine.wants_input());
        self.connection.wants_input() && has_room && (!self.is_stopping || !self.connection.is_open())
    }

    fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref().filter(|_| self.connection.is_closed())
    }
}
