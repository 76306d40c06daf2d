//! Back-end programs that were let in: which stay, until when, and how to wake or end each.
//!
//! Beside the directory, whose connections are identities': a back-end program is nobody, and stays by its policy's right
//! alone. Whatever it asks is done only while it is entered here, so that whoever is cut off does nothing more. Start at
//! [`Service::perform_backend`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::access::Action;
use domain::clock::UnixTime;
use domain::identity::proof::has_ended;
use domain::ids::HubKey;
use domain::operation::backend::{Answer, Ask, Backend, Enter, Stay};
use domain::operation::session::CutOff;
use domain::operation::{Caller, ErrorKind, Push};
use domain::resource::Hub;
use tokio::sync::watch;

use crate::access::{Signed, authorize, unreached};
use crate::error::Error;
use crate::mailbox::{Mailbox, Slot, mailbox};
use crate::{Service, Snapshot};

/// Who was let in at this node.
#[derive(Debug, Default)]
pub struct Backends(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    entered: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    backend: Backend,
    slot: Slot,
    /// The other end, until the connection's driver fetches it.
    waiting: Option<Mailbox>,
    signed: Signed,
}

impl Backends {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, hub: &Hub, (action, path): (Action, Vec<String>), signed: Signed) -> Backend {
        let (slot, mailbox) = mailbox();
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let backend = Backend::enter(Stay { number, hub: hub.key, hub_name: hub.name.clone(), action, path });
        let entry = Entry { backend: backend.clone(), slot, waiting: Some(mailbox), signed };
        state.entered.insert(number, entry);
        backend
    }

    fn leave(&self, backend: &Backend) {
        self.state().entered.remove(&backend.number);
    }

    /// Has it stay as long as a newer signature; says whether it is still here.
    fn renew(&self, backend: &Backend, signed: Signed) -> bool {
        match self.state().entered.get_mut(&backend.number) {
            Some(entry) => {
                entry.signed = signed;
                true
            }
            None => false,
        }
    }

    fn is_here(&self, backend: &Backend) -> bool {
        self.state().entered.contains_key(&backend.number)
    }

    fn take_mailbox(&self, backend: &Backend) -> Option<Mailbox> {
        self.state().entered.get_mut(&backend.number)?.waiting.take()
    }

    /// Tells everybody who was let in for `action` that something may wait.
    pub fn wake(&self, action: Action) {
        for entry in self.state().entered.values().filter(|entry| entry.backend.action == action) {
            entry.slot.push(Push::MessagesWaiting);
        }
    }

    /// Ends every stay for which `doomed` gives a reason.
    fn cut_where(&self, doomed: impl Fn(&Entry) -> Option<CutOff>) {
        self.state().entered.retain(|_, entry| {
            let Some(reason) = doomed(entry) else { return true };
            tracing::info!(action = ?entry.backend.action, ?reason, "a back-end program was cut off");
            entry.slot.cut(reason);
            false
        });
    }

    /// Ends what a hub that is gone let in.
    pub fn forget_hub(&self, hub: HubKey) {
        self.cut_where(|entry| (entry.backend.hub == hub).then_some(CutOff::HubDeleted));
    }

    /// Ends what was let in by signatures that have run out.
    pub fn expire(&self, now: UnixTime) {
        self.cut_where(|entry| has_ended(entry.signed.expires_at, now).then_some(CutOff::TokenExpired));
    }

    /// Ends what a hub would not let in any more.
    pub fn judge(&self, hub: HubKey, resources: &Snapshot) {
        let present = resources.hub(hub);
        self.cut_where(|entry| match present {
            _ if entry.backend.hub != hub => None,
            None => Some(CutOff::HubDeleted),
            Some(hub) => (!entry.signed.is_upheld(&hub.policies, entry.backend.action)).then_some(CutOff::Rekeyed),
        });
    }
}

impl Service {
    /// Performs `ask`.
    pub(crate) fn perform_backend(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::Enter(enter) => self.enter_backend(caller, *enter),
            Ask::Renew(backend) => {
                let resources = self.resources();
                let hub = resources.hub(backend.hub).ok_or_else(gone)?;
                let signed = self.judge_backend(caller, &resources, hub, (backend.action, &backend.path))?;
                if !self.0.backends.renew(&backend, signed) {
                    return Err(Error::unauthorized());
                }
                // The policy may have been changed between the judgement and the renewal.
                self.0.backends.judge(backend.hub, &self.resources());
                Ok(Answer::Done)
            }
            Ask::Leave(backend) => {
                self.0.backends.leave(&backend);
                Ok(Answer::Done)
            }
        }
    }

    fn enter_backend(&self, caller: &Caller, enter: Enter) -> Result<Answer, Error> {
        let Enter { host, action, path } = enter;
        let resources = self.resources();
        let hub = resources
            .hub_at(&caller.endpoint, &host)
            .ok_or_else(|| unreached(caller, ErrorKind::HubNotFound, "No hub answers at this host."))?;
        let signed = self.judge_backend(caller, &resources, hub, (action, &path))?;
        let backend = self.0.backends.enter(hub, (action, path), signed);
        // The policy may have been changed between the judgement and the entry.
        self.0.backends.judge(hub.key, &self.resources());
        Ok(Answer::Entered(backend))
    }

    fn judge_backend(
        &self,
        caller: &Caller,
        resources: &Snapshot,
        hub: &Hub,
        (action, path): (Action, &[String]),
    ) -> Result<Signed, Error> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        authorize(caller, (resources.hub_aliases(hub), &path), &hub.policies, action, self.now())
    }

    /// The hub that a back-end program was let in to, if it was for `action` and has not been cut off.
    pub(crate) fn hub_of(&self, backend: &Backend, action: Action) -> Result<Arc<Hub>, Error> {
        if backend.action != action || !self.0.backends.is_here(backend) {
            return Err(Error::unauthorized());
        }
        self.resources().hub(backend.hub).cloned().ok_or_else(gone)
    }

    /// Wakes back-end programs whenever there is something of what they read, until the future is dropped.
    pub async fn run_backend_wakes(&self) {
        let store = &self.0.store;
        tokio::join!(
            self.wake_at(store.feedback_changes(), Action::ReadFeedback),
            self.wake_at(store.notification_changes(), Action::ReadFileNotifications),
        );
    }

    async fn wake_at(&self, mut changes: watch::Receiver<u64>, action: Action) {
        while changes.changed().await.is_ok() {
            self.0.backends.wake(action);
        }
    }

    /// What a back-end program that was let in is told; `None` if it was cut off, or its mailbox was taken already.
    pub fn backend_mailbox(&self, backend: &Backend) -> Option<Mailbox> {
        self.0.backends.take_mailbox(backend)
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::HubNotFound, "The hub is gone.")
}
