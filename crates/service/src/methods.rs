//! Direct methods: an operator calls, the connected device answers (`contract/hub-service.md 7`).
//!
//! A call is a conversation, not a message: it reaches a connection that listens for methods while its caller waits, or
//! it fails. It is never kept, repeated or answered from anything but that connection. Start at [`Service::call_method`].

use domain::access::Action;
use domain::ids::{HubKey, MethodRequestId};
use domain::method::{Call, NoResponse, Response, Waiter};
use domain::operation::identity::IdentityName;
use domain::operation::method::{Answer, Ask};
use domain::operation::{Caller, ErrorKind};
use tokio::time::timeout;

use crate::Service;
use crate::calls::{Outcome, Untaken};
use crate::error::Error;
use crate::registry::not_found;
use crate::twins;

impl Service {
    /// Performs `ask`.
    pub(crate) async fn perform_method(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::Invoke { name, call } => {
                let mut path = twins::path(&name);
                path.push("methods".to_owned());
                let hub = self.authorize_at_hub(caller, Action::InvokeMethods, &path)?;
                self.call_method(hub.key, name, *call).await.map(|(_, response)| Answer::Responded(response))
            }
            Ask::Respond { device, request, response } => {
                self.hear(&device);
                self.0.directory.answer_call(&device, request, response);
                Ok(Answer::Noted)
            }
        }
    }

    /// Calls a method of an identity and waits for what it says, for a caller who may.
    pub(crate) async fn call_method(
        &self,
        hub: HubKey,
        name: IdentityName,
        call: Call,
    ) -> Result<(MethodRequestId, Response), Error> {
        if self.0.store.find_identity(hub, &name).await?.is_none() {
            // The hub names the device, also where a module is missing, as for twins.
            return Err(not_found(&IdentityName::device(name.device)));
        }
        let Call { method, payload, timeouts } = call;
        let _place = self.0.calls.take(hub).ok_or_else(|| untaken(Untaken::Crowded))?;
        let waiter = Waiter::new();
        let id = MethodRequestId::generate(self.entropy());
        let request = waiter.request(id, method, payload);
        let mut pending = self.0.directory.call((hub, name), waiter, request).map_err(untaken)?;
        match timeout(timeouts.connect, pending.told()).await {
            Ok(Some(())) => {}
            Ok(None) => return Err(untaken(Untaken::Stopping)),
            Err(_) => {
                return Err(Error::new(ErrorKind::DeviceNotOnline, "Timed out waiting for device to connect."));
            }
        }
        match timeout(timeouts.response, pending.answer()).await {
            Ok(answer) => read(answer).map(|response| (id, response)),
            Err(_) => Err(unanswered("Timed out waiting for the response from device.")),
        }
    }

    /// Takes no more calls, and ends those that no device was told: the server is about to stop. Those that a device was
    /// told end with its connection.
    pub fn stop_calls(&self) {
        self.0.directory.stop_calls();
    }
}

fn read(answer: Option<Outcome>) -> Result<Response, Error> {
    match answer {
        Some(Ok(response)) => Ok(response),
        Some(Err(reason @ NoResponse::Invalid(_))) => Err(unanswered(reason.to_string())),
        Some(Err(reason @ NoResponse::RequestTooLong { .. })) => {
            Err(Error::new(ErrorKind::TooLarge, reason.to_string()))
        }
        None => Err(unanswered("The device's connection ended before it responded.")),
    }
}

/// Nobody knows whether the device did what it was told.
fn unanswered(public: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::DeviceUnanswering, public)
}

fn untaken(reason: Untaken) -> Error {
    match reason {
        Untaken::Crowded => Error::new(ErrorKind::Throttled, "Too many calls are under way; try again later."),
        Untaken::Stopping => Error::new(ErrorKind::Unavailable, "The server is stopping; try again."),
    }
}
