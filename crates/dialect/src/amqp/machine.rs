//! What a dialect does with its AMQP connection, and the port through which it acts on it. Start at [`Machine`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use domain::operation::backend::Backend;
use domain::operation::session::ConnectedDevice;
use domain::operation::{ErrorKind, Failure, Lane, Operation, Push, Reply};
use domain::sas::SasToken;
use proto::amqp::{Connection, Error, Event, LinkId, SaslCode, Symbol, condition};

use super::Plain;
use crate::error::Refused;
use crate::session::{AskId, Asks, CloseReason, Refusals, RefusedNames};

/// How a connection ends whose clients shall come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// It is closed as forced.
    Connection,
    /// Its sessions end, and it is closed as if its links were detached by force, whoever has no link yet included. Node
    /// comes back after that condition alone, and at once only if it has no session left to end: else it waits 45
    /// seconds for an answer.
    Links,
}

impl Farewell {
    /// The condition of the close.
    pub const fn condition(self) -> Symbol {
        match self {
            Self::Connection => condition::CONNECTION_FORCED,
            Self::Links => condition::DETACH_FORCED,
        }
    }
}

/// What the client showed of itself before its first link. None of it is proven.
#[derive(Debug, Default)]
pub struct Opened {
    /// Whether the TLS handshake showed a client certificate.
    pub has_certificate: bool,
    /// What came by PLAIN, and is judged by the machine that it made.
    pub plain: Option<Arc<Plain>>,
    /// Whom the client believes to have dialled.
    pub host: Option<Box<str>>,
}

/// Through which a machine acts on its connection.
pub struct Port<'a> {
    /// The AMQP layer.
    pub connection: &'a mut Connection,
    /// What the client showed of itself.
    pub opened: &'a Opened,
    pub(super) asks: &'a mut Asks,
    pub(super) closed: &'a mut Option<CloseReason>,
    pub(super) refused: &'a mut RefusedNames,
    pub(super) refusals: &'a dyn Refusals,
}

impl Port<'_> {
    /// Asks for `operation`.
    pub fn ask(&mut self, operation: Operation, lane: Lane) -> AskId {
        self.asks.push(operation, lane, None)
    }

    /// Asks for `operation`, with a token as proof beside what the connection itself shows.
    pub fn ask_with(&mut self, token: Option<SasToken>, operation: Operation, lane: Lane) -> AskId {
        self.asks.push(operation, lane, token)
    }

    /// The failure that a refusal on the spot is.
    pub fn refuse(&self, kind: ErrorKind, public: impl Into<Cow<'static, str>>) -> Failure {
        self.refusals.refuse(Refused::new(kind, public))
    }

    /// Refuses a link, and takes note of its address for the log.
    pub fn refuse_link(&mut self, link: LinkId, address: &str, error: Error) {
        self.refused.note(address);
        self.connection.refuse_link(link, error);
    }

    /// Answers what PLAIN presented. Any but `Ok` ends the connection.
    pub fn tell_outcome(&mut self, code: SaslCode, now: Instant) {
        tell_outcome(self.connection, code, now);
    }

    /// Drops those of `ids` that did not begin, and gives them: there will be no reply to them.
    pub fn forget(&mut self, ids: &[AskId]) -> Vec<AskId> {
        self.asks.forget_some(ids)
    }

    /// Takes note of why the connection is about to end; the first reason stays.
    pub fn note(&mut self, reason: CloseReason) {
        self.closed.get_or_insert(reason);
    }

    /// Ends the connection; the first reason stays.
    pub fn close(&mut self, reason: CloseReason, error: Option<Error>, now: Instant) {
        self.closed.get_or_insert(reason);
        self.connection.close(error, now);
    }
}

/// Answers the client's choice of a mechanism.
pub(super) fn tell_outcome(connection: &mut Connection, code: SaslCode, now: Instant) {
    // An outcome without additional data fits into every frame.
    let _ = connection.sasl_outcome(code, now);
}

/// What a dialect does with its connection. It sees every event behind the one that made it: the [`Event::SaslInit`] of
/// PLAIN, which it answers by [`Port::tell_outcome`], or the first [`Event::Attach`]; never [`Event::Open`].
///
/// Who is seated ([`domain::operation::session::Answer::Connected`]) gets its pushes by [`Machine::handle_push`] until the
/// machine asks for its [`domain::operation::session::Ask::Disconnect`], or the connection ends; back-end programs that enter
/// likewise by [`Machine::handle_backend_push`], until their [`domain::operation::backend::Ask::Leave`].
pub trait Machine: Send {
    /// The client did something.
    fn handle_event(&mut self, event: Event, port: &mut Port<'_>, now: Instant);

    /// The answer to an earlier ask.
    fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, port: &mut Port<'_>, now: Instant);

    /// The service says something to `device` unasked.
    fn handle_push(&mut self, device: &ConnectedDevice, push: Push, port: &mut Port<'_>, now: Instant);

    /// The service says something to `backend` unasked.
    fn handle_backend_push(&mut self, _backend: &Backend, _push: Push, _port: &mut Port<'_>, _now: Instant) {}

    /// Something was written, so that there may be room again.
    fn handle_room(&mut self, _port: &mut Port<'_>, _now: Instant) {}

    /// Time has come that [`Machine::poll_timeout`] asked for.
    fn handle_timeout(&mut self, port: &mut Port<'_>, now: Instant);

    /// The server is about to stop: nothing more is waited for that only it could bring about.
    fn stop(&mut self, _port: &mut Port<'_>) {}

    /// When the machine wants to act of itself.
    fn poll_timeout(&self) -> Option<Instant>;

    /// How clients are sent away while the server stops, so that they come again.
    fn farewell(&self) -> Farewell {
        Farewell::Connection
    }

    /// Whether somebody has proved to be whom this connection is for. Who has not is not kept for long.
    fn has_proof(&self) -> bool;

    /// Whether more may be read; `false` while too much is under way.
    fn wants_input(&self) -> bool {
        true
    }

    /// Whether an answer is at hand and held back, so that a drain has to wait for it.
    fn holds_back(&self) -> bool {
        false
    }
}
