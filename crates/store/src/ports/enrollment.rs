//! Individual enrollments and enrollment groups of a provisioning service.

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::enrollment::{Enrollment, EntryKind, EntryName};
use domain::ids::{CertificateName, Precondition, ServiceKey};
use domain::operation::{Page, PageRequest};

use super::{Changed, Created};
use crate::Error;

/// By what X.509 groups are looked for.
#[derive(Clone, Debug, Default)]
pub struct X509Lookup {
    /// SHA-256 of the subject public key information of each element of the presented chain and of the CA certificates
    /// that may complete it: finds groups that hold such a certificate.
    pub subject_keys: Vec<[u8; 32]>,
    /// Names of CA certificates: finds groups that refer to them.
    pub ca_names: Vec<CertificateName>,
}

/// Keeps enrollments. Names are unique per provisioning service and kind, without regard to case.
#[async_trait]
pub trait EnrollmentStore: Send + Sync {
    /// Keeps a fresh entry with a fresh etag and both times set to `now`. It needs its provisioning service:
    /// [`Created::NoOwner`] if there is none.
    async fn create_enrollment(
        &self,
        service: ServiceKey,
        enrollment: Enrollment,
        now: UnixTime,
    ) -> Result<Created<Enrollment>, Error>;

    /// Replaces the entry of the same name; keeps its creation time, gives a fresh etag.
    async fn replace_enrollment(
        &self,
        service: ServiceKey,
        enrollment: Enrollment,
        precondition: Precondition,
        now: UnixTime,
    ) -> Result<Changed<Enrollment>, Error>;

    /// Removes an entry. An individual enrollment takes its registration record along; a group leaves the records it
    /// admitted (`contract/manual-differences.md`).
    async fn delete_enrollment(
        &self,
        service: ServiceKey,
        name: &EntryName,
        precondition: Precondition,
    ) -> Result<Changed<Enrollment>, Error>;

    /// The entry, keys and all.
    async fn find_enrollment(&self, service: ServiceKey, name: &EntryName) -> Result<Option<Enrollment>, Error>;

    /// A page of entries of one kind, keys and all, in order of their keys.
    async fn list_enrollments(
        &self,
        service: ServiceKey,
        kind: EntryKind,
        page: PageRequest,
    ) -> Result<Page<Enrollment>, Error>;

    /// Every group that holds a certificate with one of the subject keys, or refers to one of the CA names, primary or
    /// secondary, disabled ones included.
    async fn find_x509_groups(&self, service: ServiceKey, lookup: X509Lookup) -> Result<Vec<Enrollment>, Error>;

    /// Groups attested by symmetric key, at most `limit`, in order of their keys.
    async fn list_symmetric_key_groups(&self, service: ServiceKey, limit: usize) -> Result<Vec<Enrollment>, Error>;

    /// Counts up whenever a verb changed what [`Self::list_symmetric_key_groups`] gives, before the verb is answered.
    fn key_group_changes(&self) -> tokio::sync::watch::Receiver<u64>;
}
