//! What a provisioning service answers devices.

use std::sync::Arc;

use domain::attestation::{Proven, Registrant, Rejection};
use domain::decision::{Cause, Decision, Outcome};
use domain::ids::{OperationId, RegistrationId, ServiceKey};
use domain::operation::registration::{
    Answer, Ask, Registration, RegistrationError, RegistrationState, RegistrationStatus, Request, Unfit,
};
use domain::operation::{Caller, ErrorKind};
use domain::resource::ProvisioningService;
use serde_json::Value;
use store::ports::Accepted;

use super::attest::Attested;
use crate::Service;
use crate::error::Error;

impl Service {
    /// Performs `ask`. Every request is judged afresh: the enrollment may have changed since the last one.
    pub(crate) async fn perform_registration(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        if let Request::Refuse(unfit) = &ask.request {
            return Err(self.refuse_unfit(caller, &ask, unfit));
        }
        let resources = self.resources();
        let Some(service) = resources.scope_at(&caller.endpoint, &ask.id_scope).map(Arc::clone) else {
            return Err(self.unknown_scope(caller, &ask));
        };
        let registration_id = RegistrationId::parse(&ask.registration_id).map_err(|invalid| {
            let refused = self.refuse_unfit(caller, &ask, &Unfit::RegistrationId);
            Error { public: format!("The registration ID: {invalid}.").into(), ..refused }
        })?;
        let attested = self.attest(caller, &service, &registration_id, &ask.id_scope).await?;
        match ask.request {
            Request::Register(registration) => self.register(&service, registration_id, attested, *registration).await,
            Request::Poll { operation } => {
                self.admit(&service, &registration_id, &attested)?;
                self.poll(&service, registration_id, &operation).await
            }
            Request::LookUp => {
                self.admit(&service, &registration_id, &attested)?;
                let state = self.0.store.find_registration(service.key, &registration_id).await?;
                let state = state.unwrap_or_else(|| RegistrationState::unassigned(registration_id));
                Ok(Answer::State(Box::new(self.with_host(state))))
            }
            // Dealt with above.
            Request::Refuse(_) => Err(Error::unauthorized()),
        }
    }

    /// Records why the device is refused without being judged, if anything is decided of it.
    fn refuse_unfit(&self, caller: &Caller, ask: &Ask, unfit: &Unfit) -> Error {
        let cause = match (unfit, unfit.cause()) {
            (Unfit::Request { kind, public }, _) => return Error::new(*kind, public.clone()),
            (_, None) => return Error::unauthorized(),
            (_, Some(cause)) => cause,
        };
        let mut decision = self.open_decision(caller, &ask.id_scope, &ask.registration_id);
        decision.service = self.resources().scope_at(&caller.endpoint, &ask.id_scope).map(|service| service.key);
        decision.presented = unfit.presented().unwrap_or(decision.presented);
        decision.outcome = Outcome::refused_because(cause, unfit);
        let tracking = decision.tracking;
        tracing::info!(%tracking, registration.id = %decision.registration_id, cause = cause.code(), "{unfit}");
        self.0.store.record_refusal(decision);
        let error = match unfit {
            Unfit::RegistrationId => Error::invalid("The registration ID is not valid."),
            _ => Error::unauthorized(),
        };
        error.tracked(tracking)
    }

    fn unknown_scope(&self, caller: &Caller, ask: &Ask) -> Error {
        let mut decision = self.open_decision(caller, &ask.id_scope, &ask.registration_id);
        let what = format!("no provisioning service at {} has the ID scope", caller.endpoint);
        decision.outcome = Outcome::refused_because(Cause::WrongIdScope, &what);
        let error = scope_not_found().tracked(decision.tracking);
        self.0.store.record_refusal(decision);
        error
    }

    /// Records a refusal; the answer to every refused credential is the same.
    fn admit(
        &self,
        service: &ProvisioningService,
        registration_id: &RegistrationId,
        attested: &Attested,
    ) -> Result<(), Error> {
        let Err(rejection) = &attested.outcome else { return Ok(()) };
        let tracking = attested.decision.tracking;
        tracing::info!(%tracking, registration.id = %registration_id, cause = rejection.cause().code(), "{rejection}");
        self.0.store.record_refusal(attested.decision.clone());
        if *rejection == Rejection::Disabled {
            self.note_disabled(service.key, registration_id.clone());
        }
        Err(Error::unauthorized().tracked(tracking))
    }

    /// Lets the record say why, without having the refusal wait for it: the time it takes would tell.
    fn note_disabled(&self, service: ServiceKey, registration_id: RegistrationId) {
        let Ok(permit) = Arc::clone(&self.0.refusal_notes).try_acquire_owned() else { return };
        let (store, now, service_of) = (Arc::clone(&self.0.store), self.now(), self.clone());
        let noting = async move {
            let status = RegistrationStatus::Disabled;
            if let Err(error) = store.note_refusal(service, &registration_id, status, None, now).await {
                service_of.fail(error.into());
            }
            drop(permit);
        };
        self.0.tasks.spawn("refusal-note", Box::pin(noting));
    }

    async fn register(
        &self,
        service: &ProvisioningService,
        registration_id: RegistrationId,
        attested: Attested,
        registration: Registration,
    ) -> Result<Answer, Error> {
        let written = registration.registration_id.as_deref();
        if !written.is_none_or(|written| written.eq_ignore_ascii_case(registration_id.as_str())) {
            return Err(Error::invalid("The registration ID of the body is not that of the request."));
        }
        if registration.has_certificate_request {
            return Err(Error::invalid("Certificates are not issued here: leave out csr."));
        }
        self.admit(service, &registration_id, &attested)?;
        let Attested { outcome, mut decision } = attested;
        let Ok(proven) = outcome else { return Err(Error::unauthorized()) };
        let fresh = OperationId::generate(self.entropy());
        decision.outcome = Outcome::Admitted { by: proven.admitted_by.name.clone(), operation: fresh };
        let service = self.clone();
        let accepting = async move { service.accept(&proven, fresh, registration.payload, decision).await };
        // What was accepted is also assigned, though the device may have hung up.
        let operation = self.carry_through("registration", accepting).await?;
        Ok(Answer::Accepted { operation, retry_after_s: self.0.settings.retry_after_s })
    }

    /// Queues the assignment of a device, and wakes the worker; the operation that the device is to poll.
    async fn accept(
        &self,
        proven: &Proven<Registrant>,
        fresh: OperationId,
        payload: Option<Value>,
        decision: Decision,
    ) -> Result<OperationId, Error> {
        let accepted = self.0.store.accept_registration(proven, fresh, payload, decision, self.now()).await?;
        match accepted {
            Accepted::New => {
                self.0.assignments.notify_one();
                let id = &proven.registration_id;
                tracing::info!(registration.id = %id, operation.id = %fresh, "registration accepted");
                Ok(fresh)
            }
            Accepted::AlreadyRunning(running) => Ok(running),
            Accepted::ServiceGone => Err(scope_not_found()),
        }
    }

    async fn poll(
        &self,
        service: &ProvisioningService,
        registration_id: RegistrationId,
        operation: &str,
    ) -> Result<Answer, Error> {
        let unknown = || Error::new(ErrorKind::OperationNotFound, "Operation not found.");
        let operation = OperationId::parse(operation).ok_or_else(unknown)?;
        let view = self.0.store.find_operation(service.key, operation).await?.ok_or_else(unknown)?;
        if view.registration_id != registration_id {
            return Err(unknown());
        }
        Ok(match view.outcome {
            None => Answer::Assigning { operation, registration_id, retry_after_s: self.0.settings.retry_after_s },
            Some(state) => Answer::Finished { operation, state: Box::new(for_device(self.with_host(state))) },
        })
    }
}

fn scope_not_found() -> Error {
    Error::new(ErrorKind::ScopeNotFound, "The ID scope was not found.")
}

/// A registration that ended badly always tells a code and a reason: one client cannot read it otherwise.
fn for_device(mut state: RegistrationState) -> RegistrationState {
    if matches!(state.status, RegistrationStatus::Failed | RegistrationStatus::Disabled) {
        state.error.get_or_insert(RegistrationError { code: 401_002, message: "Unauthorized".to_owned() });
    }
    state
}
