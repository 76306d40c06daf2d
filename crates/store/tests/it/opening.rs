//! Opening a data folder: what is made, and what is refused without harm.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use domain::clock::{Clock, ManualClock, SeededEntropy, UnixTime};
use domain::resource::ResourceGroup;
use serde_json::Map;
use store::OpenError;
use store::ports::ResourceStore as _;
use store::sqlite::{Embedded, Options};

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(UnixTime::from_seconds(1_700_000_000)))
}

fn open(folder: &Path) -> Result<Embedded, OpenError> {
    let options = Options { folder: Some(folder.to_owned()), ..Options::default() };
    Embedded::open(options, clock(), &SeededEntropy::new(1))
}

fn group(name: &str) -> ResourceGroup {
    ResourceGroup { name: name.to_owned(), location: "local".to_owned(), tags: Map::new() }
}

/// A folder with a store that was closed, holding one resource group.
async fn closed_store() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path()).unwrap();
    store.put_group(group("kept")).await.unwrap();
    store.close().await;
    place
}

/// Every file of a folder with its content.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if path.file_name().unwrap() != "lock" {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening_and_every_file_is_private() {
    let place = closed_store().await;
    let store = open(place.path()).unwrap();
    assert_eq!(store.load_resources().await.unwrap().groups, [group("kept")]);
    for (path, _) in contents(place.path()) {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path}");
    }
    store.close().await;
}

#[tokio::test]
async fn a_second_opening_of_the_same_folder_is_refused_until_the_first_closes() {
    let place = closed_store().await;
    let first = open(place.path()).unwrap();
    let refused = open(place.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { holder: Some(pid), .. } if pid == std::process::id()), "{refused}");
    first.close().await;
    open(place.path()).unwrap().close().await;
}

/// The rollback journal of a file that had `pages` pages when a change to it was begun.
fn journal(pages: u32) -> Vec<u8> {
    const SECTOR_BYTES: u32 = 512;
    const PAGE_BYTES: u32 = 4_096;
    let mut journal = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    for number in [0, 0x00c0_ffee, pages, SECTOR_BYTES, PAGE_BYTES] {
        journal.extend(number.to_be_bytes());
    }
    journal.resize(SECTOR_BYTES as usize, 0);
    journal
}

#[tokio::test]
async fn a_file_that_was_being_begun_when_the_power_failed_is_begun_again() {
    for name in ["muster.db", "refusals.db", "telemetry/0000000001.db"] {
        let place = closed_store().await;
        let path = place.path().join(name);
        // The sector with the header was not written, a later one was.
        fs::write(&path, [0; 2_048]).unwrap();
        fs::write(place.path().join(format!("{name}-journal")), journal(0)).unwrap();
        open(place.path()).unwrap().close().await;
        assert!(fs::read(&path).unwrap().starts_with(b"SQLite format 3"), "{name}");
    }
}

#[tokio::test]
async fn a_file_that_had_pages_before_is_not_begun_again() {
    let place = closed_store().await;
    fs::write(place.path().join("muster.db"), [0; 2_048]).unwrap();
    fs::write(place.path().join("muster.db-journal"), journal(3)).unwrap();
    assert!(matches!(refused(place.path()), OpenError::Damaged { .. }));
}

/// Opens a folder that must be refused; nothing in it may change.
fn refused(folder: &Path) -> OpenError {
    let before = contents(folder);
    let error = open(folder).expect_err("the folder was opened");
    assert!(contents(folder) == before, "{error}: the folder was changed");
    error
}

fn change(path: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
}

#[tokio::test]
async fn files_of_a_newer_version_are_refused_with_both_versions_named() {
    for (file, version) in [("muster.db", 1), ("refusals.db", 1), ("telemetry/0000000001.db", 1)] {
        let place = closed_store().await;
        let path = place.path().join(file);
        change(&path, "PRAGMA user_version = 99");
        // Files that are opened before this one may count the opening.
        let error = if file == "muster.db" { refused(place.path()) } else { open(place.path()).unwrap_err() };
        let names_both = matches!(&error, OpenError::Newer { found: 99, known, .. } if *known == version);
        assert!(names_both, "{file}: {error}");
        assert!(error.to_string().contains("newer version of Muster"), "{error}");
        change(&path, &format!("PRAGMA user_version = {version}"));
        let store = open(place.path()).unwrap();
        assert_eq!(store.load_resources().await.unwrap().groups, [group("kept")], "{file}");
        store.close().await;
    }
}

#[tokio::test]
async fn damaged_files_are_refused_and_left_as_they_are() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("the beginning is overwritten", |bytes| bytes[..16].fill(b'x')),
        ("it is cut short inside the header", |bytes| bytes.truncate(50)),
        ("its end is missing", |bytes| bytes.truncate(2 * 4_096)),
        ("a page is overwritten", |bytes| bytes[4_096..2 * 4_096].fill(0xa5)),
    ];
    for (name, damage) in damages {
        let place = closed_store().await;
        let path = place.path().join("muster.db");
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let error = refused(place.path());
        assert!(matches!(error, OpenError::Damaged { .. }), "{name}: {error}");
        assert!(error.to_string().contains("restore a backup"), "{name}: {error}");

        fs::write(&path, whole).unwrap();
        let store = open(place.path()).unwrap();
        assert_eq!(store.load_resources().await.unwrap().groups, [group("kept")], "{name}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir_all(place.path()).unwrap();
    change(&place.path().join("muster.db"), "CREATE TABLE recipe (name TEXT); INSERT INTO recipe VALUES ('brie')");
    // The key of a store that is there is not made afresh.
    let error = refused(place.path());
    assert!(matches!(error, OpenError::KeyUnusable { .. }), "{error}");
    fs::write(place.path().join("sealing.key"), format!("muster-sealing-key-1 {}", "ab".repeat(32))).unwrap();
    fs::set_permissions(place.path().join("sealing.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let error = refused(place.path());
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn a_sealing_key_that_cannot_be_used_stops_the_start_and_says_what_to_do() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage, &str); 5] = [
        ("it is missing", |key| fs::remove_file(key).unwrap(), "is missing; put back the key file"),
        ("others can read it", |key| fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap(), "chmod 600"),
        (
            "it is another store's",
            |key| fs::write(key, format!("muster-sealing-key-1 {}", "ab".repeat(32))).unwrap(),
            "is not the one this store was sealed with",
        ),
        ("it is damaged", |key| fs::write(key, "muster").unwrap(), "is damaged"),
        (
            "it cannot be read",
            |key| {
                fs::remove_file(key).unwrap();
                fs::create_dir(key).unwrap();
                fs::set_permissions(key, fs::Permissions::from_mode(0o700)).unwrap();
            },
            "cannot read the sealing key",
        ),
    ];
    for (name, damage, advice) in damages {
        let place = closed_store().await;
        damage(&place.path().join("sealing.key"));
        let error = refused(place.path());
        assert!(error.to_string().contains(advice), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_store_in_memory_leaves_no_trace_and_starts_empty() {
    for _ in 0..2 {
        let store = Embedded::open(Options::default(), clock(), &SeededEntropy::new(1)).unwrap();
        assert!(store.load_resources().await.unwrap().groups.is_empty());
        store.put_group(group("gone")).await.unwrap();
        store.close().await;
    }
}
