//! What the ports promise, as tests that every backend runs: the same functions, whatever lies beneath.
//!
//! Each function takes a backend that is empty and panics where a promise is broken. Nothing here may know a backend.
//! `tests/it` runs them; the samples they share are in [`sample`].
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "these are tests")]
#![expect(clippy::indexing_slicing, reason = "these are tests")]
#![expect(missing_docs, reason = "the name of a test is a sentence")]

pub mod cloud_to_device;
pub mod configuration;
pub mod decision;
pub mod enrollment;
pub mod event;
pub mod fencing;
pub mod file;
pub mod identity;
pub mod job;
pub mod query;
pub mod registration;
pub mod resource;
pub mod route;
pub mod sample;
pub mod session;
pub mod telemetry;
pub mod transfer;
pub mod twin;

use std::sync::Arc;

use domain::clock::ManualClock;

use crate::ports::{Changed, Created, Finished, Placed, Store, TelemetryLog, TwinOutcome};

/// An empty store, opened with [`sample::QUOTAS`], its log, and the clock both were opened with, which stands at
/// [`sample::NOON`].
#[derive(Clone)]
pub struct Backend {
    pub store: Arc<dyn Store>,
    pub telemetry: Arc<dyn TelemetryLog>,
    pub clock: Arc<ManualClock>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

/// An answer that a test expects to have gone well.
pub trait Done {
    type Value;

    /// The value; a test that expected nothing else ends otherwise.
    #[track_caller]
    fn done(self) -> Self::Value;
}

impl<T: std::fmt::Debug> Done for Created<T> {
    type Value = T;
    fn done(self) -> T {
        match self {
            Self::Done(created) => created,
            Self::AlreadyExists => panic!("the name is taken"),
            Self::Full => panic!("there are too many"),
            Self::NoOwner => panic!("what it would belong to is not there"),
        }
    }
}

impl<T: std::fmt::Debug> Done for Placed<T> {
    type Value = T;
    fn done(self) -> T {
        match self {
            Self::Done(created) => created,
            Self::AlreadyExists => panic!("the name is taken"),
            Self::NoAddressLeft => panic!("no address is left"),
        }
    }
}

impl<T: std::fmt::Debug> Done for Changed<T> {
    type Value = T;
    fn done(self) -> T {
        match self {
            Self::Done(changed) => changed,
            other => panic!("it was not changed: {other:?}"),
        }
    }
}

impl<T: std::fmt::Debug> Done for TwinOutcome<T> {
    type Value = T;
    fn done(self) -> T {
        match self {
            Self::Done(changed) => changed,
            other => panic!("the twin was not changed: {other:?}"),
        }
    }
}

impl<T: std::fmt::Debug> Done for Finished<T> {
    type Value = T;
    fn done(self) -> T {
        match self {
            Self::Done(finished) => finished,
            other => panic!("the operation was not carried on: {other:?}"),
        }
    }
}

impl<T> Done for Option<T> {
    type Value = T;
    fn done(self) -> T {
        self.expect("there is nothing")
    }
}
