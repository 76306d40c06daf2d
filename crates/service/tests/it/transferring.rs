//! Imports and exports as the worker carries them out: in pieces, across its own end, whatever the storage does.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use domain::configuration::Configuration;
use domain::file::{BlockId, StorageToken};
use domain::identity::{Identity, IdentityDraft};
use domain::ids::{DeviceId, JobId, Precondition};
use domain::operation::file::{Answer as FileAnswer, Ask as FileAsk};
use domain::operation::identity::IdentityName;
use domain::operation::resource::{Ask as ResourceAsk, FileDraft, HubDraft};
use domain::operation::transfer::{Answer, Ask};
use domain::operation::{ErrorKind, Failure, Operation, Reply};
use domain::route::{Refusal, Url};
use domain::transfer::{
    Change, Container, Draft, FaultReason, ImportFile, LINE_BYTES_MAX, Line, LineFault, Manner, Transfer,
    TransferStatus, Work,
};
use domain::twin::Twin;
use service::{EndpointOf, Exchange, Service, Settings};
use store::conformance::Done as _;
use store::conformance::configuration::draft;
use store::conformance::sample::{device, identity};
use store::faults::Fault;
use store::ports::{ConfigurationStore as _, IdentityStore as _, TransferStore as _};
use tokio::sync::{Notify, watch};

use crate::ground::{Ground, open};

/// A storage outside, and lines that are the name of a device to be made, or to be deleted.
#[derive(Default)]
struct Storage {
    files: Mutex<HashMap<String, Vec<u8>>>,
    blocks: Mutex<HashMap<BlockId, Bytes>>,
    /// Bytes of one answer.
    piece: usize,
    /// Counts reads.
    reads: watch::Sender<u64>,
    /// The read that is answered only once it is released.
    stuck_at: Option<u64>,
    release: Notify,
    /// Reads that are refused, by their number.
    refused: HashMap<u64, Refusal>,
    /// Counts blocks that come.
    puts: watch::Sender<u64>,
    /// The block that is taken only once it is released.
    stuck_put: Option<u64>,
    /// Counts files that are written.
    written: watch::Sender<u64>,
    /// Bytes of a line of an identity.
    width: usize,
    /// The container that is the server's own, and the signature for it.
    own: Option<(String, StorageToken)>,
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
        Some(text.lines().map(|line| line.trim_end().to_owned()).collect())
    }
}

#[async_trait]
impl Exchange for Storage {
    fn parse_line(&self, _file: ImportFile, number: u64, line: &[u8]) -> Result<Line<IdentityDraft>, LineFault> {
        let text = std::str::from_utf8(line).unwrap();
        if let Some(gone) = text.strip_prefix("delete ") {
            let change = Change::Delete { precondition: Precondition::Exists };
            return Ok(Line::Identity(IdentityName::device(DeviceId::parse(gone).unwrap()), change));
        }
        let device = DeviceId::parse(text);
        let device = device.map_err(|_| LineFault::unread(number, FaultReason::Refused(text.to_owned())))?;
        let name = IdentityName::device(device);
        let identity = Box::new(IdentityDraft::new(name.clone()));
        Ok(Line::Identity(name, Change::Put { identity, manner: Manner::Create, twin: None }))
    }

    fn show_line(&self, identity: &Identity, _twin: &Twin, _with_keys: bool) -> String {
        let name = identity.name.to_string();
        format!("{name}{}", " ".repeat(self.width.saturating_sub(name.len())))
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
        self.own.clone()
    }

    async fn check(&self, url: &Url) -> Result<(), Refusal> {
        if url.host == "nowhere" { Err(Refusal::of_all("it is not there")) } else { Ok(()) }
    }

    async fn read(&self, url: &Url, first: u64, bytes: usize) -> Result<(Bytes, u64), Refusal> {
        self.reads.send_modify(|reads| *reads += 1);
        let number = *self.reads.borrow();
        if let Some(refusal) = self.refused.get(&number) {
            return Err(refusal.clone());
        }
        if self.stuck_at == Some(number) {
            self.release.notified().await;
        }
        let files = self.files.lock().unwrap();
        let file = files.get(&url.path).ok_or_else(|| Refusal::of_all("it has no such file"))?;
        let rest = file.iter().copied().skip(usize::try_from(first).unwrap());
        Ok((rest.take(bytes.min(self.piece)).collect(), file.len() as u64))
    }

    async fn put_block(&self, _url: &Url, block: &BlockId, bytes: Bytes) -> Result<(), Refusal> {
        self.puts.send_modify(|puts| *puts += 1);
        let number = *self.puts.borrow();
        if self.stuck_put == Some(number) {
            self.release.notified().await;
        }
        self.blocks.lock().unwrap().insert(block.clone(), bytes);
        Ok(())
    }

    async fn commit(&self, url: &Url, blocks: &[BlockId]) -> Result<(), Refusal> {
        let sent = self.blocks.lock().unwrap();
        let file = blocks.iter().flat_map(|block| sent.get(block).unwrap().to_vec()).collect();
        self.files.lock().unwrap().insert(url.path.clone(), file);
        self.written.send_modify(|written| *written += 1);
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
        self.store.inner().find_transfer(self.hub().key, id).await.unwrap().unwrap()
    }

    /// An export of a device to the hub's own container.
    async fn own_container(&self) -> Draft {
        let files = FileDraft { container: Some("uploads".to_owned()), ..FileDraft::default() };
        let draft = Box::new(HubDraft { files, ..HubDraft::default() });
        let (place, name) = (self.place(), self.hub().name.clone());
        let ask = ResourceAsk::PutHub { place, name: name.clone(), draft, precondition: Precondition::None };
        self.service.perform(&self.operator(), Operation::Resource(ask)).await.unwrap();
        let ask = Operation::File(FileAsk::Sign { hub: name, ttl_s: 3_600 });
        let signed = self.service.perform(&self.operator(), ask).await.unwrap();
        let Reply::File(FileAnswer::Signed { host, container: named, token }) = signed else { panic!("{signed:?}") };
        let output = container(&format!("https://{host}/{named}?sig=x"));
        let own = Some((named, StorageToken::Container(token)));
        self.service.exchange_by(Arc::new(Storage { own, ..Storage::default() }));
        self.make_devices(1).await;
        Draft { output, ..export() }
    }

    async fn make_devices(&self, count: usize) -> Vec<String> {
        let names: Vec<String> = (0..count).map(|number| format!("dev-{number:03}")).collect();
        for name in &names {
            let identity = identity(device(name), 1);
            self.store.create_identity(self.hub().key, identity, None, self.now()).await.unwrap();
        }
        names
    }

    /// Works until the import or export has ended.
    async fn carry(&self, service: &Service, id: &JobId) -> Transfer {
        self.carry_on(pin!(service.run_transfers()), id).await
    }

    /// Goes on working until the import or export has ended.
    async fn carry_on(&self, mut running: Pin<&mut impl Future<Output = ()>>, id: &JobId) -> Transfer {
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
    assert_eq!(storage.lines("importErrors.log").unwrap(), [""; 0], "no line was carried out twice");
}

/// Works until `counter` stands at `count`.
async fn work_until(mut running: Pin<&mut impl Future<Output = ()>>, counter: &watch::Sender<u64>, count: u64) {
    let mut counter = counter.subscribe();
    tokio::select! {
        () = &mut running => {}
        counted = counter.wait_for(|counted| *counted >= count) => drop(counted.unwrap()),
    }
}

#[tokio::test]
async fn a_storage_is_asked_again_unless_it_refuses_for_good() {
    let text = "first\nno device\nsecond";
    let (down, gone) = (Refusal::of_all("it is down"), Refusal::of_message("it answers 403"));
    // Each read has 7 bytes; the last has none.
    let cases = [
        ("down for a while", (2, down), (None, 6), (true, true)),
        ("a refusal at once", (1, gone.clone()), (Some("the storage at host: it answers 403"), 1), (false, false)),
        ("a refusal amid lines", (4, gone), (Some("the storage at host: it answers 403"), 4), (true, false)),
    ];
    for (name, (number, refusal), (failure, reads), there) in cases {
        let ground = Ground::new().await;
        let storage = Arc::new(Storage { refused: HashMap::from([(number, refusal)]), ..Storage::with(text) });
        ground.service.exchange_by(Arc::clone(&storage) as _);
        let id = ground.begin_transfer(import()).await;
        let ended = ground.carry(&ground.service, &id).await;
        let status = if failure.is_some() { TransferStatus::Failed } else { TransferStatus::Completed };
        assert_eq!((ended.status, ended.failure.as_deref()), (status, failure), "{name}");
        assert_eq!(*storage.reads.borrow(), reads, "{name}");
        assert_eq!((ground.is_there("first").await, ground.is_there("second").await), there, "{name}");
        let faults = if there.0 { vec!["2 no device"] } else { vec![] };
        assert_eq!(storage.lines("importErrors.log").unwrap(), faults, "{name}: the lines before are told");
    }
}

#[tokio::test]
async fn a_cancelled_import_tells_what_it_could_not_import() {
    let ground = Ground::new().await;
    let stuck = Storage { stuck_at: Some(4), ..Storage::with("first\nno device\nsecond\n") };
    let storage = Arc::new(stuck);
    ground.service.exchange_by(Arc::clone(&storage) as _);
    let id = ground.begin_transfer(import()).await;
    let mut running = pin!(ground.service.run_transfers());
    work_until(running.as_mut(), &storage.reads, 4).await;
    ground.ask_transfer(Ask::Cancel(id.clone())).await.unwrap();
    storage.release.notify_one();
    work_until(running.as_mut(), &storage.written, 1).await;
    assert_eq!(storage.lines("importErrors.log").unwrap(), ["2 no device"]);
    assert_eq!(ground.transfer(&id).await.status, TransferStatus::Cancelled);
    assert!(!ground.is_there("second").await);
}

#[tokio::test]
async fn an_import_without_faults_clears_the_log_of_an_earlier_one() {
    let ground = Ground::new().await;
    let storage = Arc::new(Storage::with("first\nno device"));
    ground.service.exchange_by(Arc::clone(&storage) as _);
    for (text, expected) in [("first\nno device", vec!["2 no device"]), ("second", vec![])] {
        storage.files.lock().unwrap().insert("/in/devices.txt?sig=x".to_owned(), text.as_bytes().to_vec());
        let id = ground.begin_transfer(import()).await;
        ground.carry(&ground.service, &id).await;
        assert_eq!(storage.lines("importErrors.log").unwrap(), expected, "{text}");
    }
}

#[tokio::test]
async fn a_line_that_is_too_long_holds_up_no_other() {
    let ground = Ground::new().await;
    let long = "a".repeat(3 * LINE_BYTES_MAX);
    let text = format!("first\n{long}\nlast");
    let storage = Arc::new(Storage { piece: 1 << 20, ..Storage::with(&text) });
    ground.service.exchange_by(Arc::clone(&storage) as _);
    let id = ground.begin_transfer(import()).await;
    assert_eq!(ground.carry(&ground.service, &id).await.status, TransferStatus::Completed);
    assert!(ground.is_there("first").await && ground.is_there("last").await);
    assert_eq!(storage.lines("importErrors.log").unwrap(), ["2 The line is longer than 1048576 bytes."]);
}

#[tokio::test]
async fn the_removal_of_a_device_has_a_verb_of_its_own() {
    let ground = Ground::new().await;
    let storage = Storage { piece: 1 << 20, ..Storage::with("a\nb\ndelete a\ndelete b\nc\n\nd") };
    ground.service.exchange_by(Arc::new(storage));
    let id = ground.begin_transfer(import()).await;
    let mut running = pin!(ground.service.run_transfers());
    let mut held = ground.store.hold("import_lines");
    let mut places = Vec::new();
    while places.last() != Some(&6) {
        tokio::select! {
            () = &mut running => {}
            () = held.done() => {}
        }
        places.push(ground.store.inner().list_due_transfers().await.unwrap()[0].place.lines);
        held = ground.store.hold("import_lines");
    }
    assert_eq!(places, [2, 3, 4, 6]);
    drop(held);
    assert_eq!(ground.carry_on(running, &id).await.status, TransferStatus::Completed);
    let there = [ground.is_there("a").await, ground.is_there("b").await, ground.is_there("c").await];
    assert_eq!(there, [false, false, true]);
}

#[tokio::test]
async fn an_outage_of_the_store_ends_neither_import_nor_export() {
    let cases = [
        ("is_upload_open", true),
        ("begin_content", true),
        ("write_file", true),
        ("find_twin", true),
        ("find_file", false),
        ("import_lines", false),
        ("write_file", false),
    ];
    futures_util::future::join_all(cases.map(async |(verb, is_export)| {
        let ground = Ground::new().await;
        let draft = ground.own_container().await;
        let id = ground.begin_transfer(draft.clone()).await;
        let first = ground.carry(&ground.service, &id).await;
        assert_eq!(first.status, TransferStatus::Completed, "{verb}: {first:?}");
        let Work::Export { file, .. } = &draft.work else { panic!("it is an export") };
        let work = Work::Import { input: draft.output.clone(), file: file.clone() };
        let draft = if is_export { draft } else { Draft { work, ..draft } };
        let id = ground.begin_transfer(draft).await;
        let mut running = pin!(ground.service.run_transfers());
        ground.store.plan_verb(verb, Fault::Away);
        let mut held = ground.store.hold(verb);
        tokio::select! {
            () = &mut running => {}
            () = held.done() => {}
        }
        ground.store.plan([]);
        drop(held);
        let ended = ground.carry_on(running, &id).await;
        assert_eq!((ended.status, ended.failure), (TransferStatus::Completed, None), "{verb}");
    }))
    .await;
}

#[tokio::test]
async fn an_export_writes_every_identity_when_all_are_there() {
    let ground = Ground::new().await;
    let expected = ground.make_devices(250).await;
    let storage = Arc::new(Storage::default());
    ground.service.exchange_by(Arc::clone(&storage) as _);
    let id = ground.begin_transfer(export()).await;
    assert_eq!(ground.carry(&ground.service, &id).await.status, TransferStatus::Completed);
    assert_eq!(storage.lines("all.txt").unwrap(), expected);
}

#[tokio::test]
async fn what_cannot_be_read_is_left_out_of_an_export() {
    for (verb, identities, configurations) in
        [("find_twin", vec![], vec!["c"]), ("find_configuration", vec!["dev-000"], vec![])]
    {
        let ground = Ground::new().await;
        ground.make_devices(1).await;
        ground.store.create_configuration(ground.hub().key, draft("c", 1, "*", 1), ground.now()).await.unwrap().done();
        let storage = Arc::new(Storage::default());
        ground.service.exchange_by(Arc::clone(&storage) as _);
        ground.store.plan_verb(verb, Fault::Unreadable);
        let file = "configurations.txt".to_owned().try_into().unwrap();
        let id = ground.begin_transfer(Draft { configurations: Some(file), ..export() }).await;
        assert_eq!(ground.carry(&ground.service, &id).await.status, TransferStatus::Completed, "{verb}");
        assert_eq!(storage.lines("all.txt").unwrap(), identities, "{verb}");
        assert_eq!(storage.lines("configurations.txt").unwrap(), configurations, "{verb}");
    }
}

/// Bytes of a line, of which four make a block.
const WIDTH: usize = (1 << 20) - 1;

#[tokio::test]
async fn an_export_that_was_cut_short_gives_the_whole_file_once() {
    let ground = Ground::new().await;
    let expected = ground.make_devices(10).await;
    let stuck = Arc::new(Storage { width: WIDTH, stuck_put: Some(2), ..Storage::default() });
    ground.service.exchange_by(Arc::clone(&stuck) as _);
    let id = ground.begin_transfer(export()).await;
    work_until(pin!(ground.service.run_transfers()), &stuck.puts, 2).await;
    assert_eq!(stuck.lines("all.txt"), None);

    let again = open(&ground.store, &ground.clock, Settings::default()).await.unwrap();
    let storage = Arc::new(Storage { width: WIDTH, piece: 4 << 20, ..Storage::default() });
    *storage.blocks.lock().unwrap() = stuck.blocks.lock().unwrap().clone();
    again.exchange_by(Arc::clone(&storage) as _);
    assert_eq!(ground.carry(&again, &id).await.status, TransferStatus::Completed);
    assert_eq!(storage.lines("all.txt").unwrap(), expected);
    assert_eq!(*storage.puts.borrow(), 3, "it has more than one block");

    let other = Ground::new().await;
    let file = storage.files.lock().unwrap().get("/out/all.txt?sig=x").unwrap().clone();
    storage.files.lock().unwrap().insert("/in/devices.txt?sig=x".to_owned(), file);
    other.service.exchange_by(Arc::clone(&storage) as _);
    let id = other.begin_transfer(import()).await;
    assert_eq!(other.carry(&other.service, &id).await.status, TransferStatus::Completed);
    assert_eq!(*storage.reads.borrow(), 4, "it is read in more than one piece");
    for name in expected {
        assert!(other.is_there(&name).await, "{name}");
    }
}

#[tokio::test]
async fn a_cancelled_export_leaves_no_file() {
    let ground = Ground::new().await;
    ground.make_devices(10).await;
    let storage = Arc::new(Storage { width: WIDTH, stuck_put: Some(2), ..Storage::default() });
    ground.service.exchange_by(Arc::clone(&storage) as _);
    let id = ground.begin_transfer(export()).await;
    let mut running = pin!(ground.service.run_transfers());
    work_until(running.as_mut(), &storage.puts, 2).await;
    ground.ask_transfer(Ask::Cancel(id.clone())).await.unwrap();
    let mut held = ground.store.hold("advance_transfer");
    storage.release.notify_one();
    tokio::select! {
        () = &mut running => {}
        () = held.done() => {}
    }
    drop(held);
    let next = ground.begin_transfer(Draft { output: container("https://host/other?sig=x"), ..export() }).await;
    assert_eq!(ground.carry_on(running, &next).await.status, TransferStatus::Completed);
    assert_eq!(ground.transfer(&id).await.status, TransferStatus::Cancelled);
    assert_eq!(storage.lines("all.txt"), None);
}

#[tokio::test]
async fn two_files_share_the_progress_which_never_goes_back() {
    let ground = Ground::new().await;
    let files = [("devices", "first\nsecond\n"), ("configurations", "third\nfourth\n")];
    let files = files.map(|(name, text)| (format!("/in/{name}.txt?sig=x"), text.as_bytes().to_vec()));
    let storage = |stuck_at| {
        let files = Mutex::new(HashMap::from(files.clone()));
        Arc::new(Storage { files, stuck_at: Some(stuck_at), piece: 7, ..Storage::default() })
    };
    let draft = Draft { configurations: Some("configurations.txt".to_owned().try_into().unwrap()), ..import() };
    ground.service.exchange_by(storage(0));
    let id = ground.begin_transfer(draft).await;
    let mut before = 0;
    // Where it is stuck: in the first file, in the second, and there again from the place where it stands.
    for (stuck_at, expected) in [(2, 22), (4, 72), (1, 72)] {
        let service = open(&ground.store, &ground.clock, Settings::default()).await.unwrap();
        let storage = storage(stuck_at);
        service.exchange_by(Arc::clone(&storage) as _);
        work_until(pin!(service.run_transfers()), &storage.reads, stuck_at).await;
        let found = ground.transfer(&id).await;
        assert_eq!(found.status, TransferStatus::Running);
        assert!(before <= found.progress && found.progress < 100, "{before}, then {}", found.progress);
        before = found.progress;
        assert_eq!(found.progress, expected, "stuck at read {stuck_at}");
    }
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

#[tokio::test]
async fn what_follows_a_cancelled_import_begins_once_that_one_writes_no_more() {
    let ground = Ground::new().await;
    let storage = Arc::new(Storage { stuck_put: Some(1), ..Storage::with("no first\nno first either\n") });
    ground.service.exchange_by(Arc::clone(&storage) as _);
    let cancelled = ground.begin_transfer(import()).await;
    let mut running = pin!(ground.service.run_transfers());
    // Its log is on its way.
    work_until(running.as_mut(), &storage.puts, 1).await;
    ground.ask_transfer(Ask::Cancel(cancelled.clone())).await.unwrap();
    let reads = *storage.reads.borrow();
    storage.files.lock().unwrap().insert("/in/devices.txt?sig=x".to_owned(), b"second\nno second".to_vec());
    let next = ground.begin_transfer(import()).await;
    let mut held = ground.store.hold("list_due_transfers");
    tokio::select! {
        () = &mut running => {}
        () = held.done() => {}
    }
    drop(held);
    let mut again = ground.store.hold("list_due_transfers");
    tokio::select! {
        () = &mut running => {}
        () = again.done() => {}
    }
    drop(again);
    assert_eq!(*storage.reads.borrow(), reads, "it has not begun");
    storage.release.notify_one();
    assert_eq!(ground.carry_on(running, &next).await.status, TransferStatus::Completed);
    assert_eq!(ground.transfer(&cancelled).await.status, TransferStatus::Cancelled);
    assert!(ground.is_there("second").await);
    assert_eq!(storage.lines("importErrors.log").unwrap(), ["2 no second"]);
}

#[tokio::test]
async fn what_a_cancelled_import_could_not_import_is_told_by_whoever_comes_next() {
    let ground = Ground::new().await;
    let text = "first\nno device\nsecond\n";
    let stuck = Arc::new(Storage { stuck_at: Some(4), ..Storage::with(text) });
    ground.service.exchange_by(Arc::clone(&stuck) as _);
    let id = ground.begin_transfer(import()).await;
    work_until(pin!(ground.service.run_transfers()), &stuck.reads, 4).await;
    ground.ask_transfer(Ask::Cancel(id.clone())).await.unwrap();
    assert_eq!(stuck.lines("importErrors.log"), None);

    let again = open(&ground.store, &ground.clock, Settings::default()).await.unwrap();
    let storage = Arc::new(Storage::with(text));
    again.exchange_by(Arc::clone(&storage) as _);
    let mut running = pin!(again.run_transfers());
    // The first time, the store does not say what it was.
    ground.store.plan_verb("import_faults", Fault::Away);
    let mut held = ground.store.hold("import_faults");
    tokio::select! {
        () = &mut running => {}
        () = held.done() => {}
    }
    ground.store.plan([]);
    drop(held);
    let mut ended = ground.store.hold("end_transfer");
    tokio::select! {
        () = &mut running => {}
        () = ended.done() => {}
    }
    assert_eq!(storage.lines("importErrors.log").unwrap(), ["2 no device"]);
    assert_eq!(ground.transfer(&id).await.status, TransferStatus::Cancelled);
    assert_eq!(*storage.reads.borrow(), 0, "nothing more is carried out");
    assert!(ground.store.inner().list_due_transfers().await.unwrap().is_empty(), "it is told once");
}

#[tokio::test]
async fn a_disk_that_is_full_fails_an_export_in_words() {
    for verb in ["begin_content", "put_block", "write_file", "advance_transfer"] {
        let ground = Ground::new().await;
        let draft = ground.own_container().await;
        ground.store.plan_verb(verb, Fault::Full);
        let id = ground.begin_transfer(draft).await;
        let ended = ground.carry(&ground.service, &id).await;
        assert_eq!(ended.status, TransferStatus::Failed, "{verb}");
        assert_eq!(ended.failure.as_deref(), Some("there is no room left on the server's disk"), "{verb}");
    }
}
