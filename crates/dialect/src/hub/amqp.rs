//! A hub's side of an AMQP connection: which of its nodes a link belongs to. Start at [`Side`].

use std::time::{Duration, Instant};

use domain::operation::backend::Backend;
use domain::operation::session::{Ask, ConnectedDevice, CutOff, Verify};
use domain::operation::{ErrorKind, Failure, Lane, Operation, Push, Reply};
use proto::amqp::{Attach, DeliveryState, Event, LinkId, SaslCode, SessionId, condition};

use super::cbs::{self, Cbs, PutToken};
use super::cut_off;
use super::device_amqp::Devices;
use super::events_amqp::Events;
use super::link_address::read_identity;
use super::service_amqp::Backends;
use crate::amqp::links::Told;
use crate::amqp::{Address, Farewell, Machine, Plain, Port, address_of};
use crate::error;
use crate::session::{AskId, CloseReason};

/// The links of one connection to a hub: each belongs to a node that its address names.
#[derive(Debug, Default)]
pub struct Side {
    /// What PLAIN presented, while it is judged.
    introduced: Option<(AskId, PutToken)>,
    cbs: Cbs,
    devices: Devices,
    backends: Backends,
    events: Events,
    ending: Option<Ending>,
}

/// The end of a connection on which nobody is, because the last one was cut off.
#[derive(Clone, Copy, Debug)]
struct Ending {
    at: Instant,
    reason: CutOff,
    /// Whether the last one was a back-end program.
    is_of_backend: bool,
}

/// A link that a client attaches to one of the hub's nodes, and that is to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The link.
    pub link: LinkId,
    /// The session it belongs to.
    pub session: SessionId,
    /// What the client wants.
    pub attach: &'a Attach,
    /// Which node.
    pub address: &'a Address,
}

impl Arrival<'_> {
    /// Whom the client believes to have dialled: what the link says goes before what its connection said.
    pub fn said_host(&self, port: &Port<'_>) -> String {
        self.address.authority.as_deref().or(port.opened.host.as_deref()).unwrap_or_default().to_owned()
    }
}

/// How long a client has to leave by itself of which the last device or back end was cut off. Node never finishes closing
/// a connection that is closed from here while it ends its session.
pub(super) const LEAVE_TIME: Duration = Duration::from_secs(5);

/// The code of an address that leads nowhere (`contract/hub-device.md 4.9`).
const BAD_ADDRESS: u32 = 404_006;

impl Side {
    /// Without links, and nothing proven.
    pub fn new() -> Self {
        Self::default()
    }

    fn introduce(&mut self, port: &mut Port<'_>, now: Instant) {
        let put = port.opened.plain.as_deref().and_then(introduced);
        let Some(put) = put else { return port.tell_outcome(SaslCode::Auth, now) };
        let verify = Verify { host: put.host.clone(), scope: put.scope.clone() };
        let operation = Operation::Session(Ask::Verify(Box::new(verify)));
        let ask = port.ask_with(Some(put.token.clone()), operation, Lane::Serial);
        self.introduced = Some((ask, put));
    }

    fn introduced(&mut self, put: PutToken, reply: Result<Reply, Failure>, port: &mut Port<'_>, now: Instant) {
        match reply {
            Ok(_) => {
                // The first token of a connection always has room.
                let _ = self.cbs.keep(put, |_| true);
                port.tell_outcome(SaslCode::Ok, now);
            }
            Err(failure) => {
                port.note(CloseReason::Refused(failure.to_string()));
                port.tell_outcome(error::sasl_code(failure.kind), now);
            }
        }
    }

    fn attach(&mut self, (link, session): (LinkId, SessionId), attach: &Attach, port: &mut Port<'_>) {
        let Some(address) = address_of(attach) else {
            let error = bad_address("The link has no address.", port);
            return port.refuse_link(link, "", error);
        };
        if address.path().eq_ignore_ascii_case(cbs::NODE) {
            return self.cbs.attach((link, session), attach, port);
        }
        let arrival = Arrival { link, session, attach, address: &address };
        let is_taken = self.backends.attach(arrival, &self.cbs, port)
            || self.events.attach(arrival, &self.cbs, port)
            || self.devices.attach(arrival, &self.cbs, port);
        if !is_taken {
            let error = bad_address("Nothing is at this address.", port);
            port.refuse_link(link, address.path(), error);
        }
    }

    /// Whether nobody is on the connection.
    fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.backends.is_empty() && self.events.is_empty()
    }

    /// Has the connection end in a while, if a device was cut off, or a back end by `cut_off`, and nobody is left. Not if
    /// somebody is let in meanwhile, however long that one stays.
    fn end_later(&mut self, cut_off: Option<CutOff>, now: Instant) {
        let of_device = self.devices.take_cut_off();
        if let Some(reason) = of_device.or(cut_off).filter(|_| self.is_empty()) {
            self.ending = Some(Ending { at: now + LEAVE_TIME, reason, is_of_backend: of_device.is_none() });
        } else if self.ending.is_some()
            && (self.devices.has_seats() || self.backends.has_seats() || self.events.has_seats())
        {
            self.ending = None;
        }
    }
}

fn bad_address(message: &'static str, port: &Port<'_>) -> proto::amqp::Error {
    error::hub_amqp_error(condition::NOT_FOUND, BAD_ADDRESS, &port.refuse(ErrorKind::ResourceNotFound, message))
}

/// What PLAIN presents: `{d}@sas.{hub}`, or `{policy}@sas.root.{hub}`, with a token for a password. The hub is told by the
/// token and not by the user name, which holds a first label that means nothing where a host is a literal.
fn introduced(plain: &Plain) -> Option<PutToken> {
    let (name, hub) = plain.user().rsplit_once("@sas.")?;
    let put = PutToken::parse(plain.password().expose()).ok()?;
    let is_meant = match hub.strip_prefix("root.") {
        Some(_) => put.token.policy().is_some_and(|policy| policy.eq_ignore_ascii_case(name)),
        None => read_identity(name).is_ok_and(|identity| put.is_for(&identity)),
    };
    is_meant.then_some(put)
}

impl Machine for Side {
    fn handle_event(&mut self, event: Event, port: &mut Port<'_>, now: Instant) {
        match event {
            Event::SaslInit(_) => self.introduce(port, now),
            Event::Attach { link, session, attach } => self.attach((link, session), &attach, port),
            Event::Delivery(delivery) if self.cbs.owns(delivery.link) => self.cbs.deliver(&delivery, port),
            Event::Delivery(delivery) if self.backends.owns(delivery.link) => self.backends.deliver(&delivery, port),
            Event::Delivery(delivery) if self.events.owns(delivery.link) => {
                self.events.deliver(&delivery, &self.cbs, port);
            }
            Event::Delivery(delivery) => self.devices.deliver(&delivery, port),
            Event::Detach { link, .. } => {
                self.cbs.forget_link(link);
                self.backends.forget_link(link, port);
                self.events.forget_link(link, port);
                self.devices.forget_link(link, port);
            }
            Event::End { session, .. } => {
                self.cbs.forget_session(session);
                self.backends.forget_session(session, port);
                self.events.forget_session(session, port);
                self.devices.forget_session(session, port);
            }
            Event::Credit { link } => {
                self.cbs.flush(port);
                self.backends.flush_link(link, port);
                self.events.flush_credited(link, port);
                self.devices.flush_link(link, port);
            }
            Event::Outcome { link, id, tag, state, is_settled } => {
                let told = Told { link, id, tag, state, is_settled };
                match self.backends.owns(link) {
                    true => self.backends.take_outcome(told, port),
                    false => self.devices.take_outcome(told, port),
                }
            }
            // What is told too late is not what becomes of a message (`contract/hub-device.md 4.7`).
            Event::UnknownOutcome { deliveries, .. } => {
                let lost = port.refuse(ErrorKind::LockLost, "The message is unknown, or its lock has run out.");
                port.connection.settle_unknown(&deliveries, &DeliveryState::rejected(error::hub_amqp(&lost)));
            }
            Event::Closed(_) => {
                self.backends.forget_all(port);
                self.events.leave_all(port);
            }
            Event::SaslMechanisms(_)
            | Event::SaslChallenge(_)
            | Event::SaslResponse(_)
            | Event::Open(_)
            | Event::Begin { .. }
            | Event::Attached { .. } => {}
        }
        self.end_later(None, now);
    }

    fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, port: &mut Port<'_>, now: Instant) {
        if let Some((_, put)) = self.introduced.take_if(|(ask, _)| *ask == id) {
            return self.introduced(put, reply, port, now);
        }
        if self.cbs.has_asked(id) {
            if let Some(put) = self.cbs.handle_reply((id, reply), |put| self.devices.needs(put), port) {
                self.backends.renew(&put, port);
                self.devices.renew(&put, port);
                self.events.renew(&put, port);
            }
            return;
        }
        if self.backends.has_asked(id) {
            self.backends.handle_reply(id, reply, port);
        } else if self.events.has_asked(id) {
            self.events.handle_reply(id, reply, port);
        } else {
            self.devices.handle_reply(id, reply, port, now);
        }
        self.end_later(None, now);
    }

    fn handle_push(&mut self, device: &ConnectedDevice, push: Push, port: &mut Port<'_>, now: Instant) {
        self.devices.handle_push(device, push, port);
        self.end_later(None, now);
    }

    fn handle_backend_push(&mut self, backend: &Backend, push: Push, port: &mut Port<'_>, now: Instant) {
        let cut_off = self.backends.handle_push(backend, &push, port);
        self.end_later(cut_off, now);
    }

    fn handle_room(&mut self, port: &mut Port<'_>, now: Instant) {
        self.cbs.flush(port);
        self.backends.flush(port);
        self.events.flush(port);
        self.devices.flush(port);
        self.end_later(None, now);
    }

    fn handle_timeout(&mut self, port: &mut Port<'_>, now: Instant) {
        self.devices.handle_timeout(port, now);
        if let Some(Ending { reason, is_of_backend, .. }) = self.ending.take_if(|ending| now >= ending.at)
            && self.is_empty()
        {
            let error =
                if is_of_backend { cut_off::of_backend(reason, port) } else { cut_off::of_device(reason, port) };
            port.close(CloseReason::CutOff(reason), Some(error), now);
        }
    }

    /// Readers wait for what the server will not give them any more.
    fn stop(&mut self, port: &mut Port<'_>) {
        self.events.leave_all(port);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.ending.map(|ending| ending.at), self.devices.poll_timeout()].into_iter().flatten().min()
    }

    /// Node's device comes back after the one, and takes the other for the end; readers of telemetry come back after the
    /// other (`contract/eventhub-endpoint.md 9`).
    fn farewell(&self) -> Farewell {
        if self.events.is_used() && self.devices.is_empty() { Farewell::Connection } else { Farewell::Links }
    }

    fn has_proof(&self) -> bool {
        self.cbs.has_tokens() || self.devices.has_seats()
    }

    fn wants_input(&self) -> bool {
        !self.devices.is_full() && !self.backends.is_full() && !self.cbs.is_full() && !self.events.is_full()
    }
}
