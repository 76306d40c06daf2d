//! Hubs, provisioning services, CA certificates, resource groups, and what belongs to the deployment itself.

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::ids::{CertificateName, HubKey, Precondition, ServiceKey};
use domain::resource::{AddressPool, CaCertificate, CertificateOwner, Hub, ProvisioningService, ResourceGroup};

use super::Changed;
use crate::Error;

/// All resources of the deployment: few enough to be held in memory by who serves them.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Every hub.
    pub hubs: Vec<Hub>,
    /// Every provisioning service.
    pub services: Vec<ProvisioningService>,
    /// Every CA certificate with its owner.
    pub certificates: Vec<(CertificateOwner, CaCertificate)>,
    /// Every resource group.
    pub groups: Vec<ResourceGroup>,
}

/// A secret of the deployment that the store seals.
#[derive(Clone, PartialEq, Eq, zeroize::ZeroizeOnDrop)]
pub struct Sealed(pub Vec<u8>);

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed(..)")
    }
}

/// What a deployment is known by, made once at its first start.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// Subscription ID, a GUID.
    pub subscription: String,
    /// Tenant ID, a GUID.
    pub tenant: String,
    /// Client ID of the admin credential, a GUID.
    pub client: String,
    /// Secret of the admin credential.
    pub client_secret: Sealed,
    /// Key that signs the tokens of the token endpoint, 32 bytes.
    pub token_key: Sealed,
    /// When it was made.
    pub created_at: UnixTime,
}

/// How far a deployment has come with the resources of its first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultsStage {
    /// Nothing was begun.
    Untouched,
    /// Some of them may be missing.
    Begun,
    /// All were made; what is missing was removed on purpose.
    Finished,
}

/// The answer of a verb that creates a resource with an address.
#[derive(Clone, Debug, PartialEq)]
pub enum Placed<T> {
    /// It was created, as given here.
    Done(T),
    /// The name or the address is taken; nothing was written.
    AlreadyExists,
    /// There is no address left to give; nothing was written.
    NoAddressLeft,
}

/// Keeps resources.
#[async_trait]
pub trait ResourceStore: Send + Sync {
    /// The deployment, or `first` kept as the deployment if there was none.
    async fn deployment(&self, first: Deployment) -> Result<Deployment, Error>;

    /// How far the resources of the first start are made.
    async fn defaults_stage(&self) -> Result<DefaultsStage, Error>;

    /// Notes how far the resources of the first start are made.
    async fn set_defaults_stage(&self, stage: DefaultsStage) -> Result<(), Error>;

    /// Everything at once.
    async fn load_resources(&self) -> Result<Resources, Error>;

    /// Keeps a hub under a fresh key and etag; those in `hub` are ignored. Its name is unique among hubs, without
    /// regard to case. If `hub.address` is `None` and there is a `pool`, the next address of it that was never given to
    /// any hub or service is given to it, for ever (`rules.md` 21).
    async fn create_hub(&self, hub: Hub, pool: Option<AddressPool>, now: UnixTime) -> Result<Placed<Hub>, Error>;

    /// Replaces the hub of `hub.key`, but never its key, name or address; gives a fresh etag.
    async fn replace_hub(&self, hub: Hub, precondition: Precondition, now: UnixTime) -> Result<Changed<Hub>, Error>;

    /// Removes a hub with its identities, twins, sessions and certificates. Its address stays taken.
    async fn delete_hub(&self, hub: HubKey) -> Result<Changed<Hub>, Error>;

    /// Keeps a provisioning service under a fresh key and etag. Name and ID scope are unique. Addresses as for hubs.
    async fn create_service(
        &self,
        service: ProvisioningService,
        pool: Option<AddressPool>,
        now: UnixTime,
    ) -> Result<Placed<ProvisioningService>, Error>;

    /// Replaces the service of `service.key`, but never its key, name, ID scope or address; gives a fresh etag.
    async fn replace_service(
        &self,
        service: ProvisioningService,
        precondition: Precondition,
        now: UnixTime,
    ) -> Result<Changed<ProvisioningService>, Error>;

    /// Removes a provisioning service with its enrollments, registrations and certificates.
    async fn delete_service(&self, service: ServiceKey) -> Result<Changed<ProvisioningService>, Error>;

    /// Keeps a CA certificate: creates it if there is none of its name, replaces it otherwise. The etag is fresh.
    /// It needs its owner: [`Changed::NotFound`] if that is not there.
    async fn put_certificate(
        &self,
        owner: CertificateOwner,
        certificate: CaCertificate,
        precondition: Precondition,
    ) -> Result<Changed<CaCertificate>, Error>;

    /// Removes a CA certificate.
    async fn delete_certificate(
        &self,
        owner: CertificateOwner,
        name: &CertificateName,
        precondition: Precondition,
    ) -> Result<Changed<CaCertificate>, Error>;

    /// Creates or replaces a resource group; its name is unique without regard to case.
    async fn put_group(&self, group: ResourceGroup) -> Result<ResourceGroup, Error>;

    /// Removes a resource group; what it held is removed by its own verbs before.
    async fn delete_group(&self, name: &str) -> Result<Changed<ResourceGroup>, Error>;
}
