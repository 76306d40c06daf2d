//! Promises of [`crate::ports::TelemetryLog`].

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use domain::ids::HubKey;
use domain::message::{Draft, Message, Origin, SystemProperties};
use domain::operation::session::AuthenticationMethod;

use super::Backend;
use super::registration::join_all;
use super::sample::{NOON, after, device, module};
use crate::ports::{Position, ReadFrom, StoredMessage, TelemetryLog};

const HUB: HubKey = HubKey(1);

pub fn message(hub: HubKey, partition: u16, body: &str) -> Message {
    Message {
        hub,
        partition,
        sender: device("dev"),
        generation: "1".to_owned(),
        origin: Origin::Telemetry(AuthenticationMethod::DeviceKey),
        model_id: None,
        draft: Draft { body: Bytes::from(body.to_owned()), ..Draft::default() },
    }
}

async fn append(log: &Arc<dyn TelemetryLog>, partition: u16, body: &str) -> Position {
    log.append(message(HUB, partition, body)).await.unwrap()
}

async fn bodies(log: &Arc<dyn TelemetryLog>, partition: u16, from: ReadFrom) -> Vec<String> {
    let read = log.read(HUB, partition, from, 1_000).await.unwrap();
    read.iter().map(|it| String::from_utf8(it.message.draft.body.to_vec()).unwrap()).collect()
}

pub async fn a_message_comes_back_whole(backend: &Backend) {
    let wanted = Message {
        sender: module("dev", "m"),
        origin: Origin::Telemetry(AuthenticationMethod::X509),
        model_id: Some("dtmi:com:example;1".to_owned()),
        draft: Draft {
            body: Bytes::from_static(&[0, 255, 10]),
            system: SystemProperties { message_id: Some("m1".to_owned()), ..SystemProperties::default() },
            properties: vec![("b".to_owned(), Some("1".to_owned())), ("a".to_owned(), None)],
        },
        ..message(HUB, 3, "")
    };
    let position = backend.telemetry.append(wanted.clone()).await.unwrap();
    let read = backend.telemetry.read(HUB, 3, ReadFrom::Start, 10).await.unwrap();
    let [StoredMessage { position: at, enqueued_at, message }] = &read[..] else { panic!("{read:?}") };
    assert_eq!((*at, *enqueued_at, &**message), (position, NOON, &wanted));
}

pub async fn messages_that_are_appended_together_stand_together_and_in_order(backend: &Backend) {
    let log = &backend.telemetry;
    log.append_all(Vec::new()).await.unwrap();
    assert_eq!(log.bounds(HUB, 0).await.unwrap(), None);
    let batch = |name: &str| (0..3).map(|number| message(HUB, 0, &format!("{name}{number}"))).collect();
    let calls = ["a", "b", "c"].into_iter().map(|name| log.append_all(batch(name))).collect();
    for done in join_all(calls).await {
        done.unwrap();
    }
    append(log, 0, "d").await;
    let expected = ["a0", "a1", "a2", "b0", "b1", "b2", "c0", "c1", "c2", "d"];
    assert_eq!(bodies(log, 0, ReadFrom::Start).await, expected);
    log.append_all(vec![message(HUB, 1, "one"), message(HUB, 2, "other")]).await.unwrap();
    assert_eq!(bodies(log, 1, ReadFrom::Start).await, ["one"]);
    assert_eq!(bodies(log, 2, ReadFrom::Start).await, ["other"]);
}

pub async fn positions_rise_from_zero_in_each_partition(backend: &Backend) {
    let log = &backend.telemetry;
    assert_eq!(log.bounds(HUB, 0).await.unwrap(), None);
    let mut last = None;
    for sequence in 0..5 {
        let position = append(log, 0, "body").await;
        assert_eq!(position.sequence, sequence);
        assert!(last.is_none_or(|last| position.offset > last), "{position:?}");
        last = Some(position.offset);
    }
    assert_eq!(append(log, 1, "other").await, Position { sequence: 0, offset: 0 });
    let elsewhere = log.append(message(HubKey(2), 0, "other hub")).await.unwrap();
    assert_eq!(elsewhere, Position { sequence: 0, offset: 0 });
    let (oldest, newest) = log.bounds(HUB, 0).await.unwrap().unwrap();
    assert_eq!((oldest.sequence, newest.sequence, Some(newest.offset)), (0, 4, last));
}

pub async fn readers_start_where_they_ask_to(backend: &Backend) {
    let log = &backend.telemetry;
    let mut positions = Vec::new();
    for (number, body) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        backend.clock.set(after(10 * number as u64));
        positions.push(append(log, 0, body).await);
    }
    let cases = [
        ("start", ReadFrom::Start, "abcde"),
        ("end", ReadFrom::End, ""),
        ("after the first", ReadFrom::AfterSequence(0), "bcde"),
        ("after the last", ReadFrom::AfterSequence(4), ""),
        ("after what is not there yet", ReadFrom::AfterSequence(u64::MAX), ""),
        ("after an offset", ReadFrom::AfterOffset(positions[1].offset), "cde"),
        ("between two offsets", ReadFrom::AfterOffset(positions[1].offset + 1), "cde"),
        ("after the last offset", ReadFrom::AfterOffset(positions[4].offset), ""),
        ("before all times", ReadFrom::AfterTime(NOON.minus(Duration::from_secs(1))), "abcde"),
        ("at a time", ReadFrom::AfterTime(after(20)), "de"),
        ("between two times", ReadFrom::AfterTime(after(19)), "cde"),
        ("after all times", ReadFrom::AfterTime(after(40)), ""),
    ];
    for (name, from, expected) in cases {
        assert_eq!(bodies(log, 0, from).await.concat(), expected, "{name}");
    }
    let two = log.read(HUB, 0, ReadFrom::AfterSequence(0), 2).await.unwrap();
    assert_eq!(two.iter().map(|it| it.position).collect::<Vec<_>>(), positions[1..3]);
    assert!(log.read(HUB, 0, ReadFrom::Start, 0).await.unwrap().is_empty());
    assert!(log.read(HubKey(9), 0, ReadFrom::Start, 9).await.unwrap().is_empty());
}

pub async fn a_clock_that_is_put_back_does_not_put_messages_before_earlier_ones(backend: &Backend) {
    let log = &backend.telemetry;
    append(log, 0, "a").await;
    backend.clock.set(NOON.minus(Duration::from_secs(500)));
    append(log, 0, "b").await;
    let read = log.read(HUB, 0, ReadFrom::Start, 9).await.unwrap();
    assert_eq!(read.iter().map(|it| it.enqueued_at).collect::<Vec<_>>(), [NOON, NOON]);
}

pub async fn what_is_answered_wakes_readers_of_its_hub_and_no_others(backend: &Backend) {
    let log = &backend.telemetry;
    let (mut wakes, others) = (log.appended(HUB), log.appended(HubKey(HUB.0 + 1)));
    append(log, 0, "a").await;
    assert!(wakes.has_changed().unwrap());
    wakes.mark_unchanged();
    append(log, 1, "b").await;
    assert!(wakes.has_changed().unwrap());
    assert!(!others.has_changed().unwrap());
    log.forget_hub(HUB);
    assert!(wakes.has_changed().is_err(), "nothing will come");
}

pub async fn messages_sent_at_once_all_arrive_in_the_order_of_the_calls(backend: &Backend) {
    let log = &backend.telemetry;
    let (mut stored, mut waiting) = (Vec::new(), Vec::new());
    for number in 0..600_u16 {
        // More than may wait at once, and small ones that would fit where a large one waits.
        let filler = if number % 3 == 0 { "x".repeat(domain::message::MESSAGE_BYTES_MAX - 8) } else { String::new() };
        let message = message(HUB, number % 2, &format!("{number} {filler}"));
        let mut append = Box::pin(async move { (number, log.append(message).await.unwrap().sequence) });
        let begun = poll_fn(|context| Poll::Ready(append.as_mut().poll(context)));
        match tokio::task::unconstrained(begun).await {
            Poll::Ready(done) => stored.push(done),
            Poll::Pending => waiting.push(append),
        }
    }
    // Who came last is heard first from here on, and still comes last.
    waiting.reverse();
    stored.extend(join_all(waiting).await);
    stored.sort_unstable();
    let expected: Vec<(u16, u64)> = (0..600).map(|number| (number, u64::from(number / 2))).collect();
    assert_eq!(stored, expected);
}

pub async fn what_has_passed_its_time_is_hidden(backend: &Backend) {
    let log = &backend.telemetry;
    log.set_retention(HUB, Duration::from_secs(60));
    append(log, 0, "a").await;
    backend.clock.set(after(50));
    append(log, 0, "b").await;
    assert_eq!(bodies(log, 0, ReadFrom::Start).await, ["a", "b"]);
    backend.clock.set(after(61));
    assert_eq!(bodies(log, 0, ReadFrom::Start).await, ["b"]);
    assert_eq!(bodies(log, 0, ReadFrom::AfterTime(NOON.minus(Duration::from_secs(9)))).await, ["b"]);
    let (oldest, newest) = log.bounds(HUB, 0).await.unwrap().unwrap();
    assert_eq!((oldest.sequence, newest.sequence), (1, 1));
    backend.clock.set(after(200));
    assert_eq!(log.bounds(HUB, 0).await.unwrap(), None);
    assert!(bodies(log, 0, ReadFrom::AfterSequence(0)).await.is_empty());
    assert_eq!(append(log, 0, "c").await.sequence, 2);
    assert_eq!(bodies(log, 0, ReadFrom::Start).await, ["c"]);
}

pub async fn a_forgotten_hub_has_no_messages(backend: &Backend) {
    let log = &backend.telemetry;
    for number in 0..1_200 {
        append(log, number % 4, "x").await;
    }
    log.append(message(HubKey(2), 0, "stays")).await.unwrap();
    log.forget_hub(HUB);
    // What was on its way when the hub was deleted is stored, disturbs nobody and is not seen.
    append(log, 0, "late").await;
    // Nor does what comes late to be known change it.
    log.set_retention(HUB, Duration::from_hours(24));
    for partition in 0..4 {
        assert_eq!(log.bounds(HUB, partition).await.unwrap(), None);
        assert!(log.read(HUB, partition, ReadFrom::Start, 9).await.unwrap().is_empty());
    }
    assert_eq!(log.read(HubKey(2), 0, ReadFrom::Start, 9).await.unwrap().len(), 1);
}

pub async fn large_messages_come_in_bounded_pages(backend: &Backend) {
    let log = &backend.telemetry;
    let body = "x".repeat(domain::message::MESSAGE_BYTES_MAX);
    for _ in 0..40 {
        append(log, 0, &body).await;
    }
    let mut read = 0;
    let mut from = ReadFrom::Start;
    loop {
        let page = log.read(HUB, 0, from, 1_000).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() < 40, "a page of {} large messages", page.len());
        read += page.len();
        from = ReadFrom::AfterSequence(last.position.sequence);
    }
    assert_eq!(read, 40);
}
