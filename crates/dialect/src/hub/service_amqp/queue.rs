//! What waits at a hub until a back-end program has read and settled it: feedback, and notifications of uploaded files
//! (`contract/hub-service.md 9.4` and `9.5`).
//!
//! Both are read and settled alike, and differ in what they say. Nothing here knows a link. Start at [`Queue`].

use domain::access::Action;
use domain::cloud_to_device::{FeedbackBatch, Settlement};
use domain::file::LockedNotification;
use domain::ids::{HubName, LockToken};
use domain::operation::backend::Backend;
use domain::operation::cloud_to_device::AtHub;
use domain::operation::{Operation, Reply, cloud_to_device, file};
use proto::amqp::{Body, Map, Message, MessageId, Properties, Symbol, Value};

use crate::hub::words;

/// When what is told of was written, the last of a batch; C# wants to read it.
const ENQUEUED_AT: Symbol = Symbol::from_static("iothub-enqueuedtime");

/// Which queue of a hub is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// What became of messages to devices.
    Feedback,
    /// Which files were uploaded.
    FileNotifications,
}

impl Queue {
    /// Where it is read, and what a signature has to cover.
    pub const fn path(self) -> &'static [&'static str] {
        match self {
            Self::Feedback => &["messages", "serviceBound", "feedback"],
            Self::FileNotifications => &["messages", "serviceBound", "filenotifications"],
        }
    }

    /// What whoever reads it does.
    pub const fn action(self) -> Action {
        match self {
            Self::Feedback => Action::ReadFeedback,
            Self::FileNotifications => Action::ReadFileNotifications,
        }
    }

    /// C# and Java take nothing else.
    const fn content_type(self) -> Symbol {
        match self {
            Self::Feedback => Symbol::from_static("application/vnd.microsoft.iothub.feedback.json"),
            Self::FileNotifications => Symbol::from_static("application/vnd.microsoft.iothub.filenotification.json"),
        }
    }

    /// To take what nobody has at present, for a program that was let in.
    pub fn take(self, backend: &Backend) -> Operation {
        let hub = AtHub::Entered(backend.clone());
        match self {
            Self::Feedback => Operation::CloudToDevice(cloud_to_device::Ask::TakeFeedback(hub)),
            Self::FileNotifications => Operation::File(file::Ask::TakeNotification(hub)),
        }
    }

    /// To settle what such a program was given.
    pub fn settle(self, backend: &Backend, lock: LockToken, settlement: Settlement) -> Operation {
        let hub = AtHub::Entered(backend.clone());
        match self {
            Self::Feedback => Operation::CloudToDevice(cloud_to_device::Ask::SettleFeedback { hub, lock, settlement }),
            Self::FileNotifications => Operation::File(file::Ask::SettleNotification { hub, lock, settlement }),
        }
    }
}

/// What was taken: all of it is settled by one lock.
#[derive(Debug)]
pub enum Taken {
    /// A batch of feedback.
    Feedback(FeedbackBatch),
    /// One notification.
    FileNotification(Box<LockedNotification>),
}

impl Taken {
    /// What `reply` brings, if it brings anything.
    pub fn of(reply: Reply) -> Option<Self> {
        match reply {
            Reply::CloudToDevice(cloud_to_device::Answer::Feedback(batch)) => batch.map(Self::Feedback),
            Reply::File(file::Answer::Notification(locked)) => locked.map(Self::FileNotification),
            _ => None,
        }
    }

    /// Where it was taken from.
    pub const fn queue(&self) -> Queue {
        match self {
            Self::Feedback(_) => Queue::Feedback,
            Self::FileNotification(_) => Queue::FileNotifications,
        }
    }

    /// By which it is settled.
    pub const fn lock(&self) -> LockToken {
        match self {
            Self::Feedback(batch) => batch.lock,
            Self::FileNotification(locked) => locked.lock,
        }
    }

    /// As programs at `hub` read it.
    pub fn message(&self, hub: &HubName) -> Message {
        let (enqueued_at, body) = match self {
            Self::Feedback(FeedbackBatch { records, .. }) => {
                (records.iter().map(|record| record.at).max(), words::feedback(records))
            }
            Self::FileNotification(locked) => (Some(locked.notification.enqueued_at), words::file_notification(locked)),
        };
        let queue = self.queue();
        let mut message_annotations = Map::EMPTY;
        if let Some(enqueued_at) = enqueued_at {
            message_annotations.push(ENQUEUED_AT, Value::Timestamp(enqueued_at.millis()));
        }
        let properties = Properties {
            message_id: Some(MessageId::String(self.lock().to_string().into())),
            user_id: Some(hub.as_str().to_owned().into()),
            to: Some(format!("/{}", queue.path().join("/")).into()),
            content_type: Some(queue.content_type()),
            ..Properties::default()
        };
        Message {
            message_annotations,
            properties: Some(Box::new(properties)),
            body: Body::data(body.to_string()),
            ..Message::default()
        }
    }
}
