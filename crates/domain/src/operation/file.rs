//! Devices upload files, and back-end programs and operators hear of them and fetch them.

use std::sync::Arc;

use crate::cloud_to_device::Settlement;
use crate::file::{
    Access, ContainerToken, FileName, FileToken, LockedNotification, StorageToken, StoredFile, UploadOutcome,
};
use crate::ids::{HubKey, HubName, LockToken, UploadId};

use super::cloud_to_device::AtHub;
use super::identity::IdentityName;
use super::{Page, PageRequest};

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// A device that proves itself with the request wants to upload a file.
    Begin {
        /// Who it claims to be.
        name: IdentityName,
        /// What it calls the file.
        file: String,
    },
    /// A device that proves itself with the request has uploaded a file, or has failed to.
    End {
        /// Who it claims to be.
        name: IdentityName,
        /// Which.
        upload: UploadId,
        /// How it went.
        outcome: UploadOutcome,
    },
    /// Whoever holds a token wants its file.
    Open {
        /// The token.
        token: StorageToken,
        /// The container, as the address has it.
        container: String,
        /// The file, as the address has it.
        file: FileName,
        /// What for.
        access: Access,
    },
    /// An operator wants a page of the files of a hub, in order of their names.
    List {
        /// Which hub.
        hub: HubName,
        /// Which page.
        page: PageRequest,
    },
    /// An operator wants to read a file.
    Fetch {
        /// Which hub.
        hub: HubName,
        /// Which file.
        file: FileName,
    },
    /// An operator removes a file.
    Delete {
        /// Which hub.
        hub: HubName,
        /// Which file.
        file: FileName,
    },
    /// An operator wants to let somebody read and write all files of a hub.
    Sign {
        /// Which hub.
        hub: HubName,
        /// For how long, in seconds.
        ttl_s: u64,
    },
    /// Take a notification that nobody has at present.
    TakeNotification(AtHub),
    /// Settle a notification that was taken.
    SettleNotification {
        /// Where.
        hub: AtHub,
        /// Which.
        lock: LockToken,
        /// How. A rejected notification is done with, like a completed one.
        settlement: Settlement,
    },
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The device may upload.
    Begun {
        /// The container.
        container: String,
        /// The file.
        file: FileName,
        /// What lets it.
        token: FileToken,
    },
    /// The upload is over.
    Ended,
    /// The holder of a token, or the operator, may go on.
    Opened(OpenFile),
    /// Files.
    Files(Page<StoredFile>),
    /// It is gone.
    Deleted,
    /// Who is given this may read and write all files of the container.
    Signed {
        /// The hub's own host name.
        host: String,
        /// The container.
        container: String,
        /// What lets them.
        token: ContainerToken,
    },
    /// A notification, if there was any.
    Notification(Option<Box<LockedNotification>>),
    /// The notification is settled.
    Settled,
}

/// Proof that a file may be read or written, carried by everything that is done to it. Only `service` makes one.
#[derive(Clone, Debug)]
pub struct OpenFile(Arc<Opened>);

/// What an [`OpenFile`] stands for.
#[derive(Debug)]
pub struct Opened {
    /// The hub.
    pub hub: HubKey,
    /// The file.
    pub file: FileName,
    /// The upload by which it may be written; `None` for who only reads.
    pub upload: Option<UploadId>,
}

impl OpenFile {
    /// Opens a file for who may have it.
    pub fn open(opened: Opened) -> Self {
        Self(Arc::new(opened))
    }
}

impl std::ops::Deref for OpenFile {
    type Target = Opened;
    fn deref(&self) -> &Opened {
        &self.0
    }
}
