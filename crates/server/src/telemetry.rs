//! The telemetry of a hub, sent to an operator while it comes.
//!
//! A slow reader holds up itself alone: it is read from the log no faster than it takes. Start at [`stream`].

use bytes::Bytes;
use dialect::management::telemetry::{Wanted, show};
use service::TelemetryReader;

use crate::http::{Body, BodySender};
use crate::shutdown::Tasks;

/// Pieces that wait for a slow reader, each of up to one batch of the log.
const PIECES_WAITING_MAX: usize = 2;

/// A body of what `reader` reads from here on, until the reader goes, the hub is gone or the server drains.
pub fn stream(reader: TelemetryReader, wanted: Wanted, tasks: &Tasks) -> Body {
    let (sender, body) = Body::in_pieces(PIECES_WAITING_MAX);
    let mut drain = tasks.drain_signal();
    tasks.spawn("telemetry-reader", async move {
        tokio::select! {
            () = feed(reader, &wanted, &sender) => {}
            () = sender.client_gone() => {}
            () = drain.begun() => {}
        }
    });
    body
}

async fn feed(mut reader: TelemetryReader, wanted: &Wanted, sender: &BodySender) {
    loop {
        let batch = match reader.next().await {
            Ok(Some(batch)) => batch,
            Ok(None) => return,
            Err(failure) => {
                tracing::warn!(tracking = %failure.tracking, reason = %failure.public, "telemetry could not be read");
                return;
            }
        };
        let mut lines = Vec::new();
        for stored in batch.iter().filter(|stored| wanted.takes(&stored.message)) {
            let position = (stored.position.sequence, stored.position.offset);
            lines.extend_from_slice(show(&stored.message, position, stored.enqueued_at).to_string().as_bytes());
            lines.push(b'\n');
        }
        if !lines.is_empty() && sender.send(Bytes::from(lines)).await.is_err() {
            return;
        }
    }
}
