//! Files that devices upload: their bytes, their records, and the notifications that wait for back-end programs.
//!
//! Bytes come first and stand by themselves; a verb then says what they are. What no record names is swept.

use async_trait::async_trait;
use bytes::Bytes;
use domain::clock::UnixTime;
use domain::cloud_to_device::{FeedbackSettings, Settlement};
use domain::file::{BlockId, BlockSource, Content, FileName, FileNotification, FileProperties, StoredFile};
use domain::ids::{ContentId, Etag, HubKey, LockToken, UploadId};
use domain::operation::identity::IdentityName;
use domain::operation::{Page, PageRequest};

use super::Settled;
use crate::Error;

/// Takes bytes until they are whole. Dropped before that, it leaves nothing.
#[async_trait]
pub trait ContentWriter: Send {
    /// Takes `bytes` behind those before.
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error>;

    /// Makes all that was written durable. It is swept unless a verb then gives it to a file or an upload.
    async fn finish(self: Box<Self>) -> Result<Content, Error>;
}

/// An upload that a device begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUpload {
    /// What it is called.
    pub id: UploadId,
    /// The generation of the identity that proved itself.
    pub generation: String,
    /// The file.
    pub file: FileName,
    /// Until when it can be written to.
    pub expires_at: UnixTime,
}

/// What became of an upload that was to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is under way.
    Done,
    /// There is no such identity; nothing was written.
    NotFound,
    /// As many are under way as the store's [`Quotas`](domain::quota::Quotas) allow a device, or
    /// [`CONTAINER_UPLOADS_MAX`](domain::file::CONTAINER_UPLOADS_MAX) a container; nothing was written.
    Full,
}

/// How a file is written by an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writing {
    /// The upload.
    pub upload: UploadId,
    /// What the file shall be made of.
    pub source: WritingSource,
    /// What is said of its content.
    pub properties: FileProperties,
    /// Whether a file that is there already is left alone.
    pub only_new: bool,
}

/// What a file is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WritingSource {
    /// One piece of content.
    Whole(Content),
    /// Blocks, in this order.
    Blocks(Vec<(BlockId, BlockSource)>),
}

/// What became of something that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written<T> {
    /// It is there.
    Done(T),
    /// The upload is unknown, over, or of an identity that is gone; nothing was written.
    NoUpload,
    /// There are as many bytes, of the file or of all files, or as many blocks as the store's
    /// [`Quotas`](domain::quota::Quotas) allow; nothing was written.
    Full(Limit),
    /// A block that the list names is not there, or a block's name is not as long as those before; nothing was written.
    NoBlock,
    /// The file is there already; nothing was written.
    Exists,
}

/// What is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The bytes of one file.
    File,
    /// The bytes of all files.
    AllFiles,
    /// The blocks of one file.
    Blocks,
}

/// What became of an upload that was to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is over.
    Done,
    /// No upload of that name is the identity's, or no longer; nothing was written.
    NotFound,
}

/// How an upload ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The upload.
    pub upload: UploadId,
    /// How long a notification waits, if there shall be one. There is none of a file that is not there.
    pub notify: Option<FeedbackSettings>,
}

/// Keeps files. Content that no record names any more is removed once that is durable.
#[async_trait]
pub trait FileStore: Send + Sync {
    /// A place for bytes, called `id`.
    async fn begin_content(&self, id: ContentId) -> Result<Box<dyn ContentWriter>, Error>;

    /// Up to `bytes` bytes of `content` from `offset` on; `None` if it is gone. Fewer only at its end.
    async fn read_content(&self, id: ContentId, offset: u64, bytes: usize) -> Result<Option<Bytes>, Error>;

    /// Bytes of all content that records name, as they are charged.
    async fn charged_bytes(&self) -> Result<u64, Error>;

    /// Notes that an identity uploads a file.
    async fn begin_upload(
        &self,
        hub: HubKey,
        name: &IdentityName,
        upload: NewUpload,
        now: UnixTime,
    ) -> Result<Begun, Error>;

    /// Notes that who may write every file of a hub writes one; one of that name that is under way goes on. It is over once
    /// the file is written. Knows no identity: the generation of `upload` does not count.
    async fn begin_container_upload(&self, hub: HubKey, upload: NewUpload, now: UnixTime) -> Result<Begun, Error>;

    /// Whether an upload can be written to.
    async fn is_upload_open(&self, hub: HubKey, upload: UploadId, now: UnixTime) -> Result<bool, Error>;

    /// Gives content to an upload as a block, in the place of an earlier one of that name.
    async fn put_block(
        &self,
        hub: HubKey,
        upload: UploadId,
        block: (BlockId, Content),
        now: UnixTime,
    ) -> Result<Written<()>, Error>;

    /// The blocks of an upload that no file is made of, with their lengths, in order of their names.
    async fn list_blocks(&self, hub: HubKey, upload: UploadId) -> Result<Vec<(BlockId, u64)>, Error>;

    /// Makes the file of an upload, in the place of one that is there; its other blocks are gone.
    async fn write_file(&self, hub: HubKey, writing: Writing, now: UnixTime) -> Result<Written<Etag>, Error>;

    /// Ends an upload of `name`; blocks that no file is made of are gone.
    async fn end_upload(&self, hub: HubKey, name: &IdentityName, ending: Ending, now: UnixTime)
    -> Result<Ended, Error>;

    /// The file of that name.
    async fn find_file(&self, hub: HubKey, file: &FileName) -> Result<Option<StoredFile>, Error>;

    /// A page of files in order of their names.
    async fn list_files(&self, hub: HubKey, page: PageRequest) -> Result<Page<StoredFile>, Error>;

    /// Removes a file; whether it was there.
    async fn delete_file(&self, hub: HubKey, file: &FileName) -> Result<bool, Error>;

    /// Ends up to `limit` uploads, blocks and notifications whose time has come; how many there were.
    async fn sweep_files(&self, now: UnixTime, limit: usize) -> Result<usize, Error>;

    /// Hands out the oldest notification of a hub that nobody has. One that was handed out as often as it may be is gone
    /// once its lock has run out.
    async fn take_notification(
        &self,
        hub: HubKey,
        given: (LockToken, FeedbackSettings),
        now: UnixTime,
    ) -> Result<Option<FileNotification>, Error>;

    /// Settles a notification: forgets it, or, if it is abandoned, has it wait again unless it was handed out
    /// `deliveries_max` times.
    async fn settle_notification(
        &self,
        hub: HubKey,
        how: (LockToken, Settlement),
        deliveries_max: u32,
        now: UnixTime,
    ) -> Result<Settled, Error>;

    /// Counts up whenever a committed verb has a notification wait; losing or doubling a wake-up is harmless.
    fn notification_changes(&self) -> tokio::sync::watch::Receiver<u64>;
}
