//! What only a store in a database does: other processes at its database, and verbs that meet each other there.

use std::time::Duration;

use store::conformance::Backend;
use store::conformance::sample::{NOON, hub};
use store::ports::Store;
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
