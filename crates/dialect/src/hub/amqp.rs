//! A hub's side of an AMQP connection: which of its nodes a link belongs to. Start at [`Side`].

use std::time::Instant;

use domain::operation::session::ConnectedDevice;
use domain::operation::{Failure, Push, Reply};
use proto::amqp::{Error, Event, SaslCode, condition};

use crate::amqp::{Machine, Port, address_of};
use crate::session::{AskId, cut};

/// The links of one connection to a hub: each belongs to a node that its address names.
#[derive(Debug)]
pub struct Side {}

impl Side {
    /// Without links, and nothing proven.
    #[expect(clippy::new_without_default, reason = "made by a connection only")]
    pub const fn new() -> Self {
        Self {}
    }
}

impl Machine for Side {
    fn handle_event(&mut self, event: Event, port: &mut Port<'_>, _now: Instant) {
        match event {
            Event::SaslInit(_) => port.tell_outcome(SaslCode::Auth),
            Event::Attach { link, attach, .. } => {
                let address = address_of(&attach).map(|address| cut(address.path())).unwrap_or_default();
                let error = Error::new(condition::NOT_IMPLEMENTED, "The hub does not serve this address over AMQP.");
                port.refuse_link(link, &address, error);
            }
            _ => {}
        }
    }

    fn handle_reply(&mut self, _: AskId, _: Result<Reply, Failure>, _: &mut Port<'_>, _: Instant) {}

    fn handle_push(&mut self, _: &ConnectedDevice, _: Push, _: &mut Port<'_>, _: Instant) {}

    fn handle_timeout(&mut self, _: &mut Port<'_>, _: Instant) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
