use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::error::Unavailability;
use crate::sqlite::connection::{Schema, open_memory, open_reader, open_writer};

const SCHEMA: Schema = Schema { migrations: &["CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)"] };

/// A writer over a file, with what its rounds woke.
struct Bench {
    writer: Writer,
    path: PathBuf,
    woken: Arc<Mutex<Vec<Wakes>>>,
    _place: tempfile::TempDir,
}

fn start(limits: LogLimits, prepare: impl FnOnce(&Connection)) -> Bench {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notes.db");
    let connection = open_writer(&path, SCHEMA).unwrap();
    prepare(&connection);
    let woken = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&woken);
    let setup = Setup {
        connection,
        path: Some(path.clone()),
        limits,
        on_commit: Box::new(move |wakes| seen.lock().unwrap().push(wakes)),
        keep: Box::new(()),
    };
    Bench { writer: Writer::start(setup).unwrap(), path, woken, _place: place }
}

fn note(text: &str) -> impl FnOnce(&mut Write<'_>) -> Result<i64, Error> + Send + 'static {
    let text = text.to_owned();
    move |write| {
        write.link().sqlite().prepare_cached("INSERT INTO note (text) VALUES (?1)")?.execute([&text])?;
        Ok(write.link().sqlite().last_insert_rowid())
    }
}

fn waking_note(text: &str) -> impl FnOnce(&mut Write<'_>) -> Result<i64, Error> + Send + 'static {
    let note = note(text);
    move |write| {
        write.wake(1);
        note(write)
    }
}

fn notes(path: &std::path::Path) -> Vec<String> {
    let reader = open_reader(path).unwrap();
    let mut statement = reader.prepare("SELECT text FROM note ORDER BY id").unwrap();
    statement.query_map((), |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Holds the writer inside a verb until the returned sender speaks, and says when it is there.
async fn occupy(writer: &Arc<Writer>) -> std::sync::mpsc::Sender<()> {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (inside, entered) = oneshot::channel();
    let held = Arc::clone(writer);
    tokio::task::spawn_local(async move {
        let verb = move |_: &mut Write<'_>| {
            let _ = inside.send(());
            let _ = wait.recv();
            Ok(())
        };
        held.run(Durability::Durable, verb).await
    });
    entered.await.unwrap();
    go
}

#[tokio::test]
async fn a_verb_is_in_the_file_when_it_is_answered() {
    let bench = start(LogLimits::default(), |_| {});
    assert_eq!(bench.writer.run(Durability::Durable, note("a")).await.unwrap(), 1);
    assert_eq!(notes(&bench.path), ["a"]);
    bench.writer.close().await;
}

#[tokio::test]
async fn a_failing_or_panicking_verb_is_undone_alone() {
    let bench = start(LogLimits::default(), |_| {});
    let writer = &bench.writer;
    let fails = |write: &mut Write<'_>| {
        note("lost")(write)?;
        write.wake(4);
        write.link().sqlite().execute("INSERT INTO note (id, text) VALUES (1, NULL)", ())?;
        Ok(())
    };
    let panics = |write: &mut Write<'_>| -> Result<(), Error> {
        note("lost too")(write)?;
        panic!("on purpose");
    };
    let wakes = |write: &mut Write<'_>| {
        write.wake(2);
        note("b")(write)
    };
    let (first, failed, panicked, last) = tokio::join!(
        writer.run(Durability::Durable, note("a")),
        writer.run(Durability::Durable, fails),
        writer.run(Durability::Durable, panics),
        writer.run(Durability::Durable, wakes),
    );
    assert!(first.is_ok() && last.is_ok());
    assert!(matches!(failed, Err(Error::Backend { .. })), "{failed:?}");
    assert!(panicked.unwrap_err().to_string().contains("a verb"));
    assert_eq!(notes(&bench.path), ["a", "b"]);
    assert_eq!(*bench.woken.lock().unwrap(), [2]);
    bench.writer.close().await;
}

#[tokio::test]
async fn verbs_that_wait_together_are_committed_together() {
    let local = tokio::task::LocalSet::new();
    let bench = start(LogLimits::default(), |_| {});
    let (writer, path) = (Arc::new(bench.writer), bench.path.clone());
    local
        .run_until(async move {
            let go = occupy(&writer).await;
            let answers: Vec<_> = (0..50)
                .map(|index| {
                    let writer = Arc::clone(&writer);
                    tokio::task::spawn_local(async move {
                        writer.run(Durability::Durable, waking_note(&index.to_string())).await
                    })
                })
                .collect();
            while writer.queue.capacity() > QUEUE_VERBS_MAX - 50 {
                tokio::task::yield_now().await;
            }
            assert!(notes(&path).is_empty());
            go.send(()).unwrap();
            for answer in answers {
                answer.await.unwrap().unwrap();
            }
            assert_eq!(notes(&path).len(), 50);
        })
        .await;
    let rounds = bench.woken.lock().unwrap().len();
    assert!(rounds <= 2, "50 verbs took {rounds} rounds");
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_its_verb() {
    let local = tokio::task::LocalSet::new();
    let bench = start(LogLimits::default(), |_| {});
    let (writer, path) = (Arc::new(bench.writer), bench.path.clone());
    local
        .run_until(async move {
            let go = occupy(&writer).await;
            let abandoned = tokio::task::spawn_local({
                let writer = Arc::clone(&writer);
                async move { writer.run(Durability::Durable, note("kept")).await }
            });
            while writer.queue.capacity() == QUEUE_VERBS_MAX {
                tokio::task::yield_now().await;
            }
            abandoned.abort();
            go.send(()).unwrap();
            writer.run(Durability::Durable, note("after")).await.unwrap();
            assert_eq!(notes(&path), ["kept", "after"]);
        })
        .await;
}

#[tokio::test]
async fn a_full_queue_holds_callers_back_and_loses_nothing() {
    const CALLERS: usize = QUEUE_VERBS_MAX + 100;
    let local = tokio::task::LocalSet::new();
    let bench = start(LogLimits::default(), |_| {});
    let (writer, path) = (Arc::new(bench.writer), bench.path.clone());
    local
        .run_until(async move {
            let go = occupy(&writer).await;
            let answered = Arc::new(AtomicU32::new(0));
            let answers: Vec<_> = (0..CALLERS)
                .map(|_| {
                    let (writer, answered) = (Arc::clone(&writer), Arc::clone(&answered));
                    tokio::task::spawn_local(async move {
                        writer.run(Durability::Durable, note("x")).await.unwrap();
                        answered.fetch_add(1, Ordering::Relaxed);
                    })
                })
                .collect();
            while writer.queue.capacity() > 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(answered.load(Ordering::Relaxed), 0);
            go.send(()).unwrap();
            for answer in answers {
                answer.await.unwrap();
            }
            assert_eq!(notes(&path).len(), CALLERS);
        })
        .await;
}

#[tokio::test]
async fn relaxed_verbs_are_committed_and_durable_ones_take_them_along() {
    let bench = start(LogLimits::default(), |_| {});
    let level = |write: &mut Write<'_>| {
        Ok(write.link().sqlite().pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0))?)
    };
    let writer = &bench.writer;
    assert_eq!(writer.run(Durability::Relaxed, level).await.unwrap(), 1);
    assert_eq!(writer.run(Durability::Durable, level).await.unwrap(), 2);
    let (relaxed, durable) =
        tokio::join!(writer.run(Durability::Relaxed, note("r")), writer.run(Durability::Durable, note("d")));
    assert!(relaxed.is_ok() && durable.is_ok());
    assert_eq!(notes(&bench.path), ["r", "d"]);
}

#[tokio::test]
async fn a_store_that_is_full_says_so_and_goes_on_when_there_is_room() {
    let bench = start(LogLimits::default(), |connection| {
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        connection.pragma_update(None, "max_page_count", pages + 2).unwrap();
    });
    let writer = &bench.writer;
    let large = "x".repeat(64 << 10);
    let refused = writer.run(Durability::Durable, note(&large)).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable { reason: Unavailability::Full, .. }), "{refused:?}");
    let again = writer.run(Durability::Durable, note(&large)).await.unwrap_err();
    assert!(matches!(again, Error::Unavailable { reason: Unavailability::Full, .. }), "{again:?}");

    let room = |write: &mut Write<'_>| Ok(write.link().sqlite().pragma_update(None, "max_page_count", 100_000)?);
    writer.run(Durability::Durable, room).await.unwrap();
    writer.run(Durability::Durable, note(&large)).await.unwrap();
    assert_eq!(notes(&bench.path), [large]);
}

#[tokio::test]
async fn the_log_is_emptied_when_it_passes_its_cap() {
    let limits = LogLimits { checkpoint_pages: u64::MAX, pages_max: 64 };
    let bench = start(limits, |_| {});
    let log = bench.path.with_file_name("notes.db-wal");
    let mut longest = 0;
    for _ in 0..64 {
        bench.writer.run(Durability::Durable, note(&"x".repeat(20_000))).await.unwrap();
        longest = longest.max(std::fs::metadata(&log).unwrap().len());
    }
    assert!(longest < 2 * 64 * 4_096, "the log grew to {longest} bytes");
    assert_eq!(notes(&bench.path).len(), 64);
}

#[tokio::test]
async fn a_reader_that_sits_on_the_log_delays_its_emptying_and_loses_nothing() {
    let limits = LogLimits { checkpoint_pages: 1, pages_max: 16 };
    let bench = start(limits, |_| {});
    bench.writer.run(Durability::Durable, note("first")).await.unwrap();
    let reader = open_reader(&bench.path).unwrap();
    let sitting = reader.unchecked_transaction().unwrap();
    let count = |connection: &Connection| -> i64 {
        connection.query_row("SELECT count(*) FROM note", (), |row| row.get(0)).unwrap()
    };
    assert_eq!(count(&sitting), 1);
    for _ in 0..8 {
        bench.writer.run(Durability::Durable, note(&"x".repeat(20_000))).await.unwrap();
    }
    assert_eq!(count(&sitting), 1);
    drop(sitting);
    assert_eq!(count(&reader), 9);
    bench.writer.close().await;
}

#[tokio::test]
async fn closing_runs_what_is_queued_and_leaves_one_file() {
    let bench = start(LogLimits::default(), |_| {});
    bench.writer.run(Durability::Durable, note("a")).await.unwrap();
    bench.writer.close().await;
    assert!(!bench.path.with_file_name("notes.db-wal").exists());
    assert_eq!(notes(&bench.path), ["a"]);
}

#[tokio::test]
async fn a_store_in_memory_behaves_the_same() {
    let setup = Setup {
        connection: open_memory(SCHEMA).unwrap(),
        path: None,
        limits: LogLimits::default(),
        on_commit: Box::new(|_| {}),
        keep: Box::new(()),
    };
    let writer = Writer::start(setup).unwrap();
    writer.run(Durability::Durable, note("a")).await.unwrap();
    let count = |write: &mut Write<'_>| {
        Ok(write.link().sqlite().query_row("SELECT count(*) FROM note", (), |row| row.get::<_, i64>(0))?)
    };
    assert_eq!(writer.run(Durability::Relaxed, count).await.unwrap(), 1);
    writer.close().await;
}
