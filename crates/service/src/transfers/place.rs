//! Files of containers: in the server's own storage, or in one outside.
//!
//! A file is read in parts and written in blocks; it is there once all blocks are. Start at [`Place`].

use std::time::Duration;

use bytes::Bytes;
use domain::file::{Access, BLOCKS_MAX, BlockId, BlockSource, FileName, FileProperties};
use domain::operation::file::OpenFile;
use domain::operation::{ErrorKind, Failure};
use domain::route::{Refusal, Url};
use domain::transfer::Container;

use super::Stop;
use crate::Service;
use crate::error::Error;

/// Bytes of a file that are read or sent at once.
const PIECE_BYTES: usize = 4 << 20;
/// How often a storage outside is asked before it is given up.
const ATTEMPTS_MAX: u32 = 3;
/// How long it is left in peace in between.
const PAUSE: Duration = Duration::from_secs(2);

/// Where a file is.
pub(super) enum Place {
    /// In the server's own storage.
    Own(OpenFile),
    /// In one outside.
    Outside(Url),
}

impl Service {
    /// Refuses a container that cannot be meant.
    pub(super) async fn check_container(
        &self,
        container: &Container,
        file: &FileName,
        access: Access,
    ) -> Result<(), Error> {
        match self.find_place(container, file, access).await? {
            Place::Own(_) => Ok(()),
            Place::Outside(url) => self.exchange()?.check(&url).await.map_err(|refusal| {
                let words = format!("The container at {} is of no use: {}.", url.host, refusal.text());
                Error::new(ErrorKind::InvalidContainer, words)
            }),
        }
    }

    /// The place of a file: a host that is a hub's is the server's own storage, whatever the port.
    async fn find_place(&self, container: &Container, file: &FileName, access: Access) -> Result<Place, Error> {
        let url = container.file(file);
        let resources = self.resources();
        let is_of = |alias: &String| alias.eq_ignore_ascii_case(&url.host);
        let hub = resources.hubs().iter().find(|hub| resources.hub_aliases(hub).iter().any(is_of));
        let Some(hub) = hub else { return Ok(Place::Outside(url)) };
        let refused = |words| Error::new(ErrorKind::InvalidContainer, words);
        let (named, token) = self
            .exchange()?
            .parse_own(&url)
            .ok_or_else(|| refused("The signature of the container's URI cannot be read."))?;
        let opened = self.open_by_token(hub, &token, (&named, file.clone()), access).await;
        opened.map(Place::Own).map_err(|error| match error.kind {
            ErrorKind::Unauthorized => refused("The signature of the container's URI is not good there."),
            ErrorKind::Forbidden => refused("The signature of the container's URI does not allow what is asked."),
            _ => error,
        })
    }

    /// [`Self::find_place`] for who carries an import or export out.
    pub(super) async fn open_place(
        &self,
        container: &Container,
        file: &FileName,
        access: Access,
    ) -> Result<Place, Stop> {
        self.find_place(container, file, access)
            .await
            .map_err(|error| Stop::Failed(self.fail(error).public.into_owned()))
    }

    /// The part of a file that begins at `first`, and how many bytes it has in all; nothing at its end.
    pub(super) async fn read_piece(&self, place: &Place, first: u64) -> Result<(Bytes, u64), Stop> {
        match place {
            Place::Own(open) => {
                let file = self.find_stored(open).await.map_err(failed)?;
                let all = file.bytes();
                let wanted = all.saturating_sub(first).min(PIECE_BYTES as u64);
                let mut reader = self.file_reader(&file, first, wanted);
                let mut read = Vec::new();
                while let Some(piece) = reader.next().await.map_err(failed)? {
                    read.extend_from_slice(&piece);
                }
                Ok((read.into(), all))
            }
            Place::Outside(url) => {
                let exchange = self.exchange().map_err(|error| Stop::Failed(error.public.into_owned()))?;
                insist(&url.host, || exchange.read(url, first, PIECE_BYTES)).await
            }
        }
    }
}

/// Asks a storage outside, a few times.
async fn insist<T, F: Future<Output = Result<T, Refusal>>>(host: &str, ask: impl Fn() -> F) -> Result<T, Stop> {
    let mut attempts = 1;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(refusal) if attempts < ATTEMPTS_MAX => {
                tracing::warn!(host, reason = refusal.text(), "a storage is asked again");
                attempts += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(refusal) => return Err(Stop::Failed(format!("the storage at {host}: {}", refusal.text()))),
        }
    }
}

fn failed(failure: Failure) -> Stop {
    Stop::Failed(failure.public.into_owned())
}

/// Writes the lines of a file.
pub(super) struct Writer<'s> {
    service: &'s Service,
    place: Place,
    waiting: Vec<u8>,
    blocks: Vec<BlockId>,
}

impl<'s> Writer<'s> {
    /// Of a file without lines.
    pub(super) const fn new(service: &'s Service, place: Place) -> Self {
        Self { service, place, waiting: Vec::new(), blocks: Vec::new() }
    }

    /// Writes a line behind those before.
    pub(super) async fn write(&mut self, line: &str) -> Result<(), Stop> {
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.push(b'\n');
        if self.waiting.len() >= PIECE_BYTES { self.send().await } else { Ok(()) }
    }

    /// Makes the file of all lines.
    pub(super) async fn finish(mut self) -> Result<(), Stop> {
        if !self.waiting.is_empty() {
            self.send().await?;
        }
        match &self.place {
            Place::Own(open) => {
                let blocks = self.blocks.into_iter().map(|block| (block, BlockSource::Uncommitted)).collect();
                let properties =
                    FileProperties { content_type: Some("text/plain".to_owned()), ..FileProperties::default() };
                let written = self.service.commit_blocks(open, blocks, (properties, false)).await;
                written.map(drop).map_err(failed)
            }
            Place::Outside(url) => {
                let exchange = self.service.exchange().map_err(|error| Stop::Failed(error.public.into_owned()))?;
                insist(&url.host, || exchange.commit(url, &self.blocks)).await
            }
        }
    }

    /// Sends what waits as the next block. Blocks are called by their numbers, so that one that is sent again takes the
    /// place of the earlier one.
    async fn send(&mut self) -> Result<(), Stop> {
        if self.blocks.len() >= BLOCKS_MAX {
            return Err(Stop::Failed(format!("the file has more than {BLOCKS_MAX} blocks of {PIECE_BYTES} bytes")));
        }
        let block = BlockId::from_bytes(format!("{:08}", self.blocks.len()).as_bytes()).expect("it has 8 bytes");
        let bytes = Bytes::from(std::mem::take(&mut self.waiting));
        match &self.place {
            Place::Own(open) => {
                let mut writer = self.service.file_writer(open).await.map_err(failed)?;
                writer.write(bytes).await.map_err(failed)?;
                writer.keep_block(block.clone()).await.map_err(failed)?;
            }
            Place::Outside(url) => {
                let exchange = self.service.exchange().map_err(|error| Stop::Failed(error.public.into_owned()))?;
                insist(&url.host, || exchange.put_block(url, &block, bytes.clone())).await?;
            }
        }
        self.blocks.push(block);
        Ok(())
    }
}
