//! Who was let in over a connection, each with what it is told unasked: one device over MQTT, any number of devices and
//! back-end programs over AMQP.
//!
//! Who has nothing to be told costs nothing: a mailbox is looked at when it has woken its seat, and whoever was told
//! something goes to the end of the line. Start at [`Seated`].

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use domain::operation::Push;
use service::Mailbox;

use super::guest::Guest;

/// Who was let in and has not left.
#[derive(Default)]
pub(super) struct Seated {
    /// By number; `None` where somebody has left.
    seats: Vec<Option<Seat>>,
    /// How many of them have a mailbox.
    listening: usize,
    line: Arc<Line>,
}

struct Seat {
    guest: Guest,
    /// `None` once the guest is cut off: nothing may be delivered after that.
    mailbox: Option<Mailbox>,
    bell: Arc<Bell>,
}

/// The seats whose mailboxes are to be looked at, in turn.
#[derive(Default)]
struct Line(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// Empty most of the time; an empty queue holds no memory.
    numbers: VecDeque<usize>,
    /// Whoever waits for the next push.
    waker: Option<Waker>,
}

/// Puts a seat into the line when its mailbox rings.
struct Bell {
    line: Arc<Line>,
    number: usize,
    is_in_line: AtomicBool,
}

impl Seated {
    /// Somebody was let in.
    pub(super) fn enter(&mut self, guest: Guest, mailbox: Option<Mailbox>) {
        let number = self.seats.iter().position(Option::is_none).unwrap_or(self.seats.len());
        let bell = Arc::new(Bell { line: Arc::clone(&self.line), number, is_in_line: AtomicBool::new(false) });
        self.listening += usize::from(mailbox.is_some());
        bell.ring();
        let seat = Some(Seat { guest, mailbox, bell });
        if let Some(free) = self.seats.get_mut(number) {
            *free = seat;
        } else {
            if self.seats.is_empty() {
                // Most connections are one device's.
                self.seats.reserve_exact(1);
            }
            self.seats.push(seat);
        }
    }

    /// The session lets somebody go, and keeps the connection.
    pub(super) fn leave(&mut self, guest: &Guest) {
        let is_leaving = |seat: &mut Seat| seat.guest.is_same(guest);
        if let Some(left) = self.seats.iter_mut().find_map(|seat| seat.take_if(is_leaving)) {
            self.listening -= usize::from(left.mailbox.is_some());
        }
    }

    /// Whether nobody is told anything.
    pub(super) const fn is_deaf(&self) -> bool {
        self.listening == 0
    }

    /// The next thing that anybody is told; waits for one. Safe to abandon.
    pub(super) async fn next_push(&mut self) -> (Guest, Push) {
        poll_fn(|cx| self.poll_push(cx)).await
    }

    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<(Guest, Push)> {
        while let Some(number) = self.line.next(cx) {
            let Some(seat) = self.seats.get_mut(number).and_then(Option::as_mut) else { continue };
            let Some(push) = seat.poll_push() else { continue };
            if seat.mailbox.is_none() {
                self.listening -= 1;
            }
            return Poll::Ready((seat.guest.clone(), push));
        }
        Poll::Pending
    }

    /// Who has still to leave.
    pub(super) fn into_guests(self) -> impl Iterator<Item = Guest> {
        self.seats.into_iter().flatten().map(|seat| seat.guest)
    }
}

impl Seat {
    /// What the guest is told next. With something, it goes to the end of the line; without, once there is.
    fn poll_push(&mut self) -> Option<Push> {
        // Before the look, so that what comes behind it rings.
        self.bell.is_in_line.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.bell));
        let Poll::Ready(push) = self.mailbox.as_ref()?.poll_next(&mut Context::from_waker(&waker)) else { return None };
        if matches!(push, Push::CutOff(_)) {
            self.mailbox = None;
        } else {
            self.bell.ring();
        }
        Some(push)
    }
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next seat; without one, has the caller woken when there is.
    fn next(&self, cx: &Context<'_>) -> Option<usize> {
        let mut waiting = self.waiting();
        if let Some(number) = waiting.numbers.pop_front() {
            return Some(number);
        }
        waiting.numbers = VecDeque::new();
        if !waiting.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            waiting.waker = Some(cx.waker().clone());
        }
        None
    }
}

impl Bell {
    fn ring(&self) {
        if self.is_in_line.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut waiting = self.line.waiting();
        waiting.numbers.push_back(self.number);
        let waker = waiting.waker.take();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::{DeviceId, HubKey};
    use domain::operation::identity::IdentityName;
    use domain::operation::session::{AuthenticationMethod, ConnectedDevice, CutOff, Seat as SeatOf};
    use domain::operation::twin::DesiredChange;
    use service::{Slot, mailbox};

    use super::*;

    fn device(name: &str) -> Guest {
        Guest::Device(ConnectedDevice::seat(SeatOf {
            hub: HubKey(1),
            name: IdentityName::device(DeviceId::parse(name).unwrap()),
            generation: "1".into(),
            epoch: 1,
            authentication: AuthenticationMethod::DeviceKey,
            model_id: None,
        }))
    }

    fn name(guest: &Guest) -> String {
        match guest {
            Guest::Device(device) => device.name.to_string(),
            Guest::Backend(backend) => backend.number.to_string(),
        }
    }

    fn change(version: u64) -> Push {
        Push::Desired(DesiredChange { version, patch: Arc::default() })
    }

    fn enter(seated: &mut Seated, name: &str) -> (Guest, Slot) {
        let (device, (slot, mailbox)) = (device(name), mailbox());
        seated.enter(device.clone(), Some(mailbox));
        (device, slot)
    }

    /// Who is told something, in order, until nobody is.
    fn told(seated: &mut Seated) -> Vec<String> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut told = Vec::new();
        while let Poll::Ready((guest, _)) = seated.poll_push(&mut cx) {
            told.push(name(&guest));
        }
        told
    }

    #[test]
    fn the_devices_of_a_connection_are_told_in_turn() {
        let mut seated = Seated::default();
        let ((_, a), (_, b)) = (enter(&mut seated, "a"), enter(&mut seated, "b"));
        for version in 2..5 {
            a.push(change(version));
        }
        b.push(change(2));
        assert_eq!(told(&mut seated), ["a", "b", "a", "a"]);
        b.push(change(3));
        assert_eq!(told(&mut seated), ["b"]);
    }

    #[test]
    fn who_is_quiet_is_not_looked_at() {
        let mut seated = Seated::default();
        let slots: Vec<_> = (0..100).map(|number| enter(&mut seated, &format!("d{number}")).1).collect();
        assert_eq!(told(&mut seated), [""; 0]);
        slots[7].push(change(2));
        assert_eq!(seated.line.waiting().numbers, [7]);
        assert_eq!(told(&mut seated), ["d7"]);
        assert!(seated.line.waiting().numbers.is_empty());
    }

    #[test]
    fn after_a_cut_off_and_after_leaving_nothing_is_told() {
        let mut seated = Seated::default();
        let ((_, a), (left, b)) = (enter(&mut seated, "a"), enter(&mut seated, "b"));
        a.push(change(2));
        a.cut(CutOff::Disabled);
        assert_eq!(told(&mut seated), ["a"]);
        assert!(!seated.is_deaf());
        seated.leave(&left);
        b.push(change(2));
        assert_eq!((told(&mut seated), seated.is_deaf()), (Vec::new(), true));
        // The next one takes the seat, and is told what is its own.
        let (_, c) = enter(&mut seated, "c");
        c.push(change(2));
        assert_eq!(told(&mut seated), ["c"]);
        let here: Vec<String> = seated.into_guests().map(|guest| name(&guest)).collect();
        assert_eq!(here, ["a", "c"]);
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_what_comes_later() {
        let mut seated = Seated::default();
        let ((_, _a), (_, b)) = (enter(&mut seated, "a"), enter(&mut seated, "b"));
        let ((device, _), ()) = tokio::join!(seated.next_push(), async { b.push(change(9)) });
        assert_eq!(name(&device), "b");
    }
}
