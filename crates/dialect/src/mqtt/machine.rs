//! What a dialect does with its MQTT connection, and the port through which it acts on it. Start at [`Machine`].

use std::time::Instant;

use domain::operation::session::CutOff;
use domain::operation::{Failure, Lane, Operation, Push, Reply};
use domain::sas::SasToken;
use proto::mqtt::{Connection, Event, Refusal};

use crate::error::Refused;
use crate::session::{AskId, Asks, CloseReason, Refusals, RefusedNames};

/// Through which a machine acts on its connection.
pub struct Port<'a> {
    /// The MQTT layer.
    pub connection: &'a mut Connection,
    pub(crate) asks: &'a mut Asks,
    pub(crate) closed: &'a mut Option<CloseReason>,
    pub(crate) refused: &'a mut RefusedNames,
    pub(crate) refusals: &'a dyn Refusals,
}

impl Port<'_> {
    /// Asks for `operation`.
    pub fn ask(&mut self, operation: Operation, lane: Lane) -> AskId {
        self.asks.push(operation, lane, None)
    }

    /// Asks for `operation`, with what the client presents as proof.
    pub fn ask_with(&mut self, token: Option<SasToken>, operation: Operation, lane: Lane) -> AskId {
        self.asks.push(operation, lane, token)
    }

    /// Takes note, for the log, that a subscription to `filter` is refused.
    pub fn note_refused_filter(&mut self, filter: &str) {
        self.refused.note(filter);
    }

    /// The failure that a refusal on the spot is.
    pub fn failure(&self, refused: Refused) -> Failure {
        self.refusals.refuse(refused)
    }

    /// Refuses the CONNECT.
    pub fn refuse(&mut self, refusal: Refusal, reason: CloseReason) {
        self.closed.get_or_insert(reason);
        self.connection.refuse(refusal);
    }

    /// Ends the connection at once: what is not written is never written, what was not begun is never begun.
    pub fn cut_off(&mut self, reason: CutOff) {
        self.closed.get_or_insert(CloseReason::CutOff(reason));
        self.asks.forget();
        self.connection.abort();
    }

    /// Ends the connection; the first reason stays.
    pub fn close(&mut self, reason: CloseReason) {
        self.closed.get_or_insert(reason);
        self.connection.close();
    }
}

/// What a dialect does with its connection. It is made from an accepted user name and sees every event behind CONNECT.
pub trait Machine: Send {
    /// The client did something. CONNECT itself is the machine's first event.
    fn handle_event(&mut self, event: Event, port: &mut Port<'_>, now: Instant);

    /// The answer to an earlier ask.
    fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, port: &mut Port<'_>, now: Instant);

    /// The service says something unasked.
    fn handle_push(&mut self, push: Push, port: &mut Port<'_>, now: Instant);

    /// Something was written, so that there may be room again.
    fn handle_room(&mut self, _port: &mut Port<'_>, _now: Instant) {}

    /// Time has come that [`Machine::poll_timeout`] asked for.
    fn handle_timeout(&mut self, port: &mut Port<'_>, now: Instant);

    /// When the machine wants to act of itself.
    fn poll_timeout(&self) -> Option<Instant>;
}
