//! Carries what goes to endpoints from the use cases to the sockets of `client::outbound`.

use std::time::Duration;

use async_trait::async_trait;
use client::outbound::Outbound;
use domain::route::{Endpoint, Parcel, Refusal};
use service::Courier;

use crate::shutdown::Tasks;

/// How long an endpoint has to answer, once the server stops, before it is not waited for.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends to endpoints outside.
pub struct OutboundCourier {
    outbound: Outbound,
    tasks: Tasks,
}

impl OutboundCourier {
    /// Sends to what `outbound` reaches; `tasks` count what is under way.
    pub const fn new(outbound: Outbound, tasks: Tasks) -> Self {
        Self { outbound, tasks }
    }
}

#[async_trait]
impl Courier for OutboundCourier {
    fn begin(&self) -> Option<Box<dyn Send + Sync>> {
        self.tasks.begin_work().map(|work| Box::new(work) as Box<dyn Send + Sync>)
    }

    async fn send(&self, endpoint: &Endpoint, parcels: &[Parcel]) -> (usize, Result<(), Refusal>) {
        let mut drain = self.tasks.drain_signal();
        let stopped = async {
            drain.begun().await;
            self.outbound.stop();
            tokio::time::sleep(LAST_ANSWER_TIMEOUT).await;
        };
        let mut taken = 0;
        let outcome = tokio::select! {
            outcome = self.outbound.send(endpoint, parcels, &mut taken) => outcome,
            () = stopped => Ok(()),
        };
        (taken, outcome)
    }
}
