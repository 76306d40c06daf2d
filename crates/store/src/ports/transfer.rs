//! Imports and exports of identities, and how far each has come (`contract/hub-service.md 8.2`).
//!
//! The lines of an import are carried out together with the note that they were: whoever goes on after a crash begins
//! behind them.

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::identity::Identity;
use domain::ids::{HubKey, JobId};
use domain::transfer::{Draft, ImportFile, Line, LineFault, Transfer};

use super::Created;
use crate::Error;

/// Finds an import or export for who carries it out; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransferKey(pub i64);

/// An import or export that has not ended, or was cancelled and has faults that are not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueTransfer {
    /// By what the other verbs find it.
    pub key: TransferKey,
    /// Where.
    pub hub: HubKey,
    /// What it is called.
    pub id: JobId,
    /// What is done.
    pub draft: Draft,
    /// How far the file of an import was carried out.
    pub place: LinePlace,
}

/// A place in the files of an import, at the beginning of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinePlace {
    /// Which file.
    pub file: ImportFile,
    /// Bytes before it.
    pub bytes: u64,
    /// Lines before it.
    pub lines: u64,
}

/// A line that is to be carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportLine {
    /// Which; the first is 1.
    pub number: u64,
    /// What it asks for, or the fault that was found before.
    pub asked: Result<Line<Identity>, LineFault>,
}

/// Lines that follow each other.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportPiece {
    /// Where they begin: a piece that begins elsewhere than the import stands is passed over.
    pub from: LinePlace,
    /// The lines.
    pub lines: Vec<ImportLine>,
    /// Where the next one begins.
    pub to: LinePlace,
}

/// What went wrong with the lines of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportFaults {
    /// The first [`FAULTS_TOLD_MAX`](domain::transfer::FAULTS_TOLD_MAX), in the order of the lines.
    pub told: Vec<LineFault>,
    /// How many there are in all.
    pub count: u64,
}

/// Keeps imports and exports.
#[async_trait]
pub trait TransferStore: Send + Sync {
    /// Keeps an import or export of a hub, unless one has not ended: [`Created::Full`]. Of those that have ended, the
    /// oldest are forgotten with their faults while there are [`KEPT_MAX`](domain::transfer::KEPT_MAX).
    async fn create_transfer(
        &self,
        hub: HubKey,
        id: JobId,
        draft: Draft,
        now: UnixTime,
    ) -> Result<Created<Transfer>, Error>;

    /// One as it stands.
    async fn find_transfer(&self, hub: HubKey, id: &JobId) -> Result<Option<Transfer>, Error>;

    /// All of a hub, in the order they were created in.
    async fn list_transfers(&self, hub: HubKey) -> Result<Vec<Transfer>, Error>;

    /// Ends one; one that has ended stays as it is. What went wrong with its lines is kept for
    /// [`Self::end_transfer`], so that whoever carried it out can tell it.
    async fn cancel_transfer(&self, hub: HubKey, id: &JobId, now: UnixTime) -> Result<Option<Transfer>, Error>;

    /// All that have not ended, and those that were cancelled and whose faults are kept, in the order they were created in.
    async fn list_due_transfers(&self) -> Result<Vec<DueTransfer>, Error>;

    /// Notes how far one is, in percent, which never becomes less; it has begun then. Whether it goes on: `false` once it
    /// has ended.
    async fn advance_transfer(&self, key: TransferKey, percent: u8, now: UnixTime) -> Result<bool, Error>;

    /// Carries the lines of `piece` out, notes their faults, and that it was done. Whether the import goes on: `false` once
    /// it has ended, or if the piece begins elsewhere.
    async fn import_lines(&self, key: TransferKey, piece: ImportPiece, now: UnixTime) -> Result<bool, Error>;

    /// What went wrong so far.
    async fn import_faults(&self, key: TransferKey) -> Result<ImportFaults, Error>;

    /// Ends one, completed or, in these words, failed; its faults are forgotten. One that has ended stays as it is, but
    /// for its faults.
    async fn end_transfer(&self, key: TransferKey, failure: Option<String>, now: UnixTime) -> Result<(), Error>;
}
