//! The accept loops of a port, from start to drain.
//!
//! Running out of file descriptors is weather, not a reason to end: the loop waits a little longer each time and goes on.
//! One connection's trouble never reaches another, since each runs as a task of its own.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use super::{BindError, BoundSocket, ConnectionLimit, Incoming, Listener, Reach, bind_reaching};
use crate::shutdown::Tasks;

/// First and longest pause after the operating system could not give a connection.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

type ConnectionTask = Pin<Box<dyn Future<Output = ()> + Send>>;
type OnConnection = Arc<dyn Fn(Incoming) -> ConnectionTask + Send + Sync>;

/// A port that accepts. It goes on until the task set drains, whether or not this handle is kept.
pub struct RunningListener {
    purpose: &'static str,
    port: u16,
    reaches: Mutex<Vec<Reach>>,
    tasks: Tasks,
    limit: Option<Arc<ConnectionLimit>>,
    on_connection: OnConnection,
}

impl Listener {
    /// Starts accepting; `on_connection` makes the task that each connection runs as.
    pub fn start<F, Fut>(self, tasks: &Tasks, on_connection: F) -> Result<RunningListener, BindError>
    where
        F: Fn(Incoming) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let running = RunningListener {
            purpose: self.purpose,
            port: self.port,
            reaches: Mutex::new(Vec::new()),
            tasks: tasks.clone(),
            limit: self.limit,
            on_connection: Arc::new(move |incoming| Box::pin(on_connection(incoming))),
        };
        for bound in self.sockets {
            running.serve(bound)?;
        }
        Ok(running)
    }
}

impl RunningListener {
    /// The port number.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes sure that `address` can be dialled, with a further socket if none reaches it. On return it can be.
    pub fn cover(&self, address: IpAddr) -> Result<(), BindError> {
        if self.reaches.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|reach| reach.covers(address)) {
            return Ok(());
        }
        self.serve(bind_reaching(self.purpose, address, self.port)?)
    }

    pub(super) fn serve(&self, bound: BoundSocket) -> Result<(), BindError> {
        let reach = bound.reach;
        let socket = TcpListener::from_std(bound.socket).map_err(|source| BindError::Io {
            purpose: self.purpose,
            address: reach.address(),
            port: self.port,
            source,
        })?;
        self.reaches.lock().unwrap_or_else(PoisonError::into_inner).push(reach);
        let accepting = Accepting {
            socket,
            purpose: self.purpose,
            tasks: self.tasks.clone(),
            limit: self.limit.clone(),
            on_connection: Arc::clone(&self.on_connection),
        };
        self.tasks.spawn(self.purpose, accepting.run());
        Ok(())
    }
}

/// The accept loop of one socket.
struct Accepting {
    socket: TcpListener,
    purpose: &'static str,
    tasks: Tasks,
    limit: Option<Arc<ConnectionLimit>>,
    on_connection: OnConnection,
}

impl Accepting {
    /// Accepts during a drain too, so that whoever comes is told to come again.
    async fn run(self) {
        let mut drain = self.tasks.drain_signal();
        let mut pause = Pause::default();
        loop {
            let accepted = tokio::select! {
                () = drain.closing() => return,
                accepted = self.socket.accept() => accepted,
            };
            let incoming = accepted.and_then(|(stream, peer)| {
                let dialled = stream.local_addr()?;
                let (peer, dialled) = (canonical(peer), canonical(dialled));
                Ok(Incoming { stream, peer, dialled, accepted_at: tokio::time::Instant::now() })
            });
            match incoming {
                Ok(incoming) => {
                    pause.over(self.purpose);
                    self.begin(incoming);
                }
                // The peer gave up while it waited.
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    let wait = pause.next(self.purpose, &error);
                    tokio::select! {
                        () = drain.closing() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    fn begin(&self, incoming: Incoming) {
        let room = self.limit.as_ref().map(|limit| limit.take(self.purpose, Instant::now()));
        if matches!(room, Some(None)) {
            return;
        }
        let connection = (self.on_connection)(incoming);
        self.tasks.spawn(self.purpose, async move {
            let _room = room;
            connection.await;
        });
    }
}

/// The growing pause while the operating system gives no connection; one log line when it begins, one when it ends.
#[derive(Default)]
struct Pause(Option<Duration>);

impl Pause {
    fn next(&mut self, purpose: &'static str, error: &io::Error) -> Duration {
        let wait = self.0.map_or(PAUSE_MIN, |last| (last * 2).min(PAUSE_MAX));
        if self.0.replace(wait).is_none() {
            tracing::error!(port = purpose, %error, "cannot accept connections for now");
        }
        wait
    }

    fn over(&mut self, purpose: &'static str) {
        if self.0.take().is_some() {
            tracing::info!(port = purpose, "connections are accepted again");
        }
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, Interrupted, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | NotConnected | BrokenPipe | Interrupted)
}

/// An IPv4-mapped address as IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
