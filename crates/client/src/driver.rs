//! Carries bytes and the time to one end of a connection, whatever it speaks, driven by whoever awaits it.
//!
//! Nothing here knows a packet or a frame. Start at [`Driver::next`].

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::wire::{Wire, WireError};

/// Time for the answer to one request.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a goodbye to be written and the server to close.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// One end of a connection without its socket.
pub(crate) trait Machine {
    /// What the other end does.
    type Event;

    fn poll_event(&mut self) -> Option<Self::Event>;
    fn is_closed(&self) -> bool;
    fn wants_input(&self) -> bool;
    fn handle_input(&mut self, bytes: &[u8], now: std::time::Instant);
    fn handle_eof(&mut self);
    fn handle_written(&mut self, count: usize, now: std::time::Instant);
    fn handle_timeout(&mut self, now: std::time::Instant);
    fn poll_timeout(&self) -> Option<std::time::Instant>;
    fn output(&mut self) -> &[u8];
}

/// Makes a machine of a connection whose methods are called alike; how it takes input is said beside.
macro_rules! machine {
    ($connection:ty, $event:ty, $handle_input:expr) => {
        impl $crate::driver::Machine for $connection {
            type Event = $event;

            fn poll_event(&mut self) -> Option<$event> {
                self.poll_event()
            }

            fn is_closed(&self) -> bool {
                self.is_closed()
            }

            fn wants_input(&self) -> bool {
                self.wants_input()
            }

            fn handle_input(&mut self, bytes: &[u8], now: std::time::Instant) {
                $handle_input(self, bytes, now);
            }

            fn handle_eof(&mut self) {
                self.handle_eof();
            }

            fn handle_written(&mut self, count: usize, now: std::time::Instant) {
                self.handle_written(count, now);
            }

            fn handle_timeout(&mut self, now: std::time::Instant) {
                self.handle_timeout(now);
            }

            fn poll_timeout(&self) -> Option<std::time::Instant> {
                self.poll_timeout()
            }

            fn output(&mut self) -> &[u8] {
                <$connection>::output(self)
            }
        }
    };
}

pub(crate) use machine;

/// An open connection. Dropping it closes the socket without a goodbye.
pub(crate) struct Driver<M> {
    wire: Wire,
    /// What speaks; whatever it is told leaves with the next await.
    pub(crate) machine: M,
    /// Something was handed to the wire and may still be on its way down.
    unflushed: bool,
    /// Made with the first deadline.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<M: Machine> Driver<M> {
    pub(crate) const fn new(wire: Wire, machine: M) -> Self {
        Self { wire, machine, unflushed: false, sleep: None }
    }

    /// What the server does next; `None` if the connection is over and that was said. Writes, reads and keeps the
    /// connection alive meanwhile; dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<M::Event>, WireError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Writes all output.
    pub(crate) async fn flush(&mut self) -> Result<(), WireError> {
        in_time("what is being sent", ANSWER_TIMEOUT, poll_fn(|cx| self.poll_flush(cx))).await
    }

    /// Writes the goodbye that is in the output, and waits for the server to close. One that fails changes nothing for
    /// anybody.
    pub(crate) async fn close(mut self) {
        let closing = async {
            self.flush().await?;
            poll_fn(|cx| self.wire.poll_close(cx)).await.map_err(WireError::Io)?;
            while poll_fn(|cx| self.wire.poll_read(cx, |_| ())).await.map_err(WireError::Io)? > 0 {}
            Ok::<(), WireError>(())
        };
        match timeout(CLOSE_TIMEOUT, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "goodbye failed"),
            Err(_) => tracing::debug!("the server did not close after a goodbye"),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<M::Event>, WireError>> {
        loop {
            if let Some(event) = self.machine.poll_event() {
                return Poll::Ready(Ok(Some(event)));
            }
            if self.machine.is_closed() {
                return Poll::Ready(Ok(None));
            }
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            if self.machine.wants_input() {
                let Self { wire, machine, .. } = self;
                match wire.poll_read(cx, |bytes| machine.handle_input(bytes, Instant::now().into_std())) {
                    Poll::Ready(Ok(0)) => self.machine.handle_eof(),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(WireError::Io(error))),
                    Poll::Pending if self.poll_time(cx) => {}
                    Poll::Pending => return Poll::Pending,
                }
            } else if !self.poll_time(cx) {
                return Poll::Pending;
            }
        }
    }

    /// Writes output until there is none or the socket is full.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        loop {
            let output = self.machine.output();
            if output.is_empty() {
                break;
            }
            match self.wire.poll_write(cx, output) {
                Poll::Ready(Ok(count)) => {
                    self.machine.handle_written(count, Instant::now().into_std());
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(WireError::Io(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.unflushed {
            match self.wire.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(WireError::Io(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a deadline has passed and was dealt with.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.machine.poll_timeout() else { return false };
        let deadline = Instant::from_std(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        let is_due = sleep.as_mut().poll(cx).is_ready();
        if is_due {
            self.machine.handle_timeout(Instant::now().into_std());
        }
        is_due
    }
}

/// What `waiting` finds, unless that takes longer than `after`.
pub(crate) async fn in_time<T, E: From<WireError>>(
    what: &'static str,
    after: Duration,
    waiting: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let waited = timeout(after, waiting).await;
    waited.unwrap_or_else(|_| Err(WireError::Timeout { what, after }.into()))
}
