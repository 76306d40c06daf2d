//! Promises of [`crate::ports::RouteStore`].

use std::time::Duration;

use domain::ids::{EndpointName, HubKey};
use domain::message::Message;

use super::sample::{NOON, make_hub};
use super::{Backend, telemetry};
use crate::ports::{Buried, GivenUp, Position, StoredMessage};

/// Messages that may be given up of an endpoint in these tests.
const MOST: u64 = 3;

fn endpoint(name: &str) -> EndpointName {
    EndpointName::parse(name).unwrap()
}

fn given_up(hub: HubKey, sequence: u64) -> GivenUp {
    let message = Message { hub, ..telemetry::message(hub, 1, &format!("body {sequence}")) };
    let position = Position { sequence, offset: sequence * 10 };
    let message = StoredMessage { position, enqueued_at: NOON, message: message.into() };
    GivenUp { message, reason: "it said no".to_owned(), attempts: 4 }
}

async fn bury(backend: &Backend, hub: HubKey, name: &str, sequence: u64) -> Buried {
    backend.store.give_up(hub, &endpoint(name), given_up(hub, sequence), (MOST, NOON)).await.unwrap()
}

/// Where the letters of an endpoint stood.
async fn letters(backend: &Backend, hub: HubKey, name: &str, only_due: bool) -> Vec<u64> {
    let letters = backend.store.dead_letters(hub, &endpoint(name), only_due, 10).await.unwrap();
    letters.iter().map(|letter| letter.place.sequence).collect()
}

pub async fn an_endpoint_begins_once_and_goes_on_where_it_was(backend: &Backend) {
    let (store, hub) = (&backend.store, make_hub(&*backend.store, "hub").await);
    let begun = store.begin_endpoint(hub, &endpoint("a"), vec![None, Some(7)]).await.unwrap();
    assert_eq!(begun, Some(vec![None, Some(7)]));
    store.advance_endpoint(hub, &endpoint("a"), 0, 3).await.unwrap();
    store.advance_endpoint(hub, &endpoint("A"), 1, 5).await.unwrap();
    let again = store.begin_endpoint(hub, &endpoint("a"), vec![Some(9), Some(9), Some(9)]).await.unwrap();
    assert_eq!(again, Some(vec![Some(3), Some(7), Some(9)]), "a cursor never goes back");
    let other = store.begin_endpoint(hub, &endpoint("b"), vec![Some(1)]).await.unwrap();
    assert_eq!(other, Some(vec![Some(1)]));
    assert_eq!(store.known_endpoints(hub).await.unwrap(), [endpoint("a"), endpoint("b")]);
    assert_eq!(store.begin_endpoint(HubKey(99), &endpoint("a"), vec![None]).await.unwrap(), None);
}

pub async fn an_endpoint_that_is_forgotten_begins_anew(backend: &Backend) {
    let (store, hub) = (&backend.store, make_hub(&*backend.store, "hub").await);
    store.begin_endpoint(hub, &endpoint("a"), vec![Some(7)]).await.unwrap();
    store.forget_endpoint(hub, &endpoint("a")).await.unwrap();
    assert!(store.known_endpoints(hub).await.unwrap().is_empty());
    assert_eq!(store.begin_endpoint(hub, &endpoint("a"), vec![Some(9)]).await.unwrap(), Some(vec![Some(9)]));
}

pub async fn a_message_that_is_given_up_is_kept_whole_and_passed_over(backend: &Backend) {
    let (store, hub) = (&backend.store, make_hub(&*backend.store, "hub").await);
    store.begin_endpoint(hub, &endpoint("a"), vec![None, None]).await.unwrap();
    assert_eq!(bury(backend, hub, "a", 5).await, Buried::Done);
    let told = store.begin_endpoint(hub, &endpoint("a"), vec![None, None]).await.unwrap();
    assert_eq!(told, Some(vec![None, Some(5)]));
    let kept = store.dead_letters(hub, &endpoint("a"), false, 10).await.unwrap();
    let [letter] = &kept[..] else { panic!("{kept:?}") };
    let expected = given_up(hub, 5);
    assert_eq!(*letter.message, *expected.message.message);
    assert_eq!((letter.place.sequence, letter.place.offset, letter.place.enqueued_at), (5, 50, NOON));
    assert_eq!((letter.reason.as_str(), letter.attempts, letter.at, letter.is_due), ("it said no", 4, NOON, false));
    assert_eq!(bury(backend, HubKey(99), "a", 1).await, Buried::NoHub);
}

pub async fn no_more_messages_are_given_up_than_may_be_kept(backend: &Backend) {
    let (store, hub) = (&backend.store, make_hub(&*backend.store, "hub").await);
    store.begin_endpoint(hub, &endpoint("a"), vec![None, None]).await.unwrap();
    for sequence in 0..MOST {
        assert_eq!(bury(backend, hub, "a", sequence).await, Buried::Done);
    }
    assert_eq!(bury(backend, hub, "a", MOST).await, Buried::Full);
    assert_eq!(bury(backend, hub, "b", MOST).await, Buried::Done, "each endpoint has its own bound");
    let told = store.begin_endpoint(hub, &endpoint("a"), vec![None, None]).await.unwrap();
    assert_eq!(told, Some(vec![None, Some(MOST - 1)]), "what is not kept apart is not passed over");
    assert_eq!(store.count_dead_letters(hub, &endpoint("a")).await.unwrap(), MOST);
}

pub async fn dead_letters_are_sent_again_when_asked_and_stay_if_refused(backend: &Backend) {
    let (store, hub) = (&backend.store, make_hub(&*backend.store, "hub").await);
    for sequence in [1, 2] {
        bury(backend, hub, "a", sequence).await;
    }
    assert!(letters(backend, hub, "a", true).await.is_empty());
    assert_eq!(store.replay_dead_letters(hub, &endpoint("a")).await.unwrap(), 2);
    assert_eq!(letters(backend, hub, "a", true).await, [1, 2]);
    let ids: Vec<u64> =
        store.dead_letters(hub, &endpoint("a"), true, 10).await.unwrap().iter().map(|letter| letter.id).collect();
    store.settle_dead_letter(ids[0], None).await.unwrap();
    store.settle_dead_letter(ids[1], Some("no again".to_owned())).await.unwrap();
    assert!(letters(backend, hub, "a", true).await.is_empty());
    let kept = store.dead_letters(hub, &endpoint("a"), false, 10).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].place.sequence, kept[0].reason.as_str(), kept[0].attempts), (2, "no again", 5));
}

pub async fn dead_letters_are_purged_piece_by_piece_and_with_their_hub(backend: &Backend) {
    let (store, hub) = (&backend.store, make_hub(&*backend.store, "hub").await);
    for sequence in [1, 2, 3] {
        bury(backend, hub, "a", sequence).await;
    }
    bury(backend, hub, "b", 4).await;
    assert_eq!(store.purge_dead_letters(hub, &endpoint("a"), 2).await.unwrap(), 2);
    assert_eq!(letters(backend, hub, "a", false).await, [3]);
    assert_eq!(store.purge_dead_letters(hub, &endpoint("a"), 2).await.unwrap(), 1);
    assert_eq!(store.purge_dead_letters(hub, &endpoint("a"), 2).await.unwrap(), 0);
    assert_eq!(letters(backend, hub, "b", false).await, [4]);

    // What a removed hub leaves is removed in time, by a thread of the backend.
    store.begin_endpoint(hub, &endpoint("b"), vec![None]).await.unwrap();
    store.delete_hub(hub).await.unwrap();
    let gone = async {
        while !store.known_endpoints(hub).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}
