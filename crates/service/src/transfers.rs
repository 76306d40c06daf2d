//! Imports and exports of a hub's identities and configurations (`contract/hub-service.md 8.2`).
//!
//! Identities pass by in pieces: neither a file nor a registry is ever held whole. An import goes on behind the lines that
//! are noted to be carried out; an export that was cut short begins anew, since its file is there only at the end. Start
//! at [`Service::run_transfers`].

mod lines;
mod place;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::access::Action;
use domain::configuration::Configuration;
use domain::file::{Access, BlockId, FileName, StorageToken};
use domain::identity::{Identity, IdentityDraft};
use domain::ids::{HubKey, JobId, Precondition};
use domain::operation::identity::IdentityName;
use domain::operation::transfer::{Answer, Ask, Managed};
use domain::operation::{Caller, ErrorKind, PageRequest};
use domain::route::{Refusal, Url};
use domain::transfer::{
    Change, ConfigurationChange, Container, Draft, FAULTS_FILE, FaultReason, ImportFile, LINE_BYTES_MAX, Line,
    LineFault, Work,
};
use domain::twin::Twin;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use store::ports::{Created, DueTransfer, ImportLine, ImportPiece, LinePlace};

use crate::Service;
use crate::error::Error;
use crate::tasks::AFTER_FAILURE;
use lines::{Cut, Lines};
use place::{Patience, Writer, failed};

/// How late an import or export may begin that nobody was woken for.
const IDLE: Duration = Duration::from_secs(1);
/// Lines that one verb carries out, which holds up all others. The removal of a device, with all of its modules, has a
/// verb of its own.
const LINES_MAX: usize = 16;
/// Devices that are read at once.
const PAGE_DEVICES: usize = 100;

/// Why an import or export failed that a part of the server held up for as long as is waited for.
const HELD_UP: &str = "a part of the server did not answer for too long";

/// How far an import or export is before it has ended, in percent.
const UNENDED_MAX: u64 = 99;

/// Writes and reads lines, and reaches containers outside. Implemented where dialects and sockets are.
///
/// Where a storage refuses the message, it does so for good; any other refusal may pass.
#[async_trait::async_trait]
pub trait Exchange: Send + Sync {
    /// What a line asks for.
    fn parse_line(&self, file: ImportFile, number: u64, line: &[u8]) -> Result<Line<IdentityDraft>, LineFault>;

    /// The line of an identity.
    fn show_line(&self, identity: &Identity, twin: &Twin, with_keys: bool) -> String;

    /// The line of a configuration.
    fn show_configuration(&self, configuration: &Configuration) -> String;

    /// The line of a fault.
    fn show_fault(&self, fault: &LineFault) -> String;

    /// The line that says how many more faults there are.
    fn show_untold(&self, more: u64) -> String;

    /// The container and the signature of an address of the server's own storage.
    fn parse_own(&self, url: &Url) -> Option<(String, StorageToken)>;

    /// Whether the storage at `url` is there and knows the signature.
    async fn check(&self, url: &Url) -> Result<(), Refusal>;

    /// Up to `bytes` bytes of a file from `first` on; none at its end.
    async fn read(&self, url: &Url, first: u64, bytes: usize) -> Result<(Bytes, u64), Refusal>;

    /// Sends a block of a file.
    async fn put_block(&self, url: &Url, block: &BlockId, bytes: Bytes) -> Result<(), Refusal>;

    /// Makes the file of blocks that were sent.
    async fn commit(&self, url: &Url, blocks: &[BlockId]) -> Result<(), Refusal>;
}

/// Why an import or export does not go on.
enum Stop {
    /// It has ended, or somebody else carries it on.
    Over,
    /// It cannot go on, in words without secrets.
    Failed(String),
    /// A part of the server does not answer, which was logged: it goes on later.
    Later,
    /// The store failed.
    Store(store::Error),
}

impl From<store::Error> for Stop {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl Service {
    /// Has imports and exports read and written by `exchange`. To be called once, before any is asked for.
    pub fn exchange_by(&self, exchange: Arc<dyn Exchange>) {
        let _ = self.0.exchange.set(exchange);
    }

    fn exchange(&self) -> Result<&Arc<dyn Exchange>, Error> {
        let exchange = self.0.exchange.get();
        exchange.ok_or_else(|| Error::new(ErrorKind::Unavailable, "The server is starting; try again."))
    }

    fn exchange_now(&self) -> Result<&Arc<dyn Exchange>, Stop> {
        self.exchange().map_err(|error| failed(self.fail(error)))
    }

    /// Performs `ask` at the hub that the caller dialled.
    pub(crate) async fn perform_transfer(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        let path = match &ask {
            Ask::Create(_) => vec!["jobs", "create"],
            Ask::Find(id) | Ask::Cancel(id) => vec!["jobs", id.as_str()],
            Ask::List => vec!["jobs"],
        };
        let path: Vec<String> = path.into_iter().map(str::to_owned).collect();
        let hub = self.authorize_at_hub(caller, Action::TransferIdentities, &path)?;
        self.perform_transfer_of(hub.key, ask).await
    }

    /// Performs what an operator of the deployment asks.
    pub(crate) async fn perform_managed_transfer(&self, caller: &Caller, managed: Managed) -> Result<Answer, Error> {
        self.authorize_operator(caller)?;
        self.check_place(&managed.place)?;
        let hub = self.find_hub(&managed.place, &managed.hub)?;
        let answer = self.perform_transfer_of(hub.key, managed.ask).await;
        answer.map_err(|error| match error.kind {
            // To the manual's clients of management a hub is a resource like any other.
            ErrorKind::HubNotFound => Error { kind: ErrorKind::ResourceNotFound, ..error },
            _ => error,
        })
    }

    async fn perform_transfer_of(&self, hub: HubKey, ask: Ask) -> Result<Answer, Error> {
        let not_found = || Error::new(ErrorKind::JobNotFound, "There is no such job.");
        let store = &self.0.store;
        match ask {
            Ask::Create(draft) => self.begin_transfer(hub, *draft).await,
            Ask::Find(id) => {
                let found = store.find_transfer(hub, &id).await?.ok_or_else(not_found)?;
                Ok(Answer::Transfer(Box::new(found)))
            }
            Ask::List => Ok(Answer::Transfers(store.list_transfers(hub).await?)),
            Ask::Cancel(id) => {
                let cancelled = store.cancel_transfer(hub, &id, self.now()).await?.ok_or_else(not_found)?;
                Ok(Answer::Transfer(Box::new(cancelled)))
            }
        }
    }

    async fn begin_transfer(&self, hub: HubKey, draft: Draft) -> Result<Answer, Error> {
        let (container, file, access) = match &draft.work {
            Work::Import { input, file } => (input, file, Access::Read),
            Work::Export { file, .. } => (&draft.output, file, Access::Write),
        };
        let mut wanted = vec![(container, file.clone(), access)];
        wanted.extend(draft.configurations.iter().map(|file| (container, file.clone(), access)));
        wanted.extend(matches!(draft.work, Work::Import { .. }).then(|| faults_of(&draft)));
        for (container, file, access) in wanted {
            self.check_container(container, &file, access).await?;
        }
        let id = JobId::generate(self.entropy());
        match self.0.store.create_transfer(hub, id.clone(), draft, self.now()).await? {
            Created::Done(transfer) => {
                tracing::info!(job.id = %id, "an import or export is asked for");
                self.0.transfers.notify_one();
                Ok(Answer::Transfer(Box::new(transfer)))
            }
            Created::Full => {
                let words = "The hub has an import or export that has not ended; only one at a time is carried out.";
                Err(Error::new(ErrorKind::TooManyJobs, words))
            }
            Created::AlreadyExists => Err(Error::new(ErrorKind::JobExists, format!("A job with ID '{id}' exists."))),
            Created::NoOwner => Err(Error::new(ErrorKind::HubNotFound, "The hub was not found.")),
        }
    }

    /// Carries imports and exports out until the future is dropped.
    pub async fn run_transfers(&self) {
        // Hubs, not jobs: one that was cancelled may still write to files that the next one of its hub writes as well.
        let mut running = HashSet::new();
        // Of those that a part of the server held up.
        let mut held_up = HashMap::new();
        let mut workers = FuturesUnordered::new();
        loop {
            let due = match self.0.store.list_due_transfers().await {
                Ok(due) => {
                    held_up.retain(|key, _| due.iter().any(|one| one.key == *key));
                    due
                }
                Err(error) => {
                    self.fail(error.into());
                    Vec::new()
                }
            };
            for one in due.into_iter().filter(|one| running.insert(one.hub)) {
                let patience = held_up.remove(&one.key).unwrap_or(Patience::while_due());
                workers.push(async move {
                    let left = self.carry_transfer(&one, patience).await;
                    (one, left)
                });
            }
            tokio::select! {
                () = self.0.transfers.notified() => {}
                () = tokio::time::sleep(IDLE) => {}
                Some((one, left)) = workers.next(), if !workers.is_empty() => {
                    running.remove(&one.hub);
                    held_up.extend(left.map(|left| (one.key, left)));
                }
            }
        }
    }

    /// Carries one out; where a part of the server held it up, after a pause, the patience that is left for it.
    async fn carry_transfer(&self, due: &DueTransfer, mut patience: Patience) -> Option<Patience> {
        let is_import = matches!(due.draft.work, Work::Import { .. });
        let carried = self.try_transfer(due).await.map_err(|stop| self.settle(stop));
        let told = match &carried {
            // Also of an import that fails: the lines before were carried out, or have their faults.
            Ok(()) | Err(Stop::Failed(_)) if is_import => {
                self.tell_faults(due, Patience::while_due()).await.map_err(|stop| self.settle(stop))
            }
            _ => Ok(()),
        };
        let failure = match (carried, told) {
            (Ok(()), Ok(())) => None,
            (Err(Stop::Over), _) | (_, Err(Stop::Over)) => {
                return if is_import { self.close_cancelled(due, patience).await } else { None };
            }
            (Err(Stop::Failed(words)), Ok(()) | Err(Stop::Failed(_))) | (Ok(()), Err(Stop::Failed(words))) => {
                Some(words)
            }
            (carried, _) => {
                if patience.pause().await {
                    return Some(patience);
                }
                match carried {
                    Err(Stop::Failed(words)) => Some(words),
                    _ => Some(HELD_UP.to_owned()),
                }
            }
        };
        match &failure {
            None => tracing::info!(job.id = %due.id, "an import or export is complete"),
            Some(reason) => tracing::warn!(job.id = %due.id, reason, "an import or export failed"),
        }
        self.note_end(due, failure).await;
        None
    }

    async fn note_end(&self, due: &DueTransfer, failure: Option<String>) {
        let noted = self.insist(|| self.0.store.end_transfer(due.key, failure.clone(), self.now())).await;
        if let Err(error) = noted {
            self.fail(error.into());
            // It is due again at once.
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }

    /// Says what a failure of the store means: an outage passes.
    fn settle(&self, stop: Stop) -> Stop {
        match stop {
            Stop::Store(error) => self.stop_for(error.into()),
            stop => stop,
        }
    }

    /// Tells what could not be imported before an import was cancelled, and forgets it once it is told or never can be;
    /// the patience that is left where that is to be tried again.
    async fn close_cancelled(&self, due: &DueTransfer, mut patience: Patience) -> Option<Patience> {
        let telling = async {
            let found = self.0.store.find_transfer(due.hub, &due.id).await?;
            if found.is_none_or(|found| found.ended_at.is_none()) {
                return Err(Stop::Over);
            }
            self.tell_faults(due, Patience::after_end()).await
        };
        let untold = match telling.await.map_err(|stop| self.settle(stop)) {
            Ok(()) => None,
            Err(Stop::Over) => return None,
            Err(Stop::Failed(reason)) => Some(reason),
            Err(_) => match patience.pause().await {
                true => return Some(patience),
                false => Some(HELD_UP.to_owned()),
            },
        };
        if let Some(reason) = untold {
            tracing::warn!(job.id = %due.id, reason, "what could not be imported is not told");
        }
        self.note_end(due, None).await;
        None
    }

    async fn try_transfer(&self, due: &DueTransfer) -> Result<(), Stop> {
        match &due.draft.work {
            Work::Import { input, file } => {
                let mut at = due.place;
                if at.file == ImportFile::Identities {
                    at = self.import(due, (input, file), at).await?;
                }
                match &due.draft.configurations {
                    Some(file) => self.import_configurations(due, (input, file), at).await,
                    None => Ok(()),
                }
            }
            Work::Export { file, without_keys } => {
                let identities = self.export(due, file, !without_keys).await?;
                let configurations = match &due.draft.configurations {
                    Some(file) => Some(self.export_configurations(due, file).await?),
                    None => None,
                };
                // The last look whether it was cancelled, before there is a file.
                self.advance(due, ImportFile::Configurations, (1, 1)).await?;
                identities.finish().await?;
                match configurations {
                    Some(configurations) => configurations.finish().await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Notes how far it is with one of its files, which share what there is before its end.
    async fn advance(&self, due: &DueTransfer, file: ImportFile, (done, all): (u64, u64)) -> Result<(), Stop> {
        let (first, last) = match (file, &due.draft.configurations) {
            (ImportFile::Identities, None) => (0, UNENDED_MAX),
            (ImportFile::Identities, Some(_)) => (0, UNENDED_MAX / 2),
            (ImportFile::Configurations, _) => (UNENDED_MAX / 2, UNENDED_MAX),
        };
        let percent = first + (last - first).saturating_mul(done.min(all)) / all.max(1);
        let percent = u8::try_from(percent).expect("it is at most a hundred");
        match self.0.store.advance_transfer(due.key, percent, self.now()).await? {
            true => Ok(()),
            false => Err(Stop::Over),
        }
    }

    /// Carries a file out from `at` on; where it ends.
    async fn import(
        &self,
        due: &DueTransfer,
        (input, file): (&Container, &FileName),
        mut at: LinePlace,
    ) -> Result<LinePlace, Stop> {
        self.advance(due, at.file, (0, 1)).await?;
        let place = self.open_place(due, (input, file), Access::Read, Patience::while_due()).await?;
        let mut lines = Lines::default();
        loop {
            let (piece, all) = self.read_piece(&place, at.bytes + lines.ahead()).await?;
            let is_last = piece.is_empty();
            lines.push(&piece);
            at = self.import_read(due, at, (&mut lines, is_last)).await?;
            if is_last {
                return Ok(at);
            }
            self.advance(due, at.file, (at.bytes, all)).await?;
        }
    }

    /// Carries the file of configurations out, after having turned to it from `at`, unless that was done before.
    async fn import_configurations(
        &self,
        due: &DueTransfer,
        file: (&Container, &FileName),
        mut at: LinePlace,
    ) -> Result<(), Stop> {
        if at.file == ImportFile::Identities {
            let to = LinePlace { file: ImportFile::Configurations, ..LinePlace::default() };
            let turn = ImportPiece { from: at, lines: Vec::new(), to };
            if !self.0.store.import_lines(due.key, turn, self.now()).await? {
                return Err(Stop::Over);
            }
            at = to;
        }
        let carried_out = self.import(due, file, at).await;
        // Also of those that were carried out before it stopped.
        self.0.configurations.notify_one();
        carried_out.map(drop)
    }

    /// Carries out the whole lines of what was read behind `at`, and takes them from it; where the next one begins.
    async fn import_read(
        &self,
        due: &DueTransfer,
        mut at: LinePlace,
        (lines, is_last): (&mut Lines, bool),
    ) -> Result<LinePlace, Stop> {
        loop {
            let piece = self.next_piece(at, lines, is_last)?;
            if piece.to == at {
                return Ok(at);
            }
            at = piece.to;
            if !self.0.store.import_lines(due.key, piece, self.now()).await? {
                return Err(Stop::Over);
            }
        }
    }

    /// Takes the lines that one verb carries out.
    fn next_piece(&self, at: LinePlace, lines: &mut Lines, is_last: bool) -> Result<ImportPiece, Stop> {
        let mut piece = ImportPiece { from: at, lines: Vec::new(), to: at };
        while piece.lines.len() < LINES_MAX {
            let Some(cut) = lines.peek(is_last) else { break };
            let to = LinePlace { bytes: piece.to.bytes + cut.bytes, lines: piece.to.lines + 1, ..piece.to };
            let line = self.read_cut(to, &cut)?;
            let is_alone = line.as_ref().is_some_and(removes_device);
            if is_alone && !piece.lines.is_empty() {
                break;
            }
            let waiting = cut.waiting();
            lines.take(waiting);
            piece.to = to;
            piece.lines.extend(line);
            if is_alone {
                break;
            }
        }
        Ok(piece)
    }

    /// Reads the line that ends at `at`; `None` for an empty one.
    fn read_cut(&self, at: LinePlace, cut: &Cut<'_>) -> Result<Option<ImportLine>, Stop> {
        let number = at.lines;
        match cut.text.map(<[u8]>::trim_ascii) {
            Some([]) => Ok(None),
            Some(text) => self.read_line(at, text).map(Some),
            None => {
                let reason = FaultReason::Refused(format!("The line is longer than {LINE_BYTES_MAX} bytes."));
                Ok(Some(ImportLine { number, asked: Err(LineFault::unread(number, reason)) }))
            }
        }
    }

    fn read_line(&self, at: LinePlace, text: &[u8]) -> Result<ImportLine, Stop> {
        let exchange = self.exchange_now()?;
        let number = at.lines;
        let asked = exchange.parse_line(at.file, number, text).and_then(|line| match line {
            Line::Identity(name, change) => match self.check_change(&name, change) {
                Ok(change) => Ok(Line::Identity(name, change)),
                Err(reason) => Err(LineFault::of_identity(number, &name, reason)),
            },
            Line::Configuration(change) => match &change {
                ConfigurationChange::Put(draft, _) => match draft.check() {
                    Ok(()) => Ok(Line::Configuration(change)),
                    Err(invalid) => {
                        let reason = FaultReason::Refused(format!("The configuration is not valid: {invalid}."));
                        Err(LineFault::of_configuration(number, change.id(), reason))
                    }
                },
                ConfigurationChange::Delete(..) => Ok(Line::Configuration(change)),
            },
        });
        Ok(ImportLine { number, asked })
    }

    fn check_change(
        &self,
        name: &IdentityName,
        change: Change<IdentityDraft>,
    ) -> Result<Change<Identity>, FaultReason> {
        let refused = |words: String| FaultReason::Refused(format!("{words}."));
        let is_own = name.module.as_ref().is_some_and(|module| module.as_str().starts_with('$'));
        Ok(match change {
            // The hub makes its own modules with their device; what an export tells of them is their twin.
            Change::Put { twin, .. } if is_own => {
                let change = twin.unwrap_or_default();
                return self.check_change(name, Change::PatchTwin { change, precondition: Precondition::None });
            }
            Change::Put { identity, manner, twin } => {
                if let Some(twin) = &twin {
                    twin.check().map_err(|invalid| refused(invalid.to_string()))?;
                }
                let identity = identity.check(self.entropy()).map_err(|invalid| refused(invalid.to_string()))?;
                Change::Put { identity: Box::new(identity), manner, twin }
            }
            Change::PatchTwin { change, precondition } => {
                change.check().map_err(|invalid| refused(invalid.to_string()))?;
                Change::PatchTwin { change, precondition }
            }
            Change::Delete { precondition } => Change::Delete { precondition },
        })
    }

    /// Writes what could not be imported: nothing, in the place of what an earlier import may have left, if all could be.
    async fn tell_faults(&self, due: &DueTransfer, patience: Patience) -> Result<(), Stop> {
        let faults = self.0.store.import_faults(due.key).await?;
        let exchange = self.exchange_now()?;
        let (container, file, access) = faults_of(&due.draft);
        let mut writer = Writer::new(self, self.open_place(due, (container, &file), access, patience).await?);
        for fault in &faults.told {
            writer.write(&exchange.show_fault(fault)).await?;
        }
        let untold = faults.count.saturating_sub(faults.told.len() as u64);
        if untold > 0 {
            writer.write(&exchange.show_untold(untold)).await?;
        }
        writer.finish().await
    }

    /// Writes every identity; the file is there once it is finished.
    async fn export<'s>(&'s self, due: &'s DueTransfer, file: &FileName, with_keys: bool) -> Result<Writer<'s>, Stop> {
        self.advance(due, ImportFile::Identities, (0, 1)).await?;
        let patience = Patience::while_due();
        let place = self.open_place(due, (&due.draft.output, file), Access::Write, patience).await?;
        let store = &self.0.store;
        let all = store.count_devices(due.hub).await?.total;
        let mut writer = Writer::new(self, place);
        let exchange = self.exchange_now()?;
        let (mut after, mut done) = (None, 0);
        loop {
            let page = store.list_names(due.hub, PageRequest { after, limit: PAGE_DEVICES }).await?;
            for name in page.items {
                // One that is gone meanwhile is left out.
                if let Some((twin, identity)) = self.readable(store.find_twin(due.hub, &name).await)? {
                    writer.write(&exchange.show_line(&identity, &twin, with_keys)).await?;
                }
                done += u64::from(name.module.is_none());
            }
            self.advance(due, ImportFile::Identities, (done, all)).await?;
            after = page.next;
            if after.is_none() {
                return Ok(writer);
            }
        }
    }

    /// Writes every configuration; the file is there once it is finished.
    async fn export_configurations<'s>(&'s self, due: &'s DueTransfer, file: &FileName) -> Result<Writer<'s>, Stop> {
        let patience = Patience::while_due();
        let place = self.open_place(due, (&due.draft.output, file), Access::Write, patience).await?;
        let exchange = self.exchange_now()?;
        let mut writer = Writer::new(self, place);
        let store = &self.0.store;
        for id in store.list_configuration_ids(due.hub).await? {
            if let Some(configuration) = self.readable(store.find_configuration(due.hub, &id).await)? {
                writer.write(&exchange.show_configuration(&configuration)).await?;
            }
        }
        Ok(writer)
    }

    /// What was found. One whose record does not parse must not hold up the others: it is logged and left out.
    fn readable<T>(&self, found: Result<Option<T>, store::Error>) -> Result<Option<T>, Stop> {
        match found {
            Err(error @ store::Error::Corrupt { .. }) => {
                self.fail(error.into());
                Ok(None)
            }
            found => Ok(found?),
        }
    }
}

/// Whether a line removes a device, which takes its modules along.
fn removes_device(line: &ImportLine) -> bool {
    matches!(&line.asked, Ok(Line::Identity(name, Change::Delete { .. })) if name.module.is_none())
}

/// Where what could not be imported is written.
fn faults_of(draft: &Draft) -> (&Container, FileName, Access) {
    (&draft.output, FileName::parse(FAULTS_FILE).expect("it is a name of a file"), Access::Write)
}
