//! Carries what goes to endpoints from the use cases to the sockets of `client::outbound`.

use async_trait::async_trait;
use client::outbound::Outbound;
use domain::route::{Endpoint, Parcel, Refusal};
use service::Courier;

/// Sends to endpoints outside.
pub struct OutboundCourier {
    outbound: Outbound,
}

impl OutboundCourier {
    /// Sends to what `outbound` reaches.
    pub const fn new(outbound: Outbound) -> Self {
        Self { outbound }
    }
}

#[async_trait]
impl Courier for OutboundCourier {
    async fn send(&self, endpoint: &Endpoint, parcels: &[Parcel]) -> (usize, Result<(), Refusal>) {
        self.outbound.send(endpoint, parcels).await
    }
}
