//! What is dialled because data says so: endpoints of routes, containers of imports and exports (`rules.md` 26). The only place that does.
//!
//! An address is looked at when it is dialled, not when it is written, since names change: link-local ones and the server's
//! own listeners are never dialled, private ones only where a setting says so. Everything ends in bounded time, and answers
//! are read within bounds. Start at [`Outbound::send`].

mod amqp;
mod blob;
mod dial;
mod nats;
mod trust;
mod webhook;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::route::{Endpoint, Parcel, Refusal, Target};

/// Time for a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for all that is sent at once.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// What may be dialled.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Whether private and loopback addresses may.
    pub private: bool,
    /// Ports of the server's own listeners, on any address of this machine that it serves.
    pub own_ports: Vec<u16>,
    /// Addresses that the server serves beside loopback.
    pub own_addresses: Vec<IpAddr>,
}

/// Sends to endpoints. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbound {
    reach: Arc<Reach>,
    roots: Arc<trust::SystemRoots>,
    is_stopping: Arc<AtomicBool>,
}

impl Outbound {
    /// Sends to what `reach` allows.
    pub fn new(reach: Reach) -> Self {
        Self { reach: Arc::new(reach), roots: Arc::default(), is_stopping: Arc::default() }
    }

    /// Has every send end at the next answer, whatever is left: nobody may be there to hear of it.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Sends `parcels` to `endpoint` in their order, and counts in `taken` how many were taken from the first one on: what
    /// is counted stays so if the future is dropped. Says why not all were; where that is no refusal, time was up.
    pub async fn send(&self, endpoint: &Endpoint, parcels: &[Parcel], taken: &mut usize) -> Result<(), Refusal> {
        match &endpoint.target {
            Target::Webhook(webhook) => self.post(webhook, parcels, taken).await,
            Target::Nats(nats) => self.publish(nats, parcels, taken).await,
            Target::Amqp(amqp) => self.transfer(amqp, parcels, taken).await,
        }
    }
}

#[cfg(test)]
mod tests;
