//! AMQP connections: a session for each, driven like any other (`connection`). Start at [`AmqpServer::serve`].

use std::sync::Arc;
use std::time::Instant;

use dialect::amqp::Session;
use dialect::session::Refusals;
use domain::operation::Caller;
use proto::amqp::Limits;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::{Driver, has_certificate};
use crate::door::Door;
use crate::shutdown::Tasks;

/// Serves AMQP connections. Cheap to clone.
#[derive(Clone)]
pub struct AmqpServer {
    driver: Driver,
    limits: Arc<Limits>,
    refusals: Arc<dyn Refusals>,
}

impl AmqpServer {
    /// A server with `limits` for each connection.
    pub fn new(door: Door, limits: Limits) -> Self {
        let refusals = Arc::new(door.clone());
        Self { refusals, driver: Driver::new(door, "AMQP"), limits: Arc::new(limits) }
    }

    /// Serves a connection until it ends, or until the server drains and everything the client sent is answered.
    pub fn serve<S>(&self, stream: S, caller: Caller, tasks: &Tasks) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let session = Session::new(
            Arc::clone(&self.limits),
            Arc::clone(&self.refusals),
            has_certificate(&caller),
            Instant::now(),
        );
        self.driver.serve(stream, session, caller, tasks)
    }
}
