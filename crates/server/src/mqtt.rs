//! MQTT connections. Start at [`MqttServer`].

use std::sync::Arc;
use std::time::Instant;

use dialect::mqtt::Session;
use dialect::session::Refusals;
use proto::mqtt::Limits;

use crate::connection::{ConnectionServer, Protocol};

/// What is spoken over them.
#[derive(Clone)]
pub enum Mqtt {}

/// Serves them.
pub type MqttServer = ConnectionServer<Mqtt>;

impl Protocol for Mqtt {
    const NAME: &'static str = "MQTT";
    type Limits = Limits;
    type Session = Session;

    fn session(limits: Arc<Limits>, refusals: Arc<dyn Refusals>, has_certificate: bool, now: Instant) -> Session {
        Session::new(limits, refusals, has_certificate, now)
    }
}
