//! The asks of one connection that are under way.
//!
//! Telemetry is performed by the connection's own task: messages take their places in the log in the order in which they
//! came (`store::ports::TelemetryLog::append`), and all that one commit made durable is acknowledged by one write.
//! Everything else runs as tasks, in whatever order. Start at [`Running`].

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use dialect::session::{Ask, AskId};
use domain::operation::{Caller, Failure, Lane, Reply};
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, Stream as _};
use tokio::task::{JoinSet, unconstrained};

use crate::door::Door;
use crate::shutdown::panic_text;

/// An ask that has come to its end.
type Performed = (AskId, Result<Reply, Failure>);

/// `None` if it panicked.
type Performing = Pin<Box<dyn Future<Output = Option<Performed>> + Send>>;

/// What is under way.
#[derive(Default)]
pub(super) struct Running {
    /// Settles in the order asked, which is also that of the acknowledgements. `None` while there is no telemetry: a quiet
    /// connection keeps no queue.
    telemetry: Option<FuturesOrdered<Performing>>,
    others: JoinSet<Performed>,
    settled: Settled,
}

/// What has come to its end since the last look.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) replies: Vec<Performed>,
    /// Whether something panicked; there is no reply to it.
    pub(super) crashed: bool,
}

impl Running {
    /// Begins to have `ask` performed; never waits.
    pub(super) async fn begin(&mut self, door: &Door, caller: &Arc<Caller>, ask: Ask) {
        let Ask { id, operation, lane, token } = ask;
        let (door, mut caller) = (door.clone(), Arc::clone(caller));
        if token.is_some() {
            Arc::make_mut(&mut caller).evidence.token = token;
        }
        let performing = async move { (id, door.perform(&caller, operation).await) };
        match lane {
            Lane::Serial | Lane::Waiting => self.begin_other(performing),
            Lane::Telemetry => {
                let performing = AssertUnwindSafe(performing).catch_unwind();
                let performing =
                    performing.map(|ended| ended.inspect_err(|panic| note(panic_text(panic.as_ref()))).ok());
                self.telemetry.get_or_insert_default().push_back(Box::pin(performing));
                // Whatever the task has already done in its turn: a message that is put off has not taken its place.
                let once = poll_fn(|cx| {
                    self.poll_telemetry(cx);
                    Poll::Ready(())
                });
                unconstrained(once).await;
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the set is the connection's own: it looks at each task's end")]
    fn begin_other(&mut self, performing: impl Future<Output = Performed> + Send + 'static) {
        self.others.spawn(performing);
    }

    /// Whether nothing is under way, or waits to be taken by [`Self::settled`].
    pub(super) fn is_empty(&self) -> bool {
        self.telemetry.is_none() && self.others.is_empty() && self.settled.is_empty()
    }

    /// Waits until something has come to its end, and takes all that has. Dropping the future loses nothing.
    pub(super) async fn settled(&mut self) -> Settled {
        poll_fn(|cx| {
            self.poll_others(cx);
            self.poll_telemetry(cx);
            match self.settled.is_empty() {
                true => Poll::Pending,
                false => Poll::Ready(std::mem::take(&mut self.settled)),
            }
        })
        .await
    }

    fn poll_others(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(ended)) = self.others.poll_join_next(cx) {
            match ended {
                Ok(performed) => self.settled.replies.push(performed),
                Err(error) => {
                    note(&error.to_string());
                    self.settled.crashed = true;
                }
            }
        }
    }

    fn poll_telemetry(&mut self, cx: &mut Context<'_>) {
        let Some(telemetry) = &mut self.telemetry else { return };
        loop {
            match Pin::new(&mut *telemetry).poll_next(cx) {
                Poll::Ready(Some(Some(performed))) => self.settled.replies.push(performed),
                Poll::Ready(Some(None)) => self.settled.crashed = true,
                Poll::Ready(None) => break self.telemetry = None,
                Poll::Pending => break,
            }
        }
    }
}

/// Logs a panic; the connection is closed for it.
fn note(panic: &str) {
    tracing::error!(panic, "what a connection asked for panicked");
}

impl Settled {
    fn is_empty(&self) -> bool {
        self.replies.is_empty() && !self.crashed
    }
}
