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
