//! Promises of [`crate::ports::FileStore`].

use std::time::Duration;

use bytes::Bytes;
use domain::clock::UnixTime;
use domain::cloud_to_device::{FeedbackSettings, Settlement};
use domain::file::checksum::Md5;
use domain::file::{
    BlockId, BlockSource, CHARGED_BYTES_MIN, CONTAINER_UPLOADS_MAX, Content, FileName, FileNotification,
    FileProperties, StoredFile,
};
use domain::ids::{ContentId, Etag, HubKey, LockToken, Precondition, UploadId};
use domain::operation::PageRequest;

use super::sample::{NOON, QUOTAS, after, device, identity, make_hub, module};
use super::{Backend, Done as _};
use crate::ports::{Begun, Ended, Ending, Limit, NewUpload, Settled, Writing, WritingSource, Written};

/// How long uploads are open in these tests.
const OPEN_S: u64 = 3_600;

struct Scene<'b> {
    backend: &'b Backend,
    hub: HubKey,
    generation: String,
}

async fn scene(backend: &Backend) -> Scene<'_> {
    let hub = make_hub(&*backend.store, "hub").await;
    let made = backend.store.create_identity(hub, identity(device("dev"), 1), None, NOON).await.unwrap();
    Scene { backend, hub, generation: made.done().generation }
}

fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

fn upload(number: u128) -> UploadId {
    UploadId::from_bits(number)
}

fn block(text: &str) -> BlockId {
    BlockId::from_bytes(text.as_bytes()).unwrap()
}

const fn notify() -> FeedbackSettings {
    FeedbackSettings { ttl: Duration::from_mins(10), deliveries_max: 2, lock: Duration::from_mins(1) }
}

impl Scene<'_> {
    async fn begin(&self, number: u128, file: &str) -> Begun {
        let expires_at = after(OPEN_S);
        let generation = self.generation.clone();
        let new = NewUpload { id: upload(number), generation, file: name(file), expires_at };
        self.backend.store.begin_upload(self.hub, &device("dev"), new, NOON).await.unwrap()
    }

    /// Content called `number`, in two pieces.
    async fn content(&self, number: u128, bytes: &[u8]) -> Content {
        let mut writer = self.backend.store.begin_content(ContentId::from_bits(number)).await.unwrap();
        let (first, second) = bytes.split_at(bytes.len() / 2);
        writer.write(Bytes::copy_from_slice(first)).await.unwrap();
        writer.write(Bytes::copy_from_slice(second)).await.unwrap();
        writer.finish().await.unwrap()
    }

    async fn put(&self, number: u128, named: &str, content: Content) -> Written<()> {
        self.backend.store.put_block(self.hub, upload(number), (block(named), content), NOON).await.unwrap()
    }

    async fn write(&self, number: u128, source: WritingSource) -> Written<Etag> {
        let properties = FileProperties {
            content_type: Some("text/plain".to_owned()),
            content_encoding: None,
            content_md5: Some(Md5([7; 16])),
        };
        let writing = Writing { upload: upload(number), source, properties, only_new: false };
        self.backend.store.write_file(self.hub, writing, NOON).await.unwrap()
    }

    async fn commit(&self, number: u128, list: &[(&str, BlockSource)]) -> Written<Etag> {
        let list = list.iter().map(|(named, source)| (block(named), *source)).collect();
        self.write(number, WritingSource::Blocks(list)).await
    }

    async fn end(&self, number: u128, at: UnixTime) -> Ended {
        let ending = Ending { upload: upload(number), notify: Some(notify()) };
        self.backend.store.end_upload(self.hub, &device("dev"), ending, at).await.unwrap()
    }

    async fn find(&self, file: &str) -> Option<StoredFile> {
        self.backend.store.find_file(self.hub, &name(file)).await.unwrap()
    }

    /// The bytes of a file, read in pieces of three.
    async fn read(&self, file: &str) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        for content in self.find(file).await?.content {
            let mut offset = 0;
            while offset < content.bytes {
                let part = self.backend.store.read_content(content.id, offset, 3).await.unwrap().unwrap();
                assert!(!part.is_empty());
                offset += part.len() as u64;
                whole.extend_from_slice(&part);
            }
        }
        Some(whole)
    }

    async fn is_kept(&self, number: u128) -> bool {
        self.backend.store.read_content(ContentId::from_bits(number), 0, 1).await.unwrap().is_some()
    }

    async fn take(&self, lock: u128, at: UnixTime) -> Option<FileNotification> {
        let given = (LockToken::from_bits(lock), notify());
        self.backend.store.take_notification(self.hub, given, at).await.unwrap()
    }

    async fn settle(&self, lock: u128, settlement: Settlement, at: UnixTime) -> Settled {
        let how = (LockToken::from_bits(lock), settlement);
        self.backend.store.settle_notification(self.hub, how, notify().deliveries_max, at).await.unwrap()
    }

    async fn charged(&self) -> u64 {
        self.backend.store.charged_bytes().await.unwrap()
    }
}

pub async fn a_file_is_written_whole_and_read_in_parts(backend: &Backend) {
    let scene = scene(backend).await;
    assert_eq!(scene.begin(1, "dev/a").await, Begun::Done);
    let content = scene.content(1, b"0123456789").await;
    assert_eq!(content.bytes, 10);
    assert!(scene.find("dev/a").await.is_none(), "nothing is there before it is written");
    let Written::Done(etag) = scene.write(1, WritingSource::Whole(content)).await else { panic!("it is written") };
    let found = scene.find("dev/a").await.done();
    assert_eq!((found.bytes(), found.etag, found.written_at), (10, etag, NOON));
    assert_eq!(found.properties.content_type.as_deref(), Some("text/plain"));
    assert_eq!(scene.read("dev/a").await.done(), b"0123456789");
    let part = backend.store.read_content(content.id, 8, 100).await.unwrap().done();
    assert_eq!(&*part, b"89", "not more than there is");
    assert_eq!(scene.charged().await, CHARGED_BYTES_MIN);
}

pub async fn a_file_of_no_device_is_written_by_who_may_write_all_of_them(backend: &Backend) {
    let scene = scene(backend).await;
    let begin = async |number: u128| {
        let (generation, expires_at) = (String::new(), after(OPEN_S));
        let new = NewUpload { id: upload(number), generation, file: name(&format!("list-{number}")), expires_at };
        backend.store.begin_container_upload(scene.hub, new, NOON).await.unwrap()
    };
    assert_eq!(begin(1).await, Begun::Done);
    assert_eq!(scene.put(1, "b1", scene.content(1, b"one").await).await, Written::Done(()));
    assert_eq!(begin(1).await, Begun::Done, "it goes on");
    assert!(matches!(scene.commit(1, &[("b1", BlockSource::Latest)]).await, Written::Done(_)));
    assert_eq!(scene.read("list-1").await.done(), b"one");
    assert_eq!(scene.write(1, WritingSource::Blocks(Vec::new())).await, Written::NoUpload, "it is over");
    for number in 1..=u128::from(CONTAINER_UPLOADS_MAX) {
        assert_eq!(begin(number).await, Begun::Done);
    }
    assert_eq!(begin(u128::from(CONTAINER_UPLOADS_MAX) + 1).await, Begun::Full);
    assert_eq!(
        scene.begin(u128::from(CONTAINER_UPLOADS_MAX) + 2, "dev/a").await,
        Begun::Done,
        "devices have their own"
    );
}

pub async fn a_file_is_made_of_blocks_in_the_order_of_the_list(backend: &Backend) {
    let scene = scene(backend).await;
    scene.begin(1, "dev/a").await;
    for (number, named, bytes) in [(1, "b1", b"one"), (2, "b2", b"two"), (3, "b3", b"six")] {
        let content = scene.content(number, bytes).await;
        assert_eq!(scene.put(1, named, content).await, Written::Done(()));
    }
    let again = scene.content(4, b"ONE").await;
    assert_eq!(scene.put(1, "b1", again).await, Written::Done(()));
    assert!(!scene.is_kept(1).await, "it was replaced");
    let blocks = backend.store.list_blocks(scene.hub, upload(1)).await.unwrap();
    assert_eq!(blocks, [(block("b1"), 3), (block("b2"), 3), (block("b3"), 3)]);

    let list = [("b2", BlockSource::Latest), ("b1", BlockSource::Uncommitted), ("b2", BlockSource::Latest)];
    assert!(matches!(scene.commit(1, &list).await, Written::Done(_)));
    assert_eq!(scene.read("dev/a").await.done(), b"twoONEtwo");
    assert!(!scene.is_kept(3).await, "what the list does not name is gone");

    // The file's own blocks keep their names.
    let more = scene.content(5, b"new").await;
    scene.put(1, "b9", more).await;
    let list = [("b1", BlockSource::Committed), ("b9", BlockSource::Latest)];
    assert!(matches!(scene.commit(1, &list).await, Written::Done(_)));
    assert_eq!(scene.read("dev/a").await.done(), b"ONEnew");
    assert!(!scene.is_kept(2).await);
    assert_eq!(scene.charged().await, 2 * CHARGED_BYTES_MIN);
}

pub async fn a_file_of_many_blocks_that_is_replaced_leaves_none_of_them(backend: &Backend) {
    /// More than one verb removes.
    const BLOCKS: u128 = 120;
    let scene = scene(backend).await;
    scene.begin(1, "dev/a").await;
    for round in 0..2 {
        let named = |number| format!("b{number:03}");
        for number in 0..BLOCKS {
            let content = scene.content(1 + round * BLOCKS + number, b"x").await;
            assert_eq!(scene.put(1, &named(number), content).await, Written::Done(()));
        }
        let names: Vec<String> = (0..BLOCKS).map(named).collect();
        let list: Vec<_> = names.iter().map(|name| (name.as_str(), BlockSource::Latest)).collect();
        assert!(matches!(scene.commit(1, &list).await, Written::Done(_)));
        assert_eq!(scene.charged().await, 120 * CHARGED_BYTES_MIN);
    }
    assert_eq!(
        (scene.is_kept(1).await, scene.is_kept(BLOCKS).await, scene.is_kept(2 * BLOCKS).await),
        (false, false, true)
    );
    backend.store.delete_file(scene.hub, &name("dev/a")).await.unwrap();
    assert_eq!((scene.charged().await, scene.is_kept(2 * BLOCKS).await), (0, false));
}

pub async fn a_list_of_blocks_is_carried_out_whole_or_not_at_all(backend: &Backend) {
    let scene = scene(backend).await;
    scene.begin(1, "dev/a").await;
    let content = scene.content(1, b"one").await;
    scene.put(1, "b1", content).await;
    for list in [
        [("b1", BlockSource::Latest), ("b2", BlockSource::Latest)],
        [("b1", BlockSource::Latest), ("b1", BlockSource::Committed)],
    ] {
        assert_eq!(scene.commit(1, &list).await, Written::NoBlock);
    }
    assert!(scene.find("dev/a").await.is_none());
    let longer = scene.content(2, b"two").await;
    assert_eq!(scene.put(1, "longer", longer).await, Written::NoBlock, "all names are of one length");
    assert!(!scene.is_kept(2).await);
    assert!(matches!(scene.commit(1, &[("b1", BlockSource::Latest)]).await, Written::Done(_)));
    assert!(matches!(scene.commit(1, &[]).await, Written::Done(_)));
    assert_eq!((scene.read("dev/a").await.done().len(), scene.charged().await), (0, 0));
}

pub async fn a_file_that_is_there_is_left_alone_where_that_is_wished(backend: &Backend) {
    let scene = scene(backend).await;
    scene.begin(1, "dev/a").await;
    let content = scene.content(1, b"old").await;
    scene.write(1, WritingSource::Whole(content)).await;
    let source = WritingSource::Whole(scene.content(2, b"new").await);
    let writing = Writing { upload: upload(1), source, properties: FileProperties::default(), only_new: true };
    assert_eq!(backend.store.write_file(scene.hub, writing, NOON).await.unwrap(), Written::Exists);
    assert_eq!(scene.read("dev/a").await.done(), b"old");
    assert!(!scene.is_kept(2).await);
    let content = scene.content(3, b"new").await;
    scene.write(1, WritingSource::Whole(content)).await;
    assert_eq!((scene.read("dev/a").await.done(), scene.is_kept(1).await), (b"new".to_vec(), false));
}

pub async fn uploads_are_bounded_in_number_and_in_bytes(backend: &Backend) {
    let scene = scene(backend).await;
    for number in 1..=u128::from(QUOTAS.uploads_per_device) {
        assert_eq!(scene.begin(number, "dev/a").await, Begun::Done);
    }
    assert_eq!(scene.begin(9, "dev/a").await, Begun::Full);
    let generation = "another".to_owned();
    let new = NewUpload { id: upload(9), generation, file: name("dev/a"), expires_at: after(OPEN_S) };
    let begun = backend.store.begin_upload(scene.hub, &device("dev"), new, NOON).await.unwrap();
    assert_eq!(begun, Begun::NotFound);

    let most = usize::try_from(QUOTAS.file_bytes).unwrap();
    let half = scene.content(1, &vec![1; most / 2]).await;
    assert_eq!(scene.put(1, "b1", half).await, Written::Done(()));
    let more = scene.content(2, &vec![1; most / 2 + 1]).await;
    assert_eq!(scene.put(1, "b2", more).await, Written::Full(Limit::File));
    assert!(!scene.is_kept(2).await);
    let whole = scene.content(3, &vec![1; most + 1]).await;
    assert_eq!(scene.write(1, WritingSource::Whole(whole)).await, Written::Full(Limit::File));
    let doubled = [("b1", BlockSource::Latest); 3];
    assert_eq!(scene.commit(1, &doubled).await, Written::Full(Limit::File));

    // Small ones count as well.
    let fit = (QUOTAS.files_bytes - QUOTAS.file_bytes / 2) / CHARGED_BYTES_MIN;
    for number in 0..u128::from(fit) {
        let small = scene.content(10 + number, b"x").await;
        assert_eq!(scene.put(2, &format!("{number:03}"), small).await, Written::Done(()), "{number}");
    }
    let small = scene.content(9_999, b"x").await;
    assert_eq!(scene.put(2, "999", small).await, Written::Full(Limit::AllFiles));
    let instead = scene.content(10_000, b"y").await;
    assert_eq!(scene.put(2, "000", instead).await, Written::Done(()), "in the place of another there is room");
}

pub async fn an_upload_ends_once_and_takes_nothing_after_it(backend: &Backend) {
    let scene = scene(backend).await;
    scene.begin(1, "dev/a").await;
    let content = scene.content(1, b"one").await;
    scene.put(1, "b1", content).await;
    assert!(backend.store.is_upload_open(scene.hub, upload(1), NOON).await.unwrap());
    let (stranger, ending) = (device("other"), Ending { upload: upload(1), notify: None });
    let other = backend.store.end_upload(scene.hub, &stranger, ending, NOON).await.unwrap();
    assert_eq!(other, Ended::NotFound, "it is another's");
    assert_eq!(scene.end(1, NOON).await, Ended::Done);
    assert_eq!(scene.end(1, NOON).await, Ended::NotFound);
    assert!(!scene.is_kept(1).await, "what became no file is gone");
    assert!(scene.take(1, NOON).await.is_none(), "nothing is told of a file that is not there");
    assert!(!backend.store.is_upload_open(scene.hub, upload(1), NOON).await.unwrap());
    let late = scene.content(2, b"late").await;
    assert_eq!(scene.put(1, "b1", late).await, Written::NoUpload);
    assert!(!scene.is_kept(2).await);
}

pub async fn time_runs_out_for_uploads_and_what_they_sent(backend: &Backend) {
    let scene = scene(backend).await;
    scene.begin(1, "dev/a").await;
    let content = scene.content(1, b"kept").await;
    scene.write(1, WritingSource::Whole(content)).await;
    let content = scene.content(2, b"lost").await;
    scene.put(1, "b1", content).await;
    assert_eq!(backend.store.sweep_files(after(OPEN_S - 1), 10).await.unwrap(), 0);
    assert_eq!(scene.end(1, after(OPEN_S)).await, Ended::NotFound);
    assert_eq!(backend.store.sweep_files(after(OPEN_S), 10).await.unwrap(), 2);
    assert_eq!((scene.is_kept(1).await, scene.is_kept(2).await), (true, false));
    assert_eq!(scene.read("dev/a").await.done(), b"kept");
    assert_eq!(scene.charged().await, CHARGED_BYTES_MIN);
}

pub async fn uploads_end_with_their_identity_and_files_stay(backend: &Backend) {
    let scene = scene(backend).await;
    let store = &backend.store;
    let made = store.create_identity(scene.hub, identity(module("dev", "m"), 2), None, NOON).await.unwrap().done();
    scene.begin(1, "dev/a").await;
    let new =
        NewUpload { id: upload(2), generation: made.generation, file: name("dev/m/b"), expires_at: after(OPEN_S) };
    assert_eq!(store.begin_upload(scene.hub, &module("dev", "m"), new, NOON).await.unwrap(), Begun::Done);
    let content = scene.content(1, b"kept").await;
    scene.write(1, WritingSource::Whole(content)).await;
    store.delete_identity(scene.hub, &device("dev"), Precondition::None).await.unwrap().done();
    for number in [1, 2] {
        assert!(!store.is_upload_open(scene.hub, upload(number), NOON).await.unwrap(), "{number}");
    }
    assert_eq!(scene.read("dev/a").await.done(), b"kept");
}

pub async fn files_are_listed_in_order_and_removed(backend: &Backend) {
    let scene = scene(backend).await;
    for (number, file) in [(1, "dev/b"), (2, "dev/a")] {
        scene.begin(number, file).await;
        let content = scene.content(number, b"x").await;
        scene.write(number, WritingSource::Whole(content)).await;
    }
    let page = |after| backend.store.list_files(scene.hub, PageRequest { after, limit: 1 });
    let first = page(None).await.unwrap();
    let second = page(first.next.clone()).await.unwrap();
    let names = [&first, &second].map(|page| page.items[0].name.as_str().to_owned());
    assert_eq!((names, second.next), (["dev/a".to_owned(), "dev/b".to_owned()], None));
    assert!(backend.store.delete_file(scene.hub, &name("dev/b")).await.unwrap());
    assert!(!backend.store.delete_file(scene.hub, &name("dev/b")).await.unwrap());
    assert_eq!((scene.find("dev/b").await, scene.is_kept(1).await), (None, false));
    assert_eq!(scene.charged().await, CHARGED_BYTES_MIN);
}

pub async fn notifications_are_handed_out_until_they_are_settled_or_spent(backend: &Backend) {
    let scene = scene(backend).await;
    let mut changes = backend.store.notification_changes();
    for (number, file) in [(1, "dev/a"), (2, "dev/b")] {
        scene.begin(number, file).await;
        let content = scene.content(number, b"four").await;
        scene.write(number, WritingSource::Whole(content)).await;
        assert_eq!(scene.end(number, after(1)).await, Ended::Done);
    }
    changes.changed().await.unwrap();
    let first = scene.take(1, after(2)).await.done();
    let expected = FileNotification {
        device: device("dev"),
        file: name("dev/a"),
        bytes: 4,
        written_at: NOON,
        enqueued_at: after(1),
    };
    assert_eq!(first, expected);
    assert_eq!(scene.take(2, after(2)).await.done().file, name("dev/b"));
    assert!(scene.take(3, after(2)).await.is_none(), "each is somebody's");
    assert_eq!(scene.settle(2, Settlement::Complete, after(2)).await, Settled::Done);
    assert_eq!(scene.settle(2, Settlement::Complete, after(2)).await, Settled::LockLost);
    changes.borrow_and_update();
    assert_eq!(scene.settle(1, Settlement::Abandon, after(2)).await, Settled::Done);
    assert!(changes.has_changed().unwrap(), "it waits again");
    assert_eq!(scene.take(4, after(2)).await.done().file, name("dev/a"));
    assert_eq!(scene.settle(4, Settlement::Complete, after(62)).await, Settled::LockLost, "its time is over");
    assert!(scene.take(5, after(62)).await.is_none(), "it was handed out as often as it may be");
}

pub async fn a_notification_whose_lock_runs_out_is_free_and_its_readers_are_woken(backend: &Backend) {
    let scene = scene(backend).await;
    scene.begin(1, "dev/a").await;
    let content = scene.content(1, b"x").await;
    scene.write(1, WritingSource::Whole(content)).await;
    scene.end(1, NOON).await;
    let mut changes = backend.store.notification_changes();
    let (lock_s, most) = (notify().lock.as_secs(), u64::from(notify().deliveries_max));
    for round in 0..most {
        let (taken_at, ends_at) = (after(round * lock_s), after((round + 1) * lock_s));
        scene.take(2, taken_at).await.done();
        changes.borrow_and_update();
        let early = backend.store.sweep_files(taken_at, 10).await.unwrap();
        assert_eq!((early, changes.has_changed().unwrap()), (0, false));
        let swept = backend.store.sweep_files(ends_at, 10).await.unwrap();
        assert_eq!((swept, changes.has_changed().unwrap()), (1, true));
    }
    assert_eq!(scene.take(3, after(most * lock_s)).await, None, "it was handed out as often as it may be");
}

pub async fn notifications_expire(backend: &Backend) {
    let scene = scene(backend).await;
    scene.begin(1, "dev/a").await;
    let content = scene.content(1, b"x").await;
    scene.write(1, WritingSource::Whole(content)).await;
    scene.end(1, NOON).await;
    let ttl = notify().ttl.as_secs();
    assert_eq!(backend.store.sweep_files(after(ttl - 1), 10).await.unwrap(), 0);
    assert!(scene.take(1, after(ttl)).await.is_none());
    assert_eq!(backend.store.sweep_files(after(ttl), 10).await.unwrap(), 1);
}

pub async fn a_deleted_hub_takes_its_files_along(backend: &Backend) {
    let scene = scene(backend).await;
    scene.begin(1, "dev/a").await;
    let content = scene.content(1, b"x").await;
    scene.write(1, WritingSource::Whole(content)).await;
    let content = scene.content(2, b"y").await;
    scene.put(1, "b1", content).await;
    backend.store.delete_hub(scene.hub).await.unwrap().done();
    assert!(scene.find("dev/a").await.is_none());
    assert!(!backend.store.is_upload_open(scene.hub, upload(1), NOON).await.unwrap());
    // The bytes go in the background.
    let gone = async {
        while scene.charged().await > 0 || scene.is_kept(1).await || scene.is_kept(2).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}

pub async fn bytes_that_are_not_finished_leave_nothing(backend: &Backend) {
    let scene = scene(backend).await;
    let mut writer = backend.store.begin_content(ContentId::from_bits(1)).await.unwrap();
    writer.write(Bytes::from_static(b"half")).await.unwrap();
    drop(writer);
    assert!(!scene.is_kept(1).await);
}
