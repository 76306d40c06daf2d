//! CA certificates of provisioning services and hubs, and the proof that their key is possessed.

use domain::ids::{CertificateName, Precondition};
use domain::operation::ErrorKind;
use domain::operation::resource::{Answer, CertificateAsk, Place, ResourceName};
use domain::resource::{CaCertificate, CertificateOwner};
use store::ports::Changed;

use crate::Service;
use crate::error::Error;

impl Service {
    pub(super) async fn answer_certificate(
        &self,
        place: &Place,
        owner: &ResourceName,
        request: CertificateAsk,
    ) -> Result<Answer, Error> {
        if !request.is_change() {
            return self.answer_certificate_of(self.find_owner(place, owner)?, request).await;
        }
        let changing = self.0.changing.lock().await;
        let (owner, before) = (self.find_owner(place, owner)?, self.resources());
        let answer = self.answer_certificate_of(owner, request).await?;
        drop(changing);
        // Devices that a hub let in by a certificate that is gone are cut off.
        if let CertificateOwner::Hub(hub) = owner
            && before.authorities(owner) != self.resources().authorities(owner)
        {
            self.judge_hub(hub).await?;
        }
        Ok(answer)
    }

    fn find_owner(&self, place: &Place, owner: &ResourceName) -> Result<CertificateOwner, Error> {
        Ok(match owner {
            ResourceName::Hub(name) => CertificateOwner::Hub(self.find_hub(place, name)?.key),
            ResourceName::Service(name) => CertificateOwner::Service(self.find_service(place, name)?.key),
        })
    }

    /// Called while changes are locked, unless `request` changes nothing.
    async fn answer_certificate_of(&self, owner: CertificateOwner, request: CertificateAsk) -> Result<Answer, Error> {
        let now = self.now();
        match request {
            CertificateAsk::List => Ok(Answer::Certificates(self.resources().certificates(owner).to_vec())),
            CertificateAsk::Find(name) => {
                Ok(Answer::Certificate { certificate: Box::new(self.find_certificate(owner, &name)?), created: false })
            }
            CertificateAsk::Put { name, certificate, verified, precondition } => {
                let fresh = CaCertificate::upload(name.clone(), *certificate, verified, now);
                let present = self.find_certificate(owner, &name).ok();
                let created = present.is_none();
                if created {
                    self.check_room(owner, precondition)?;
                }
                let record = match present {
                    Some(present) => present.replaced_by(fresh),
                    None => fresh,
                };
                self.put_certificate(owner, record, precondition, created).await
            }
            CertificateAsk::Delete { name, precondition } => {
                self.find_certificate(owner, &name)?;
                settle(self.0.store.delete_certificate(owner, &name, precondition).await?)?;
                self.reload().await?;
                Ok(Answer::Deleted { existed: true })
            }
            CertificateAsk::GenerateCode { name, precondition } => {
                let mut record = self.find_certificate(owner, &name)?;
                record.ask_for_proof(self.entropy(), now);
                self.put_certificate(owner, record, precondition, false).await
            }
            CertificateAsk::Verify { name, proof, precondition } => {
                let mut record = self.find_certificate(owner, &name)?;
                record.prove(&proof, now).map_err(|not_proved| Error::invalid(not_proved.to_string()))?;
                self.put_certificate(owner, record, precondition, false).await
            }
        }
    }

    fn find_certificate(&self, owner: CertificateOwner, name: &CertificateName) -> Result<CaCertificate, Error> {
        let resources = self.resources();
        let found = resources.certificates(owner).iter().find(|certificate| certificate.name == *name).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::ResourceNotFound, "The certificate was not found."))
    }

    /// Whether a certificate may come that is not there: a version can be demanded only of one that is.
    fn check_room(&self, owner: CertificateOwner, precondition: Precondition) -> Result<(), Error> {
        if precondition != Precondition::None {
            return Err(Error::precondition_failed());
        }
        let most = self.0.settings.quotas.ca_certificates;
        if self.resources().certificates(owner).len() >= most {
            return Err(Error::new(ErrorKind::QuotaExceeded, format!("There can be at most {most} CA certificates.")));
        }
        Ok(())
    }

    /// Called while changes are locked, so that nothing changes between the reading of `record` and this.
    async fn put_certificate(
        &self,
        owner: CertificateOwner,
        record: CaCertificate,
        precondition: Precondition,
        created: bool,
    ) -> Result<Answer, Error> {
        let certificate = Box::new(settle(self.0.store.put_certificate(owner, record, precondition).await?)?);
        self.reload().await?;
        Ok(Answer::Certificate { certificate, created })
    }
}

fn settle<T>(changed: Changed<T>) -> Result<T, Error> {
    match changed {
        Changed::Done(value) => Ok(value),
        Changed::NotFound => Err(Error::new(ErrorKind::ResourceNotFound, "The certificate was not found.")),
        Changed::PreconditionFailed { .. } => Err(Error::precondition_failed()),
    }
}
