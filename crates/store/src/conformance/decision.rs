//! Promises of [`crate::ports::DecisionStore`].

use domain::decision::{Cause, Decision, OutsideText};

use super::sample::{NOON, admitted, after, individual, make_service, operation, proven, refused, tracking};
use super::{Backend, Done as _};

fn at(decision: Decision, seconds: u64) -> Decision {
    Decision { at: after(seconds), ..decision }
}

pub async fn a_refusal_is_found_at_once(backend: &Backend) {
    let refusal = refused(1, "Dev-1", Cause::WrongKey);
    backend.store.record_refusal(refusal.clone());
    assert_eq!(backend.store.find_decision(tracking(1)).await.unwrap(), Some(refusal.clone()));
    assert_eq!(backend.store.list_decisions("dEV-1", 10).await.unwrap(), [refusal]);
    assert_eq!(backend.store.find_decision(tracking(2)).await.unwrap(), None);
    assert_eq!(backend.store.lost_refusals(), 0);
}

pub async fn equal_refusals_within_a_minute_are_one_with_a_count(backend: &Backend) {
    let first = refused(1, "dev-1", Cause::WrongKey);
    let cases = [
        ("again", at(refused(2, "DEV-1", Cause::WrongKey), 59), true),
        (
            "from the same network",
            Decision { peer: "192.0.2.200".parse().unwrap(), ..refused(3, "dev-1", Cause::WrongKey) },
            true,
        ),
        ("a minute later", at(refused(4, "dev-1", Cause::WrongKey), 60), false),
        ("for another reason", refused(5, "dev-1", Cause::DisabledEntry), false),
        ("of another device", refused(6, "dev-2", Cause::WrongKey), false),
        (
            "from elsewhere",
            Decision { peer: "198.51.100.1".parse().unwrap(), ..refused(7, "dev-1", Cause::WrongKey) },
            false,
        ),
    ];
    backend.store.record_refusal(first.clone());
    for (_, refusal, _) in &cases {
        backend.store.record_refusal(refusal.clone());
    }
    let counted = Decision { repeats: 2, ..first };
    assert_eq!(backend.store.find_decision(tracking(1)).await.unwrap(), Some(counted.clone()));
    for (name, refusal, is_merged) in cases {
        let found = backend.store.find_decision(refusal.tracking).await.unwrap();
        assert_eq!(found, Some(if is_merged { counted.clone() } else { refusal }), "{name}");
    }
}

pub async fn admits_and_refusals_are_listed_together_newest_first(backend: &Backend) {
    let store = &backend.store;
    let service = make_service(&**store, "dps").await;
    let entry = store.create_enrollment(service, individual("dev-1", 1), NOON).await.unwrap().done();
    let device = proven(service, "dev-1", &entry);
    let admit = at(admitted(1, "dev-1"), 10);
    store.accept_registration(&device, operation(1), None, admit.clone(), after(10)).await.unwrap();
    let (early, late) =
        (at(refused(2, "dev-1", Cause::NotEnrolled), 5), at(refused(3, "dev-1", Cause::DisabledEntry), 20));
    store.record_refusal(early.clone());
    store.record_refusal(late.clone());
    store.record_refusal(refused(4, "dev-11", Cause::NotEnrolled));
    assert_eq!(store.find_decision(tracking(1)).await.unwrap(), Some(admit.clone()));
    assert_eq!(store.list_decisions("DEV-1", 10).await.unwrap(), [late.clone(), admit, early]);
    assert_eq!(store.list_decisions("dev-1", 1).await.unwrap(), [late]);
    assert_eq!(store.list_decisions("nobody", 10).await.unwrap(), []);
}

pub async fn text_from_outside_is_found_as_the_device_wrote_it(backend: &Backend) {
    let text = "dev\\1\u{1b}[31m\n";
    let refusal = Decision { registration_id: OutsideText::new(text), ..refused(1, "x", Cause::InvalidRegistrationId) };
    backend.store.record_refusal(refusal.clone());
    assert_eq!(backend.store.list_decisions(text, 10).await.unwrap(), [refusal]);
}

pub async fn a_flood_of_unknown_id_scopes_is_lost_and_counted_and_evicts_no_known_device(backend: &Backend) {
    const FLOOD: u64 = 20_000;
    let known = refused(1, "dev-1", Cause::WrongKey);
    backend.store.record_refusal(known.clone());
    for seed in 2..2 + FLOOD {
        let stranger = refused(seed, &format!("stranger-{seed}"), Cause::WrongIdScope);
        backend.store.record_refusal(Decision { service: None, ..stranger });
    }
    let late = refused(FLOOD + 9, "dev-2", Cause::WrongKey);
    backend.store.record_refusal(late.clone());
    assert_eq!(backend.store.list_decisions("dev-1", 10).await.unwrap(), [known]);
    assert_eq!(backend.store.list_decisions("dev-2", 10).await.unwrap(), [late]);
    let mut kept = 0;
    for seed in (2..2 + FLOOD).step_by(10) {
        kept += u64::from(backend.store.find_decision(tracking(seed)).await.unwrap().is_some());
    }
    assert!(kept > 0 && kept <= 800, "{kept} of each ten strangers are kept");
}
