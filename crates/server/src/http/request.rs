//! Requests as handlers see them: origin-form target, a `Host` header that was read, and a body read whole within bounds.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use domain::host::InvalidHostName;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::host::{host_and_port, host_asked};

/// How far a body that is too long is read on and thrown away, so that its sender gets to reading the refusal. Closing
/// with unread bytes would reset the connection and take the refusal with it.
const DISCARDED_BYTES_MAX: usize = 1024 * 1024;

/// Why a request does not reach its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The target and the headers are longer than this many bytes together.
    #[error("the head of the request is longer than {bytes_max} bytes")]
    HeadTooLong { bytes_max: usize },
    /// The host that the request is for is missing, doubled or none.
    #[error("the request does not name one host that can be read")]
    Host,
    /// The body is longer than this many bytes.
    #[error("the body is longer than {bytes_max} bytes")]
    BodyTooLong { bytes_max: usize },
    /// The body did not arrive in time.
    #[error("the body did not arrive within {0:?}")]
    BodyTooSlow(Duration),
    /// The body ended early or is not well-formed.
    #[error("the body is not well-formed")]
    BodyBroken,
    /// The bodies of other requests fill all the room there is for them.
    #[error("the server is busy; try again")]
    Crowded,
    /// The server is about to stop, and begins nothing.
    #[error("the server is stopping; try again")]
    Draining,
}

impl Refusal {
    /// The status that goes with it.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::HeadTooLong { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Host => StatusCode::BAD_REQUEST,
            Self::BodyTooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::Crowded => StatusCode::TOO_MANY_REQUESTS,
            Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Brings absolute-form targets and HTTP/2's `:authority` into the one form that handlers know (RFC 9112, section 3.2.2:
/// the target's authority replaces `Host`).
pub(super) fn normalise_target(head: &mut Parts) {
    if head.method == Method::CONNECT {
        return;
    }
    let Some(authority) = head.uri.authority() else {
        return;
    };
    if let Ok(host) = HeaderValue::from_str(host_and_port(authority)) {
        head.headers.insert(HOST, host);
    }
    let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    head.uri = Uri::from(path);
}

/// Refuses a head that cannot be gone by: longer than `bytes_max`, or without a host that can be read. Handlers find the
/// host among the extensions.
pub(super) fn judge_head(head: &mut Parts, bytes_max: usize) -> Result<(), Refusal> {
    /// The colon, the blank and the end of the line.
    const LINE_BYTES: usize = 4;

    let line_bytes = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + LINE_BYTES;
    let target_bytes = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target_bytes + head.headers.iter().map(line_bytes).sum::<usize>() > bytes_max {
        return Err(Refusal::HeadTooLong { bytes_max });
    }
    match host_asked(head.version, &head.uri, &head.headers) {
        Err(InvalidHostName) => return Err(Refusal::Host),
        Ok(None) => {}
        Ok(Some(host)) => drop(head.extensions.insert(host)),
    }
    Ok(())
}

/// Room for the bodies of a port, shared by its connections: nobody has proved anything yet when they are read.
#[derive(Debug)]
pub(super) struct Room {
    free: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(super) const fn new(free: Arc<Semaphore>) -> Self {
        Self { free, taken: None }
    }

    fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        let bytes = u32::try_from(bytes).map_err(|_| Refusal::Crowded)?;
        let more = Arc::clone(&self.free).try_acquire_many_owned(bytes).map_err(|_| Refusal::Crowded)?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }
}

/// Reads `body` whole, of at most `bytes_max` bytes, within `limit`, into `room`, which is taken until it is dropped.
pub(super) async fn read_body(
    head: &Parts,
    body: Incoming,
    bytes_max: usize,
    limit: Duration,
    room: &mut Room,
) -> Result<Bytes, Refusal> {
    let announced = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let too_long = announced.is_some_and(|announced| announced > bytes_max as u64);
    if too_long && head.headers.contains_key(EXPECT) {
        // The sender waits for permission and need not be read from.
        return Err(Refusal::BodyTooLong { bytes_max });
    }
    timeout(limit, collect(body, bytes_max, room)).await.map_err(|_| Refusal::BodyTooSlow(limit))?
}

/// The body of a request that its handler reads piece by piece.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// For each piece.
    limit: Duration,
    /// Whether the sender waits for permission.
    is_held_back: bool,
    is_whole: bool,
}

impl RequestBody {
    pub(super) fn new(head: &Parts, incoming: Incoming, limit: Duration) -> Self {
        Self { incoming, limit, is_held_back: head.headers.contains_key(EXPECT), is_whole: false }
    }

    /// The next piece; `None` once the body is whole. Nothing is held but that piece.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        self.is_held_back = false;
        loop {
            let frame = timeout(self.limit, self.incoming.frame()).await;
            match frame.map_err(|_| Refusal::BodyTooSlow(self.limit))? {
                None => {
                    self.is_whole = true;
                    return Ok(None);
                }
                // Trailers, which nobody asks for, hold no data.
                Some(frame) => match frame.map_err(|_| Refusal::BodyBroken)?.into_data() {
                    Ok(piece) if !piece.is_empty() => return Ok(Some(piece)),
                    _ => {}
                },
            }
        }
    }

    /// Reads what is left, within bounds, and throws it away; whether the connection can be used further. All of it has
    /// the time of one piece: whoever sends it may have proved nothing.
    pub(super) async fn discard(self) -> bool {
        timeout(self.limit, self.read_away()).await.unwrap_or(false)
    }

    async fn read_away(mut self) -> bool {
        let mut discarded = 0;
        while !self.is_whole && !self.is_held_back && discarded <= DISCARDED_BYTES_MAX {
            match self.next().await {
                Ok(Some(piece)) => discarded += piece.len(),
                Ok(None) => {}
                Err(_) => return false,
            }
        }
        self.is_whole
    }
}

async fn collect(mut body: Incoming, bytes_max: usize, room: &mut Room) -> Result<Bytes, Refusal> {
    let (mut first, mut rest, mut received) = (Bytes::new(), BytesMut::new(), 0usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::BodyBroken)?.into_data() else {
            continue; // Trailers, which nobody asks for.
        };
        received = received.saturating_add(data.len());
        if received > bytes_max.saturating_add(DISCARDED_BYTES_MAX) {
            break;
        }
        if received > bytes_max {
            (first, rest, room.taken) = (Bytes::new(), BytesMut::new(), None);
            continue;
        }
        room.take(data.len())?;
        if first.is_empty() {
            // Nearly every body comes in one piece, which is passed on as it is.
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if received > bytes_max {
        return Err(Refusal::BodyTooLong { bytes_max });
    }
    if rest.is_empty() {
        return Ok(first);
    }
    Ok([first.as_ref(), rest.as_ref()].concat().into())
}
