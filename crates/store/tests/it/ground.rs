//! Where tests of stores on disk begin: a store in a folder, and a device that is being assigned.

use std::path::Path;
use std::sync::Arc;

use domain::clock::{Clock, ManualClock, SeededEntropy};
use domain::ids::{HubKey, ServiceKey};
use domain::quota::Quotas;
use store::conformance::Done as _;
use store::conformance::sample::{NOON, admitted, individual, make_hub, make_service, operation, proven};
use store::ports::{Claimed, EnrollmentStore as _, RegistrationStore as _};
use store::sqlite::{Embedded, Options};

pub fn open(folder: &Path) -> Embedded {
    open_with(folder, Quotas::default())
}

pub fn open_with(folder: &Path, quotas: Quotas) -> Embedded {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOON));
    let options = Options { folder: Some(folder.to_owned()), quotas, ..Options::default() };
    Embedded::open(options, clock, &SeededEntropy::new(1)).unwrap()
}

/// Registers `dev-1` at a fresh service, as operation 1, and claims it.
pub async fn claimed_device(store: &Embedded) -> (ServiceKey, HubKey, Claimed) {
    let (service, hub) = (make_service(store, "dps").await, make_hub(store, "hub").await);
    let entry = store.create_enrollment(service, individual("dev-1", 1), NOON).await.unwrap().done();
    let device = proven(service, "dev-1", &entry);
    store.accept_registration(&device, operation(1), None, admitted(1, "dev-1"), NOON).await.unwrap();
    (service, hub, store.claim_operations(1).await.unwrap().remove(0))
}
