//! When connected devices were last heard.
//!
//! The directory keeps it, and the store is told of many devices at once, so that no message costs a write. What was heard
//! in the last seconds before the process ends is not noted. Start at [`Service::run_activity`].

use domain::operation::session::Seat;

use crate::Service;

impl Service {
    /// A connected device sent a message, or read or wrote its twin.
    pub(crate) fn hear(&self, seat: &Seat) {
        self.0.directory.hear(seat, self.now());
    }

    /// Notes in the store who was heard since this was last called.
    pub async fn note_activity(&self) {
        let marks = self.0.directory.take_heard();
        if marks.is_empty() {
            return;
        }
        if let Err(error) = self.0.store.note_activity(marks).await {
            self.fail(error.into());
        }
    }

    /// Notes who was heard, from time to time, until the future is dropped.
    pub async fn run_activity(&self) {
        let mut ticks = tokio::time::interval(self.0.settings.activity_noted_every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.note_activity().await;
        }
    }
}
