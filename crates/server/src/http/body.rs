//! The body of a response: whole, or in pieces that come later.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

/// What a handler answers with.
#[derive(Debug)]
pub struct Body(Content);

#[derive(Debug)]
enum Content {
    Whole(Option<Bytes>),
    Pieces(mpsc::Receiver<Bytes>),
}

/// Feeds a body that is sent while it is made. Dropping it ends the body.
#[derive(Debug)]
pub struct BodySender(mpsc::Sender<Bytes>);

/// The client has gone, so nothing more need be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has gone")]
pub struct ClientGone;

impl Body {
    /// No bytes at all.
    pub const fn empty() -> Self {
        Self(Content::Whole(None))
    }

    /// A body whose pieces are sent one by one; at most `pieces_waiting_max` wait for a slow client.
    pub fn in_pieces(pieces_waiting_max: usize) -> (BodySender, Self) {
        let (sender, receiver) = mpsc::channel(pieces_waiting_max.max(1));
        (BodySender(sender), Self(Content::Pieces(receiver)))
    }
}

impl BodySender {
    /// Sends a piece, waiting while too many wait already.
    pub async fn send(&self, piece: impl Into<Bytes>) -> Result<(), ClientGone> {
        self.0.send(piece.into()).await.map_err(|_| ClientGone)
    }

    /// Returns when the client has gone, for makers of bodies that are quiet for long.
    pub async fn client_gone(&self) {
        self.0.closed().await;
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(whole: T) -> Self {
        let whole = whole.into();
        Self(Content::Whole((!whole.is_empty()).then_some(whole)))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let piece = match &mut self.0 {
            Content::Whole(whole) => whole.take(),
            Content::Pieces(pieces) => ready!(pieces.poll_recv(cx)),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(whole) => SizeHint::with_exact(whole.as_ref().map_or(0, |whole| whole.len() as u64)),
            Content::Pieces(_) => SizeHint::default(),
        }
    }
}
