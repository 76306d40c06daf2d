//! The bounded queue through which a connection is told what it did not ask for.
//!
//! A mailbox never loses a push silently: one that does not fit cuts the connection off, so that the device comes back
//! and reads its twin afresh (`rules.md` 12). A cut-off overtakes whatever is queued. That messages wait is said once,
//! however often it is pushed: it is a wake-up, and what it is about lies in the store.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use domain::operation::Push;
use domain::operation::session::CutOff;

/// Pushes waiting for one connection, calls of methods not counted; more cut it off.
pub const PUSHES_WAITING_MAX: usize = 64;

/// The end that belongs to the connection.
#[derive(Debug)]
pub struct Mailbox(Arc<Shared>);

/// The end that belongs to the directory.
#[derive(Clone, Debug)]
pub struct Slot(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Empty most of the time; an empty queue holds no memory.
    queue: VecDeque<Push>,
    /// Whether [`Push::MessagesWaiting`] was pushed and not given out.
    messages_wait: bool,
    cut: Option<CutOff>,
    /// Whoever waits for the next push.
    waker: Option<Waker>,
}

impl State {
    /// Drops calls of methods that nobody waits for.
    fn forget_unawaited(&mut self) -> &mut Self {
        self.queue.retain(|push| !matches!(push, Push::Method(request) if !request.is_awaited()));
        self
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mailbox and its slot.
pub fn mailbox() -> (Slot, Mailbox) {
    let shared = Arc::new(Shared::default());
    (Slot(Arc::clone(&shared)), Mailbox(shared))
}

impl Slot {
    /// Queues `push`, or cuts the connection off if the queue is full. Calls of methods, whose number is bounded by those
    /// who wait for them, are dropped when nobody waits any more.
    pub fn push(&self, push: Push) {
        let mut state = self.0.state();
        if state.cut.is_some() {
            return;
        }
        let others =
            state.forget_unawaited().queue.iter().filter(|waiting| !matches!(waiting, Push::Method(_))).count();
        if matches!(push, Push::MessagesWaiting) {
            state.messages_wait = true;
        } else if others >= PUSHES_WAITING_MAX && !matches!(push, Push::Method(_)) {
            state.cut = Some(CutOff::Overrun);
            state.queue = VecDeque::new();
        } else {
            state.queue.push_back(push);
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends the connection; what is queued is dropped. The first reason stays.
    pub fn cut(&self, reason: CutOff) {
        let mut state = self.0.state();
        state.cut.get_or_insert(reason);
        state.queue = VecDeque::new();
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Mailbox {
    /// The next push; waits for one. After a [`Push::CutOff`] only that is ever given again. Safe to abandon.
    pub async fn next(&self) -> Push {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next push; without one, wakes the caller when there is. The latest caller alone is woken.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Push> {
        let mut state = self.0.state();
        if let Some(push) = state.take() {
            return Poll::Ready(push);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The next push, if there is one.
    pub fn try_next(&self) -> Option<Push> {
        self.0.state().take()
    }
}

impl State {
    fn take(&mut self) -> Option<Push> {
        if let Some(reason) = self.cut {
            return Some(Push::CutOff(reason));
        }
        let push = self.forget_unawaited().queue.pop_front();
        if self.queue.is_empty() && self.queue.capacity() > 0 {
            self.queue = VecDeque::new();
        }
        push.or_else(|| std::mem::take(&mut self.messages_wait).then_some(Push::MessagesWaiting))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::operation::twin::DesiredChange;

    use super::*;

    fn change(version: u64) -> Push {
        Push::Desired(DesiredChange { version, patch: Arc::default() })
    }

    #[test]
    fn pushes_come_in_order_until_the_cut_overtakes_them() {
        let (slot, mailbox) = mailbox();
        slot.push(change(2));
        slot.push(change(3));
        assert!(matches!(mailbox.try_next(), Some(Push::Desired(DesiredChange { version: 2, .. }))));
        slot.cut(CutOff::Disabled);
        slot.cut(CutOff::Deleted);
        slot.push(change(4));
        for _ in 0..2 {
            assert!(matches!(mailbox.try_next(), Some(Push::CutOff(CutOff::Disabled))));
        }
    }

    #[test]
    fn a_full_mailbox_cuts_off_instead_of_skipping() {
        let (slot, mailbox) = mailbox();
        for version in 0..=PUSHES_WAITING_MAX as u64 {
            slot.push(change(version));
        }
        assert!(matches!(mailbox.try_next(), Some(Push::CutOff(CutOff::Overrun))));
    }

    #[test]
    fn waiting_messages_are_told_once_and_never_fill_the_mailbox() {
        let (slot, mailbox) = mailbox();
        for _ in 0..=PUSHES_WAITING_MAX {
            slot.push(Push::MessagesWaiting);
        }
        slot.push(change(2));
        assert!(matches!(mailbox.try_next(), Some(Push::Desired(_))));
        assert!(matches!(mailbox.try_next(), Some(Push::MessagesWaiting)));
        assert!(mailbox.try_next().is_none());
    }

    #[tokio::test]
    async fn waiting_ends_with_the_push() {
        let (slot, mailbox) = mailbox();
        let (push, ()) = tokio::join!(mailbox.next(), async { slot.push(change(9)) });
        assert!(matches!(push, Push::Desired(DesiredChange { version: 9, .. })));
    }
}
