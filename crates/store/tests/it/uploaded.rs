//! Uploaded bytes on the disk: what is named by a record survives the end of a process, everything else goes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bytes::Bytes;
use domain::file::{BlockId, FileName, FileProperties};
use domain::ids::{ContentId, HubKey, UploadId};
use store::conformance::Done as _;
use store::conformance::sample::{NOON, after, device, identity, make_hub};
use store::ports::{Begun, FileStore as _, IdentityStore as _, NewUpload, Writing, WritingSource, Written};
use store::sqlite::Embedded;

use crate::ground::open;

const UPLOAD: UploadId = UploadId::from_bits(1);

async fn begin(store: &Embedded) -> HubKey {
    let hub = make_hub(store, "hub").await;
    let made = store.create_identity(hub, identity(device("dev"), 1), None, NOON).await.unwrap().done();
    let file = FileName::parse("dev/a").unwrap();
    let new = NewUpload { id: UPLOAD, generation: made.generation, file, expires_at: after(60) };
    assert_eq!(store.begin_upload(hub, &device("dev"), new, NOON).await.unwrap(), Begun::Done);
    hub
}

async fn content(store: &Embedded, number: u128) -> domain::file::Content {
    let mut writer = store.begin_content(ContentId::from_bits(number)).await.unwrap();
    writer.write(Bytes::from_static(b"bytes")).await.unwrap();
    writer.finish().await.unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("files")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_no_record_names_is_gone_after_the_next_opening() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = begin(&store).await;
    let block = BlockId::from_bytes(b"b1").unwrap();
    let named = content(&store, 1).await;
    assert_eq!(store.put_block(hub, UPLOAD, (block.clone(), named), NOON).await.unwrap(), Written::Done(()));
    content(&store, 2).await;
    // As a kill leaves it: begun and never finished.
    let mut half = store.begin_content(ContentId::from_bits(3)).await.unwrap();
    half.write(Bytes::from_static(b"half")).await.unwrap();
    std::mem::forget(half);
    std::fs::write(place.path().join("files/notes.txt"), "not made here").unwrap();
    assert_eq!(names(place.path()).len(), 4);
    store.close().await;

    let store = open(place.path());
    assert_eq!(names(place.path()), [ContentId::from_bits(1).to_string(), "notes.txt".to_owned()]);
    assert_eq!(store.list_blocks(hub, UPLOAD).await.unwrap(), [(block, 5)]);
    store.close().await;
}

#[tokio::test]
async fn a_piece_whose_verb_failed_goes_in_time_unless_it_was_named() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = begin(&store).await;
    let file = rusqlite::Connection::open(place.path().join("muster.db")).unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON content BEGIN SELECT RAISE(ABORT, 'no'); END";
    file.execute_batch(refuse).unwrap();
    let block = BlockId::from_bytes(b"b1").unwrap();
    let piece = content(&store, 1).await;
    store.put_block(hub, UPLOAD, (block, piece), NOON).await.unwrap_err();
    let source = WritingSource::Whole(content(&store, 2).await);
    let writing = Writing { upload: UPLOAD, source, properties: FileProperties::default(), only_new: false };
    store.write_file(hub, writing, NOON).await.unwrap_err();
    // As if its verb had been carried out after all.
    file.execute_batch("DROP TRIGGER refuse").unwrap();
    file.execute("INSERT INTO content (id, hub, bytes) VALUES (?1, ?2, 5)", (2_u128.to_be_bytes(), hub.0)).unwrap();
    assert_eq!((store.sweep_files(after(59), 9).await.unwrap(), names(place.path()).len()), (0, 2));
    store.sweep_files(after(60), 9).await.unwrap();
    assert_eq!(names(place.path()), [ContentId::from_bits(2).to_string()]);
    store.close().await;
}

#[tokio::test]
async fn a_file_survives_and_belongs_to_its_owner_alone() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = begin(&store).await;
    let source = WritingSource::Whole(content(&store, 1).await);
    let writing = Writing { upload: UPLOAD, source, properties: FileProperties::default(), only_new: false };
    assert!(matches!(store.write_file(hub, writing, NOON).await.unwrap(), Written::Done(_)));
    store.close().await;

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = place.path().join("files");
    let piece = folder.join(ContentId::from_bits(1).to_string());
    assert_eq!((mode(&folder), mode(&piece)), (0o700, 0o600));
    let store = open(place.path());
    let found = store.find_file(hub, &FileName::parse("dev/a").unwrap()).await.unwrap().done();
    let bytes = store.read_content(found.content.first().unwrap().id, 0, 100).await.unwrap().done();
    assert_eq!(&*bytes, b"bytes");
    store.close().await;
}
