//! Messages of one device are kept in the order in which it sent them, however many are under way at once.

use bytes::Bytes;
use client::device::DeviceEvent;
use domain::message::Draft;

use crate::ground::{connect_device, kept, start};

const MESSAGES: usize = 600;
const IN_FLIGHT: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_under_way_at_once_are_kept_in_the_order_sent() {
    let muster = start().await;
    let mut device = connect_device(&muster).await;
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < MESSAGES {
        while sent < MESSAGES && sent - acknowledged < IN_FLIGHT {
            let body = Bytes::from(sent.to_string());
            device.start_send(&Draft { body, ..Draft::default() }).expect("room for the message");
            sent += 1;
        }
        let event = device.next_event().await.expect("an acknowledgement");
        assert!(matches!(event, DeviceEvent::Acknowledged(_)), "{event:?}");
        acknowledged += 1;
    }

    let kept = kept(muster.service()).await;
    let bodies: Vec<_> = kept.iter().map(|message| String::from_utf8_lossy(&message.draft.body)).collect();
    assert_eq!(bodies, (0..MESSAGES).map(|number| number.to_string()).collect::<Vec<_>>());
    muster.stop().await;
}
