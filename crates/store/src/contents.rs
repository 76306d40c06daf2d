//! Uploaded bytes, each piece in a file of its own whose name is random: no part of it comes from outside.
//!
//! A piece is written once, synced with its folder, and never changed. What it is stands in the store; a piece that the
//! store does not name is removed when the store is opened. Start at [`Contents::begin`].

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use domain::file::Content;
use domain::ids::ContentId;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::error::{Error, OpenError, Unavailability};
use crate::folder::{Folder, make_folder};
use crate::ports::ContentWriter;

/// The folder inside the data folder.
const FOLDER: &str = "files";
/// Permissions of a piece: its owner alone.
const FILE_MODE: u32 = 0o600;

/// Where pieces are kept.
#[derive(Debug)]
pub(crate) enum Contents {
    /// Each in a file.
    Folder(PathBuf),
    /// In this process, like everything else of a store in memory.
    Memory(Arc<Pieces>),
}

/// Pieces in memory, as they were written.
type Pieces = Mutex<HashMap<ContentId, Vec<Bytes>>>;

impl Contents {
    /// The pieces of a data folder, or none yet in memory.
    pub fn open(folder: Option<&Folder>) -> Result<Self, OpenError> {
        let Some(folder) = folder else { return Ok(Self::Memory(Arc::default())) };
        let path = folder.file(FOLDER);
        make_folder(&path)?;
        Ok(Self::Folder(path))
    }

    /// The pieces that are there; blocks.
    pub fn list(&self) -> Result<Vec<ContentId>, OpenError> {
        let Self::Folder(folder) = self else { return Ok(Vec::new()) };
        let failed = |error| OpenError::file("cannot list the folder", folder, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            // What has another name was not made here.
            let name = entry.map_err(failed)?.file_name();
            found.extend(name.to_str().and_then(ContentId::parse));
        }
        Ok(found)
    }

    /// A fresh piece called `id`.
    pub async fn begin(&self, id: ContentId) -> Result<Box<dyn ContentWriter>, Error> {
        Ok(match self {
            Self::Memory(pieces) => {
                Box::new(InMemory { id, bytes: 0, pieces: Arc::clone(pieces), written: Vec::new() })
            }
            Self::Folder(folder) => {
                let path = folder.join(id.to_string());
                let mut options = OpenOptions::new();
                let file = options.write(true).create_new(true).mode(FILE_MODE).open(&path).await.map_err(io_error)?;
                Box::new(OnDisk { id, bytes: 0, file, draft: Draft(Some(path)) })
            }
        })
    }

    /// Up to `bytes` bytes from `offset` on; `None` if the piece is gone.
    pub async fn read(&self, id: ContentId, offset: u64, bytes: usize) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Memory(pieces) => Ok(lock(pieces).get(&id).map(|piece| part_of(piece, offset, bytes))),
            Self::Folder(folder) => match read_part(&folder.join(id.to_string()), offset, bytes).await {
                Ok(part) => Ok(Some(part)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(io_error(error)),
            },
        }
    }

    /// Removes pieces that the store names no more; blocks. What cannot be removed is when the store is opened.
    pub fn remove(&self, ids: &[ContentId]) {
        for id in ids {
            match self {
                Self::Memory(pieces) => drop(lock(pieces).remove(id)),
                Self::Folder(folder) => match fs::remove_file(folder.join(id.to_string())) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        tracing::warn!(%error, content = %id, "an uploaded piece stays until the next opening");
                    }
                    _ => {}
                },
            }
        }
    }
}

fn lock(pieces: &Pieces) -> MutexGuard<'_, HashMap<ContentId, Vec<Bytes>>> {
    pieces.lock().unwrap_or_else(PoisonError::into_inner)
}

fn part_of(piece: &[Bytes], mut offset: u64, bytes: usize) -> Bytes {
    let mut part = BytesMut::new();
    for written in piece {
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX).min(written.len());
        offset -= skipped as u64;
        let wanted = (bytes - part.len()).min(written.len() - skipped);
        part.extend_from_slice(&written.slice(skipped..skipped + wanted));
    }
    part.freeze()
}

async fn read_part(path: &Path, offset: u64, bytes: usize) -> io::Result<Bytes> {
    let mut file = File::open(path).await?;
    file.seek(SeekFrom::Start(offset)).await?;
    let mut part = Vec::with_capacity(bytes);
    file.take(bytes as u64).read_to_end(&mut part).await?;
    Ok(part.into())
}

/// A file that is removed unless it becomes a piece.
struct Draft(Option<PathBuf>);

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // What is left is removed when the store is opened.
            let _ = fs::remove_file(path);
        }
    }
}

struct OnDisk {
    id: ContentId,
    bytes: u64,
    file: File,
    draft: Draft,
}

#[async_trait]
impl ContentWriter for OnDisk {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.file.write_all(&bytes).await.map_err(io_error)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Content, Error> {
        let Self { id, bytes, mut file, mut draft } = *self;
        file.flush().await.map_err(io_error)?;
        file.sync_all().await.map_err(io_error)?;
        if let Some(folder) = draft.0.as_deref().and_then(Path::parent) {
            File::open(folder).await.map_err(io_error)?.sync_all().await.map_err(io_error)?;
        }
        draft.0 = None;
        Ok(Content { id, bytes })
    }
}

struct InMemory {
    id: ContentId,
    bytes: u64,
    pieces: Arc<Pieces>,
    written: Vec<Bytes>,
}

#[async_trait]
impl ContentWriter for InMemory {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        self.written.push(bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Content, Error> {
        let Self { id, bytes, pieces, written } = *self;
        lock(&pieces).insert(id, written);
        Ok(Content { id, bytes })
    }
}

fn io_error(error: io::Error) -> Error {
    let reason = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Unavailability::Full,
        _ => Unavailability::Disk,
    };
    Error::Unavailable { reason, source: Some(Arc::new(error)) }
}
