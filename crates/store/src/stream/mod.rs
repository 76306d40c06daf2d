//! The telemetry log: what devices sent, by hub and partition, in order (`rules.md` 15).
//!
//! All hubs and partitions share one active SQLite file; it is closed when it is large or old enough, and removed when
//! its newest messages have passed their time. One thread writes, with one sync for all that waits; readers have
//! connections of their own. What waits to be written is bounded in bytes: who finds no room waits. Start at
//! [`EmbeddedLog`]; `writer` holds the thread.

mod file;
mod record;
mod writer;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use domain::clock::Clock;
use domain::ids::HubKey;
use domain::message::Message;
use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::error::{Error, OpenError};
use crate::folder::Folder;
use crate::ports::{Position, ReadFrom, StoredMessage, TelemetryLog};
use file::{LogFile, Mark, Page, Partition, Wish, first_wanted, last, read_page};
pub(crate) use record::{decode as decode_record, encode as encode_record};
use writer::{Append, Command, Record, Thread};

/// The folder of the log inside the data folder.
const FOLDER: &str = "telemetry";
/// Bytes of messages that can wait to be written.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Messages and other commands that can wait.
const QUEUE_MAX: usize = 16_384;
/// Readers at work at once.
const READERS_MAX: usize = 4;
/// How long messages are kept of a hub that did not say.
const RETENTION_DEFAULT: Duration = Duration::from_hours(24);

/// How large and how old files become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A file of so many bytes is closed.
    pub file_bytes_max: u64,
    /// A file of this age is closed, if anything is in it.
    pub file_age_max: Duration,
    /// The oldest files are removed while all together have more bytes, whatever their age.
    pub total_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_bytes_max: 256 << 20, file_age_max: Duration::from_hours(1), total_bytes_max: 16 << 30 }
    }
}

/// The log of an embedded store. Clones are the same log.
#[derive(Clone, Debug)]
pub struct EmbeddedLog {
    queue: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What readers and the writer share.
struct Shared {
    clock: Arc<dyn Clock>,
    limits: Limits,
    is_memory: bool,
    /// The oldest first; the last one is appended to. Empty in memory.
    files: RwLock<Vec<Arc<LogFile>>>,
    retention: Mutex<Retention>,
    /// Of each hub that somebody follows.
    appended: Mutex<HashMap<HubKey, watch::Sender<u64>>>,
    room: Arc<Semaphore>,
    /// Held from the wait for room to the queue, so that nobody overtakes: it is given to those who ask in turn.
    turn: tokio::sync::Mutex<()>,
    readers: Arc<Semaphore>,
}

/// How long messages are kept.
#[derive(Debug, Default)]
struct Retention {
    keep: HashMap<HubKey, Duration>,
    /// Hubs whose messages nobody may see. Their keys are never given again, so that the messages can lie until the
    /// files they are in go.
    forgotten: HashSet<HubKey>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("limits", &self.limits).field("files", &self.files).finish_non_exhaustive()
    }
}

impl Shared {
    fn files(&self) -> Vec<Arc<LogFile>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long the messages of a hub are kept; `None` if it is forgotten.
    fn retention(&self, hub: HubKey) -> Option<Duration> {
        let retention = self.retention.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = || retention.keep.get(&hub).copied().unwrap_or(RETENTION_DEFAULT);
        (!retention.forgotten.contains(&hub)).then(keep)
    }

    fn appended(&self) -> MutexGuard<'_, HashMap<HubKey, watch::Sender<u64>>> {
        self.appended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes who follows one of `hubs`.
    fn wake(&self, hubs: &HashSet<HubKey>) {
        let appended = self.appended();
        for followed in hubs.iter().filter_map(|hub| appended.get(hub)) {
            followed.send_modify(|count| *count += 1);
        }
    }

    /// What a reader of the hub wants, if it may see anything.
    fn wish(&self, hub: HubKey, from: ReadFrom) -> Option<Wish> {
        Some(Wish { from, seen_since: self.clock.now().minus(self.retention(hub)?) })
    }
}

fn file_path(folder: &Folder, number: u64) -> PathBuf {
    folder.file(FOLDER).join(format!("{number:010}.db"))
}

/// The files of the log, the oldest first; the first file is begun if there is none.
fn list_files(folder: &Folder) -> Result<Vec<Arc<LogFile>>, OpenError> {
    let path = folder.file(FOLDER);
    crate::folder::make_folder(&path)?;
    let failed = |error| OpenError::file("cannot list the folder", &path, error);
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".db"));
        numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    if numbers.is_empty() {
        numbers.push(1);
    }
    Ok(numbers.into_iter().map(|number| Arc::new(LogFile::new(number, file_path(folder, number)))).collect())
}

impl EmbeddedLog {
    /// Opens the log in the data folder, or in memory, and starts its writer.
    pub(crate) fn open(folder: Option<&Folder>, limits: Limits, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let files = folder.map(list_files).transpose()?.unwrap_or_default();
        let shared = Arc::new(Shared {
            clock,
            limits,
            is_memory: folder.is_none(),
            files: RwLock::new(files),
            retention: Mutex::default(),
            appended: Mutex::default(),
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            turn: tokio::sync::Mutex::new(()),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
        });
        let (queue, commands) = mpsc::channel(QUEUE_MAX);
        let thread = Thread::prepare(folder.cloned(), Arc::clone(&shared), commands)?;
        let thread = std::thread::Builder::new()
            .name("store-telemetry".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| OpenError::file("cannot start the writer of", FOLDER, error))?;
        Ok(Self { queue, shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Begins and removes files as their time has come; also done by itself as messages come.
    pub async fn tend(&self) -> Result<(), Error> {
        let (slot, done) = oneshot::channel();
        self.send(Command::Tend(slot)).await?;
        done.await.map_err(|_| writer::closing())
    }

    /// Writes what is queued and ends the writer, once all clones are closed or gone.
    pub(crate) async fn close(self) {
        let Self { queue, thread, .. } = self;
        drop(queue);
        let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Has messages written, all or none, and gives where they stand.
    async fn write(&self, messages: Vec<Message>) -> Result<Vec<Position>, Error> {
        let records: Vec<Record> = messages
            .into_iter()
            .map(|message| Record { partition: (message.hub, message.partition), bytes: record::encode(&message) })
            .collect();
        let bytes: usize = records.iter().map(|record| record.bytes.len()).sum();
        // Records larger than all that may wait still pass, alone.
        let bytes = u32::try_from(bytes.min(QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        let turn = self.shared.turn.lock().await;
        let room = Arc::clone(&self.shared.room).acquire_many_owned(bytes).await.map_err(|_| writer::closing())?;
        let (slot, answer) = oneshot::channel();
        self.send(Command::Append(Append { records, slot, room })).await?;
        drop(turn);
        answer.await.unwrap_or_else(|_| Err(writer::closing()))
    }

    async fn send(&self, command: Command) -> Result<(), Error> {
        self.queue.send(command).await.map_err(|_| writer::closing())
    }

    /// Runs `query` over the files that may hold what `wish` wants, on a thread that may block.
    async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(Source<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if self.shared.is_memory {
            let (slot, answer) = oneshot::channel();
            let run = move |db: &Connection| drop(slot.send(query(Source::Memory(db))));
            self.send(Command::Query(Box::new(run))).await?;
            return answer.await.unwrap_or_else(|_| Err(writer::closing()));
        }
        let permit = Arc::clone(&self.shared.readers).acquire_owned().await.map_err(|_| writer::closing())?;
        let shared = Arc::clone(&self.shared);
        let work = move || {
            let answer = query(Source::Files(&shared.files()));
            drop(permit);
            answer
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => Err(Error::backend("reading the log", error)),
            Err(_) => Err(writer::closing()),
        }
    }
}

/// What a query reads from.
enum Source<'s> {
    Memory(&'s Connection),
    Files(&'s [Arc<LogFile>]),
}

impl Source<'_> {
    /// Runs `step` over the parts of the log that may hold messages of the partition, the oldest first, until it says
    /// that it has enough.
    fn forwards(
        &self,
        partition: Partition,
        mut step: impl FnMut(&Connection) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        match self {
            Self::Memory(db) => step(db).map(|_| ()),
            Self::Files(files) => visit(files.iter(), partition, step),
        }
    }

    /// As [`Self::forwards`], the newest first.
    fn backwards(
        &self,
        partition: Partition,
        mut step: impl FnMut(&Connection) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        match self {
            Self::Memory(db) => step(db).map(|_| ()),
            Self::Files(files) => visit(files.iter().rev(), partition, step),
        }
    }

    /// The parts that may hold what `wish` wants: a reader at the end of the log looks at one file, however many there
    /// are.
    fn narrowed(&self, partition: Partition, wish: Wish) -> Result<Source<'_>, Error> {
        let Self::Files(files) = self else { return Ok(self.again()) };
        let mut start = files.len();
        for file in files.iter().rev() {
            start -= 1;
            let first = unless_gone(file, file.first(partition))?.flatten();
            if first.is_some_and(|first| wish.begins_at_or_after(&first)) {
                break;
            }
        }
        Ok(Source::Files(files.get(start..).unwrap_or_default()))
    }

    const fn again(&self) -> Source<'_> {
        match self {
            Self::Memory(db) => Source::Memory(db),
            Self::Files(files) => Source::Files(files),
        }
    }
}

fn visit<'f>(
    files: impl Iterator<Item = &'f Arc<LogFile>>,
    partition: Partition,
    mut step: impl FnMut(&Connection) -> Result<bool, Error>,
) -> Result<(), Error> {
    for file in files.filter(|file| file.may_hold(partition)) {
        if !unless_gone(file, file.read(&mut step))?.unwrap_or(true) {
            break;
        }
    }
    Ok(())
}

/// What was read from a file; `None` if it was removed since it was listed.
fn unless_gone<T>(file: &LogFile, answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(_) if !file.path.exists() => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(source: &Source<'_>, partition: Partition, wish: Wish, limit: usize) -> Result<Vec<StoredMessage>, Error> {
    let mut page = Page::default();
    if wish.from != ReadFrom::End && limit > 0 {
        let narrowed = source.narrowed(partition, wish)?;
        narrowed.forwards(partition, |db| read_page(db, partition, wish, limit, &mut page))?;
    }
    Ok(page.messages)
}

fn bounds(source: &Source<'_>, partition: Partition, wish: Wish) -> Result<Option<(Position, Position)>, Error> {
    let (mut oldest, mut newest): (Option<Mark>, Option<Mark>) = (None, None);
    source.backwards(partition, |db| {
        newest = last(db, partition)?;
        Ok(newest.is_none())
    })?;
    source.forwards(partition, |db| {
        oldest = first_wanted(db, partition, wish)?;
        Ok(oldest.is_none())
    })?;
    Ok(oldest.zip(newest).map(|(oldest, newest)| (oldest.position, newest.position)))
}

#[async_trait]
impl TelemetryLog for EmbeddedLog {
    async fn append(&self, message: Message) -> Result<Position, Error> {
        let positions = self.write(vec![message]).await?;
        positions.first().copied().ok_or_else(writer::closing)
    }

    async fn append_all(&self, messages: Vec<Message>) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        self.write(messages).await.map(|_| ())
    }

    async fn read(
        &self,
        hub: HubKey,
        partition: u16,
        from: ReadFrom,
        limit: usize,
    ) -> Result<Vec<StoredMessage>, Error> {
        let Some(wish) = self.shared.wish(hub, from) else { return Ok(Vec::new()) };
        self.query(move |source| read(&source, (hub, partition), wish, limit)).await
    }

    async fn bounds(&self, hub: HubKey, partition: u16) -> Result<Option<(Position, Position)>, Error> {
        let Some(wish) = self.shared.wish(hub, ReadFrom::Start) else { return Ok(None) };
        self.query(move |source| bounds(&source, (hub, partition), wish)).await
    }

    fn appended(&self, hub: HubKey) -> watch::Receiver<u64> {
        let mut appended = self.shared.appended();
        appended.retain(|_, followed| followed.receiver_count() > 0);
        appended.entry(hub).or_default().subscribe()
    }

    fn set_retention(&self, hub: HubKey, keep: Duration) {
        self.shared.retention.lock().unwrap_or_else(PoisonError::into_inner).keep.insert(hub, keep);
    }

    fn forget_hub(&self, hub: HubKey) {
        let mut retention = self.shared.retention.lock().unwrap_or_else(PoisonError::into_inner);
        retention.keep.remove(&hub);
        retention.forgotten.insert(hub);
        drop(retention);
        self.shared.appended().remove(&hub);
    }
}
