//! The storage that devices upload to: bodies go to the disk piece by piece as they come, and from it as they are read.
//!
//! Nothing is written before the signature was judged, and nothing is answered before it is durable. Start at [`answer`].

use bytes::Bytes;
use dialect::http::Target;
use dialect::hub::blob_http::{self, Refusal as BlobRefusal, Wanted};
use dialect::hub::block_list;
use domain::clock::UnixTime;
use domain::file::checksum::{Asked, Checksums, Summing};
use domain::file::{FileProperties, StoredFile};
use domain::ids::Etag;
use domain::operation::file::{Answer, OpenFile};
use domain::operation::{ErrorKind, Failure, Operation, Reply, Transport};
use http::Response;
use http::request::Parts;
use service::{FileReader, FileWriter};

use crate::connection::caller;
use crate::door::Door;
use crate::http::{Body, BodySender, Refusal, RequestBody};
use crate::shutdown::Tasks;
use crate::tls::PeerContext;

/// Pieces of a file that wait for a slow reader.
const PIECES_WAITING_MAX: usize = 2;

/// Why a request has no good answer.
enum Trouble {
    /// It was not understood, or its body did not come.
    Refused(BlobRefusal),
    /// It could not be carried out.
    Failed(Failure, Wanted),
}

impl From<BlobRefusal> for Trouble {
    fn from(refusal: BlobRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Answers a request that carries a signature in its query.
pub async fn answer(
    (door, tasks): (&Door, &Tasks),
    head: &Parts,
    body: &mut RequestBody,
    peer: &PeerContext,
) -> Response<Body> {
    match perform((door, tasks), head, body, peer).await {
        Ok(response) => response,
        Err(Trouble::Failed(failure, wanted)) => blob_http::fail(&failure, &wanted).map(Body::from),
        Err(Trouble::Refused(refusal)) => {
            let noted = door.service().refuse(ErrorKind::InvalidArgument, refusal.to_string());
            blob_http::refuse(refusal, &noted.tracking.to_string()).map(Body::from)
        }
    }
}

async fn perform(
    (door, tasks): (&Door, &Tasks),
    head: &Parts,
    body: &mut RequestBody,
    peer: &PeerContext,
) -> Result<Response<Body>, Trouble> {
    let target = Target::parse(&head.uri).map_err(|_| BlobRefusal::Path)?;
    let (ask, wanted) = blob_http::decode(head, &target)?;
    let caller = caller(peer, Transport::Https, head.extensions.get().cloned());
    let failed = |failure| Trouble::Failed(failure, wanted.clone());
    let reply = door.perform(&caller, Operation::File(ask)).await.map_err(failed)?;
    let Reply::File(Answer::Opened(open)) = reply else {
        return Err(failed(door.service().refuse(ErrorKind::Internal, "Internal error.")));
    };
    let id = open.upload.map(|upload| upload.to_string()).unwrap_or_default();
    let shown =
        |written: (Etag, UnixTime), found: &Checksums| blob_http::show_written(written, found, &id).map(Body::from);
    match &wanted {
        Wanted::PutFile { properties, only_new, said } => {
            let (writer, found) = receive(door, &open, body, (&wanted, said)).await?;
            let properties = FileProperties { content_md5: found.md5, ..properties.clone() };
            let written = writer.keep_file(properties, *only_new).await.map_err(failed)?;
            Ok(shown(written, &found))
        }
        Wanted::PutBlock { block, said } => {
            let (writer, found) = receive(door, &open, body, (&wanted, said)).await?;
            writer.keep_block(block.clone()).await.map_err(failed)?;
            Ok(blob_http::show_block(&found, &id).map(Body::from))
        }
        Wanted::Commit { properties, only_new, said } => {
            let (text, found) = receive_list(body, said).await?;
            let blocks = block_list::decode(&text).map_err(BlobRefusal::BlockList)?;
            let how = (properties.clone(), *only_new);
            let written = door.service().commit_blocks(&open, blocks, how).await.map_err(failed)?;
            Ok(shown(written, &found))
        }
        Wanted::ListBlocks => {
            let blocks = door.service().list_blocks(&open).await.map_err(failed)?;
            Ok(blob_http::show_blocks(&blocks, &id).map(Body::from))
        }
        Wanted::Read { range, version, asked, is_head } => {
            let file = door.service().find_stored(&open).await.map_err(failed)?;
            let (first, bytes) = blob_http::part_of(&file, (*range, version.as_deref()), *asked)?;
            let part = match range {
                None => None,
                Some(_) => Some(((first, bytes), add_up(door, &file, (first, bytes), *asked).await.map_err(failed)?)),
            };
            let response = blob_http::show_file(&file, part, &id);
            if *is_head || bytes == 0 {
                return Ok(response.map(|_| Body::empty()));
            }
            let reader = door.service().file_reader(&file, first, bytes);
            Ok(response.map(|_| stream(reader, tasks)))
        }
        // Nobody is given the right to it.
        Wanted::Delete => Err(BlobRefusal::Verb.into()),
    }
}

/// What a body is added up to: its MD5, which is kept and told, and what its sender says besides.
const fn asked_of(said: &Checksums) -> Asked {
    Asked { md5: true, crc64: said.crc64.is_some() }
}

/// Writes the body to the disk as it comes. One that does not add up to what was `said` leaves nothing.
async fn receive(
    door: &Door,
    open: &OpenFile,
    body: &mut RequestBody,
    (wanted, said): (&Wanted, &Checksums),
) -> Result<(FileWriter, Checksums), Trouble> {
    let failed = |failure| Trouble::Failed(failure, wanted.clone());
    let mut writer = door.service().file_writer(open).await.map_err(failed)?;
    let mut summing = Summing::begin(asked_of(said));
    while let Some(piece) = body.next().await.map_err(unread)? {
        summing.add(&piece);
        writer.write(piece).await.map_err(failed)?;
    }
    let found = summing.end();
    said.check(&found).map_err(BlobRefusal::Mismatch)?;
    Ok((writer, found))
}

/// What a part of a file adds up to, which is read for it before it is read for who asked.
async fn add_up(door: &Door, file: &StoredFile, part: (u64, u64), asked: Asked) -> Result<Checksums, Failure> {
    let mut summing = Summing::begin(asked);
    if !asked.is_nothing() {
        let mut reader = door.service().file_reader(file, part.0, part.1);
        while let Some(piece) = reader.next().await? {
            summing.add(&piece);
        }
    }
    Ok(summing.end())
}

/// A list of blocks, which is read whole, and what it adds up to.
async fn receive_list(body: &mut RequestBody, said: &Checksums) -> Result<(Vec<u8>, Checksums), Trouble> {
    let mut text = Vec::new();
    while let Some(piece) = body.next().await.map_err(unread)? {
        if text.len() + piece.len() > block_list::BYTES_MAX {
            return Err(BlobRefusal::TooLong.into());
        }
        text.extend_from_slice(&piece);
    }
    let mut summing = Summing::begin(asked_of(said));
    summing.add(&text);
    let found = summing.end();
    said.check(&found).map_err(BlobRefusal::Mismatch)?;
    Ok((text, found))
}

const fn unread(_refusal: Refusal) -> Trouble {
    Trouble::Refused(BlobRefusal::Body)
}

/// A body of what `reader` reads, until the file ends or the reader of the body goes. One that ends early is seen to be
/// short by its length.
pub fn stream(reader: FileReader, tasks: &Tasks) -> Body {
    let (sender, body) = Body::in_pieces(PIECES_WAITING_MAX);
    tasks.spawn("file-reader", async move {
        tokio::select! {
            () = feed(reader, &sender) => {}
            () = sender.client_gone() => {}
        }
    });
    body
}

async fn feed(mut reader: FileReader, sender: &BodySender) {
    loop {
        let piece: Bytes = match reader.next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return,
            Err(failure) => {
                tracing::warn!(tracking = %failure.tracking, reason = %failure.public, "a file could not be read");
                return;
            }
        };
        if sender.send(piece).await.is_err() {
            return;
        }
    }
}
