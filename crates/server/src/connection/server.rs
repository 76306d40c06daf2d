//! The server of one protocol: a session for each connection, driven like any other. Start at
//! [`ConnectionServer::serve`].

use std::sync::Arc;
use std::time::Instant;

use dialect::session::{Refusals, Session};
use domain::operation::Caller;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Driver, has_certificate};
use crate::door::Door;
use crate::shutdown::Tasks;

/// What is spoken over connections.
pub trait Protocol {
    /// What the log calls it.
    const NAME: &'static str;
    /// What a connection may take.
    type Limits;
    /// What a connection says.
    type Session: Session;

    /// The session of a connection that has heard nothing.
    fn session(
        limits: Arc<Self::Limits>,
        refusals: Arc<dyn Refusals>,
        has_certificate: bool,
        now: Instant,
    ) -> Self::Session;
}

/// Serves connections of one protocol. Cheap to clone.
#[derive(Clone)]
pub struct ConnectionServer<P: Protocol> {
    driver: Driver,
    limits: Arc<P::Limits>,
    refusals: Arc<dyn Refusals>,
}

impl<P: Protocol> ConnectionServer<P> {
    /// A server with `limits` for each connection.
    pub fn new(door: Door, limits: P::Limits) -> Self {
        let refusals = Arc::new(door.clone());
        Self { refusals, driver: Driver::new(door, P::NAME), limits: Arc::new(limits) }
    }

    /// Serves a connection until it ends, or until the server drains and everything the client sent is answered.
    pub fn serve<S>(&self, stream: S, caller: Caller, tasks: &Tasks) -> impl Future<Output = ()> + Send + use<S, P>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (limits, refusals) = (Arc::clone(&self.limits), Arc::clone(&self.refusals));
        let session = P::session(limits, refusals, has_certificate(&caller), Instant::now());
        self.driver.serve(stream, session, caller, tasks)
    }
}
