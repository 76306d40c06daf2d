//! Imports and exports as the worker carries them out: in pieces, across its own end, whatever the storage does.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use domain::configuration::Configuration;
use domain::file::{BlockId, StorageToken};
use domain::identity::{Identity, IdentityDraft};
use domain::ids::{DeviceId, JobId};
use domain::operation::identity::IdentityName;
use domain::operation::transfer::{Answer, Ask};
use domain::operation::{ErrorKind, Failure, Operation, Reply};
use domain::route::{Refusal, Url};
use domain::transfer::{
    Change, Container, Draft, FaultReason, ImportFile, LINE_BYTES_MAX, Line, LineFault, Manner, Transfer,
    TransferStatus, Work,
};
use domain::twin::Twin;
use service::{EndpointOf, Exchange, Service, Settings};
use store::conformance::sample::{device, identity};
use store::ports::{IdentityStore as _, TransferStore as _};
use tokio::sync::watch;

use crate::ground::{Ground, open};

/// A storage outside, and lines that are the name of a device to be made.
#[derive(Default)]
struct Storage {
    files: Mutex<HashMap<String, Vec<u8>>>,
    blocks: Mutex<HashMap<BlockId, Bytes>>,
    /// Bytes of one answer.
    piece: usize,
    /// Counts reads.
    reads: watch::Sender<u64>,
    /// The read that is never answered.
    stuck_at: Option<u64>,
    /// Whether reads are refused.
    is_down: bool,
}

impl Storage {
    fn with(text: &str) -> Self {
        let files = HashMap::from([("/in/devices.txt?sig=x".to_owned(), text.as_bytes().to_vec())]);
        Self { files: Mutex::new(files), piece: 7, ..Self::default() }
    }

    /// The lines of a file that was written.
    fn lines(&self, name: &str) -> Option<Vec<String>> {
        let files = self.files.lock().unwrap();
        let text = String::from_utf8(files.get(&format!("/out/{name}?sig=x"))?.clone()).unwrap();
        Some(text.lines().map(str::to_owned).collect())
    }
}

#[async_trait]
impl Exchange for Storage {
    fn parse_line(&self, _file: ImportFile, number: u64, line: &[u8]) -> Result<Line<IdentityDraft>, LineFault> {
        let text = std::str::from_utf8(line).unwrap();
        let device = DeviceId::parse(text);
        let device = device.map_err(|_| LineFault::unread(number, FaultReason::Refused(text.to_owned())))?;
        let name = IdentityName::device(device);
        let identity = Box::new(IdentityDraft::new(name.clone()));
        Ok(Line::Identity(name, Change::Put { identity, manner: Manner::Create, twin: None }))
    }

    fn show_line(&self, identity: &Identity, _twin: &Twin, _with_keys: bool) -> String {
        identity.name.to_string()
    }

    fn show_configuration(&self, configuration: &Configuration) -> String {
        configuration.draft.id.to_string()
    }

    fn show_fault(&self, fault: &LineFault) -> String {
        format!("{} {}", fault.line, fault.reason)
    }

    fn show_untold(&self, more: u64) -> String {
        format!("{more} more")
    }

    fn parse_own(&self, _url: &Url) -> Option<(String, StorageToken)> {
        None
    }

    async fn check(&self, url: &Url) -> Result<(), Refusal> {
        if url.host == "nowhere" { Err(Refusal::of_all("it is not there")) } else { Ok(()) }
    }

    async fn read(&self, url: &Url, first: u64, bytes: usize) -> Result<(Bytes, u64), Refusal> {
        self.reads.send_modify(|reads| *reads += 1);
        if self.is_down {
            return Err(Refusal::of_all("it is down"));
        }
        if self.stuck_at == Some(*self.reads.borrow()) {
            return std::future::pending().await;
        }
        let files = self.files.lock().unwrap();
        let file = files.get(&url.path).ok_or_else(|| Refusal::of_all("it has no such file"))?;
        let rest = file.iter().copied().skip(usize::try_from(first).unwrap());
        Ok((rest.take(bytes.min(self.piece)).collect(), file.len() as u64))
    }

    async fn put_block(&self, _url: &Url, block: &BlockId, bytes: Bytes) -> Result<(), Refusal> {
        self.blocks.lock().unwrap().insert(block.clone(), bytes);
        Ok(())
    }

    async fn commit(&self, url: &Url, blocks: &[BlockId]) -> Result<(), Refusal> {
        let sent = self.blocks.lock().unwrap();
        let file = blocks.iter().flat_map(|block| sent.get(block).unwrap().to_vec()).collect();
        self.files.lock().unwrap().insert(url.path.clone(), file);
        Ok(())
    }
}

fn container(text: &str) -> Container {
    Container::parse(text).unwrap()
}

fn import() -> Draft {
    let work =
        Work::Import { input: container("https://host/in?sig=x"), file: "devices.txt".to_owned().try_into().unwrap() };
    Draft { work, configurations: None, output: container("https://host/out?sig=x") }
}

fn export() -> Draft {
    let work = Work::Export { file: "all.txt".to_owned().try_into().unwrap(), without_keys: false };
    Draft { work, ..import() }
}

impl Ground {
    async fn ask_transfer(&self, ask: Ask) -> Result<Transfer, Failure> {
        let program = self.program(&EndpointOf::Hub(self.hub()));
        match self.service.perform(&program, Operation::Transfer(ask)).await? {
            Reply::Transfer(Answer::Transfer(transfer)) => Ok(*transfer),
            other => panic!("{other:?}"),
        }
    }

    async fn begin_transfer(&self, draft: Draft) -> JobId {
        self.ask_transfer(Ask::Create(Box::new(draft))).await.unwrap().id
    }

    async fn transfer(&self, id: &JobId) -> Transfer {
        self.store.find_transfer(self.hub().key, id).await.unwrap().unwrap()
    }

    /// Works until the import or export has ended.
    async fn carry(&self, service: &Service, id: &JobId) -> Transfer {
        let mut running = pin!(service.run_transfers());
        loop {
            let found = self.transfer(id).await;
            if found.ended_at.is_some() {
                return found;
            }
            tokio::select! {
                () = &mut running => {}
                () = tokio::task::yield_now() => {}
            }
        }
    }

    async fn is_there(&self, name: &str) -> bool {
        self.store.find_identity(self.hub().key, &device(name)).await.unwrap().is_some()
    }
}

#[tokio::test]
async fn lines_are_found_wherever_the_pieces_end() {
    let ground = Ground::new().await;
    let storage = Arc::new(Storage::with("first\r\n\n  second \nno device\nfirst\nlast"));
    ground.service.exchange_by(Arc::clone(&storage) as _);
    let id = ground.begin_transfer(import()).await;
    let ended = ground.carry(&ground.service, &id).await;
    assert_eq!((ended.status, ended.progress, ended.failure), (TransferStatus::Completed, 100, None));
    for name in ["first", "second", "last"] {
        assert!(ground.is_there(name).await, "{name}");
    }
    let faults = storage.lines("importErrors.log").unwrap();
    assert_eq!(faults, ["4 no device", "5 A device with this ID is already registered."]);
}

#[tokio::test]
async fn an_import_that_was_cut_short_goes_on_behind_what_it_did() {
    let ground = Ground::new().await;
    let text = "first\nsecond\nthird\n";
    let stuck = Arc::new(Storage { stuck_at: Some(3), ..Storage::with(text) });
    ground.service.exchange_by(Arc::clone(&stuck) as _);
    let id = ground.begin_transfer(import()).await;
    let mut reads = stuck.reads.subscribe();
    tokio::select! {
        () = ground.service.run_transfers() => {}
        read = reads.wait_for(|reads| *reads == 3) => drop(read.unwrap()),
    }
    assert_eq!([ground.is_there("first").await, ground.is_there("third").await], [true, false]);
    assert_eq!(ground.transfer(&id).await.status, TransferStatus::Running);

    let again = open(&ground.store, &ground.clock, Settings::default()).await.unwrap();
    let storage = Arc::new(Storage::with(text));
    again.exchange_by(Arc::clone(&storage) as _);
    assert_eq!(ground.carry(&again, &id).await.status, TransferStatus::Completed);
    assert!(ground.is_there("third").await);
    assert_eq!(storage.lines("importErrors.log"), None, "no line was carried out twice");
}

#[tokio::test]
async fn what_cannot_be_read_fails_the_import() {
    let long = "a".repeat(LINE_BYTES_MAX + 1);
    let cases = [
        (Storage { is_down: true, ..Storage::with("") }, "the storage at host: it is down", 3),
        (
            Storage { piece: 1 << 20, ..Storage::with(&format!("first\n{long}")) },
            "line 2 is longer than 1048576 bytes",
            2,
        ),
    ];
    for (storage, expected, reads) in cases {
        let ground = Ground::new().await;
        let storage = Arc::new(storage);
        ground.service.exchange_by(Arc::clone(&storage) as _);
        let id = ground.begin_transfer(import()).await;
        let ended = ground.carry(&ground.service, &id).await;
        assert_eq!((ended.status, ended.failure.as_deref()), (TransferStatus::Failed, Some(expected)));
        assert_eq!(*storage.reads.borrow(), reads, "{expected}");
    }
}

#[tokio::test]
async fn an_export_writes_every_identity_when_all_are_there() {
    let ground = Ground::new().await;
    for number in 0..250 {
        let name = device(&format!("dev-{number:03}"));
        ground.store.create_identity(ground.hub().key, identity(name, 1), None, ground.now()).await.unwrap();
    }
    let storage = Arc::new(Storage::default());
    ground.service.exchange_by(Arc::clone(&storage) as _);
    let id = ground.begin_transfer(export()).await;
    assert_eq!(ground.carry(&ground.service, &id).await.status, TransferStatus::Completed);
    let expected: Vec<String> = (0..250).map(|number| format!("dev-{number:03}")).collect();
    assert_eq!(storage.lines("all.txt").unwrap(), expected);

    let id = ground.begin_transfer(Draft { output: container("https://host/other?sig=x"), ..export() }).await;
    let cancelled = ground.ask_transfer(Ask::Cancel(id.clone())).await.unwrap();
    assert_eq!(cancelled.status, TransferStatus::Cancelled);
    ground.carry(&ground.service, &id).await;
    assert!(!storage.files.lock().unwrap().keys().any(|path| path.starts_with("/other/")), "nothing is written");
}

#[tokio::test]
async fn a_storage_that_is_of_no_use_begins_nothing() {
    let ground = Ground::new().await;
    ground.service.exchange_by(Arc::new(Storage::default()));
    let hub = ground.hub().address.unwrap();
    for address in ["https://nowhere/c?sig=x".to_owned(), format!("https://{hub}/c?sig=x")] {
        let draft = Draft { output: container(&address), ..export() };
        let refused = ground.ask_transfer(Ask::Create(Box::new(draft))).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::InvalidContainer, "{address}");
    }
    let refused = ground.ask_transfer(Ask::Find(JobId::parse("j").unwrap())).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::JobNotFound);
    assert!(ground.store.list_transfers(ground.hub().key).await.unwrap().is_empty());
}
