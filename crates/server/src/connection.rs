//! The one async loop of an MQTT or AMQP connection, over TLS or inside a WebSocket: read, step, perform, write, sleep.
//!
//! What the bytes mean is the session's business; what is asked is performed by `service`. A connection may be several
//! devices', each with a mailbox of its own. A connection's buffers are given back when it is quiet: reading goes through
//! a buffer of the thread (`link`). Start at [`Driver::serve`].

mod guest;
mod link;
mod misuse;
mod running;
mod seated;
mod server;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use dialect::session::Session;
use domain::host::HostName;
use domain::operation::{Caller, Endpoint, Evidence, Push, Transport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use self::guest::Guest;
use self::link::Link;
use self::misuse::MisuseLog;
use self::running::{Running, Settled};
use self::seated::Seated;
pub use self::server::{ConnectionServer, Protocol};
use crate::door::Door;
use crate::shutdown::{DrainSignal, Tasks, Work};
use crate::tls::PeerContext;

/// How long a client whose connection ends in a drain has to take its last answers and leave.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// Drives connections of one protocol. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Driver {
    door: Door,
    misuse: Arc<MisuseLog>,
}

/// One connection while it lives.
struct Driven<S, T> {
    link: Link<S>,
    /// On the heap, so that it is not moved from future to future, with room for it in each.
    talk: Box<Talk<T>>,
    drain: DrainSignal,
    stage: Stage,
    /// Held while the client may be owed something, so that a drain waits for it.
    work: Option<Work>,
}

/// How far the server's end has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// What was read is dealt with, and nothing more is read.
    Draining,
    /// Whoever has not introduced itself must leave too.
    Closing,
}

/// What a connection says and has performed, whatever it is carried by.
struct Talk<T> {
    session: T,
    door: Door,
    caller: Arc<Caller>,
    running: Running,
    seated: Seated,
    misuse: Arc<MisuseLog>,
}

/// What ended a wait.
enum Step {
    Read(io::Result<usize>),
    Written(io::Result<usize>),
    Settled(Settled),
    Pushed(Guest, Push),
    Timeout,
    Drain,
    Close,
}

impl Driver {
    /// A driver of connections that speak `protocol`, as the log calls it.
    pub(crate) fn new(door: Door, protocol: &'static str) -> Self {
        Self { door, misuse: Arc::new(MisuseLog::new(protocol)) }
    }

    /// Serves a connection until it ends, or until the server drains and everything the client sent is answered.
    ///
    /// No `async fn`: the future would keep room for the arguments beside what is made of them.
    pub(crate) fn serve<S, T>(
        &self,
        stream: S,
        session: T,
        caller: Caller,
        tasks: &Tasks,
    ) -> impl Future<Output = ()> + Send + use<S, T>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        T: Session,
    {
        let talk = Talk {
            session,
            door: self.door.clone(),
            misuse: Arc::clone(&self.misuse),
            caller: Arc::new(caller),
            running: Running::default(),
            seated: Seated::default(),
        };
        let (drain, work) = (tasks.drain_signal(), tasks.begin_work());
        let mut driver = Driven { link: Link::new(stream), talk: Box::new(talk), drain, stage: Stage::Serving, work };
        if driver.work.is_none() {
            driver.begin_to_drain();
        }
        driver.run()
    }
}

/// Whether the TLS handshake showed a client certificate, whatever it is worth.
pub(crate) fn has_certificate(caller: &Caller) -> bool {
    caller.evidence.certificates.is_some() || caller.evidence.untaken.is_some()
}

/// What the connection itself tells of its client, and the host that it asked for, if it did.
pub(crate) fn caller(peer: &PeerContext, transport: Transport, host: Option<HostName>) -> Caller {
    let (certificates, untaken) = match &peer.chain {
        None => (None, None),
        Some(Ok(chain)) => (Some(Arc::clone(chain)), None),
        Some(Err(invalid)) => (None, Some(*invalid)),
    };
    Caller {
        endpoint: Endpoint {
            address: peer.dialled.ip(),
            server_name: peer.server_name.as_deref().and_then(|name| HostName::parse(name).ok()),
            host,
            admin: false,
        },
        peer: peer.address.ip(),
        transport,
        evidence: Evidence { certificates, untaken, ..Evidence::default() },
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, T: Session> Driven<S, T> {
    async fn run(mut self) {
        loop {
            self.talk.begin_asks().await;
            if self.stage == Stage::Draining && self.talk.is_at_rest() {
                self.talk.session.close(Instant::now());
            }
            let session = &mut self.talk.session;
            if session.closed().is_some() && session.output().is_empty() {
                break;
            }
            for name in session.take_refused() {
                self.talk.misuse.refused(self.talk.caller.peer, &name);
            }
            for reason in session.take_faults() {
                self.talk.misuse.broken(self.talk.caller.peer, reason);
            }
            let step = self.step().await;
            let (session, now) = (&mut self.talk.session, Instant::now());
            match step {
                Step::Read(Ok(0) | Err(_)) => session.handle_eof(now),
                Step::Written(Ok(count)) => session.handle_written(count, now),
                Step::Written(Err(_)) => {
                    session.handle_eof(now);
                    break;
                }
                Step::Settled(settled) => self.talk.settled(settled, now),
                Step::Pushed(guest, push) => self.talk.pushed(&guest, push, now),
                Step::Timeout => session.handle_timeout(now),
                Step::Read(Ok(_)) => {}
                Step::Drain => self.begin_to_drain(),
                Step::Close => {
                    self.stage = Stage::Closing;
                    session.close(now);
                }
            }
        }
        // On the heap, so that a living connection keeps no room for its end.
        Box::pin(self.end()).await;
    }

    fn begin_to_drain(&mut self) {
        self.stage = Stage::Draining;
        self.talk.session.stop();
        if self.talk.session.is_opening() {
            self.work = None;
        }
    }

    async fn end(self) {
        let Self { mut link, talk, stage, work, .. } = self;
        link.close().await;
        // Closing a socket that holds something unread resets the connection, and takes answers with it that the client
        // has not read. Only a drain leaves something unread of a client that did nothing wrong.
        let leaving = (stage != Stage::Serving).then_some(link);
        talk.finish().await;
        drop(work);
        if let Some(mut link) = leaving {
            let _ = timeout(LEAVE_TIMEOUT, link.discard()).await;
        }
    }

    async fn step(&mut self) -> Step {
        let Self { link, talk, drain, stage, .. } = self;
        let Talk { session, running, seated, .. } = &mut **talk;
        let deadline = session.poll_timeout();
        // A client that never pauses puts nothing off.
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return Step::Timeout;
        }
        tokio::select! {
            biased;
            settled = running.settled(), if !running.is_empty() => Step::Settled(settled),
            (guest, push) = seated.next_push(), if !seated.is_deaf() => Step::Pushed(guest, push),
            // Before what the client says: whoever introduces itself once others are turned away is turned away too.
            step = next_stage(drain, *stage) => step,
            step = exchange(link, session) => step,
            () = sleep_until(deadline), if deadline.is_some() => Step::Timeout,
        }
    }
}

/// Writes what there is to write. Where the client does not take it, reads what the session wants: the client may be
/// waiting to be read itself, and what piles up meanwhile is the session's to bound. Safe to abandon.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin, T: Session>(link: &mut Link<S>, session: &mut T) -> Step {
    poll_fn(|cx| {
        let output = session.output();
        if !output.is_empty()
            && let Poll::Ready(written) = link.poll_write(cx, output)
        {
            return Poll::Ready(Step::Written(written));
        }
        let wants_input = session.wants_input();
        link.poll_read(cx, wants_input, |bytes| session.handle_input(bytes, Instant::now())).map(Step::Read)
    })
    .await
}

/// Waits for the server's next stage.
async fn next_stage(drain: &mut DrainSignal, stage: Stage) -> Step {
    match stage {
        Stage::Serving => {
            drain.begun().await;
            Step::Drain
        }
        Stage::Draining => {
            drain.closing().await;
            Step::Close
        }
        Stage::Closing => std::future::pending().await,
    }
}

impl<T: Session> Talk<T> {
    async fn begin_asks(&mut self) {
        while let Some(ask) = self.session.poll_ask() {
            if let Some(guest) = Guest::leaving(&ask.operation) {
                self.seated.leave(&guest);
            }
            self.running.begin(&self.door, &self.caller, ask).await;
        }
    }

    fn settled(&mut self, settled: Settled, now: Instant) {
        if settled.crashed {
            self.session.close(now);
        }
        for (id, reply) in settled.replies {
            let entering = reply.as_ref().ok().and_then(Guest::entering);
            self.session.handle_reply(id, reply, now);
            if let Some(guest) = entering {
                let mailbox = guest.mailbox(self.door.service());
                if let Err(reason) = mailbox {
                    // Cut off before it was let in: nothing would ever end it otherwise.
                    self.pushed(&guest, Push::CutOff(reason), now);
                }
                self.seated.enter(guest, mailbox.ok());
            }
        }
    }

    fn pushed(&mut self, guest: &Guest, push: Push, now: Instant) {
        match guest {
            Guest::Device(device) => self.session.handle_push(device, push, now),
            Guest::Backend(backend) => self.session.handle_backend_push(backend, push, now),
        }
    }

    /// Whether the client is owed nothing: everything it sent is answered, and the answers are written. Who has still to
    /// introduce itself is waited for.
    fn is_at_rest(&mut self) -> bool {
        !self.session.is_opening() && self.running.is_empty() && self.session.is_at_rest()
    }

    /// Lets what was asked come to its end once the socket is closed, and lets everybody go.
    async fn finish(mut self) {
        if let Some(reason) = self.session.closed() {
            self.misuse.ended(self.caller.peer, reason);
        }
        self.begin_asks().await;
        while !self.running.is_empty() {
            let settled = self.running.settled().await;
            self.settled(settled, Instant::now());
            self.begin_asks().await;
        }
        for guest in self.seated.into_guests() {
            // A failure is logged where it arises; the claim is taken over by the next connection.
            let _ = self.door.perform(&self.caller, guest.leave()).await;
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
