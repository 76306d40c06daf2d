//! HTTP/1.1 and HTTP/2 over TLS, and the door to WebSocket on the same port.
//!
//! A [`Handler`] gets requests whole and within bounds; what they mean is decided in `dialect`. Every answer carries the
//! same hygiene: a date, no word about the software, and HSTS. Nothing here may look into a body. Start reading at
//! [`HttpServer::serve`].

mod activity;
mod body;
mod host;
mod opening;
mod request;

#[cfg(test)]
#[path = "../../../fuzz/src/http_opening.rs"]
mod http_opening;
#[cfg(test)]
mod tests;
#[cfg(test)]
use crate::websocket::upgrade;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use domain::host::HostName;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SERVER, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::time::{interval_at, timeout};

use self::activity::{Activity, CountedBody};
pub use self::body::{Body, BodySender, ClientGone};
pub(crate) use self::host::host_asked;
use self::opening::{Opening, Replayed, read_opening};
pub use self::request::{Refusal, RequestBody};
use self::request::{Room, judge_head, normalise_target, read_body};
use crate::shutdown::{DrainSignal, Tasks};
use crate::tls::{Connection, PeerContext, SecureStream};
use crate::websocket::{Subprotocol, Verdict, WebSocket, WebSocketHandler, WebSocketStream, judge};

/// Longest body taken where a handler does not say otherwise.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Received bytes that HTTP/2 keeps per stream and per connection before it stops the sender.
const H2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// Seconds after which a request is sent again that came during a drain, or when there was no room for it.
const RETRY_AFTER_S: u32 = 3;

/// The ALPN name of HTTP/2.
const ALPN_H2: &[u8] = b"h2";

/// Limits of an HTTP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Longest head of a request, target and headers together. At least 8 KiB.
    pub header_bytes_max: usize,
    /// Most headers of a request.
    pub headers_max: usize,
    /// For the head of the first request.
    pub header_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// For the head of each later request; a connection without any request is closed after one to two times this.
    pub keep_alive_timeout: Duration,
    /// Bytes of bodies held at once for requests that are under way on the whole port.
    pub bodies_bytes_max: usize,
    /// Requests under way at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// How long browsers shall insist on HTTPS for this host; zero sends no such header. Not sent for `localhost`, where
    /// it would bind the developer's other servers too.
    pub hsts_max_age: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            header_bytes_max: 32 * 1024,
            headers_max: 100,
            header_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_mins(1),
            keep_alive_timeout: Duration::from_secs(75),
            bodies_bytes_max: 256 * 1024 * 1024,
            streams_max: 100,
            hsts_max_age: Duration::from_hours(365 * 24),
        }
    }
}

/// Answers requests.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers a request whose body was read whole. The target is in origin form; `Host` says what the client dialled,
    /// and stands among the extensions as a [`HostName`]. A panic ends the connection.
    async fn handle(&self, request: Request<Bytes>, peer: &PeerContext) -> Response<Body>;

    /// The longest body to take for the request with this head.
    fn body_bytes_max(&self, _head: &Parts) -> usize {
        BODY_BYTES_MAX
    }

    /// Whether the request with this head goes to [`Self::handle_stream`].
    fn streams(&self, _head: &Parts) -> bool {
        false
    }

    /// Answers a request whose body it reads itself. What it leaves is read and thrown away, within bounds.
    async fn handle_stream(&self, head: &Parts, _body: &mut RequestBody, peer: &PeerContext) -> Response<Body> {
        self.refuse(Refusal::BodyBroken, head, peer)
    }

    /// Answers a request that does not reach [`Self::handle`], in the words of the dialect that it was meant for.
    fn refuse(&self, refusal: Refusal, _head: &Parts, _peer: &PeerContext) -> Response<Body> {
        let text = serde_json::json!({ "message": refusal.to_string() }).to_string();
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = refusal.status();
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}

/// Speaks HTTP on finished handshakes. One per port; clones share everything.
#[derive(Clone)]
pub struct HttpServer {
    port: Arc<Port>,
}

struct Port {
    tasks: Tasks,
    handler: Arc<dyn Handler>,
    websockets: Option<Arc<dyn WebSocketHandler>>,
    settings: HttpSettings,
    /// Room for bodies, in bytes.
    bodies: Arc<Semaphore>,
    hsts: Option<HeaderValue>,
    protocols: auto::Builder<H2Tasks>,
}

/// Runs the streams of HTTP/2 as tasks of the server.
#[derive(Clone)]
struct H2Tasks(Tasks);

impl<F> hyper::rt::Executor<F> for H2Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn("http2-stream", async move {
            stream.await;
        });
    }
}

impl HttpServer {
    /// A port whose requests go to `handler` and, where given, whose WebSockets go to `websockets`.
    pub fn new(
        handler: Arc<dyn Handler>,
        websockets: Option<Arc<dyn WebSocketHandler>>,
        settings: HttpSettings,
        tasks: &Tasks,
    ) -> Self {
        let hsts_s = settings.hsts_max_age.as_secs();
        let hsts = (hsts_s > 0).then(|| HeaderValue::try_from(format!("max-age={hsts_s}"))).and_then(Result::ok);
        let protocols = protocols(&settings, tasks);
        let tasks = tasks.clone();
        let bodies = Arc::new(Semaphore::new(settings.bodies_bytes_max));
        Self { port: Arc::new(Port { tasks, handler, websockets, settings, bodies, hsts, protocols }) }
    }

    /// Serves `connection` until either side closes it, or until the drain closes what is idle. While it waits for work
    /// elsewhere, a request is told to come again.
    ///
    /// Each stage is on the heap and gone before the next, so that the task of a WebSocket does not keep room for HTTP.
    pub async fn serve(&self, connection: Connection, mut drain: DrainSignal) {
        let Connection { mut stream, peer } = connection;
        match Box::pin(self.port.open(&mut stream, &peer, &mut drain)).await {
            Opened::Nothing => {}
            Opened::Http { read } => Box::pin(self.port.serve_http(stream, read, peer, drain)).await,
            Opened::WebSocket { handler, protocol, host, read_ahead } => {
                let stream = WebSocketStream::new(stream, read_ahead);
                handler.handle(WebSocket { protocol, host, stream, peer }).await;
            }
        }
    }
}

/// What a connection turned out to be.
enum Opened {
    /// It ended before it was anything, or was refused.
    Nothing,
    /// HTTP; these bytes were read already.
    Http { read: Vec<u8> },
    /// A WebSocket, the upgrade of which was answered; these bytes came after its request.
    WebSocket { handler: Arc<dyn WebSocketHandler>, protocol: Subprotocol, host: Option<HostName>, read_ahead: Vec<u8> },
}

/// Has a connection reset when it is dropped. A device that asks for a WebSocket while the server ends must come again,
/// and azure-iot-device (Python) does so after a reset alone: it takes an answer, and an orderly close, for final.
fn reset(stream: &SecureStream) {
    // Where it cannot be, the device hears an orderly close.
    let _ = SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO));
}

fn protocols(settings: &HttpSettings, tasks: &Tasks) -> auto::Builder<H2Tasks> {
    let mut builder = auto::Builder::new(H2Tasks(tasks.clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.keep_alive_timeout)
        .max_buf_size(settings.header_bytes_max)
        .max_headers(settings.headers_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(settings.header_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(settings.streams_max)
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(settings.keep_alive_timeout);
    builder
}

impl Port {
    /// Reads the first request, unless HTTP/2 was negotiated, and upgrades the connection if that is what it asks for.
    async fn open(&self, stream: &mut SecureStream, peer: &PeerContext, drain: &mut DrainSignal) -> Opened {
        if stream.get_ref().1.alpn_protocol() == Some(ALPN_H2) {
            return Opened::Http { read: Vec::new() };
        }
        let opening = read_opening(stream, self.settings.header_bytes_max);
        let opening = tokio::select! {
            () = drain.closing() => return Opened::Nothing,
            opening = timeout(self.settings.header_timeout, opening) => opening,
        };
        let Ok(Ok(Opening { mut read, head })) = opening else {
            tracing::debug!(peer = %peer.address, "no request arrived");
            return Opened::Nothing;
        };
        let (Some(handler), Some((head_bytes, head))) = (&self.websockets, head) else {
            return Opened::Http { read };
        };
        match judge(&head) {
            Verdict::NotWebSocket => Opened::Http { read },
            Verdict::Refused { reply, reason } => {
                tracing::debug!(peer = %peer.address, target = %head.uri(), reason, "WebSocket refused");
                // The peer may be gone already; there is nobody else to tell.
                if stream.write_all(&reply).await.is_ok() {
                    let _ = stream.shutdown().await;
                }
                Opened::Nothing
            }
            Verdict::Accepted { .. } if drain.has_begun() => {
                reset(stream);
                Opened::Nothing
            }
            Verdict::Accepted { reply, protocol, host } => {
                if stream.write_all(&reply).await.is_err() || stream.flush().await.is_err() {
                    return Opened::Nothing;
                }
                let read_ahead = read.split_off(head_bytes);
                Opened::WebSocket { handler: Arc::clone(handler), protocol, host, read_ahead }
            }
        }
    }

    async fn serve_http(
        self: &Arc<Self>,
        stream: SecureStream,
        read: Vec<u8>,
        peer: PeerContext,
        mut drain: DrainSignal,
    ) {
        let (activity, peer) = (Arc::new(Activity::default()), Arc::new(peer));
        let service = service_fn(|request| {
            let (port, peer, activity) = (Arc::clone(self), Arc::clone(&peer), Arc::clone(&activity));
            async move { Ok::<_, Infallible>(port.answer(request, &peer, &activity).await) }
        });
        let io = TokioIo::new(Replayed::new(read, stream));
        let mut connection = pin!(self.protocols.serve_connection(io, service));
        let period = self.settings.keep_alive_timeout;
        let mut idle_watch = interval_at(tokio::time::Instant::now() + period, period);
        let (mut closing, mut requests_seen) = (false, None);
        loop {
            tokio::select! {
                outcome = connection.as_mut() => {
                    if let Err(error) = outcome {
                        tracing::debug!(peer = %peer.address, %error, "HTTP connection ended early");
                    }
                    return;
                }
                () = drain.closing(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = idle_watch.tick() => match activity.requests_if_idle() {
                    // A peer that does not react to the goodbye.
                    Some(_) if closing => return,
                    Some(requests) if requests_seen == Some(requests) => {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    requests => requests_seen = requests,
                },
            }
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: &PeerContext,
        activity: &Arc<Activity>,
    ) -> Response<CountedBody> {
        let work = self.tasks.begin_work();
        let is_draining = work.is_none();
        let under_way = activity.begin(work);
        let (mut head, body) = request.into_parts();
        let judged = judge_head(&mut head, self.settings.header_bytes_max);
        normalise_target(&mut head);
        let version = head.version;
        let hsts = self.hsts.clone().filter(|_| !head.extensions.get().is_some_and(HostName::is_localhost));
        let (mut response, is_refused) = match judged {
            Ok(()) if !is_draining && self.handler.streams(&head) => self.answer_stream(head, body, peer).await,
            Ok(()) => self.answer_whole(head, body, peer, is_draining).await,
            Err(refusal) => (self.handler.refuse(refusal, &head, peer), true),
        };
        let headers = response.headers_mut();
        if version < Version::HTTP_2 && (is_refused || self.tasks.drain_signal().has_begun()) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        headers.remove(SERVER);
        if let Some(hsts) = hsts {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts);
        }
        response.map(|body| under_way.answered_with(body))
    }

    /// Answers a request once its body is read; whether it was refused before it reached its handler.
    async fn answer_whole(
        &self,
        head: Parts,
        body: Incoming,
        peer: &PeerContext,
        is_draining: bool,
    ) -> (Response<Body>, bool) {
        let bytes_max = self.handler.body_bytes_max(&head);
        let mut room = Room::new(Arc::clone(&self.bodies));
        match read_body(&head, body, bytes_max, self.settings.body_timeout, &mut room).await {
            Ok(body) if !is_draining => (self.handler.handle(Request::from_parts(head, body), peer).await, false),
            Ok(_) => (self.refuse_for_now(Refusal::Draining, &head, peer), true),
            Err(Refusal::Crowded) => (self.refuse_for_now(Refusal::Crowded, &head, peer), true),
            Err(refusal) => (self.handler.refuse(refusal, &head, peer), true),
        }
    }

    /// Answers a request while its body is read; whether the body was left half read.
    async fn answer_stream(&self, head: Parts, body: Incoming, peer: &PeerContext) -> (Response<Body>, bool) {
        let mut body = RequestBody::new(&head, body, self.settings.body_timeout);
        let response = self.handler.handle_stream(&head, &mut body, peer).await;
        (response, !body.discard().await)
    }

    fn refuse_for_now(&self, refusal: Refusal, head: &Parts, peer: &PeerContext) -> Response<Body> {
        let mut response = self.handler.refuse(refusal, head, peer);
        response.headers_mut().entry(RETRY_AFTER).or_insert_with(|| RETRY_AFTER_S.into());
        response
    }
}
