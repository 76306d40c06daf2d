//! How busy an HTTP connection is: what its idle watch looks at.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::Body;
use crate::shutdown::Work;

/// Counts the requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    begun: AtomicU64,
    under_way: AtomicUsize,
}

/// A request under way, from its head to the last byte of its answer. A drain waits for it, unless it is only refused.
#[derive(Debug)]
pub(super) struct Request {
    activity: Arc<Activity>,
    _work: Option<Work>,
}

/// A body that keeps its request under way until it is sent or dropped.
#[derive(Debug)]
pub(super) struct CountedBody {
    body: Body,
    _request: Request,
}

impl Activity {
    /// Counts a request in.
    pub(super) fn begin(self: &Arc<Self>, work: Option<Work>) -> Request {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Request { activity: Arc::clone(self), _work: work }
    }

    /// The number of requests so far, if none is under way.
    pub(super) fn requests_if_idle(&self) -> Option<u64> {
        (self.under_way.load(Ordering::Relaxed) == 0).then(|| self.begun.load(Ordering::Relaxed))
    }
}

impl Request {
    /// Ties the request to its answer.
    pub(super) fn answered_with(self, body: Body) -> CountedBody {
        CountedBody { body, _request: self }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.activity.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HttpBody for CountedBody {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
