//! The files of the telemetry log: when one is begun, when one is removed, and that nobody notices.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::clock::{Clock, ManualClock, SeededEntropy};
use domain::ids::HubKey;
use store::conformance::sample::{NOON, after};
use store::conformance::telemetry::message;
use store::ports::{Position, ReadFrom, TelemetryLog as _};
use store::sqlite::{Embedded, Options};
use store::stream::Limits;

const HUB: HubKey = HubKey(1);

fn open(folder: &Path, clock: &Arc<ManualClock>, telemetry: Limits) -> Embedded {
    let options = Options { folder: Some(folder.to_owned()), telemetry, ..Options::default() };
    Embedded::open(options, Arc::clone(clock) as Arc<dyn Clock>, &SeededEntropy::new(1)).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("telemetry")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "db"));
    names.sort();
    names
}

async fn sequences(store: &Embedded, from: ReadFrom) -> Vec<u64> {
    let read = store.telemetry().read(HUB, 0, from, 1_000).await.unwrap();
    read.iter().map(|it| it.position.sequence).collect()
}

/// A log with ten messages in each of four files, appended at 0 s, 100 s, 200 s and 300 s.
async fn four_files(folder: &Path, clock: &Arc<ManualClock>) -> (Embedded, Vec<Position>) {
    let limits = Limits { file_age_max: Duration::from_secs(100), ..Limits::default() };
    clock.set(NOON);
    let store = open(folder, clock, limits);
    let mut positions = Vec::new();
    for file in 0..4 {
        clock.set(after(100 * file));
        store.telemetry().tend().await.unwrap();
        for _ in 0..10 {
            positions.push(store.telemetry().append(message(HUB, 0, "body")).await.unwrap());
        }
    }
    assert_eq!(files(folder).len(), 4);
    (store, positions)
}

#[tokio::test]
async fn readers_cross_the_border_between_files() {
    let (place, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::default()));
    let (store, positions) = four_files(place.path(), &clock).await;
    let all: Vec<u64> = (0..40).collect();
    assert_eq!(positions.iter().map(|it| it.sequence).collect::<Vec<_>>(), all);
    assert!(positions.is_sorted_by(|a, b| a.offset < b.offset));
    assert_eq!(sequences(&store, ReadFrom::Start).await, all);
    for start in 0..40 {
        let rest = &all[start + 1..];
        let offset = positions[start].offset;
        assert_eq!(sequences(&store, ReadFrom::AfterSequence(start as u64)).await, rest, "after {start}");
        assert_eq!(sequences(&store, ReadFrom::AfterOffset(offset)).await, rest, "after offset {offset}");
    }
    for (time, first) in [(0, 10), (99, 10), (100, 20), (299, 30)] {
        assert_eq!(sequences(&store, ReadFrom::AfterTime(after(time))).await, all[first..], "after {time} s");
    }
    assert!(sequences(&store, ReadFrom::AfterTime(after(300))).await.is_empty());
    let bounds = store.telemetry().bounds(HUB, 0).await.unwrap();
    assert_eq!(bounds, Some((positions[0], positions[39])));
    store.close().await;
}

#[tokio::test]
async fn a_file_is_begun_when_the_active_one_is_large() {
    let (place, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::at(NOON)));
    let store = open(place.path(), &clock, Limits { file_bytes_max: 100_000, ..Limits::default() });
    let body = "x".repeat(30_000);
    for _ in 0..4 {
        store.telemetry().append(message(HUB, 0, &body)).await.unwrap();
    }
    assert_eq!(files(place.path()).len(), 1);
    // As time passes, appending itself looks after the files.
    clock.set(after(60));
    store.telemetry().append(message(HUB, 0, &body)).await.unwrap();
    store.telemetry().append(message(HUB, 0, &body)).await.unwrap();
    assert_eq!(files(place.path()).len(), 2);
    store.close().await;
}

#[tokio::test]
async fn a_file_goes_when_its_newest_message_has_passed_the_longest_time_in_it() {
    let (place, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::default()));
    let (store, _) = four_files(place.path(), &clock).await;
    let patient = HubKey(2);
    store.telemetry().append(message(patient, 0, "x")).await.unwrap();
    store.telemetry().set_retention(HUB, Duration::from_secs(150));
    store.telemetry().set_retention(patient, Duration::from_secs(1_000));
    clock.set(after(301));
    store.telemetry().tend().await.unwrap();
    assert_eq!(files(place.path()).len(), 2, "the files of 0 s and 100 s have passed their time");
    assert_eq!(sequences(&store, ReadFrom::Start).await, (20..40).collect::<Vec<_>>());

    clock.set(after(460));
    store.telemetry().tend().await.unwrap();
    // The last file of the hub is kept for the other one, and hidden from it.
    assert!(sequences(&store, ReadFrom::Start).await.is_empty());
    assert_eq!(store.telemetry().read(patient, 0, ReadFrom::Start, 9).await.unwrap().len(), 1);
    store.close().await;
}

#[tokio::test]
async fn the_oldest_files_go_when_all_together_are_too_large() {
    let (place, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::default()));
    let (store, _) = four_files(place.path(), &clock).await;
    store.close().await;
    let bytes: u64 = files(place.path())
        .iter()
        .map(|name| std::fs::metadata(place.path().join("telemetry").join(name)).unwrap().len())
        .sum();
    let store = open(place.path(), &clock, Limits { total_bytes_max: bytes - 1, ..Limits::default() });
    store.telemetry().tend().await.unwrap();
    assert_eq!(files(place.path()).len(), 3);
    assert_eq!(sequences(&store, ReadFrom::Start).await, (10..40).collect::<Vec<_>>());
    store.close().await;
}

#[tokio::test]
async fn numbers_go_on_after_reopening_and_when_all_files_are_gone() {
    let (place, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::default()));
    let (store, positions) = four_files(place.path(), &clock).await;
    let last = positions[39];
    store.close().await;

    let store = open(place.path(), &clock, Limits { file_age_max: Duration::from_secs(1), ..Limits::default() });
    store.telemetry().set_retention(HUB, Duration::from_secs(10));
    let next = store.telemetry().append(message(HUB, 0, "body")).await.unwrap();
    assert_eq!(next.sequence, 40);
    assert!(next.offset > last.offset);
    clock.set(after(1_000));
    store.telemetry().tend().await.unwrap();
    assert_eq!(files(place.path()), ["0000000005.db"]);
    store.close().await;

    let store = open(place.path(), &clock, Limits::default());
    let after_all = store.telemetry().append(message(HUB, 0, "body")).await.unwrap();
    assert_eq!(after_all.sequence, 41);
    assert!(after_all.offset > next.offset);
    store.close().await;
}

#[tokio::test]
async fn the_files_of_a_forgotten_hub_go_whatever_their_age() {
    let (place, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::default()));
    let (store, _) = four_files(place.path(), &clock).await;
    store.telemetry().append(message(HubKey(2), 0, "stays")).await.unwrap();
    store.telemetry().forget_hub(HUB);
    assert!(sequences(&store, ReadFrom::Start).await.is_empty());
    store.telemetry().tend().await.unwrap();
    assert_eq!(files(place.path()), ["0000000004.db"], "the file that is appended to is of another hub as well");
    assert_eq!(store.telemetry().read(HubKey(2), 0, ReadFrom::Start, 9).await.unwrap().len(), 1);

    // A message that was on its way spoils no round, and is in nobody's way.
    for hub in [HUB, HubKey(2)] {
        store.telemetry().append(message(hub, 0, "late")).await.unwrap();
    }
    clock.set(after(500));
    store.telemetry().tend().await.unwrap();
    store.telemetry().append(message(HUB, 0, "later")).await.unwrap();
    assert!(sequences(&store, ReadFrom::Start).await.is_empty());
    store.close().await;
}

/// Rolls from the first file to the second as far as a crash lets it come.
fn begin_second(folder: &Path, tables: bool, tail: Option<(u64, u64)>) {
    let path = folder.join("telemetry").join("0000000002.db");
    std::fs::write(&path, []).unwrap();
    if !tables {
        return;
    }
    let first = rusqlite::Connection::open(folder.join("telemetry").join("0000000001.db")).unwrap();
    let second = rusqlite::Connection::open(&path).unwrap();
    let mut schema = first.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").unwrap();
    let tables: Vec<String> = schema.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let pragma = |name| first.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    second.execute_batch(&tables.join(";")).unwrap();
    for name in ["application_id", "user_version"] {
        second.pragma_update(None, name, pragma(name)).unwrap();
    }
    if let Some((sequence, offset)) = tail {
        let sql = "INSERT INTO tail (hub, partition, sequence, offset, at) VALUES (1, 0, ?1, ?2, 0)";
        second.execute(sql, [sequence, offset].map(|number| i64::try_from(number).unwrap())).unwrap();
    }
}

#[tokio::test]
async fn nothing_is_lost_wherever_the_beginning_of_a_file_was_cut_short() {
    let cases = [
        ("before the next file was begun", None, None),
        ("with the file empty", Some(false), None),
        ("with its tables made", Some(true), None),
        ("after a try that came to nothing, some messages ago", Some(true), Some(3)),
        ("with everything written", Some(true), Some(10)),
    ];
    for (name, tables, tail) in cases {
        let (place, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::at(NOON)));
        let store = open(place.path(), &clock, Limits::default());
        let mut offset = 0;
        for _ in 0..10 {
            offset = store.telemetry().append(message(HUB, 0, "body")).await.unwrap().offset;
        }
        store.close().await;
        if let Some(tables) = tables {
            begin_second(place.path(), tables, tail.map(|sequence| (sequence, offset + sequence)));
        }
        clock.set(after(1));
        let limits = Limits { file_age_max: Duration::from_secs(100), ..Limits::default() };
        let store = open(place.path(), &clock, limits);
        store.telemetry().tend().await.unwrap();
        assert_eq!(sequences(&store, ReadFrom::Start).await, (0..10).collect::<Vec<_>>(), "{name}");
        store.close().await;

        // The first file goes in its time; numbers go on all the same.
        clock.set(after(100_000));
        let store = open(place.path(), &clock, limits);
        store.telemetry().tend().await.unwrap();
        clock.set(after(100_101));
        store.telemetry().tend().await.unwrap();
        store.close().await;
        let store = open(place.path(), &clock, limits);
        let next = store.telemetry().append(message(HUB, 0, "body")).await.unwrap();
        assert_eq!(next.sequence, 10, "{name}");
        assert!(next.offset > offset, "{name}");
        assert_eq!(sequences(&store, ReadFrom::Start).await, [10], "{name}");
        store.close().await;
    }
}

#[tokio::test]
async fn readers_leave_no_closed_file_open() {
    let (place, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::default()));
    let (store, _) = four_files(place.path(), &clock).await;
    assert_eq!(sequences(&store, ReadFrom::Start).await.len(), 40);
    let log = place.path().join("telemetry").canonicalize().unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let open: Vec<_> = open.filter_map(|it| std::fs::read_link(it.ok()?.path()).ok()).collect();
    let names = open.iter().filter_map(|path| path.strip_prefix(&log).ok()?.to_str());
    let closed: Vec<_> = names.filter(|name| !name.starts_with("0000000004.db")).collect();
    assert!(closed.is_empty(), "{closed:?}");
    store.close().await;
}
