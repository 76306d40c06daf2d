//! Back-end programs that stay: who is let in, what each may do, when it is woken and when it is cut off.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use domain::access::Action;
use domain::clock::Clock as _;
use domain::cloud_to_device::{Acknowledgement, Draft, FeedbackSettings};
use domain::file::{FileName, FileProperties};
use domain::ids::{ContentId, Precondition, UploadId};
use domain::operation::backend::{Answer, Ask, Backend, Enter};
use domain::operation::cloud_to_device::{Ask as MessageAsk, AtHub};
use domain::operation::file::{Answer as FileAnswer, Ask as FileAsk};
use domain::operation::resource::{Ask as ResourceAsk, HubDraft, PolicyDraft, ResourceName};
use domain::operation::session::CutOff;
use domain::operation::{Caller, ErrorKind, Failure, Operation, Push, Reply};
use service::Mailbox;
use store::conformance::Done as _;
use store::conformance::sample::{NOON, device, identity, keys};
use store::ports::{
    Begun, Ended, Ending, FileStore as _, IdentityStore as _, NewUpload, Writing, WritingSource, Written,
};

use crate::ground::{Ground, PATIENCE};

const FEEDBACK: [&str; 3] = ["messages", "serviceBound", "feedback"];

fn enter(host: &str, action: Action) -> Operation {
    let path = FEEDBACK.map(str::to_owned).to_vec();
    Operation::Backend(Ask::Enter(Box::new(Enter { host: host.to_owned(), action, path })))
}

impl Ground {
    /// A program that signs with a policy of the hub.
    fn back_end(&self, policy: &str) -> Caller {
        let hub = self.hub();
        let found = hub.policies.iter().find(|found| found.name.as_str() == policy).unwrap();
        self.signed(hub.address.unwrap(), "", (&found.keys.primary, Some(policy)))
    }

    async fn enter(&self, caller: &Caller, action: Action) -> Result<(Backend, Mailbox), Failure> {
        match self.service.perform(caller, enter("", action)).await? {
            Reply::Backend(Answer::Entered(backend)) => {
                let mailbox = self.service.backend_mailbox(&backend).unwrap();
                Ok((backend, mailbox))
            }
            other => panic!("{other:?}"),
        }
    }

    async fn take(&self, backend: &Backend) -> Result<Reply, Failure> {
        // Who has been let in needs no signature.
        let ask = MessageAsk::TakeFeedback(AtHub::Entered(backend.clone()));
        self.service.perform(&self.back_end("device"), Operation::CloudToDevice(ask)).await
    }

    async fn change_policies(&self, change: impl Fn(&mut Vec<PolicyDraft>)) {
        let present = self.hub().policies.clone();
        let mut drafts: Vec<PolicyDraft> = present
            .into_iter()
            .map(|policy| PolicyDraft {
                name: policy.name,
                primary: Some(policy.keys.primary),
                secondary: Some(policy.keys.secondary),
                rights: policy.rights.to_string(),
            })
            .collect();
        change(&mut drafts);
        let ask = ResourceAsk::PutHub {
            place: self.place(),
            name: self.hub().name.clone(),
            draft: Box::new(HubDraft { policies: Some(drafts), ..HubDraft::default() }),
            precondition: Precondition::None,
        };
        self.service.perform(&self.operator(), Operation::Resource(ask)).await.unwrap();
    }

    async fn is_shut_out(&self, (backend, mailbox): &(Backend, Mailbox), reason: CutOff) {
        assert!(matches!(mailbox.try_next(), Some(Push::CutOff(found)) if found == reason), "{reason:?}");
        assert_eq!(self.take(backend).await.unwrap_err().kind, ErrorKind::Unauthorized, "{reason:?}");
    }
}

#[tokio::test]
async fn a_program_is_let_in_by_its_policys_right_alone() {
    let ground = Ground::new().await;
    for (policy, expected) in [
        ("service", None),
        ("iothubowner", None),
        ("registryReadWrite", Some(ErrorKind::Forbidden)),
        ("device", Some(ErrorKind::Forbidden)),
    ] {
        let entered = ground.enter(&ground.back_end(policy), Action::ReadFeedback).await;
        assert_eq!(entered.err().map(|failure| failure.kind), expected, "{policy}");
    }
    let mut nobody = ground.back_end("service");
    nobody.evidence.token = None;
    let refused = ground.service.perform(&nobody, enter("", Action::ReadFeedback)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unauthorized);
    let elsewhere = ground.service.perform(&ground.back_end("service"), enter("elsewhere", Action::ReadFeedback)).await;
    assert_eq!(elsewhere.unwrap_err().kind, ErrorKind::HubNotFound);
}

#[tokio::test]
async fn a_program_does_what_it_was_let_in_for_and_nothing_else() {
    let ground = Ground::new().await;
    let (reader, _mailbox) = ground.enter(&ground.back_end("service"), Action::ReadFeedback).await.unwrap();
    ground.take(&reader).await.unwrap();
    let (sender, _mailbox) = ground.enter(&ground.back_end("service"), Action::SendToDevices).await.unwrap();
    assert_eq!(ground.take(&sender).await.unwrap_err().kind, ErrorKind::Unauthorized);
    let leave = Operation::Backend(Ask::Leave(reader.clone()));
    ground.service.perform(&ground.back_end("service"), leave).await.unwrap();
    assert_eq!(ground.take(&reader).await.unwrap_err().kind, ErrorKind::Unauthorized, "it has left");
}

/// The first thing that `mailbox` is told while `doing` is done and the service wakes its programs.
async fn told(ground: &Ground, mailbox: &Mailbox, doing: impl Future<Output = ()>) -> Push {
    let waiting = async {
        doing.await;
        mailbox.next().await
    };
    let mut wakes = pin!(ground.service.run_backend_wakes());
    tokio::select! {
        biased;
        () = &mut wakes => panic!("nobody wakes any more"),
        told = tokio::time::timeout(PATIENCE, waiting) => told.expect("it is woken"),
    }
}

#[tokio::test]
async fn who_reads_feedback_is_woken_when_there_is_some() {
    let ground = Ground::new().await;
    let hub = ground.hub().key;
    ground.store.create_identity(hub, identity(device("dev"), 1), None, NOON).await.unwrap().done();
    let back_end = ground.back_end("service");
    let (_reader, mailbox) = ground.enter(&back_end, Action::ReadFeedback).await.unwrap();
    let (_reader, other) = ground.enter(&back_end, Action::ReadFileNotifications).await.unwrap();
    let (sender, idle) = ground.enter(&back_end, Action::SendToDevices).await.unwrap();
    let message = Box::new(Draft { acknowledgement: Acknowledgement::Full, ..Draft::default() });
    let send = MessageAsk::Send { hub: AtHub::Entered(sender), to: device("dev"), message };
    let told = told(&ground, &mailbox, async {
        ground.service.perform(&ground.back_end("device"), Operation::CloudToDevice(send)).await.unwrap();
        let purge = Operation::CloudToDevice(MessageAsk::Purge(device("dev")));
        ground.service.perform(&back_end, purge).await.unwrap();
    });
    assert!(matches!(told.await, Push::MessagesWaiting));
    assert!(idle.try_next().is_none(), "who sends is not woken");
    assert!(other.try_next().is_none(), "nor who reads something else");
}

#[tokio::test]
async fn who_reads_notifications_of_files_is_woken_when_there_is_one() {
    let ground = Ground::new().await;
    let hub = ground.hub().key;
    let identity = ground.store.create_identity(hub, identity(device("dev"), 1), None, NOON).await.unwrap().done();
    let back_end = ground.back_end("service");
    let (reader, mailbox) = ground.enter(&back_end, Action::ReadFileNotifications).await.unwrap();
    let (feedback, other) = ground.enter(&back_end, Action::ReadFeedback).await.unwrap();
    let told = told(&ground, &mailbox, upload(&ground, identity.generation));
    assert!(matches!(told.await, Push::MessagesWaiting));
    assert!(other.try_next().is_none(), "who reads feedback is not woken");
    let take = |backend| Operation::File(FileAsk::TakeNotification(AtHub::Entered(backend)));
    let refused = ground.service.perform(&back_end, take(feedback)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unauthorized, "it was let in for something else");
    // Who has been let in needs no signature.
    let taken = ground.service.perform(&ground.back_end("device"), take(reader)).await.unwrap();
    let Reply::File(FileAnswer::Notification(Some(locked))) = taken else { panic!("{taken:?}") };
    assert_eq!((locked.notification.file.as_str(), locked.notification.bytes), ("dev/a", 4));
}

/// Has `dev` of this generation upload a file of which back-end programs are told.
async fn upload(ground: &Ground, generation: String) {
    let (hub, now) = (ground.hub().key, ground.clock.now());
    let (upload, file) = (UploadId::from_bits(1), FileName::parse("dev/a").unwrap());
    let new = NewUpload { id: upload, generation, file, expires_at: now.plus(Duration::from_secs(60)) };
    assert_eq!(ground.store.begin_upload(hub, &device("dev"), new, now).await.unwrap(), Begun::Done);
    let mut writer = ground.store.begin_content(ContentId::from_bits(1)).await.unwrap();
    writer.write(Bytes::from_static(b"four")).await.unwrap();
    let source = WritingSource::Whole(writer.finish().await.unwrap());
    let writing = Writing { upload, source, properties: FileProperties::default(), only_new: false };
    assert!(matches!(ground.store.write_file(hub, writing, now).await.unwrap(), Written::Done(_)));
    let ending = Ending { upload, notify: Some(FeedbackSettings::default()) };
    assert_eq!(ground.store.end_upload(hub, &device("dev"), ending, now).await.unwrap(), Ended::Done);
}

#[tokio::test]
async fn a_program_is_cut_off_with_its_policy_its_key_or_its_right() {
    type Change = fn(&mut Vec<PolicyDraft>);
    let changes: [(&str, Change); 3] = [
        ("the policy is gone", |drafts| drafts.retain(|draft| draft.name.as_str() != "service")),
        ("another key", |drafts| {
            let draft = drafts.iter_mut().find(|draft| draft.name.as_str() == "service").unwrap();
            draft.primary = Some(keys(9).primary);
        }),
        ("without the right", |drafts| {
            let draft = drafts.iter_mut().find(|draft| draft.name.as_str() == "service").unwrap();
            draft.rights = "DeviceConnect".to_owned();
        }),
    ];
    for (case, change) in changes {
        let ground = Ground::new().await;
        let cut = ground.enter(&ground.back_end("service"), Action::ReadFeedback).await.unwrap();
        let stays = ground.enter(&ground.back_end("iothubowner"), Action::ReadFeedback).await.unwrap();
        ground.change_policies(change).await;
        ground.is_shut_out(&cut, CutOff::Rekeyed).await;
        assert!(stays.1.try_next().is_none(), "{case}");
        ground.take(&stays.0).await.unwrap();
    }
}

#[tokio::test]
async fn a_program_is_cut_off_with_its_token_unless_a_newer_one_counts() {
    let ground = Ground::new().await;
    let cut = ground.enter(&ground.back_end("service"), Action::ReadFeedback).await.unwrap();
    let stays = ground.enter(&ground.back_end("service"), Action::ReadFeedback).await.unwrap();
    ground.clock.advance(Duration::from_secs(1_800));
    let renew = |backend: &Backend| Operation::Backend(Ask::Renew(backend.clone()));
    ground.service.perform(&ground.back_end("service"), renew(&stays.0)).await.unwrap();
    let refused = ground.service.perform(&ground.back_end("device"), renew(&cut.0)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Forbidden, "a policy without the right renews nothing");
    ground.clock.advance(Duration::from_secs(1_810));
    let mut expiry = pin!(ground.service.run_expiry());
    let told = tokio::select! {
        biased;
        () = &mut expiry => panic!("nothing expires any more"),
        told = tokio::time::timeout(PATIENCE, cut.1.next()) => told.expect("it is cut off"),
    };
    assert!(matches!(told, Push::CutOff(CutOff::TokenExpired)));
    ground.is_shut_out(&cut, CutOff::TokenExpired).await;
    let late = ground.service.perform(&ground.back_end("service"), renew(&cut.0)).await.unwrap_err();
    assert_eq!(late.kind, ErrorKind::Unauthorized);
    assert!(stays.1.try_next().is_none());
    ground.take(&stays.0).await.unwrap();
}

#[tokio::test]
async fn a_program_is_cut_off_with_its_hub() {
    let ground = Ground::new().await;
    let cut = ground.enter(&ground.back_end("service"), Action::ReadFeedback).await.unwrap();
    let (name, caller) = (ResourceName::Hub(ground.hub().name.clone()), ground.back_end("device"));
    let ask = ResourceAsk::Delete { place: ground.place(), name };
    ground.service.perform(&ground.operator(), Operation::Resource(ask)).await.unwrap();
    assert!(matches!(cut.1.try_next(), Some(Push::CutOff(CutOff::HubDeleted))));
    let take = Operation::CloudToDevice(MessageAsk::TakeFeedback(AtHub::Entered(cut.0)));
    assert!(ground.service.perform(&caller, take).await.is_err());
}
