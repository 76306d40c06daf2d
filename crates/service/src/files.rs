//! Files that devices upload: begun by a device, written and read by whoever holds its token, told of and fetched.
//!
//! The bytes of a file pass through here piece by piece and are never held whole. What is answered is durable: content
//! first, then the record that names it. Start at [`Service::perform_file`]; [`FileWriter`] and [`FileReader`] carry the
//! bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use domain::access::Action;
use domain::clock::UnixTime;
use domain::file::{
    Access, BLOCKS_MAX, BlockId, BlockSource, ContainerToken, Content, FileName, FileProperties, FileToken,
    InvalidFileName, LockedNotification, StorageToken, StoredFile,
};
use domain::ids::{ContentId, Etag, HubName, LockToken, UploadId};
use domain::operation::cloud_to_device::AtHub;
use domain::operation::file::{Answer, Ask, OpenFile, Opened};
use domain::operation::identity::IdentityName;
use domain::operation::{Caller, ErrorKind, Failure};
use domain::resource::Hub;
use domain::sas::{SymmetricKey, sha256};
use store::ports::{Begun, ContentWriter, Ended, Ending, Limit, NewUpload, Settled, Writing, WritingSource, Written};

use crate::Service;
use crate::access::unreached;
use crate::error::Error;
use crate::tasks::AFTER_FAILURE;

/// How long after its end a token is still taken.
const LEEWAY: Duration = Duration::from_secs(5);
/// Bytes of a file that are read at once.
const PIECE_BYTES: usize = 256 << 10;
/// Most files on a page.
const PAGE_MAX: usize = 100;
/// How often it is looked for uploads and notifications whose time has come.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Rows that one verb ends, so that it never holds the writer for long.
const SWEEP_ROWS_MAX: usize = 100;
const NOTIFICATION_PATH: &[&str] = &["messages", "serviceBound", "filenotifications"];

impl Service {
    /// Performs `ask`.
    pub(crate) async fn perform_file(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::Begin { name, file } => self.begin_upload(caller, &name, &file).await,
            Ask::End { name, upload, outcome } => {
                let (hub, _) = self.prove_device(caller, &name).await?;
                tracing::debug!(%upload, success = outcome.is_success, status = outcome.status, "an upload is over");
                self.end_upload(&hub, name, (upload, outcome.is_success)).await
            }
            Ask::Open { token, container, file, access } => {
                self.open_file(caller, &token, (&container, file), access).await
            }
            Ask::List { hub, mut page } => {
                let hub = self.hub_of_operator(caller, hub)?;
                page.limit = page.limit.min(PAGE_MAX);
                Ok(Answer::Files(self.0.store.list_files(hub.key, page).await?))
            }
            Ask::Fetch { hub, file } => {
                let hub = self.hub_of_operator(caller, hub)?;
                Ok(Answer::Opened(OpenFile::open(Opened { hub: hub.key, file, upload: None })))
            }
            Ask::Delete { hub, file } => {
                let hub = self.hub_of_operator(caller, hub)?;
                match self.0.store.delete_file(hub.key, &file).await? {
                    true => Ok(Answer::Deleted),
                    false => Err(no_file()),
                }
            }
            Ask::Sign { hub, ttl_s } => self.sign_container(&*self.hub_of_operator(caller, hub)?, ttl_s),
            Ask::TakeNotification(hub) => {
                let hub = self.hub_for(caller, &hub, (Action::ReadFileNotifications, NOTIFICATION_PATH))?;
                self.take_notification(&hub).await
            }
            Ask::SettleNotification { hub, lock, settlement } => {
                let hub = self.hub_for(caller, &hub, (Action::ReadFileNotifications, NOTIFICATION_PATH))?;
                let deliveries_max = hub.files.notifications.deliveries_max;
                let store = &self.0.store;
                match store.settle_notification(hub.key, (lock, settlement), deliveries_max, self.now()).await? {
                    Settled::Done => Ok(Answer::Settled),
                    Settled::LockLost => Err(Error::new(ErrorKind::LockLost, "The lock is unknown or has run out.")),
                }
            }
        }
    }

    fn hub_of_operator(&self, caller: &Caller, hub: HubName) -> Result<Arc<Hub>, Error> {
        // The action is that of a program at the hub, which an operator need not have.
        self.hub_for(caller, &AtHub::Named(hub), (Action::ReadFileNotifications, NOTIFICATION_PATH))
    }

    /// What signs the tokens of files: of this deployment, and of nothing else that it signs.
    fn file_key(&self) -> SymmetricKey {
        let digest = sha256(&self.deployment().token_key.0);
        SymmetricKey::from_bytes(&digest).expect("32 bytes are a key").derive("tokens of uploaded files")
    }

    async fn begin_upload(&self, caller: &Caller, name: &IdentityName, file: &str) -> Result<Answer, Error> {
        let seat = self.seat_for_request(caller, name).await?;
        let resources = self.resources();
        let hub = resources.hub(seat.hub).ok_or_else(|| Error::new(ErrorKind::HubNotFound, "The hub is gone."))?;
        if !hub.files.are_taken() {
            return Err(takes_no_files());
        }
        let file = FileName::of(name, file).map_err(|invalid: InvalidFileName| Error::invalid(invalid.to_string()))?;
        let upload = UploadId::generate(self.entropy());
        let now = self.now();
        let token = FileToken::issue(&self.file_key(), (hub.key, &file), upload, now.plus(hub.files.upload_ttl));
        let new = NewUpload {
            id: upload,
            generation: seat.generation.to_string(),
            file: file.clone(),
            expires_at: token.expires_at,
        };
        let begun = self.0.store.begin_upload(hub.key, name, new, now).await?;
        self.0.directory.hear_unseated(&seat, now);
        match begun {
            Begun::Done => Ok(Answer::Begun { container: hub.files.container.clone(), file, token }),
            Begun::NotFound => Err(Error::unauthorized()),
            Begun::Full => {
                Err(Error::new(ErrorKind::QuotaExceeded, "As many uploads of the device are under way as may be."))
            }
        }
    }

    async fn end_upload(
        &self,
        hub: &Hub,
        name: IdentityName,
        (upload, is_success): (UploadId, bool),
    ) -> Result<Answer, Error> {
        let (service, hub, files) = (self.clone(), hub.key, &hub.files);
        let notify = (is_success && files.notifies).then_some(files.notifications);
        self.carry_through("end-upload", async move {
            let ending = Ending { upload, notify };
            match service.0.store.end_upload(hub, &name, ending, service.now()).await? {
                Ended::Done => Ok(Answer::Ended),
                Ended::NotFound => Err(Error::invalid("No upload of the device has this correlation ID.")),
            }
        })
        .await
    }

    fn sign_container(&self, hub: &Hub, ttl_s: u64) -> Result<Answer, Error> {
        if !hub.files.are_taken() {
            return Err(takes_no_files());
        }
        let most = ContainerToken::TTL_MAX.as_secs();
        if !(1..=most).contains(&ttl_s) {
            return Err(Error::invalid(format!("A signature for a container is good for 1 to {most} seconds.")));
        }
        let expires_at = self.now().plus(Duration::from_secs(ttl_s));
        let container = hub.files.container.clone();
        let token = ContainerToken::issue(&self.file_key(), (hub.key, &container), expires_at);
        Ok(Answer::Signed { host: self.resources().hub_host(hub), container, token })
    }

    /// Judges a token. Whoever has one that is not good learns nothing but that.
    async fn open_file(
        &self,
        caller: &Caller,
        token: &StorageToken,
        (container, file): (&str, FileName),
        access: Access,
    ) -> Result<Answer, Error> {
        let resources = self.resources();
        let hub = resources
            .hub_at(&caller.endpoint, "")
            .ok_or_else(|| unreached(caller, ErrorKind::HubNotFound, "No hub answers at this host."))?;
        self.open_by_token(hub, token, (container, file), access).await.map(Answer::Opened)
    }

    /// [`Self::open_file`] at a hub.
    pub(crate) async fn open_by_token(
        &self,
        hub: &Hub,
        token: &StorageToken,
        (container, file): (&str, FileName),
        access: Access,
    ) -> Result<OpenFile, Error> {
        let refused = |reason: &'static str| {
            tracing::info!(%file, reason, "a token of a file was refused");
            Error::unauthorized()
        };
        let is_signed = match token {
            StorageToken::File(token) => token.is_signed_by(&self.file_key(), hub.key, &file),
            StorageToken::Container(token) => token.is_signed_by(&self.file_key(), hub.key, container),
        };
        if !is_signed {
            return Err(refused("it was not given out for this file"));
        }
        if token.expires_at().plus(LEEWAY) < self.now() {
            return Err(refused("it has expired"));
        }
        if container != hub.files.container {
            return Err(refused("the container is another"));
        }
        if !token.permissions().allow(access) {
            return Err(Error::new(ErrorKind::Forbidden, "The signature does not allow this."));
        }
        let upload = match token {
            StorageToken::File(token) => token.upload,
            StorageToken::Container(token) => token.upload_of(&file),
        };
        if access == Access::Write && !self.0.store.is_upload_open(hub.key, upload, self.now()).await? {
            let StorageToken::Container(token) = token else { return Err(refused("its upload is over")) };
            let expires_at = token.expires_at.plus(LEEWAY);
            let new = NewUpload { id: upload, generation: String::new(), file: file.clone(), expires_at };
            self.begin_for_container(hub, new).await?;
        }
        Ok(OpenFile::open(Opened { hub: hub.key, file, upload: Some(upload) }))
    }

    async fn begin_for_container(&self, hub: &Hub, new: NewUpload) -> Result<(), Error> {
        match self.0.store.begin_container_upload(hub.key, new, self.now()).await? {
            Begun::Done => Ok(()),
            Begun::NotFound => Err(Error::new(ErrorKind::HubNotFound, "The hub is gone.")),
            Begun::Full => {
                Err(Error::new(ErrorKind::QuotaExceeded, "As many files of the container are being written as may be."))
            }
        }
    }

    async fn take_notification(&self, hub: &Hub) -> Result<Answer, Error> {
        let lock = LockToken::generate(self.entropy());
        let given = (lock, hub.files.notifications);
        let taken = self.0.store.take_notification(hub.key, given, self.now()).await?;
        let (host, container) = (self.resources().hub_host(hub), hub.files.container.clone());
        let locked = |notification| Box::new(LockedNotification { lock, notification, host, container });
        Ok(Answer::Notification(taken.map(locked)))
    }

    /// Begins to take bytes for a file that was opened to be written.
    pub async fn file_writer(&self, file: &OpenFile) -> Result<FileWriter, Failure> {
        self.begin_writing(file).await.map_err(|error| self.fail(error))
    }

    /// [`Self::file_writer`] for who judges what goes wrong.
    pub(crate) async fn begin_writing(&self, file: &OpenFile) -> Result<FileWriter, Error> {
        let upload = file.upload.ok_or_else(|| Error::new(ErrorKind::Forbidden, "The file was opened to be read."))?;
        let charged = self.0.store.charged_bytes().await?;
        let writer = self.0.store.begin_content(ContentId::generate(self.entropy())).await?;
        let under_way = UnderWay { of_all: Arc::clone(&self.0.file_bytes_under_way), own: 0 };
        Ok(FileWriter { service: self.clone(), file: file.clone(), upload, writer, charged, under_way })
    }

    /// Makes a file of blocks that were written before; its version, and when it was written.
    pub async fn commit_blocks(
        &self,
        file: &OpenFile,
        blocks: Vec<(BlockId, BlockSource)>,
        (properties, only_new): (FileProperties, bool),
    ) -> Result<(Etag, UnixTime), Failure> {
        let made = self.make_of_blocks(file, blocks, (properties, only_new)).await;
        made.map_err(|error| self.fail(error))
    }

    /// [`Self::commit_blocks`] for who judges what goes wrong.
    pub(crate) async fn make_of_blocks(
        &self,
        file: &OpenFile,
        blocks: Vec<(BlockId, BlockSource)>,
        (properties, only_new): (FileProperties, bool),
    ) -> Result<(Etag, UnixTime), Error> {
        if blocks.len() > BLOCKS_MAX {
            return Err(Error::new(ErrorKind::TooLarge, "The list has too many blocks."));
        }
        let upload = file.upload.ok_or_else(Error::unauthorized)?;
        let writing = Writing { upload, source: WritingSource::Blocks(blocks), properties, only_new };
        self.write_file(file, writing).await
    }

    /// The blocks of an upload that no file is made of.
    pub async fn list_blocks(&self, file: &OpenFile) -> Result<Vec<(BlockId, u64)>, Failure> {
        let Some(upload) = file.upload else { return Ok(Vec::new()) };
        self.0.store.list_blocks(file.hub, upload).await.map_err(|error| self.fail(error.into()))
    }

    async fn write_file(&self, file: &OpenFile, writing: Writing) -> Result<(Etag, UnixTime), Error> {
        let (service, hub, now) = (self.clone(), file.hub, self.now());
        self.carry_through("write-file", async move {
            judge(service.0.store.write_file(hub, writing, now).await?).map(|etag| (etag, now))
        })
        .await
    }

    /// A file that was opened, if it is there.
    pub async fn find_stored(&self, file: &OpenFile) -> Result<StoredFile, Failure> {
        let found = self.0.store.find_file(file.hub, &file.file).await.map_err(|error| self.fail(error.into()))?;
        found.ok_or_else(|| self.fail(no_file()))
    }

    /// Reads `bytes` bytes of a file from `first` on.
    pub fn file_reader(&self, file: &StoredFile, first: u64, bytes: u64) -> FileReader {
        FileReader {
            service: self.clone(),
            content: file.content.clone().into_iter(),
            skip: first,
            left: bytes,
            open: None,
        }
    }

    /// Ends uploads and notifications whose time has come, until the future is dropped.
    pub async fn run_file_sweeps(&self) {
        let mut ticks = tokio::time::interval(SWEEP_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.sweep_files().await {
                self.fail(error.into());
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }

    /// Ends what is due, a bounded piece at a time.
    pub async fn sweep_files(&self) -> Result<(), store::Error> {
        while self.0.store.sweep_files(self.now(), SWEEP_ROWS_MAX).await? >= SWEEP_ROWS_MAX {}
        Ok(())
    }
}

fn takes_no_files() -> Error {
    Error::invalid("This hub takes no files: its property storageEndpoints.$default names no container.")
}

fn no_file() -> Error {
    Error::new(ErrorKind::ResourceNotFound, "The file was not found.")
}

fn too_large() -> Error {
    Error::new(ErrorKind::TooLarge, "The file has more bytes than a file may have.")
}

fn no_room() -> Error {
    Error::new(ErrorKind::QuotaExceeded, "There are as many bytes of files as there may be.")
}

/// The words for what the store did not write.
fn judge<T>(written: Written<T>) -> Result<T, Error> {
    match written {
        Written::Done(done) => Ok(done),
        Written::NoUpload => Err(Error::unauthorized()),
        Written::Full(Limit::File) => Err(too_large()),
        Written::Full(Limit::AllFiles) => Err(no_room()),
        Written::Full(Limit::Blocks) => {
            Err(Error::new(ErrorKind::TooLarge, format!("A file is made of at most {BLOCKS_MAX} blocks.")))
        }
        Written::NoBlock => Err(Error::invalid("A block is not there, or its name is not as long as the others'.")),
        Written::Exists => Err(Error::new(ErrorKind::ResourceExists, "The file is there already.")),
    }
}

/// Bytes that are being received, counted until a record names them or they are dropped.
struct UnderWay {
    of_all: Arc<AtomicU64>,
    own: u64,
}

impl UnderWay {
    /// Counts `more` bytes; how many there are of all files.
    fn add(&mut self, more: u64) -> u64 {
        self.own += more;
        self.of_all.fetch_add(more, Ordering::Relaxed) + more
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.of_all.fetch_sub(self.own, Ordering::Relaxed);
    }
}

/// Takes the bytes of a file, or of a block of it. Dropped before they are kept, it leaves nothing.
pub struct FileWriter {
    service: Service,
    file: OpenFile,
    upload: UploadId,
    writer: Box<dyn ContentWriter>,
    /// What all files had when this was begun.
    charged: u64,
    under_way: UnderWay,
}

impl FileWriter {
    /// Takes `bytes` behind those before, unless there would be too many.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.take(bytes).await.map_err(|error| self.service.fail(error))
    }

    /// [`Self::write`] for who judges what goes wrong.
    pub(crate) async fn take(&mut self, bytes: Bytes) -> Result<(), Error> {
        let quotas = &self.service.0.settings.quotas;
        let of_all = self.under_way.add(bytes.len() as u64);
        if self.under_way.own > quotas.file_bytes {
            Err(too_large())
        } else if self.charged.saturating_add(of_all) > quotas.files_bytes {
            Err(no_room())
        } else {
            self.writer.write(bytes).await.map_err(Error::from)
        }
    }

    /// Keeps them as a block.
    pub async fn keep_block(self, block: BlockId) -> Result<(), Failure> {
        let service = self.service.clone();
        self.put_block(block).await.map_err(|error| service.fail(error))
    }

    /// [`Self::keep_block`] for who judges what goes wrong.
    pub(crate) async fn put_block(self, block: BlockId) -> Result<(), Error> {
        let (service, hub, upload) = (self.service.clone(), self.file.hub, self.upload);
        let kept = service.carry_through("keep-block", async move {
            let (service, content) = self.finish().await?;
            judge(service.0.store.put_block(hub, upload, (block, content), service.now()).await?)
        });
        kept.await
    }

    /// Keeps them as the file; its version, and when it was written.
    pub async fn keep_file(self, properties: FileProperties, only_new: bool) -> Result<(Etag, UnixTime), Failure> {
        let (service, hub, upload) = (self.service.clone(), self.file.hub, self.upload);
        let kept = service.carry_through("keep-file", async move {
            let (service, content) = self.finish().await?;
            let writing = Writing { upload, source: WritingSource::Whole(content), properties, only_new };
            let now = service.now();
            judge(service.0.store.write_file(hub, writing, now).await?).map(|etag| (etag, now))
        });
        kept.await.map_err(|error| service.fail(error))
    }

    async fn finish(self) -> Result<(Service, Content), Error> {
        let content = self.writer.finish().await?;
        Ok((self.service, content))
    }
}

/// Gives the bytes of a file, piece by piece.
pub struct FileReader {
    service: Service,
    content: std::vec::IntoIter<Content>,
    /// Bytes to be passed over.
    skip: u64,
    /// Bytes to be given.
    left: u64,
    /// What is being read, and up to where it was.
    open: Option<(Content, u64)>,
}

impl FileReader {
    /// The next piece; `None` at the end. A file that is replaced while it is read ends in a failure.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        while self.left > 0 {
            let (content, offset) = match self.open.take() {
                Some(open) => open,
                None => match self.content.next() {
                    None => return Ok(None),
                    Some(content) if content.bytes <= self.skip => {
                        self.skip -= content.bytes;
                        continue;
                    }
                    Some(content) => (content, std::mem::take(&mut self.skip)),
                },
            };
            if offset >= content.bytes {
                continue;
            }
            let wanted = PIECE_BYTES.min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let read = self.service.0.store.read_content(content.id, offset, wanted).await;
            let piece = match read.map_err(|error| self.service.fail(error.into()))? {
                Some(piece) if !piece.is_empty() => piece,
                _ => return Err(self.service.fail(no_file())),
            };
            self.left -= piece.len() as u64;
            self.open = Some((content, offset + piece.len() as u64));
            return Ok(Some(piece));
        }
        Ok(None)
    }
}
