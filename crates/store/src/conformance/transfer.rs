//! Promises of [`crate::ports::TransferStore`].

use std::collections::BTreeMap;

use domain::configuration;
use domain::identity::Identity;
use domain::ids::{ConfigurationId, HubKey, JobId, Precondition};
use domain::operation::identity::IdentityName;
use domain::transfer::{
    Change, ConfigurationChange, Container, Draft, FAULTS_TOLD_MAX, FaultReason, ImportFile, KEPT_MAX, Line, LineFault,
    Manner, Transfer, TransferStatus, Work,
};
use domain::twin::ServiceChange;

use super::sample::{NOON, after, device, identity, make_hub, module, object};
use super::{Backend, Done as _};
use crate::ports::{Created, DueTransfer, ImportLine, ImportPiece, LinePlace};

struct Scene<'b> {
    backend: &'b Backend,
    hub: HubKey,
}

async fn scene(backend: &Backend) -> Scene<'_> {
    Scene { backend, hub: make_hub(&*backend.store, "hub").await }
}

fn id(name: &str) -> JobId {
    JobId::parse(name).unwrap()
}

fn import() -> Draft {
    let container = |text| Container::parse(text).unwrap();
    let work =
        Work::Import { input: container("https://host/in?sig=1"), file: "devices.txt".to_owned().try_into().unwrap() };
    Draft { work, configurations: None, output: container("https://host/out?sig=2") }
}

const fn at(bytes: u64, lines: u64) -> LinePlace {
    LinePlace { file: ImportFile::Identities, bytes, lines }
}

fn put(name: &IdentityName, manner: Manner) -> (IdentityName, Change<Identity>) {
    let change = ServiceChange { tags: Some(object(r#"{"site":"x"}"#)), desired: None };
    let identity = Box::new(identity(name.clone(), 1));
    (name.clone(), Change::Put { identity, manner, twin: Some(Box::new(change)) })
}

fn configuration(name: &str) -> configuration::Draft {
    let device = Some(object(r#"{"properties.desired.fan":7}"#));
    configuration::Draft {
        id: ConfigurationId::parse(name).unwrap(),
        schema_version: "1.0".to_owned(),
        labels: serde_json::Map::new(),
        content: configuration::Content { device, ..configuration::Content::default() },
        target: "*".to_owned(),
        priority: 1,
        metrics: BTreeMap::new(),
    }
}

impl Scene<'_> {
    async fn create(&self, name: &str) -> Created<Transfer> {
        self.backend.store.create_transfer(self.hub, id(name), import(), NOON).await.unwrap()
    }

    async fn find(&self, name: &str) -> Option<Transfer> {
        self.backend.store.find_transfer(self.hub, &id(name)).await.unwrap()
    }

    async fn due(&self) -> Vec<DueTransfer> {
        self.backend.store.list_due_transfers().await.unwrap()
    }

    /// An import that has begun.
    async fn begun(&self) -> DueTransfer {
        self.create("i").await.done();
        let due = self.due().await.remove(0);
        assert!(self.backend.store.advance_transfer(due.key, 0, NOON).await.unwrap());
        due
    }

    /// Carries lines out, numbered behind `from`, of one byte each.
    async fn carry(&self, due: &DueTransfer, from: u64, changes: Vec<(IdentityName, Change<Identity>)>) -> bool {
        let to = from + changes.len() as u64;
        let line = |(index, (name, change))| ImportLine {
            number: from + index as u64 + 1,
            asked: Ok(Line::Identity(name, change)),
        };
        let lines = changes.into_iter().enumerate().map(line).collect();
        let piece = ImportPiece { from: at(from, from), lines, to: at(to, to) };
        self.backend.store.import_lines(due.key, piece, NOON).await.unwrap()
    }

    async fn faults(&self, due: &DueTransfer) -> Vec<(u64, FaultReason)> {
        let faults = self.backend.store.import_faults(due.key).await.unwrap();
        assert_eq!(faults.count, faults.told.len() as u64);
        faults.told.into_iter().map(|fault| (fault.line, fault.reason)).collect()
    }
}

pub async fn an_import_or_export_is_carried_out_alone(backend: &Backend) {
    let scene = scene(backend).await;
    let made = scene.create("one").await.done();
    assert_eq!((made.status, made.started_at, made.ended_at, made.progress), (TransferStatus::Enqueued, None, None, 0));
    assert_eq!(scene.find("one").await.done(), made);
    assert_eq!(made.draft, import(), "its addresses come back");
    assert_eq!(scene.create("two").await, Created::Full);
    assert_eq!(backend.store.create_transfer(HubKey(99), id("x"), import(), NOON).await.unwrap(), Created::NoOwner);

    let due = scene.due().await;
    let [one] = due.as_slice() else { panic!("{due:?}") };
    assert_eq!((one.hub, &one.id, one.place), (scene.hub, &id("one"), LinePlace::default()));
    assert!(backend.store.advance_transfer(one.key, 40, after(1)).await.unwrap());
    let found = scene.find("one").await.done();
    assert_eq!((found.status, found.started_at, found.progress), (TransferStatus::Running, Some(after(1)), 40));
    assert!(backend.store.advance_transfer(one.key, 30, after(1)).await.unwrap());
    assert_eq!(scene.find("one").await.done().progress, 40, "it never becomes less");
    backend.store.end_transfer(one.key, None, after(2)).await.unwrap();
    let found = scene.find("one").await.done();
    assert_eq!((found.status, found.ended_at, found.progress), (TransferStatus::Completed, Some(after(2)), 100));
    assert!(scene.due().await.is_empty());
    assert!(!backend.store.advance_transfer(one.key, 41, after(3)).await.unwrap(), "it has ended");

    scene.create("two").await.done();
    let key = scene.due().await.remove(0).key;
    backend.store.end_transfer(key, Some("no".to_owned()), after(2)).await.unwrap();
    let found = scene.find("two").await.done();
    assert_eq!((found.status, found.failure.as_deref()), (TransferStatus::Failed, Some("no")));
}

pub async fn an_import_that_was_cancelled_carries_nothing_more_out(backend: &Backend) {
    let scene = scene(backend).await;
    let due = scene.begun().await;
    assert!(scene.carry(&due, 0, vec![put(&module("x", "m"), Manner::Create)]).await);
    let cancelled = backend.store.cancel_transfer(scene.hub, &id("i"), after(1)).await.unwrap().done();
    assert_eq!((cancelled.status, cancelled.ended_at), (TransferStatus::Cancelled, Some(after(1))));
    assert!(!scene.carry(&due, 1, vec![put(&device("a"), Manner::Create)]).await);
    assert!(backend.store.find_identity(scene.hub, &device("a")).await.unwrap().is_none());
    assert_eq!(scene.faults(&due).await, [(1, FaultReason::DeviceNotFound)], "they can be told");
    scene.create("next").await.done();
    let keys: Vec<_> = scene.due().await.into_iter().map(|one| one.id).collect();
    assert_eq!(keys, [id("i"), id("next")], "they are still to be told, before the next one begins");
    backend.store.end_transfer(due.key, None, after(2)).await.unwrap();
    assert_eq!(scene.find("i").await.done(), cancelled, "it stays as it ended");
    let forgotten = backend.store.import_faults(due.key).await.unwrap();
    assert!(forgotten.told.is_empty(), "they are forgotten once they are told");
    assert_eq!(scene.due().await.len(), 1);
    assert!(backend.store.cancel_transfer(scene.hub, &id("x"), NOON).await.unwrap().is_none());
}

pub async fn lines_are_carried_out_once_whoever_tries_again(backend: &Backend) {
    let scene = scene(backend).await;
    let due = scene.begun().await;
    let lines = || vec![put(&device("a"), Manner::Create), put(&module("a", "m"), Manner::Create)];
    assert!(scene.carry(&due, 0, lines()).await);
    assert!(!scene.carry(&due, 0, lines()).await, "another begins elsewhere");
    assert_eq!(scene.faults(&due).await, []);
    assert_eq!(scene.due().await.remove(0).place, at(2, 2));
    let (twin, _) = backend.store.find_twin(scene.hub, &module("a", "m")).await.unwrap().done();
    assert_eq!(twin.tags, object(r#"{"site":"x"}"#));
}

pub async fn a_line_that_fails_holds_up_no_other(backend: &Backend) {
    let scene = scene(backend).await;
    let due = scene.begun().await;
    let (a, b) = (device("a"), device("b"));
    let stale = Precondition::Impossible;
    let patch = |precondition| Change::PatchTwin {
        change: Box::new(ServiceChange { tags: Some(object(r#"{"more":1}"#)), desired: None }),
        precondition,
    };
    let lines = vec![
        put(&a, Manner::Create),
        put(&a, Manner::Create),
        put(&b, Manner::Update(Precondition::Exists)),
        put(&a, Manner::Update(stale)),
        put(&a, Manner::CreateOrUpdate(Precondition::Exists)),
        put(&module("b", "m"), Manner::CreateOrUpdate(Precondition::Exists)),
        (a.clone(), patch(stale)),
        (a.clone(), patch(Precondition::None)),
        (module("a", "m"), patch(Precondition::None)),
        (b.clone(), Change::Delete { precondition: Precondition::Exists }),
        put(&b, Manner::CreateOrUpdate(stale)),
        (b.clone(), Change::Delete { precondition: stale }),
        (b.clone(), Change::Delete { precondition: Precondition::Exists }),
    ];
    assert!(scene.carry(&due, 0, lines).await);
    let expected = [
        (2, FaultReason::DeviceExists),
        (3, FaultReason::DeviceNotFound),
        (4, FaultReason::PreconditionFailed),
        (6, FaultReason::DeviceNotFound),
        (7, FaultReason::PreconditionFailed),
        (9, FaultReason::ModuleNotFound),
        (10, FaultReason::DeviceNotFound),
        (12, FaultReason::PreconditionFailed),
    ];
    assert_eq!(scene.faults(&due).await, expected);
    let (twin, _) = backend.store.find_twin(scene.hub, &a).await.unwrap().done();
    assert_eq!(twin.tags, object(r#"{"site":"x","more":1}"#));
    assert!(backend.store.find_identity(scene.hub, &b).await.unwrap().is_none());
}

pub async fn configurations_are_carried_out_behind_identities(backend: &Backend) {
    let scene = scene(backend).await;
    let due = scene.begun().await;
    assert!(scene.carry(&due, 0, vec![put(&device("a"), Manner::Create)]).await);
    let second = LinePlace { file: ImportFile::Configurations, ..LinePlace::default() };
    let turn = ImportPiece { from: at(1, 1), lines: Vec::new(), to: second };
    assert!(backend.store.import_lines(due.key, turn.clone(), NOON).await.unwrap());
    assert!(!backend.store.import_lines(due.key, turn, NOON).await.unwrap(), "it stands elsewhere");
    assert_eq!(scene.due().await.remove(0).place, second);

    let write = |name, manner| ConfigurationChange::Put(Box::new(configuration(name)), manner);
    let remove = |name| ConfigurationChange::Delete(ConfigurationId::parse(name).unwrap(), Precondition::Exists);
    let changes = [
        write("c", Manner::Create),
        write("c", Manner::Create),
        write("c", Manner::CreateOrUpdate(Precondition::Exists)),
        write("c", Manner::CreateOrUpdate(Precondition::Impossible)),
        write("d", Manner::CreateOrUpdate(Precondition::Impossible)),
        write("e", Manner::Update(Precondition::Exists)),
        remove("d"),
        remove("d"),
    ];
    let line = |(index, change)| ImportLine { number: index + 1, asked: Ok(Line::Configuration(change)) };
    let lines = (0_u64..).zip(changes).map(line).collect();
    let piece = ImportPiece { from: second, lines, to: LinePlace { bytes: 8, lines: 8, ..second } };
    assert!(backend.store.import_lines(due.key, piece, NOON).await.unwrap());
    let expected = [
        (2, FaultReason::ConfigurationExists),
        (4, FaultReason::PreconditionFailed),
        (6, FaultReason::ConfigurationNotFound),
        (8, FaultReason::ConfigurationNotFound),
    ];
    assert_eq!(scene.faults(&due).await, expected);
    let listed = backend.store.list_configurations(scene.hub).await.unwrap();
    assert_eq!(listed.into_iter().map(|one| one.draft).collect::<Vec<_>>(), [configuration("c")]);
}

pub async fn as_many_faults_are_told_as_may_be(backend: &Backend) {
    let scene = scene(backend).await;
    let due = scene.begun().await;
    let count = FAULTS_TOLD_MAX + 1;
    let line = |number| {
        let reason = FaultReason::Refused("no".to_owned());
        ImportLine { number, asked: Err(LineFault::unread(number, reason)) }
    };
    let piece = ImportPiece { from: at(0, 0), lines: (1..=count).map(line).collect(), to: at(count, count) };
    assert!(backend.store.import_lines(due.key, piece, NOON).await.unwrap());
    let faults = backend.store.import_faults(due.key).await.unwrap();
    assert_eq!((faults.told.len() as u64, faults.count), (FAULTS_TOLD_MAX, count));
    assert_eq!(faults.told.last().map(|fault| fault.line), Some(FAULTS_TOLD_MAX));
    backend.store.end_transfer(due.key, None, NOON).await.unwrap();
    assert!(backend.store.import_faults(due.key).await.unwrap().told.is_empty(), "they are forgotten with its end");
}

pub async fn the_oldest_imports_and_exports_are_forgotten(backend: &Backend) {
    let scene = scene(backend).await;
    let cancelled = scene.begun().await;
    assert!(scene.carry(&cancelled, 0, vec![put(&module("x", "m"), Manner::Create)]).await);
    backend.store.cancel_transfer(scene.hub, &id("i"), NOON).await.unwrap().done();
    assert_eq!(scene.faults(&cancelled).await.len(), 1, "nobody has told them");
    for number in 0..=KEPT_MAX {
        scene.create(&format!("job-{number}")).await.done();
        let key = scene.due().await.pop().unwrap().key;
        backend.store.end_transfer(key, None, NOON).await.unwrap();
    }
    let kept = backend.store.list_transfers(scene.hub).await.unwrap();
    assert_eq!((kept.len(), &kept[0].id), (KEPT_MAX, &id("job-1")));
    let forgotten = backend.store.import_faults(cancelled.key).await.unwrap();
    assert!(forgotten.told.is_empty(), "what went wrong with the lines of one goes with it");
}
