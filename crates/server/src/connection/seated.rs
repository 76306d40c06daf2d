//! The devices that a connection is, each with what it is told unasked: one over MQTT, any number over AMQP. Start at
//! [`Seated`].

use std::future::poll_fn;
use std::task::{Context, Poll};

use domain::operation::Push;
use domain::operation::session::ConnectedDevice;
use service::Mailbox;

/// Who was let in and has not left.
#[derive(Default)]
pub(super) struct Seated(Vec<Seat>);

struct Seat {
    device: ConnectedDevice,
    /// `None` once the device is cut off: nothing may be delivered after that.
    mailbox: Option<Mailbox>,
}

impl Seated {
    /// A device was let in.
    pub(super) fn enter(&mut self, device: ConnectedDevice, mailbox: Option<Mailbox>) {
        self.0.reserve_exact(1);
        self.0.push(Seat { device, mailbox });
    }

    /// The session lets a device go, and keeps the connection.
    pub(super) fn leave(&mut self, device: &ConnectedDevice) {
        self.0.retain(|seat| !seat.device.is_same_seat(device));
    }

    /// Whether nobody is told anything.
    pub(super) fn is_deaf(&self) -> bool {
        self.0.iter().all(|seat| seat.mailbox.is_none())
    }

    /// The next thing that any of the devices is told; waits for one. Safe to abandon.
    pub(super) async fn next_push(&mut self) -> (ConnectedDevice, Push) {
        poll_fn(|cx| self.0.iter_mut().find_map(|seat| seat.poll_push(cx)).map_or(Poll::Pending, Poll::Ready)).await
    }

    /// Who has still to leave.
    pub(super) fn into_devices(self) -> impl Iterator<Item = ConnectedDevice> {
        self.0.into_iter().map(|seat| seat.device)
    }
}

impl Seat {
    /// What the device is told next; without anything, has the caller woken when there is.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Option<(ConnectedDevice, Push)> {
        let Poll::Ready(push) = self.mailbox.as_ref()?.poll_next(cx) else { return None };
        if matches!(push, Push::CutOff(_)) {
            self.mailbox = None;
        }
        Some((self.device.clone(), push))
    }
}
