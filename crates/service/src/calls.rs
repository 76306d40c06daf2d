//! Direct method calls under way: each waits for its device to listen, and then for the response.
//!
//! The directory keeps them: what a device was told belongs to its connection and ends with it, and what waits for a
//! device that is away begins, in the order asked, when it comes. Nothing is durable, and nothing outlives its caller.
//! Start at [`Pending`], the caller's end.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::ids::{HubKey, MethodRequestId};
use domain::method::{CALLS_PER_HUB_MAX, NoResponse, Request, Response, Waiter};
use tokio::sync::oneshot;

use crate::directory::{Directory, Key};

/// What comes from a device.
pub type Outcome = Result<Response, NoResponse>;

/// Why a call is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untaken {
    /// As many calls of the identity are under way as may be.
    Crowded,
    /// The server is about to stop.
    Stopping,
}

/// A call that its device has not been told.
#[derive(Debug)]
pub struct Untold {
    pub request: Request,
    told: oneshot::Sender<()>,
    answer: oneshot::Sender<Outcome>,
}

/// A call that its device was told.
#[derive(Debug)]
pub struct Told {
    id: MethodRequestId,
    answer: oneshot::Sender<Outcome>,
}

/// The caller's end of a call. Dropping it ends the call: what was not delivered is not delivered any more, and a
/// response that comes later is dropped.
#[derive(Debug)]
pub struct Pending<'a> {
    directory: &'a Directory,
    key: Key,
    id: MethodRequestId,
    /// What makes the request worth delivering.
    _waiter: Waiter,
    told: oneshot::Receiver<()>,
    answer: oneshot::Receiver<Outcome>,
}

/// The two ends of a call that `waiter` waits for.
pub fn call(directory: &Directory, key: Key, waiter: Waiter, request: Request) -> (Untold, Pending<'_>) {
    let (told, is_told) = oneshot::channel();
    let (answer, is_answered) = oneshot::channel();
    let id = request.id;
    let pending = Pending { directory, key, id, _waiter: waiter, told: is_told, answer: is_answered };
    (Untold { request, told, answer }, pending)
}

impl Untold {
    /// Notes that the device is told.
    pub fn told(self) -> (Request, Told) {
        // A caller that has gone meanwhile removes the call in a moment.
        let _ = self.told.send(());
        let id = self.request.id;
        (self.request, Told { id, answer: self.answer })
    }
}

impl Told {
    /// Whether this is the call of `id`.
    pub fn is(&self, id: MethodRequestId) -> bool {
        self.id == id
    }

    /// Hands the caller what the device said.
    pub fn answer(self, outcome: Outcome) {
        // A caller that has gone meanwhile wants nothing.
        let _ = self.answer.send(outcome);
    }
}

impl Pending<'_> {
    /// Waits until the device is told; `None` if it never will be, because the server stops.
    pub async fn told(&mut self) -> Option<()> {
        (&mut self.told).await.ok()
    }

    /// Waits for what a device says that was told; `None` if its connection ended.
    pub async fn answer(&mut self) -> Option<Outcome> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.directory.forget_call(&self.key, self.id);
    }
}

/// How many calls each hub has under way.
#[derive(Debug, Default)]
pub struct Places(Mutex<HashMap<HubKey, usize>>);

/// A call's place among those of its hub, free again when dropped.
#[derive(Debug)]
pub struct Place<'a> {
    places: &'a Places,
    hub: HubKey,
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, HashMap<HubKey, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if one of [`CALLS_PER_HUB_MAX`] is free.
    pub fn take(&self, hub: HubKey) -> Option<Place<'_>> {
        let mut taken = self.taken();
        let count = taken.entry(hub).or_default();
        if *count >= CALLS_PER_HUB_MAX {
            return None;
        }
        *count += 1;
        Some(Place { places: self, hub })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.hub) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.hub);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_has_a_bounded_number_of_places_that_its_calls_give_back() {
        let places = Places::default();
        let mut taken: Vec<_> = (0..CALLS_PER_HUB_MAX).map(|_| places.take(HubKey(1)).unwrap()).collect();
        assert!(places.take(HubKey(1)).is_none());
        assert!(places.take(HubKey(2)).is_some(), "another hub has places of its own");
        taken.pop();
        assert!(places.take(HubKey(1)).is_some());
        drop(taken);
        assert!(places.taken().is_empty(), "nothing is kept for hubs without calls");
    }
}
