//! Files of containers: in the server's own storage, or in one outside.
//!
//! A file is read in parts and written in blocks; it is there once all blocks are. Start at [`Place`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use domain::file::{Access, BLOCKS_MAX, BlockId, BlockSource, FileName, FileProperties};
use domain::operation::file::OpenFile;
use domain::operation::{ErrorKind, Failure};
use domain::route::{Refusal, Url};
use domain::transfer::Container;
use store::ports::DueTransfer;
use tokio::time::Instant;

use super::Stop;
use crate::Service;
use crate::error::Error;

/// Bytes of a file that are read or sent at once.
const PIECE_BYTES: usize = 4 << 20;
/// Most blocks of a file in a storage outside, which is what Azure's takes.
const OUTSIDE_BLOCKS_MAX: usize = 50_000;
/// How long a storage outside is left in peace after it did not do what it was asked; doubled each time it does not.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// And at most.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long one file is waited for in all while its storage outside has trouble, and one import or export while a part of
/// the server has.
const OUTAGE_MAX: Duration = Duration::from_secs(3_600);
/// The same for a file of an import that has ended, which nobody waits for.
const OUTAGE_AFTER_END_MAX: Duration = Duration::from_secs(60);

/// Why an import or export failed that the disk has no room for.
const NO_ROOM: &str = "there is no room left on the server's disk";

/// Where a file is.
enum Found {
    /// In the server's own storage.
    Own(OpenFile),
    /// In one outside.
    Outside(Url),
}

/// A file of an import or export.
pub(super) struct Place<'d> {
    found: Found,
    due: &'d DueTransfer,
    patience: Mutex<Patience>,
}

/// How long a storage outside, or a part of the server, is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    left: Duration,
    pause: Duration,
    /// Whether it ends with the import or export.
    is_until_end: bool,
}

impl Patience {
    /// For an import or export that goes on.
    pub(super) const fn while_due() -> Self {
        Self { left: OUTAGE_MAX, pause: PAUSE_MIN, is_until_end: true }
    }

    /// For what is to be told of one that has ended.
    pub(super) const fn after_end() -> Self {
        Self { left: OUTAGE_AFTER_END_MAX, pause: PAUSE_MIN, is_until_end: false }
    }

    /// Waits after something of the server was in vain; `false`, at once, if it is enough.
    pub(super) async fn pause(&mut self) -> bool {
        match self.after(Duration::ZERO) {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                true
            }
            None => false,
        }
    }

    /// How long to wait after an ask that took so long and was in vain; `None` once it is enough.
    fn after(&mut self, asked: Duration) -> Option<Duration> {
        let pause = self.pause;
        self.left = self.left.checked_sub(asked.saturating_add(pause))?;
        self.pause = pause.saturating_mul(2).min(PAUSE_MAX);
        Some(pause)
    }
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
            Found::Own(_) => Ok(()),
            Found::Outside(url) => self.exchange()?.check(&url).await.map_err(|refusal| {
                let words = format!("The container at {} is of no use: {}.", url.host, refusal.text());
                Error::new(ErrorKind::InvalidContainer, words)
            }),
        }
    }

    /// The place of a file: a host that is a hub's is the server's own storage, whatever the port.
    async fn find_place(&self, container: &Container, file: &FileName, access: Access) -> Result<Found, Error> {
        let url = container.file(file);
        let resources = self.resources();
        let is_of = |alias: &String| alias.eq_ignore_ascii_case(&url.host);
        let hub = resources.hubs().iter().find(|hub| resources.hub_aliases(hub).iter().any(is_of));
        let Some(hub) = hub else { return Ok(Found::Outside(url)) };
        let refused = |words| Error::new(ErrorKind::InvalidContainer, words);
        let (named, token) = self
            .exchange()?
            .parse_own(&url)
            .ok_or_else(|| refused("The signature of the container's URI cannot be read."))?;
        let opened = self.open_by_token(hub, &token, (&named, file.clone()), access).await;
        opened.map(Found::Own).map_err(|error| match error.kind {
            ErrorKind::Unauthorized => refused("The signature of the container's URI is not good there."),
            ErrorKind::Forbidden => refused("The signature of the container's URI does not allow what is asked."),
            _ => error,
        })
    }

    /// [`Self::find_place`] for who carries an import or export out.
    pub(super) async fn open_place<'d>(
        &self,
        due: &'d DueTransfer,
        (container, file): (&Container, &FileName),
        access: Access,
        patience: Patience,
    ) -> Result<Place<'d>, Stop> {
        let found = self.find_place(container, file, access).await;
        let found = found.map_err(|error| self.stop_for(error))?;
        Ok(Place { found, due, patience: Mutex::new(patience) })
    }

    /// The part of a file that begins at `first`, and how many bytes it has in all; nothing at its end.
    pub(super) async fn read_piece(&self, place: &Place<'_>, first: u64) -> Result<(Bytes, u64), Stop> {
        match &place.found {
            Found::Own(open) => {
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
            Found::Outside(url) => {
                let exchange = self.exchange_now()?;
                self.insist_outside(place, &url.host, || exchange.read(url, first, PIECE_BYTES)).await
            }
        }
    }

    /// Asks a storage outside until it does what it is asked, refuses for good, or patience is at its end.
    async fn insist_outside<T, F: Future<Output = Result<T, Refusal>>>(
        &self,
        place: &Place<'_>,
        host: &str,
        ask: impl Fn() -> F,
    ) -> Result<T, Stop> {
        loop {
            let begun = Instant::now();
            let refusal = match ask().await {
                Ok(answer) => {
                    place.lock().pause = PAUSE_MIN;
                    return Ok(answer);
                }
                Err(refusal) => refusal,
            };
            let pause = if refusal.is_of_message { None } else { place.lock().after(begun.elapsed()) };
            let Some(pause) = pause else {
                return Err(Stop::Failed(format!("the storage at {host}: {}", refusal.text())));
            };
            tracing::warn!(host, reason = refusal.text(), pause_s = pause.as_secs(), "a storage is asked again");
            tokio::time::sleep(pause).await;
            if place.lock().is_until_end && self.has_ended(place.due).await? {
                return Err(Stop::Over);
            }
        }
    }

    /// Logs what went wrong, and says what it means for an import or export: an outage of the store passes, but a disk
    /// that is full stays so, and trying again would fill what room is made.
    pub(super) fn stop_for(&self, error: Error) -> Stop {
        let lacks_room = error.lacks_room();
        match failed(self.fail(error)) {
            Stop::Later if lacks_room => Stop::Failed(NO_ROOM.to_owned()),
            stop => stop,
        }
    }

    /// Whether an import or export has ended, or its hub is gone.
    async fn has_ended(&self, due: &DueTransfer) -> Result<bool, Stop> {
        let found = self.0.store.find_transfer(due.hub, &due.id).await?;
        Ok(found.is_none_or(|found| found.ended_at.is_some()))
    }
}

impl Place<'_> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Patience> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a failure that was logged means for an import or export: an outage of the store passes.
pub(super) fn failed(failure: Failure) -> Stop {
    match failure.kind {
        ErrorKind::Unavailable => Stop::Later,
        _ => Stop::Failed(failure.public.into_owned()),
    }
}

/// Writes the lines of a file.
pub(super) struct Writer<'s> {
    service: &'s Service,
    place: Place<'s>,
    waiting: Vec<u8>,
    blocks: Vec<BlockId>,
}

impl<'s> Writer<'s> {
    /// Of a file without lines.
    pub(super) const fn new(service: &'s Service, place: Place<'s>) -> Self {
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
        match &self.place.found {
            Found::Own(open) => {
                let blocks = self.blocks.into_iter().map(|block| (block, BlockSource::Uncommitted)).collect();
                let properties =
                    FileProperties { content_type: Some("text/plain".to_owned()), ..FileProperties::default() };
                let written = self.service.make_of_blocks(open, blocks, (properties, false)).await;
                written.map(drop).map_err(|error| self.service.stop_for(error))
            }
            Found::Outside(url) => {
                let exchange = self.service.exchange_now()?;
                let ask = || exchange.commit(url, &self.blocks);
                self.service.insist_outside(&self.place, &url.host, ask).await
            }
        }
    }

    /// Sends what waits as the next block. Blocks are called by their numbers, so that one that is sent again takes the
    /// place of the earlier one.
    async fn send(&mut self) -> Result<(), Stop> {
        let most = match self.place.found {
            Found::Own(_) => BLOCKS_MAX,
            Found::Outside(_) => OUTSIDE_BLOCKS_MAX,
        };
        if self.blocks.len() >= most {
            return Err(Stop::Failed(format!("the file has more than {most} blocks of {PIECE_BYTES} bytes")));
        }
        let block = BlockId::from_bytes(format!("{:08}", self.blocks.len()).as_bytes()).expect("it has 8 bytes");
        let bytes = Bytes::from(std::mem::take(&mut self.waiting));
        match &self.place.found {
            Found::Own(open) => {
                let keeping = async {
                    let mut writer = self.service.begin_writing(open).await?;
                    writer.take(bytes).await?;
                    writer.put_block(block.clone()).await
                };
                keeping.await.map_err(|error| self.service.stop_for(error))?;
            }
            Found::Outside(url) => {
                let exchange = self.service.exchange_now()?;
                let ask = || exchange.put_block(url, &block, bytes.clone());
                self.service.insist_outside(&self.place, &url.host, ask).await?;
            }
        }
        self.blocks.push(block);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_storage_is_asked_ever_more_rarely_and_not_for_ever() {
        let mut patience = Patience::while_due();
        let pauses: Vec<u64> =
            std::iter::from_fn(|| patience.after(Duration::ZERO)).map(|pause| pause.as_secs()).collect();
        assert_eq!(pauses.get(..8), Some(&[1, 2, 4, 8, 16, 32, 60, 60][..]));
        let waited: u64 = pauses.iter().sum();
        assert!((3_600 - 60..=3_600).contains(&waited), "{waited}");
        let paused = patience.pause().now_or_never();
        assert_eq!(paused, Some(false), "what is enough is said at once");
        let mut patience = Patience::after_end();
        assert_eq!(patience.after(OUTAGE_AFTER_END_MAX), None, "asks count as well");
    }
}
