//! The way from the rim to the use cases, at which whoever fails too many proofs is made to wait.
//!
//! The budget is one of the address, looked at before anything is judged: so the wait tells nothing about who exists, and
//! a connection that was let in is not held to it. It must never decide what a proof is worth. Start at
//! [`Door::perform`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use dialect::error::Refused;
use dialect::session::Refusals;
use domain::operation::cloud_to_device::{AtHub, Receiver};
use domain::operation::{
    Caller, ErrorKind, Failure, Operation, Reply, backend, cloud_to_device, events, file, method, session, telemetry,
    twin,
};
use service::Service;

use crate::budget::{AddressBudget, BudgetSettings};

/// What whoever waits is told.
const WAIT: &str = "Too many failed attempts; try again later.";

/// Has operations performed. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    service: Service,
    failed_proofs: Arc<AddressBudget>,
}

impl Refusals for Door {
    fn refuse(&self, refused: Refused) -> Failure {
        self.service.refuse(refused.kind, refused.public)
    }
}

impl Door {
    /// A door to `service` that lets each address fail `per_minute` proofs a minute.
    pub fn new(service: Service, per_minute: u32) -> Self {
        let settings = BudgetSettings {
            per_minute,
            burst: per_minute,
            concurrent: u32::MAX,
            // Everything that a person tries out comes from there, and so does what goes through a proxy.
            includes_loopback: true,
        };
        Self { service, failed_proofs: AddressBudget::new(settings, Instant::now()) }
    }

    /// The use cases, for what is no operation of a client.
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// Has `operation` performed, unless it proves something and the caller's address must wait.
    pub async fn perform(&self, caller: &Caller, operation: Operation) -> Result<Reply, Failure> {
        let is_proof = is_proof(&operation);
        if is_proof {
            self.admit(caller.peer)?;
        }
        let outcome = self.service.perform(caller, operation).await;
        if is_proof {
            self.count(caller.peer, &outcome);
        }
        outcome
    }

    /// A token of the management API, unless `peer` must wait.
    pub fn issue_token(&self, peer: IpAddr, (client, secret): (&str, &str), audience: &str) -> Result<String, Failure> {
        self.admit(peer)?;
        let outcome = self.service.issue_token(client, secret, audience);
        self.count(peer, &outcome);
        outcome
    }

    fn admit(&self, peer: IpAddr) -> Result<(), Failure> {
        match self.failed_proofs.is_spent(peer, Instant::now()) {
            true => Err(self.service.refuse(ErrorKind::Throttled, WAIT)),
            false => Ok(()),
        }
    }

    fn count<T>(&self, peer: IpAddr, outcome: &Result<T, Failure>) {
        if outcome.as_ref().is_err_and(|failure| is_stranger(failure.kind)) {
            self.failed_proofs.spend_one(peer, Instant::now());
        }
    }
}

/// Whether whoever is told so has proved nothing: the log has a line of it, of which there must be a bound.
const fn is_stranger(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unauthorized | ErrorKind::HubNotFound | ErrorKind::ScopeNotFound)
}

/// Whether a credential is judged, as opposed to a connection that one let in.
const fn is_proof(operation: &Operation) -> bool {
    match operation {
        Operation::Registration(_)
        | Operation::Enrollment(_)
        | Operation::Identity(_)
        | Operation::Query(_)
        | Operation::DigitalTwin(_)
        | Operation::Job(_)
        | Operation::Transfer(_)
        | Operation::ManagedTransfer(_)
        | Operation::Configuration(_)
        | Operation::Resource(_)
        | Operation::Route(_)
        | Operation::Decision(_) => true,
        Operation::Session(ask) => {
            matches!(ask, session::Ask::Connect(_) | session::Ask::Verify(_) | session::Ask::Renew { .. })
        }
        Operation::Backend(ask) => !matches!(ask, backend::Ask::Leave(_)),
        Operation::Telemetry(ask) => matches!(ask, telemetry::Ask::Post { .. }),
        Operation::Events(ask) => matches!(
            ask,
            events::Ask::Locate { .. } | events::Ask::Describe(_) | events::Ask::Attach(_) | events::Ask::Renew(_)
        ),
        Operation::Method(ask) => matches!(ask, method::Ask::Invoke { .. }),
        Operation::CloudToDevice(ask) => !matches!(
            ask,
            cloud_to_device::Ask::Receive { receiver: Receiver::Connected(_) | Receiver::Attached(_), .. }
                | cloud_to_device::Ask::Settle { receiver: Receiver::Connected(_) | Receiver::Attached(_), .. }
                | cloud_to_device::Ask::GiveBack(_)
                | cloud_to_device::Ask::Send { hub: AtHub::Entered(_), .. }
                | cloud_to_device::Ask::TakeFeedback(AtHub::Entered(_))
                | cloud_to_device::Ask::SettleFeedback { hub: AtHub::Entered(_), .. }
        ),
        Operation::File(ask) => !matches!(
            ask,
            file::Ask::TakeNotification(AtHub::Entered(_))
                | file::Ask::SettleNotification { hub: AtHub::Entered(_), .. }
        ),
        Operation::Twin(ask) => !matches!(ask, twin::Ask::Read(_) | twin::Ask::Report { .. }),
    }
}
