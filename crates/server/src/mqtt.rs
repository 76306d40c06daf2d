//! The one async loop of an MQTT connection, over TLS or inside a WebSocket: read, step, perform, write, sleep.
//!
//! What the bytes mean is the session's business; what is asked is performed by `service`. A connection's buffers are
//! given back when it is quiet: reading goes through a buffer of the thread. Start at [`MqttServer::serve`].

use std::cell::RefCell;
use std::future::{poll_fn, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use dialect::mqtt::Session;
use dialect::session::{Ask, AskId};
use domain::certificate::PresentedChain;
use domain::operation::session::{Answer, Ask as SessionAsk, ConnectedDevice};
use domain::operation::{Caller, Endpoint, Evidence, Failure, Lane, Operation, Reply, Transport};
use proto::mqtt::Limits;
use service::{Mailbox, Service};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::task::JoinSet;

use crate::shutdown::DrainSignal;
use crate::tls::PeerContext;

/// Bytes read at once; TLS records hold at most 16 KiB.
const READ_BYTES: usize = 16 * 1_024;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// Drives MQTT connections. Cheap to clone.
#[derive(Clone)]
pub struct MqttServer {
    service: Service,
    limits: Arc<Limits>,
}

/// What a connection asked for and awaits.
type Running = JoinSet<(AskId, Result<Reply, Failure>)>;

/// One connection while it lives.
struct Driver<S> {
    stream: S,
    session: Session,
    service: Service,
    caller: Caller,
    running: Running,
    device: Option<ConnectedDevice>,
    mailbox: Option<Mailbox>,
}

/// What ended a wait.
enum Step {
    Read(io::Result<usize>),
    Written(io::Result<usize>),
    Replied(AskId, Result<Reply, Failure>),
    Crashed,
    Pushed(domain::operation::Push),
    Timeout,
    Drain,
}

impl MqttServer {
    /// A driver with `limits` for each connection.
    pub fn new(service: Service, limits: Limits) -> Self {
        Self { service, limits: Arc::new(limits) }
    }

    /// Serves a connection until it ends, or until the server drains.
    pub async fn serve<S>(&self, stream: S, peer: PeerContext, transport: Transport, drain: DrainSignal)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Some(caller) = caller(&peer, transport) else {
            tracing::info!(peer = %peer.address, "the presented certificates are more than are looked at");
            return;
        };
        let has_certificate = caller.evidence.certificates.is_some();
        let driver = Driver {
            stream,
            session: Session::new(Arc::clone(&self.limits), has_certificate, Instant::now()),
            service: self.service.clone(),
            caller,
            running: JoinSet::new(),
            device: None,
            mailbox: None,
        };
        driver.run(drain).await;
    }
}

/// What the connection itself tells of its client. A chain that cannot be read counts as none; one out of bounds is
/// refused.
pub(crate) fn caller(peer: &PeerContext, transport: Transport) -> Option<Caller> {
    let certificates = match PresentedChain::from_der(&peer.certificates) {
        _ if peer.certificates.is_empty() => None,
        Ok(chain) => Some(Arc::new(chain)),
        Err(invalid) => {
            tracing::info!(peer = %peer.address, %invalid, "a presented chain was not taken");
            return None;
        }
    };
    Some(Caller {
        endpoint: Endpoint { address: peer.dialled.ip(), name: peer.server_name.clone(), admin: false },
        peer: peer.address.ip(),
        transport,
        evidence: Evidence { certificates, token: None, bearer: None },
    })
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Driver<S> {
    async fn run(mut self, mut drain: DrainSignal) {
        let mut draining = false;
        loop {
            let Self { session, service, caller, running, .. } = &mut self;
            begin_asks(session, service, caller, running).await;
            if self.session.closed().is_some() && self.session.output().is_empty() {
                break;
            }
            let now = Instant::now();
            match self.step(&mut drain, draining).await {
                Step::Read(Ok(0) | Err(_)) => self.session.handle_eof(now),
                Step::Written(Ok(count)) => self.session.handle_written(count, Instant::now()),
                Step::Written(Err(_)) => {
                    self.session.handle_eof(now);
                    break;
                }
                Step::Replied(id, reply) => self.replied(id, reply),
                Step::Pushed(push) => self.session.handle_push(push, Instant::now()),
                Step::Timeout => self.session.handle_timeout(Instant::now()),
                Step::Read(Ok(_)) => {}
                Step::Crashed => self.session.close(now),
                Step::Drain => {
                    draining = true;
                    self.session.close(now);
                }
            }
        }
        self.finish().await;
    }

    async fn step(&mut self, drain: &mut DrainSignal, draining: bool) -> Step {
        let Self { stream, session, running, mailbox, .. } = self;
        let deadline = session.poll_timeout();
        let (wants_input, has_output) = (session.wants_input(), !session.output().is_empty());
        if has_output {
            // Nothing is read while something is unwritten; a client that does not read can still be cut off.
            return tokio::select! {
                biased;
                push = next_push(mailbox.as_ref()), if mailbox.is_some() => Step::Pushed(push),
                written = stream.write(session.output()) => Step::Written(written.and_then(not_zero)),
                () = sleep_until(deadline), if deadline.is_some() => Step::Timeout,
                () = drain.begun(), if !draining => Step::Drain,
            };
        }
        tokio::select! {
            biased;
            ended = running.join_next(), if !running.is_empty() => match ended {
                Some(Ok((id, reply))) => Step::Replied(id, reply),
                _ => Step::Crashed,
            },
            push = next_push(mailbox.as_ref()), if mailbox.is_some() => Step::Pushed(push),
            read = read_into(stream, session), if wants_input => Step::Read(read),
            () = sleep_until(deadline), if deadline.is_some() => Step::Timeout,
            () = drain.begun(), if !draining => Step::Drain,
        }
    }

    fn replied(&mut self, id: AskId, reply: Result<Reply, Failure>) {
        if let Ok(Reply::Session(Answer::Connected { device, .. })) = &reply {
            self.mailbox = self.service.mailbox(device);
            self.device = Some(device.clone());
        }
        self.session.handle_reply(id, reply, Instant::now());
    }

    /// Closes the socket at once, then lets what was asked come to its end, and lets the identity go.
    async fn finish(mut self) {
        // The peer may be gone already; there is nobody else to tell.
        let _ = self.stream.flush().await;
        let _ = self.stream.shutdown().await;
        drop(self.stream);
        if let Some(reason) = self.session.closed() {
            tracing::debug!(peer = %self.caller.peer, %reason, "MQTT connection ended");
        }
        loop {
            begin_asks(&mut self.session, &self.service, &mut self.caller, &mut self.running).await;
            match self.running.join_next().await {
                None => break,
                Some(Ok((id, reply))) => {
                    if let Ok(Reply::Session(Answer::Connected { device, .. })) = &reply {
                        self.device = Some(device.clone());
                    }
                    self.session.handle_reply(id, reply, Instant::now());
                }
                Some(Err(_)) => {}
            }
        }
        if let Some(device) = self.device {
            let leave = Operation::Session(SessionAsk::Disconnect { device });
            // A failure is logged where it arises; the claim is taken over by the next connection.
            let _ = self.service.perform(&self.caller, leave).await;
        }
    }
}

fn not_zero(count: usize) -> io::Result<usize> {
    if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) }
}

/// Begins what the session asks for.
///
/// Tasks begin in any order, but telemetry is kept in the order in which it came: each message takes its place here
/// (`store::ports::TelemetryLog::append`), and a task waits until it is durable.
async fn begin_asks(session: &mut Session, service: &Service, caller: &mut Caller, running: &mut Running) {
    while let Some(Ask { id, operation, lane }) = session.poll_ask() {
        if caller.evidence.token.is_none() {
            caller.evidence.token = session.token().cloned();
        }
        let (service, caller) = (service.clone(), caller.clone());
        let mut work = Box::pin(async move { (id, service.perform(&caller, operation).await) });
        let begun = match lane {
            Lane::Telemetry => poll_once(&mut work).await,
            Lane::Serial => Poll::Pending,
        };
        match begun {
            Poll::Ready(done) => running.spawn(ready(done)),
            Poll::Pending => running.spawn(work),
        };
    }
}

/// Polls once, whatever the task has already done in its turn: a future that is put off has not taken its place.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    tokio::task::unconstrained(poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context)))).await
}

async fn next_push(mailbox: Option<&Mailbox>) -> domain::operation::Push {
    match mailbox {
        Some(mailbox) => mailbox.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Reads once, through the thread's buffer, straight into the session.
async fn read_into<S: AsyncRead + Unpin>(stream: &mut S, session: &mut Session) -> io::Result<usize> {
    poll_fn(|cx| {
        READ_BUFFER.with(|buffer| {
            let mut buffer = buffer.borrow_mut();
            let mut read = ReadBuf::new(&mut buffer);
            match Pin::new(&mut *stream).poll_read(cx, &mut read) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {
                    let filled = read.filled();
                    if !filled.is_empty() {
                        session.handle_input(filled, Instant::now());
                    }
                    Poll::Ready(Ok(filled.len()))
                }
            }
        })
    })
    .await
}
