//! Gathering the entries that could admit a device, and the judgement over them.

use std::sync::Arc;

use domain::attestation::{self, Candidates, Claim, Individually, Proven, Registrant, Rejection};
use domain::certificate::PresentedChain;
use domain::decision::{Decision, Outcome, OutsideText, Presented, Trace};
use domain::enrollment::{Enrollment, EntryName, Mechanism};
use domain::ids::{RegistrationId, ServiceKey, TrackingId};
use domain::operation::Caller;
use domain::resource::{CaCertificate, CertificateOwner, ProvisioningService};
use store::ports::X509Lookup;

use crate::Service;
use crate::error::Error;

/// What attestation found: the proof or why there is none, and the trace of it.
pub(super) struct Attested {
    pub(super) outcome: Result<Proven<Registrant>, Rejection>,
    pub(super) decision: Decision,
}

/// Groups that could admit a device.
#[derive(Default)]
struct Groups {
    x509: Vec<Enrollment>,
    by_key: Arc<[Enrollment]>,
    admitted_before: Option<Enrollment>,
}

impl Service {
    /// A decision with nothing looked at yet.
    pub(super) fn open_decision(&self, caller: &Caller, id_scope: &str, registration_id: &str) -> Decision {
        Decision {
            tracking: TrackingId::generate(self.entropy()),
            at: self.now(),
            service: None,
            id_scope: OutsideText::new(id_scope),
            registration_id: OutsideText::new(registration_id),
            peer: caller.peer,
            transport: caller.transport,
            presented: Presented::of(&caller.evidence),
            outcome: Outcome::refused(&Rejection::NoCredential),
            trace: Trace::default(),
            repeats: 0,
        }
    }

    /// Judges what the caller presents for `registration_id`. A refusal reads the same entries whether or not the ID is
    /// enrolled, so that the time taken does not tell; an admission by an individual enrollment reads no others.
    pub(super) async fn attest(
        &self,
        caller: &Caller,
        service: &ProvisioningService,
        registration_id: &RegistrationId,
        id_scope: &str,
    ) -> Result<Attested, Error> {
        let mut decision = self.open_decision(caller, id_scope, registration_id.as_str());
        decision.service = Some(service.key);
        let resources = self.resources();
        let authorities = resources.certificates(CertificateOwner::Service(service.key));
        let name = EntryName::Individual(registration_id.clone());
        let individual = self.0.store.find_enrollment(service.key, &name).await?;
        let evidence = &caller.evidence;
        let claim = Claim { service: service.key, id_scope, registration_id, now: self.now() };
        let known = Candidates { individual: individual.as_ref(), authorities, ..Candidates::default() };
        let verdict = match attestation::attest_individual(claim, evidence, known) {
            Individually::Admitted(verdict) => verdict,
            Individually::Open(open) => {
                let groups = self.groups(caller, service.key, registration_id, authorities).await?;
                let candidates = Candidates {
                    x509_groups: &groups.x509,
                    key_groups: &groups.by_key,
                    admitted_before: groups.admitted_before.as_ref(),
                    ..known
                };
                open.attest_groups(candidates)
            }
        };
        decision.trace = verdict.trace;
        if let Err(rejection) = &verdict.result {
            decision.outcome = Outcome::refused(rejection);
        }
        Ok(Attested { outcome: verdict.result, decision })
    }

    /// The groups that could admit a device by what it presents.
    async fn groups(
        &self,
        caller: &Caller,
        service: ServiceKey,
        registration_id: &RegistrationId,
        authorities: &[CaCertificate],
    ) -> Result<Groups, Error> {
        let mut groups = Groups::default();
        match (&caller.evidence.token, &caller.evidence.certificates) {
            (Some(_), _) => {
                let store = self.0.store.as_ref();
                groups.by_key = self.0.key_groups.find(store, service, self.0.settings.key_groups_tried_max).await?;
                groups.admitted_before = self.admitted_before(service, registration_id, &groups.by_key).await?;
            }
            (None, Some(chain)) => groups.x509 = self.x509_groups(service, chain, authorities).await?,
            (None, None) => {}
        }
        Ok(groups)
    }

    /// The group by symmetric key that admitted the device before.
    async fn admitted_before(
        &self,
        service: ServiceKey,
        registration_id: &RegistrationId,
        groups: &[Enrollment],
    ) -> Result<Option<Enrollment>, Error> {
        let store = &self.0.store;
        let Some(group) = store.find_admitting_group(service, registration_id).await? else { return Ok(None) };
        let name = EntryName::Group(group);
        if let Some(entry) = groups.iter().find(|entry| entry.name == name) {
            return Ok(Some(entry.clone()));
        }
        let entry = store.find_enrollment(service, &name).await?;
        Ok(entry.filter(|entry| entry.attestation.mechanism() == Mechanism::SymmetricKey))
    }

    /// Groups that hold a certificate of the chain, or a CA certificate that may complete it, or refer to one of these.
    async fn x509_groups(
        &self,
        service: ServiceKey,
        chain: &PresentedChain,
        authorities: &[CaCertificate],
    ) -> Result<Vec<Enrollment>, Error> {
        let near = attestation::reachable(chain, authorities);
        let known = near.iter().map(|authority| &authority.certificate);
        let lookup = X509Lookup {
            subject_keys: chain.certificates().iter().chain(known).map(|one| *one.subject_key_hash()).collect(),
            ca_names: near.iter().map(|authority| authority.name.clone()).collect(),
        };
        Ok(self.0.store.find_x509_groups(service, lookup).await?)
    }
}
