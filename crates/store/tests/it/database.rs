//! What only a store in a database does: other processes at its database, and verbs that meet each other there.

use std::time::Duration;

use domain::ids::{HubKey, Precondition};
use domain::message::EventSource;
use domain::operation::session::Memory;
use domain::twin::ServiceChange;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use store::conformance::configuration::draft;
use store::conformance::event::telling;
use store::conformance::sample::{NOON, claims, device, hub, identity, make_hub, object};
use store::conformance::{Backend, Done as _};
use store::ports::{ActivityMark, Store};
use store::{Error, Unavailability};

use crate::conformance::on_database;
use crate::postgres::{beside, database};

/// The advisory lock of the process that works on a database: `Muster` in ASCII.
const PROCESS_LOCK: i64 = 0x4d75_7374_6572;
/// Longer than anything takes that is not stuck.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_store_whose_database_another_process_took_writes_no_more() {
    let address = database().await;
    on_database(&address, async |backend: &Backend| {
        let store = &backend.store;
        store.create_hub(hub("first"), None, NOON).await.unwrap();
        beside(&address, async |other| {
            let end = "SELECT pg_terminate_backend(l.pid, 20000) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                       WHERE l.locktype = 'advisory' AND d.datname = current_database()";
            assert!(other.query_one(end, &[]).await.unwrap().get::<_, bool>(0));
            let take = format!("SELECT pg_advisory_lock({PROCESS_LOCK})");
            other.batch_execute(&take).await.unwrap();
            let error = tokio::time::timeout(PATIENCE, refusal(&**store)).await.expect("it is refused");
            assert!(matches!(error, Error::Unavailable { reason: Unavailability::Displaced, .. }), "{error:?}");
        })
        .await;
    })
    .await;
}

/// Why a verb is refused, once the store has seen that its connection is gone.
async fn refusal(store: &dyn Store) -> Error {
    let mut count = 0;
    loop {
        count += 1;
        match store.create_hub(hub(&format!("hub-{count}")), None, NOON).await {
            Ok(_) | Err(Error::Unavailable { reason: Unavailability::Database, .. }) => {}
            Err(error) => return error,
        }
    }
}

/// Has many verbs meet each other: devices that come, connect, change and go while jobs and configurations change them.
async fn stir(store: &dyn Store, hub: HubKey, number: u64) {
    /// Few enough that verbs meet at the same ones.
    const DEVICES: u64 = 5;
    let name = device(&format!("dev-{}", number % DEVICES));
    let change = || ServiceChange { tags: None, desired: Some(object(&format!(r#"{{"n":{number}}}"#))) };
    match number % 6 {
        0 => drop(store.create_identity(hub, identity(name, 1), None, NOON).await.unwrap()),
        1 => drop(store.patch_twin(hub, &name, change(), Precondition::None, NOON).await.unwrap()),
        2 => drop(store.apply_reported(hub, &name, object(r#"{"a":1}"#), None, NOON).await.unwrap()),
        3 => drop(store.judge_twins(8, NOON).await.unwrap()),
        4 if number.is_multiple_of(7) => drop(store.delete_identity(hub, &name, Precondition::None).await.unwrap()),
        _ => {
            let made = store.find_identity(hub, &name).await.unwrap().map(|made| made.generation);
            let wanted = claims(made.as_deref().unwrap_or_default(), Memory::LeaveAlone);
            if let Some(claim) = store.claim_connection(hub, &name, wanted, NOON).await.unwrap() {
                store.release_connection(hub, &name, claim.epoch, NOON).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn verbs_that_meet_never_wait_for_each_other() {
    const VERBS: u64 = 600;
    const AT_ONCE: usize = 8;
    let address = database().await;
    on_database(&address, async |backend: &Backend| {
        let store = &*backend.store;
        let sources = [EventSource::TwinChange, EventSource::Lifecycle, EventSource::ConnectionState];
        let hub = telling(store, &sources).await.key;
        for (id, speed, target) in [("all", 1, "*"), ("odd", 2, "properties.reported.a = 1")] {
            store.create_configuration(hub, draft(id, speed, target, 1), NOON).await.unwrap().done();
        }
        futures_util::stream::iter(0..VERBS).for_each_concurrent(AT_ONCE, |number| stir(store, hub, number)).await;
        beside(&address, async |other| {
            let sql = "SELECT pg_stat_force_next_flush(), deadlocks FROM pg_stat_database \
                       WHERE datname = current_database()";
            let deadlocks: i64 = other.query_one(sql, &[]).await.unwrap().get(1);
            assert_eq!(deadlocks, 0);
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn readers_that_wait_leave_verbs_their_connections() {
    /// More than there are connections.
    const READERS: usize = 40;
    let address = database().await;
    on_database(&address, async |backend: &Backend| {
        let store = &*backend.store;
        let key = store.create_hub(hub("first"), None, NOON).await.unwrap().done().key;
        let name = device("dev");
        store.create_identity(key, identity(name.clone(), 1), None, NOON).await.unwrap().done();
        beside(&address, async |other| {
            other.batch_execute("BEGIN; LOCK TABLE twin IN ACCESS EXCLUSIVE MODE").await.unwrap();
            let readers = join_all((0..READERS).map(|_| store.find_twin(key, &name)));
            let verb = async {
                store.create_hub(hub("second"), None, NOON).await.unwrap().done();
                other.batch_execute("COMMIT").await.unwrap();
            };
            let (found, ()) = tokio::join!(readers, verb);
            assert!(found.into_iter().all(|found| found.unwrap().is_some()));
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn what_this_process_goes_on_from_outlives_the_server_of_its_database() {
    /// Notes how far each transaction that writes a row of `session` must reach.
    const WATCH: &str = "CREATE TABLE seen (at BIGINT GENERATED ALWAYS AS IDENTITY, reach TEXT);
        CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO seen (reach) VALUES (current_setting('synchronous_commit'));
            RETURN NULL;
        END $$;
        CREATE TRIGGER see AFTER INSERT OR UPDATE ON session FOR EACH ROW EXECUTE FUNCTION see();";
    let address = database().await;
    on_database(&address, async |backend: &Backend| {
        let (store, name) = (&*backend.store, device("dev"));
        let hub = make_hub(store, "hub").await;
        let made = store.create_identity(hub, identity(name.clone(), 1), None, NOON).await.unwrap().done();
        let wanted = claims(&made.generation, Memory::LeaveAlone);
        beside(&address, async |other| {
            other.batch_execute(WATCH).await.unwrap();
            let claim = store.claim_connection(hub, &name, wanted, NOON).await.unwrap().unwrap();
            store.release_connection(hub, &name, claim.epoch, NOON).await.unwrap();
            store.note_activity(vec![ActivityMark { hub, name: name.clone(), at: NOON }]).await.unwrap();
            let rows = other.query("SELECT reach FROM seen ORDER BY at", &[]).await.unwrap();
            assert_eq!(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["on", "on", "off"]);
        })
        .await;
    })
    .await;
}
