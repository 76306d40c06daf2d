//! AMQP connections. Start at [`AmqpServer`].

use std::sync::Arc;
use std::time::Instant;

use dialect::amqp::Session;
use dialect::session::Refusals;
use proto::amqp::Limits;

use crate::connection::{ConnectionServer, Protocol};

/// What is spoken over them.
#[derive(Clone)]
pub enum Amqp {}

/// Serves them.
pub type AmqpServer = ConnectionServer<Amqp>;

impl Protocol for Amqp {
    const NAME: &'static str = "AMQP";
    type Limits = Limits;
    type Session = Session;

    fn session(limits: Arc<Limits>, refusals: Arc<dyn Refusals>, has_certificate: bool, now: Instant) -> Session {
        Session::new(limits, refusals, has_certificate, now)
    }
}
