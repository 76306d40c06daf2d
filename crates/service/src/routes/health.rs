//! How endpoints are: what the last attempts came to. Kept in memory; a server that starts knows nothing yet.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::clock::UnixTime;
use domain::ids::{EndpointName, HubKey};
use domain::operation::route::{EndpointHealth, HealthStatus};
use domain::route::events;
use tokio::sync::watch;

/// What is known of every endpoint, and who wakes their workers.
#[derive(Debug)]
pub(crate) struct Endpoints {
    known: Mutex<HashMap<(HubKey, String), Known>>,
    woken: watch::Sender<u64>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    last_error: Option<(String, UnixTime)>,
    last_success_at: Option<UnixTime>,
    last_attempt_at: Option<UnixTime>,
    is_failing: bool,
    is_dead: bool,
    lost: u64,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self { known: Mutex::default(), woken: watch::Sender::new(0) }
    }
}

impl Endpoints {
    fn known(&self) -> MutexGuard<'_, HashMap<(HubKey, String), Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, hub: HubKey, endpoint: &EndpointName, change: impl FnOnce(&mut Known)) {
        change(self.known().entry((hub, endpoint.key())).or_default());
    }

    /// Has the workers look again.
    pub fn wake(&self) {
        self.woken.send_modify(|count| *count += 1);
    }

    /// Counts up whenever workers are to look again.
    pub fn wakes(&self) -> watch::Receiver<u64> {
        self.woken.subscribe()
    }

    /// Something was taken.
    pub fn succeeded(&self, hub: HubKey, endpoint: &EndpointName, now: UnixTime) {
        self.note(hub, endpoint, |known| {
            known.last_success_at = Some(now);
            known.last_attempt_at = Some(now);
            known.is_failing = false;
            known.is_dead = false;
        });
    }

    /// Something was not taken.
    pub fn failed(&self, hub: HubKey, endpoint: &EndpointName, reason: &str, now: UnixTime) {
        self.note(hub, endpoint, |known| {
            known.last_error = Some((reason.to_owned(), now));
            known.last_attempt_at = Some(now);
            known.is_failing = true;
        });
    }

    /// A message was given up.
    pub fn gave_up(&self, hub: HubKey, endpoint: &EndpointName) {
        self.note(hub, endpoint, |known| known.is_dead = true);
    }

    /// The log forgot messages before the endpoint was told of them.
    pub fn lost(&self, hub: HubKey, endpoint: &EndpointName, messages: u64) {
        self.note(hub, endpoint, |known| known.lost += messages);
    }

    /// The endpoint is no more.
    pub fn forget(&self, hub: HubKey, endpoint: &EndpointName) {
        self.known().remove(&(hub, endpoint.key()));
    }

    /// How the endpoint is.
    pub fn health(&self, hub: HubKey, endpoint: &EndpointName, dead_letters: u64) -> EndpointHealth {
        let known = self.known().get(&(hub, endpoint.key())).cloned().unwrap_or_default();
        let status = match &known {
            Known { is_failing: true, is_dead: true, .. } => HealthStatus::Dead,
            Known { is_failing: true, .. } => HealthStatus::Unhealthy,
            Known { last_success_at: Some(_), .. } => HealthStatus::Healthy,
            _ => HealthStatus::Unknown,
        };
        let (last_error, last_error_at) = known.last_error.unzip();
        EndpointHealth {
            endpoint: endpoint.clone(),
            status,
            last_error,
            last_error_at,
            last_success_at: known.last_success_at,
            last_attempt_at: known.last_attempt_at,
            dead_letters,
            lost: known.lost,
        }
    }
}

/// The built-in endpoint is the log itself, which takes what it is given.
pub(super) fn built_in() -> EndpointHealth {
    EndpointHealth {
        endpoint: events(),
        status: HealthStatus::Healthy,
        last_error: None,
        last_error_at: None,
        last_success_at: None,
        last_attempt_at: None,
        dead_letters: 0,
        lost: 0,
    }
}
