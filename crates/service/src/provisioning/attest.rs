//! Gathering the entries that could admit a device, and the judgement over them.

use domain::attestation::{self, Candidates, Claim, Proven, Registrant, Rejection};
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

    /// Judges what the caller presents for `registration_id`. Reads the same entries whether or not the ID is enrolled,
    /// so that the time taken does not tell.
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
        let key_groups = match &evidence.token {
            Some(_) => self.key_groups(service.key, registration_id).await?,
            None => Vec::new(),
        };
        let x509_groups = match (&evidence.token, &evidence.certificates) {
            (None, Some(chain)) => self.x509_groups(service.key, chain, authorities).await?,
            _ => Vec::new(),
        };
        let claim = Claim { service: service.key, id_scope, registration_id, now: self.now() };
        let candidates = Candidates {
            individual: individual.as_ref(),
            x509_groups: &x509_groups,
            key_groups: &key_groups,
            authorities,
        };
        let verdict = attestation::attest(claim, evidence, candidates);
        decision.trace = verdict.trace;
        if let Err(rejection) = &verdict.result {
            decision.outcome = Outcome::refused(rejection);
        }
        Ok(Attested { outcome: verdict.result, decision })
    }

    /// Groups by symmetric key, the one that admitted the device before first: no index finds the group of a device that
    /// shows an ID and a signature.
    async fn key_groups(
        &self,
        service: ServiceKey,
        registration_id: &RegistrationId,
    ) -> Result<Vec<Enrollment>, Error> {
        let store = &self.0.store;
        let mut groups = store.list_symmetric_key_groups(service, self.0.settings.key_groups_tried_max).await?;
        if let Some(group) = store.find_admitting_group(service, registration_id).await? {
            let name = EntryName::Group(group);
            if let Some(index) = groups.iter().position(|entry| entry.name == name) {
                groups.swap(0, index);
            } else {
                let entry = store.find_enrollment(service, &name).await?;
                let by_key = |entry: &Enrollment| entry.attestation.mechanism() == Mechanism::SymmetricKey;
                groups.splice(0..0, entry.filter(by_key));
            }
        }
        Ok(groups)
    }

    /// Groups that hold a certificate of the chain, or one that may complete it, or refer to a CA certificate.
    async fn x509_groups(
        &self,
        service: ServiceKey,
        chain: &PresentedChain,
        authorities: &[CaCertificate],
    ) -> Result<Vec<Enrollment>, Error> {
        let presented = chain.certificates().iter();
        let known = authorities.iter().map(|authority| &authority.certificate);
        let lookup = X509Lookup {
            subject_keys: presented.chain(known).map(|certificate| *certificate.subject_key_hash()).collect(),
            ca_names: authorities.iter().map(|authority| authority.name.clone()).collect(),
        };
        Ok(self.0.store.find_x509_groups(service, lookup).await?)
    }
}
