//! HTTP over real TLS: written by hand for HTTP/1.1, by hyper's client for HTTP/2, by tungstenite for WebSocket.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use domain::host::InvalidHostName;
use http::header::{HOST, HeaderMap};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::*;
use crate::shutdown::Drained;
use crate::testing::{PATIENCE, TestRim};
use crate::tls::{PortProtocol, TlsSettings};

const SETTINGS_BODY_MAX: usize = 1_000;

/// Answers with what it was asked, and does as some paths say.
struct Mirror {
    asked: mpsc::UnboundedSender<()>,
    go_on: Arc<Notify>,
}

#[async_trait]
impl Handler for Mirror {
    async fn handle(&self, request: Request<Bytes>, peer: &PeerContext) -> Response<Body> {
        let (head, body) = request.into_parts();
        match head.uri.path() {
            "/slow" => {
                let _ = self.asked.send(());
                self.go_on.notified().await;
                Response::new("slow".into())
            }
            "/pieces" => {
                let (sender, body) = Body::in_pieces(1);
                let first = sender.send("one,").await;
                let go_on = Arc::clone(&self.go_on);
                let asked = self.asked.clone();
                let rest = async move {
                    first?;
                    let _ = asked.send(());
                    go_on.notified().await;
                    sender.send("two").await
                };
                spawn_detached(rest);
                Response::new(body)
            }
            "/panic" => panic!("on purpose"),
            path => {
                let host = head.headers.get(HOST).map_or("-", |host| host.to_str().expect("text"));
                let said = format!("{} {path}?{} {host} ", head.method, head.uri.query().unwrap_or("-"));
                let mut response = Response::new([said.as_bytes(), &body].concat().into());
                response.headers_mut().insert(SERVER, HeaderValue::from_static("Mirror/1"));
                let dialled = peer.dialled.ip().to_string();
                response.headers_mut().insert("x-dialled", HeaderValue::try_from(dialled).expect("text"));
                response
            }
        }
    }

    fn streams(&self, head: &Parts) -> bool {
        head.uri.path() == "/unread"
    }

    async fn handle_stream(&self, _head: &Parts, _body: &mut RequestBody, _peer: &PeerContext) -> Response<Body> {
        Response::new("unread".into())
    }

    fn body_bytes_max(&self, head: &Parts) -> usize {
        if head.uri.path() == "/large" { 2 * BODY_BYTES_MAX } else { SETTINGS_BODY_MAX }
    }
}

#[expect(clippy::disallowed_methods, reason = "the test ends with its runtime")]
fn spawn_detached(future: impl Future<Output = Result<(), ClientGone>> + Send + 'static) {
    tokio::spawn(future);
}

/// Echoes one message's bytes and leaves.
struct Echo;

#[async_trait]
impl WebSocketHandler for Echo {
    async fn handle(&self, mut socket: WebSocket) {
        let mut word = [0; 5];
        if socket.stream.read_exact(&mut word).await.is_ok() {
            let protocol: &[u8] = match socket.protocol {
                Subprotocol::Mqtt => b"mqtt ",
                Subprotocol::Amqp => b"amqp ",
            };
            let _ = socket.stream.write_all(&[protocol, &word].concat()).await;
            let _ = socket.stream.shutdown().await;
        }
    }
}

struct Served {
    rim: TestRim,
    asked: mpsc::UnboundedReceiver<()>,
    go_on: Arc<Notify>,
}

impl Served {
    fn start(settings: HttpSettings) -> Self {
        let (asked_sender, asked) = mpsc::unbounded_channel();
        let go_on = Arc::new(Notify::new());
        let mirror = Arc::new(Mirror { asked: asked_sender, go_on: Arc::clone(&go_on) });
        let make = Box::new(move |tasks: &Tasks| HttpServer::new(mirror, Some(Arc::new(Echo)), settings, tasks));
        let rim = TestRim::start_serving(TlsSettings::default(), PortProtocol::Http, Some(make));
        Self { rim, asked, go_on }
    }

    fn client(&self) -> Arc<ClientConfig> {
        Arc::new(self.rim.client(&rustls::version::TLS13))
    }

    async fn dial(&self) -> TlsStream<TcpStream> {
        self.rim.dial("127.0.0.2", &self.client()).await.expect("a handshake")
    }

    /// Sends `wire` on a connection of its own and reads until the server closes it.
    async fn exchange(&self, wire: &[u8]) -> String {
        let mut stream = self.dial().await;
        stream.write_all(wire).await.expect("sent");
        read_to_close(&mut stream).await
    }
}

/// A server that ends without a TLS goodbye has closed as well.
async fn read_to_close(stream: &mut TlsStream<TcpStream>) -> String {
    let mut reply = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut reply)).await.expect("closed in time");
    drop(read);
    String::from_utf8(reply).expect("text")
}

/// Reads one reply whose body has a length and does not contain an empty line.
async fn read_reply(stream: &mut TlsStream<TcpStream>, ends_with: &str) -> String {
    let mut reply = String::new();
    while !reply.ends_with(ends_with) {
        let mut buffer = [0; 1024];
        let read = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("in time").expect("bytes");
        assert_ne!(read, 0, "closed after: {reply}");
        reply.push_str(std::str::from_utf8(&buffer[..read]).expect("text"));
    }
    reply
}

fn body_of(reply: &str) -> &str {
    reply.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[tokio::test]
async fn requests_arrive_whole_in_every_form_that_clients_send() {
    let served = Served::start(HttpSettings::default());
    let cases = [
        // contract/dps-device.md 2.2: Node sends a body with its GET.
        (
            "a GET with a body",
            "GET /o?api-version=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n",
            "{}",
            "GET /o?api-version=1 h {}",
        ),
        ("no body", "DELETE /a HTTP/1.1\r\nHost: h:443\r\n", "", "DELETE /a?- h:443 "),
        // contract/hub-device.md 5.2: Node sends telemetry in chunks.
        (
            "chunks",
            "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n",
            "2\r\n{\"\r\n3\r\na\":\r\n2\r\n1}\r\n0\r\n\r\n",
            "POST /a?- h {\"a\":1}",
        ),
        (
            "absolute form",
            "PUT https://hub.test:443/a?b HTTP/1.1\r\nHost: other\r\nContent-Length: 1\r\n",
            "x",
            "PUT /a?b hub.test:443 x",
        ),
        ("absolute form without a path", "GET https://hub.test HTTP/1.1\r\nHost: h\r\n", "", "GET /?- hub.test "),
        ("an encoded path", "GET /devices/a%2Fb%20c HTTP/1.1\r\nHost: h\r\n", "", "GET /devices/a%2Fb%20c?- h "),
    ];
    for (case, head, body, expected) in cases {
        let reply = served.exchange(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{case}: {reply}");
        assert_eq!(body_of(&reply), expected, "{case}");
    }
}

#[tokio::test]
async fn answers_carry_a_date_and_hsts_and_no_word_about_the_software() {
    let served = Served::start(HttpSettings::default());
    let ask = async |host: &str| {
        served.exchange(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await
    };
    let reply = ask("127.0.0.2").await;
    for expected in
        ["\r\ndate: ", "\r\nstrict-transport-security: max-age=31536000\r\n", "\r\nx-dialled: 127.0.0.2\r\n"]
    {
        assert!(reply.contains(expected), "{expected} in {reply}");
    }
    assert!(!reply.to_ascii_lowercase().contains("\r\nserver:"), "{reply}");
    for local in ["localhost", "LOCALHOST:8443"] {
        assert!(!ask(local).await.contains("strict-transport-security"), "{local}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_after_it_was_sent() {
    let served = Served::start(HttpSettings::default());
    let long = "x".repeat(SETTINGS_BODY_MAX + 1);
    let large = "x".repeat(BODY_BYTES_MAX + 100);
    let chunk = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    let cases = [
        ("by its length", "/a", format!("Content-Length: {}\r\n\r\n{long}", long.len()), 413),
        ("in chunks", "/a", format!("Transfer-Encoding: chunked\r\n\r\n{chunk}"), 413),
        (
            "waiting for permission",
            "/a",
            format!("Content-Length: {}\r\nExpect: 100-continue\r\n\r\n", long.len()),
            413,
        ),
        (
            "at the limit",
            "/a",
            format!(
                "Content-Length: {SETTINGS_BODY_MAX}\r\nConnection: close\r\n\r\n{}",
                "x".repeat(SETTINGS_BODY_MAX)
            ),
            200,
        ),
        (
            "where more is allowed",
            "/large",
            format!("Content-Length: {}\r\nConnection: close\r\n\r\n{large}", large.len()),
            200,
        ),
    ];
    for (case, path, rest, status) in cases {
        let reply = served.exchange(format!("POST {path} HTTP/1.1\r\nHost: h\r\n{rest}").as_bytes()).await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{case}: {reply:.200}");
        if status == 413 {
            assert_eq!(body_of(&reply), r#"{"message":"the body is longer than 1000 bytes"}"#, "{case}");
        }
    }
}

#[tokio::test]
async fn bodies_share_a_bounded_room() {
    let small = HttpSettings { bodies_bytes_max: SETTINGS_BODY_MAX, ..HttpSettings::default() };
    let served = Served::start(small);
    let (most, rest) = ("x".repeat(900), "x".repeat(100));
    let mut first = served.dial().await;
    let head = format!("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{most}");
    first.write_all(head.as_bytes()).await.unwrap();
    let second = format!("POST /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 200\r\n\r\n{rest}{rest}");
    // The first body may still be on its way.
    let refused = async {
        loop {
            let reply = served.exchange(second.as_bytes()).await;
            if !reply.starts_with("HTTP/1.1 200 ") {
                return reply;
            }
        }
    };
    let reply = timeout(PATIENCE, refused).await.expect("the room is full in the end");
    assert!(reply.starts_with("HTTP/1.1 429 ") && reply.contains("retry-after: 3"), "{reply}");
    first.write_all(rest.as_bytes()).await.unwrap();
    read_reply(&mut first, &format!("{most}{rest}")).await;
    let reply = served.exchange(second.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 200 "), "the room is free again: {reply}");
}

#[tokio::test]
async fn what_is_no_http_is_answered_and_closed() {
    let served = Served::start(HttpSettings::default());
    let endless = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(40 * 1024));
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(32 * 1024));
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(101));
    for (case, wire, status) in [
        ("no syntax", "GET \u{1} HTTP/1.1\r\n\r\n", 400),
        ("an endless header", endless.as_str(), 431),
        ("too many headers", many.as_str(), 431),
        ("a header a little too long", long.as_str(), 431),
        ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
        ("two hosts", "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
        ("two hosts and a target that names one", "GET https://h/ HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
        ("a host that is none", "GET / HTTP/1.1\r\nHost: h:port\r\n\r\n", 400),
        ("a length that lies", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
    ] {
        let wire = wire.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        let reply = served.exchange(wire.as_bytes()).await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{case}: {reply}");
    }
}

#[tokio::test]
async fn a_request_without_one_host_is_refused_by_its_handler_and_its_body_is_not_read() {
    let served = Served::start(HttpSettings::default());
    for (case, hosts) in [("none", ""), ("two", "Host: h\r\nHost: h\r\n"), ("no name", "Host: h:port\r\n")] {
        let reply = served.exchange(format!("POST / HTTP/1.1\r\n{hosts}Content-Length: 9\r\n\r\n").as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 400 "), "{case}: {reply}");
        for expected in ["\r\nconnection: close\r\n", "\r\nstrict-transport-security: "] {
            assert!(reply.contains(expected), "{case}: {expected} in {reply}");
        }
        assert_eq!(body_of(&reply), r#"{"message":"the request does not name one host that can be read"}"#, "{case}");
    }
}

#[tokio::test]
async fn slow_requests_are_given_up() {
    let short = Duration::from_millis(50);
    let impatient = HttpSettings { header_timeout: short, body_timeout: short, ..HttpSettings::default() };
    let served = Served::start(impatient);
    assert_eq!(served.exchange(b"GET / HT").await, "", "a head that stops");
    assert_eq!(served.exchange(b"").await, "", "no head at all");
    let reply = served.exchange(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab").await;
    assert!(reply.starts_with("HTTP/1.1 408 "), "a body that stops: {reply}");
}

#[tokio::test]
async fn a_body_that_is_not_read_is_not_waited_for_byte_by_byte() {
    let short = Duration::from_millis(200);
    let served = Served::start(HttpSettings { body_timeout: short, ..HttpSettings::default() });
    let (mut incoming, mut outgoing) = tokio::io::split(served.dial().await);
    outgoing.write_all(b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n").await.expect("sent");
    let dripping = async {
        let mut ticks = tokio::time::interval(short / 4);
        while outgoing.write_all(b"a").await.is_ok() {
            let _ = outgoing.flush().await;
            ticks.tick().await;
        }
        std::future::pending::<()>().await;
    };
    let mut reply = Vec::new();
    let answered = async {
        let _ = incoming.read_to_end(&mut reply).await;
    };
    let answered = async {
        tokio::select! {
            () = answered => {}
            () = dripping => {}
        }
    };
    timeout(PATIENCE, answered).await.expect("it is answered and closed");
    let reply = String::from_utf8_lossy(&reply);
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("unread"), "{reply}");
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let hasty = HttpSettings { keep_alive_timeout: Duration::from_millis(50), ..HttpSettings::default() };
    let served = Served::start(hasty);
    let reply = served.exchange(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(body_of(&reply), "GET /a?- h ");
    let mut h2 = http2(&served).await;
    assert_eq!(ask_http2(&mut h2.0, "/a", "").await.0, StatusCode::OK);
    let _ = timeout(PATIENCE, h2.1).await.expect("the server said goodbye").expect("no panic");
}

#[tokio::test]
async fn several_requests_share_a_connection() {
    let served = Served::start(HttpSettings::default());
    let mut stream = served.dial().await;
    for path in ["/1", "/2", "/3"] {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await.unwrap();
        read_reply(&mut stream, &format!("GET {path}?- h ")).await;
    }
    stream.write_all(b"GET /4 HTTP/1.1\r\nHost: h\r\n\r\nGET /5 HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    read_reply(&mut stream, "GET /5?- h ").await;
}

#[tokio::test]
async fn a_drain_answers_what_is_under_way_and_tells_the_others_to_come_again() {
    let mut served = Served::start(HttpSettings::default());
    let (mut kept, mut idle, mut busy) = (served.dial().await, served.dial().await, served.dial().await);
    for stream in [&mut kept, &mut idle] {
        stream.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        read_reply(stream, "GET /a?- h ").await;
    }
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    served.asked.recv().await.expect("the request is under way");
    let finish = async {
        served.rim.tasks.drain_signal().begun().await;
        let fresh = served.dial().await;
        for mut stream in [kept, fresh] {
            stream.write_all(b"GET /mqtt HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
            let reply = read_to_close(&mut stream).await;
            assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
            assert!(reply.contains("\r\nretry-after: 3\r\n"), "{reply}");
            assert!(reply.contains("\r\nconnection: close\r\n"), "{reply}");
            assert!(reply.contains("\"message\":\"the server is stopping; try again\""), "{reply}");
        }
        served.go_on.notify_one();
        let reply = read_to_close(&mut busy).await;
        assert_eq!(body_of(&reply), "slow");
        assert!(reply.contains("\r\nconnection: close\r\n"), "{reply}");
        assert_eq!(read_to_close(&mut idle).await, "");
    };
    let (drained, ()) = tokio::join!(served.rim.tasks.drain(PATIENCE), finish);
    assert_eq!(drained, Drained::Finished);
    assert!(TcpStream::connect(served.rim.dialled("127.0.0.2")).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_websocket_that_is_asked_for_in_a_drain_is_reset_so_that_its_device_comes_again() {
    let served = Served::start(HttpSettings::default());
    let mut stream = served.dial().await;
    let work = served.rim.tasks.begin_work().expect("no drain yet");
    let ask = async {
        served.rim.tasks.drain_signal().begun().await;
        let head = "GET /$iothub/websocket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Protocol: mqtt\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let outcome = stream.read_u8().await.map_err(|error| error.kind());
        assert_eq!(outcome, Err(ErrorKind::ConnectionReset));
        drop(work);
    };
    let (drained, ()) = tokio::join!(served.rim.tasks.drain(PATIENCE), ask);
    assert_eq!(drained, Drained::Finished);
}

#[tokio::test]
async fn idle_connections_do_not_hold_a_drain_up() {
    let served = Served::start(HttpSettings::default());
    let (mut kept, mut fresh) = (served.dial().await, served.dial().await);
    kept.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    read_reply(&mut kept, "GET /a?- h ").await;
    let leave = async {
        assert_eq!(read_to_close(&mut kept).await, "");
        assert_eq!(read_to_close(&mut fresh).await, "");
    };
    let (drained, ()) = tokio::join!(served.rim.tasks.drain(2 * PATIENCE), leave);
    assert_eq!(drained, Drained::Finished);
}

#[tokio::test]
async fn a_body_can_be_sent_while_it_is_made() {
    let mut served = Served::start(HttpSettings::default());
    let mut stream = served.dial().await;
    stream.write_all(b"GET /pieces HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    served.asked.recv().await.expect("the first piece is on its way");
    read_reply(&mut stream, "4\r\none,\r\n").await;
    served.go_on.notify_one();
    assert_eq!(read_reply(&mut stream, "0\r\n\r\n").await, "3\r\ntwo\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_connection_only() {
    let served = Served::start(HttpSettings::default());
    assert_eq!(served.exchange(b"GET /panic HTTP/1.1\r\nHost: h\r\n\r\n").await, "");
    let reply = served.exchange(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert_eq!(body_of(&reply), "GET /a?- h ");
}

type Http2Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;
type Http2Driver = tokio::task::JoinHandle<hyper::Result<()>>;

#[expect(clippy::disallowed_methods, reason = "the test ends with its runtime")]
async fn http2(served: &Served) -> (Http2Sender, Http2Driver) {
    let mut config = served.rim.client(&rustls::version::TLS13);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = served.rim.dial("127.0.0.2", &Arc::new(config)).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, driver) = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.expect("HTTP/2");
    (sender, tokio::spawn(driver))
}

async fn ask_http2(sender: &mut Http2Sender, path: &str, body: &str) -> (StatusCode, String) {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("https://hub.test{path}"))
        .body(Full::new(Bytes::from(body.to_owned())))
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert!(response.headers().contains_key(STRICT_TRANSPORT_SECURITY));
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

#[tokio::test]
async fn http2_is_the_same_to_handlers() {
    let served = Served::start(HttpSettings::default());
    let (mut sender, driver) = http2(&served).await;
    assert_eq!(ask_http2(&mut sender, "/a?b", "body").await, (StatusCode::OK, "POST /a?b hub.test body".into()));
    let (status, _) = ask_http2(&mut sender, "/a", &"x".repeat(SETTINGS_BODY_MAX + 1)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    drop(sender);
    driver.await.expect("no panic").expect("no error");
}

#[test]
fn the_host_is_the_targets_or_the_headers_and_there_is_no_doubt_about_it() {
    let none: &[&str] = &[];
    let cases = [
        (Version::HTTP_11, "/a", ["H:443"].as_slice(), Ok(Some("h"))),
        (Version::HTTP_11, "/a", none, Err(InvalidHostName)),
        (Version::HTTP_11, "/a", &[""], Err(InvalidHostName)),
        (Version::HTTP_11, "/a", &["h", "h"], Err(InvalidHostName)),
        (Version::HTTP_11, "/a", &["h/a"], Err(InvalidHostName)),
        (Version::HTTP_11, "https://other:1/a", &["h"], Ok(Some("other"))),
        (Version::HTTP_11, "https://me@other/a", &["h"], Ok(Some("other"))),
        (Version::HTTP_11, "https://[::1]:1/a", &["h"], Ok(Some("::1"))),
        (Version::HTTP_11, "https://other/a", none, Err(InvalidHostName)),
        (Version::HTTP_11, "https://other/a", &["h", "h"], Err(InvalidHostName)),
        (Version::HTTP_10, "/a", none, Ok(None)),
        (Version::HTTP_10, "/a", &["h"], Ok(Some("h"))),
        (Version::HTTP_2, "https://other/a", none, Ok(Some("other"))),
        (Version::HTTP_2, "https://other/a", &["OTHER:443"], Ok(Some("other"))),
        (Version::HTTP_2, "https://other/a", &["h"], Err(InvalidHostName)),
        (Version::HTTP_2, "/a", &["h"], Ok(Some("h"))),
        (Version::HTTP_2, "/a", none, Err(InvalidHostName)),
    ];
    for (version, target, hosts, expected) in cases {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        let asked = host_asked(version, &target.parse().unwrap(), &headers);
        let asked = asked.as_ref().map(|host| host.as_ref().map(HostName::as_str));
        assert_eq!(asked, expected.as_ref().copied(), "{version:?} {target} {hosts:?}");
    }
}

#[tokio::test]
async fn websockets_share_the_port_with_http() {
    let served = Served::start(HttpSettings::default());
    for (target, subprotocol, expected) in [
        ("/$iothub/websocket", "mqtt", "mqtt hello"),
        ("/$iothub/websocket?iothub-no-client-cert=true", "MQTT", "mqtt hello"),
        ("/mqtt", "MQTT", "mqtt hello"),
    ] {
        let mut request = format!("wss://127.0.0.2{target}").into_client_request().expect("a URL");
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_str(subprotocol).expect("text"));
        let (mut socket, reply) =
            tokio_tungstenite::client_async(request, served.dial().await).await.expect("an upgrade");
        assert_eq!(reply.headers()["sec-websocket-protocol"], subprotocol);
        let payload = [&[0x82, 0x85, 0, 0, 0, 0][..], b"hello"].concat();
        socket.get_mut().write_all(&payload).await.expect("sent");
        let mut frames = Vec::new();
        socket.get_mut().read_to_end(&mut frames).await.expect("frames");
        let expected = [&[0x82, 10][..], expected.as_bytes(), &[0x88, 2, 0x03, 0xe8]].concat();
        assert_eq!(frames, expected, "{target}: the answer, then a close frame");
    }
}

#[tokio::test]
async fn frames_sent_together_with_the_upgrade_are_heard() {
    let served = Served::start(HttpSettings::default());
    let name = ServerName::try_from("127.0.0.2").expect("a name");
    let mut stream = served.rim.dial_as("127.0.0.2", name, &served.client()).await.expect("a handshake");
    let head = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: abc\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    stream.write_all(&[head.as_bytes(), &[0x82, 0x85, 0, 0, 0, 0], b"hello"].concat()).await.expect("sent");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.expect("a reply");
    let reply = String::from_utf8_lossy(&reply);
    assert!(reply.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{reply}");
    assert!(reply.contains(&derive_accept_key(b"abc")) && reply.contains("mqtt hello"), "{reply}");
}

/// What a connection's task keeps room for, beside TLS itself.
const TASK_BYTES_MAX: usize = 1_024;

#[tokio::test]
async fn the_task_of_a_connection_is_small() {
    let rim = TestRim::start();
    let (asked, _) = mpsc::unbounded_channel();
    let mirror = Mirror { asked, go_on: Arc::default() };
    let http = HttpServer::new(Arc::new(mirror), Some(Arc::new(Echo)), HttpSettings::default(), &rim.tasks);
    let _client = rim.dial("127.0.0.2", &Arc::new(rim.client(&rustls::version::TLS13))).await.expect("a handshake");
    let connection = rim.outcome().await.expect("a handshake");
    let task_bytes = size_of_val(&http.serve(connection, rim.tasks.drain_signal()));
    assert!(task_bytes <= TASK_BYTES_MAX, "{task_bytes}");
}

#[test]
fn the_corpus_of_http_opening_holds() {
    crate::replay::replay("http_opening", http_opening::check);
}
