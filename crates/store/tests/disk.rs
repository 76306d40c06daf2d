//! A disk that takes no more: what was answered is there, what failed is not, and the store goes on when there is room.
//!
//! The limit on file sizes holds for the whole process, so that this test has one of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;

use domain::clock::{Clock, ManualClock, SeededEntropy};
use domain::ids::HubKey;
use domain::resource::ResourceGroup;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::{Map, Value};
use store::conformance::sample::NOON;
use store::conformance::telemetry::message;
use store::ports::{ReadFrom, ResourceStore as _, TelemetryLog as _};
use store::sqlite::{Embedded, Options};
use store::{Error, OpenError};

/// After so many bytes telemetry goes to another file.
const TELEMETRY_FILE_BYTES: u64 = 300_000;

/// What the largest file of a store may still grow by, whatever its tables take when it is made.
const ROOM_BYTES: u64 = 400_000;

fn largest_file(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
    files.filter(std::fs::Metadata::is_file).map(|file| file.len()).max().unwrap()
}

fn open(folder: &Path) -> Result<Embedded, OpenError> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOON));
    let mut options = Options { folder: Some(folder.to_owned()), ..Options::default() };
    options.telemetry.file_bytes_max = TELEMETRY_FILE_BYTES;
    Embedded::open(options, clock, &SeededEntropy::new(1))
}

/// Lets files grow to so many bytes; `None` lifts the limit.
fn limit_files(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

fn group(number: usize) -> ResourceGroup {
    let tags = Map::from_iter([("weight".to_owned(), Value::String("x".repeat(2_000)))]);
    ResourceGroup { name: format!("group-{number:04}"), location: "local".to_owned(), tags }
}

fn is_unavailable<T: std::fmt::Debug>(answer: &Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Unavailable { .. }))
}

#[tokio::test]
async fn nothing_that_was_answered_is_lost_when_the_disk_is_full() {
    // Without a handler the signal that comes with the refusal would end the process.
    let kind = tokio::signal::unix::SignalKind::from_raw(Signal::XFSZ.as_raw());
    let _handler = tokio::signal::unix::signal(kind).unwrap();
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path()).unwrap();

    limit_files(Some(largest_file(place.path()) + ROOM_BYTES));
    let mut answered = Vec::new();
    let mut failed = 0;
    for number in 0..400 {
        match store.put_group(group(number)).await {
            Ok(group) => answered.push(group),
            other => {
                assert!(is_unavailable(&other), "{other:?}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0 && answered.len() > 10, "{failed} failed, {} were answered", answered.len());
    limit_files(Some(2 * TELEMETRY_FILE_BYTES));
    let body = "x".repeat(100_000);
    let mut appended = 0;
    let mut refused = 0;
    for _ in 0..20 {
        match store.telemetry().append(message(HubKey(1), 0, &body)).await {
            Ok(position) => {
                assert_eq!(position.sequence, appended);
                appended += 1;
            }
            other => {
                assert!(is_unavailable(&other), "{other:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "20 large messages were stored");
    let batch = || ["small", &body, "small"].map(|body| message(HubKey(1), 0, body)).into();
    assert!(is_unavailable(&store.telemetry().append_all(batch()).await));
    assert_eq!(store.load_resources().await.unwrap().groups, answered);

    limit_files(None);
    answered.push(store.put_group(group(9_999)).await.unwrap());
    let next = store.telemetry().append(message(HubKey(1), 0, &body)).await.unwrap();
    assert_eq!(next.sequence, appended, "nothing is kept of what was refused, nor of a batch");
    store.telemetry().append_all(batch()).await.unwrap();
    store.close().await;

    let store = open(place.path()).unwrap();
    assert_eq!(store.load_resources().await.unwrap().groups, answered);
    let read = store.telemetry().read(HubKey(1), 0, ReadFrom::Start, 1_000).await.unwrap();
    assert_eq!(read.len() as u64, appended + 4);
    store.close().await;

    let empty = tempfile::tempdir().unwrap();
    limit_files(Some(0));
    let refused = open(empty.path()).unwrap_err();
    limit_files(None);
    assert!(matches!(refused, OpenError::Full { .. }), "{refused}");
    open(empty.path()).unwrap().close().await;
    // One after the other, since the limit is everybody's.
    for bytes in [0, 1, 4_096, 8_192, 20_000, 32_768, 60_000] {
        a_file_is_begun_when_there_is_room(bytes).await;
    }
}

/// Telemetry is to go to another file while no file may be larger than so many bytes.
async fn a_file_is_begun_when_there_is_room(bytes: u64) {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path()).unwrap();
    let body = "x".repeat(100_000);
    for _ in 0..4 {
        store.telemetry().append(message(HubKey(1), 0, &body)).await.unwrap();
    }
    limit_files(Some(bytes));
    store.telemetry().tend().await.unwrap();
    let refused = store.telemetry().append(message(HubKey(1), 0, &body)).await;
    assert!(is_unavailable(&refused), "{bytes}: {refused:?}");
    limit_files(None);
    store.telemetry().tend().await.unwrap();
    let next = store.telemetry().append(message(HubKey(1), 0, &body)).await.unwrap();
    assert_eq!(next.sequence, 4, "{bytes}");
    store.close().await;
    assert!(place.path().join("telemetry/0000000002.db").exists(), "{bytes}: no other file was begun");

    let store = open(place.path()).unwrap();
    let read = store.telemetry().read(HubKey(1), 0, ReadFrom::Start, 1_000).await.unwrap();
    assert_eq!(read.iter().map(|kept| kept.position.sequence).collect::<Vec<_>>(), [0, 1, 2, 3, 4], "{bytes}");
    store.close().await;
}
