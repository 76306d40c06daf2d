//! What hubs tell of by themselves, on its way from the change that it tells of to the log that telemetry is in.

use async_trait::async_trait;
use domain::event::Event;

use crate::Error;

/// An event that was kept with its change.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptEvent {
    /// Place in the order of all events of the store, from 1. No number is given twice.
    pub sequence: u64,
    /// What happened.
    pub event: Event,
}

/// Keeps events until they are passed on. The verb that changes a twin, an identity or who is connected writes the event in
/// its own transaction, if the hub's routes ask for it ([`domain::resource::Hub::event_sources`]): both are there, or
/// neither is. An event is as durable as its change.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Up to `limit` events after `sequence`, in order, though not many large ones, and the sequence they lead to: the one
    /// given if there are none. An event that does not parse is passed over.
    async fn events_after(&self, sequence: u64, limit: usize) -> Result<(Vec<KeptEvent>, u64), Error>;

    /// Forgets events up to `sequence`, at most `limit`; returns how many. Not durable: after a power cut some may be
    /// there again.
    async fn prune_events(&self, sequence: u64, limit: usize) -> Result<usize, Error>;

    /// Counts up whenever a committed verb wrote an event; losing or doubling a wake-up is harmless.
    fn event_changes(&self) -> tokio::sync::watch::Receiver<u64>;
}
