//! Groups attested by symmetric key, kept opened: no index finds the group of a device that shows an ID and a signature, so
//! that all of them are tried, and opening their keys each time would cost more than trying them.
//!
//! What is kept is as old as the store's count of changes says; it never outlives one. Start at [`KeyGroups::find`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::enrollment::Enrollment;
use domain::ids::ServiceKey;
use store::ports::Store;
use tokio::sync::watch;

/// The opened groups of each provisioning service.
pub(crate) struct KeyGroups {
    changes: watch::Receiver<u64>,
    kept: Mutex<HashMap<ServiceKey, Kept>>,
}

/// Groups as they stood at a count of changes.
struct Kept {
    changes: u64,
    groups: Arc<[Enrollment]>,
}

impl KeyGroups {
    /// None kept yet.
    pub fn new(store: &dyn Store) -> Self {
        Self { changes: store.key_group_changes(), kept: Mutex::default() }
    }

    /// The groups of `service` in the order in which they are tried, at most `limit`.
    pub async fn find(
        &self,
        store: &dyn Store,
        service: ServiceKey,
        limit: usize,
    ) -> Result<Arc<[Enrollment]>, store::Error> {
        // Taken before the groups are read: what changes in between is read twice, not never.
        let changes = *self.changes.borrow();
        let kept =
            self.lock().get(&service).filter(|kept| kept.changes == changes).map(|kept| Arc::clone(&kept.groups));
        if let Some(groups) = kept {
            return Ok(groups);
        }
        let groups: Arc<[Enrollment]> = store.list_symmetric_key_groups(service, limit).await?.into();
        self.lock().insert(service, Kept { changes, groups: Arc::clone(&groups) });
        Ok(groups)
    }

    /// Forgets services that are gone.
    pub fn retain(&self, is_there: impl Fn(ServiceKey) -> bool) {
        self.lock().retain(|service, _| is_there(*service));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ServiceKey, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
