//! Records to test with, each valid and as small as can be.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use domain::attestation::symmetric_key::prove;
use domain::attestation::{Claim, Proven, Registrant};
use domain::certificate::Certificate;
use domain::clock::{SeededEntropy, UnixTime};
use domain::cloud_to_device::QueueSettings;
use domain::decision::{Cause, Decision, Outcome, OutsideText, Presented, Trace};
use domain::enrollment::{
    AllocationPolicy, Attestation, Capabilities, Enrollment, EntryName, ProvisioningStatus, Slots, Terms,
    X509Attestation,
};
use domain::file::FileSettings;
use domain::identity::{Authentication, Identity};
use domain::ids::{
    CertificateName, DeviceId, EnrollmentGroupId, Etag, HubKey, HubName, IdScope, ModuleId, OperationId,
    RegistrationId, ServiceKey, ServiceName, TrackingId,
};
use domain::operation::Transport;
use domain::operation::identity::IdentityName;
use domain::operation::registration::Substatus;
use domain::operation::session::Memory;
use domain::quota::Quotas;
use domain::resource::{CaCertificate, Hub, ProvisioningService, default_hub_policies, default_service_policies};
use domain::route::Routing;
use domain::sas::{KeyPair, SasToken};
use serde_json::{Map, Value};

use super::Done as _;
use crate::ports::{Assignee, ClaimWanted, Finish, Planned, ResourceStore, TwinSource};

/// The time at which tests begin.
pub const NOON: UnixTime = UnixTime::from_seconds(1_700_000_000);

/// What backends are opened with: enough for every test, and few enough to be reached.
pub const QUOTAS: Quotas = Quotas {
    devices_per_hub: 300,
    modules_per_device: 5,
    enrollments: 300,
    enrollment_groups: 20,
    ca_certificates: 5,
    linked_hubs: 5,
    messages_per_device: 5,
    jobs_per_hub: 15,
    configurations_per_hub: 6,
    uploads_per_device: 2,
    file_bytes: 20_000,
    files_bytes: 2_000_000,
};

pub fn after(seconds: u64) -> UnixTime {
    NOON.plus(Duration::from_secs(seconds))
}

pub fn entropy(seed: u64) -> SeededEntropy {
    SeededEntropy::new(seed)
}

/// An object out of its JSON text.
pub fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap()
}

pub fn hub(name: &str) -> Hub {
    Hub {
        key: HubKey(0),
        name: HubName::parse(name).unwrap(),
        address: None,
        group: "muster".to_owned(),
        location: "local".to_owned(),
        tags: object(r#"{"team":"cheese"}"#),
        sku: object(r#"{"name":"S1","capacity":1}"#),
        policies: default_hub_policies(&entropy(11)),
        partitions: 4,
        retention_days: 1,
        consumer_groups: Vec::new(),
        cloud_to_device: QueueSettings::default(),
        routing: Routing::default(),
        files: FileSettings::default(),
        extra: object(r#"{"comments":"AccountKey=hidden"}"#),
        created_at: UnixTime::NEVER,
        etag: Etag::from_number(0),
    }
}

pub fn service(name: &str, id_scope: &str) -> ProvisioningService {
    ProvisioningService {
        key: ServiceKey(0),
        name: ServiceName::parse(name).unwrap(),
        id_scope: IdScope::parse(id_scope).unwrap(),
        address: None,
        group: "muster".to_owned(),
        location: "local".to_owned(),
        tags: Map::new(),
        sku: Map::new(),
        policies: default_service_policies(&entropy(12)),
        allocation: AllocationPolicy::Hashed,
        links: Vec::new(),
        extra: Map::new(),
        created_at: UnixTime::NEVER,
        etag: Etag::from_number(0),
    }
}

/// Creates a hub of its own for a test.
pub async fn make_hub(store: &(impl ResourceStore + ?Sized), name: &str) -> HubKey {
    store.create_hub(hub(name), None, NOON).await.unwrap().done().key
}

/// Creates a provisioning service of its own for a test.
pub async fn make_service(store: &(impl ResourceStore + ?Sized), name: &str) -> ServiceKey {
    let id_scope = format!("0ne{}", name.replace('-', ""));
    store.create_service(service(name, &id_scope), None, NOON).await.unwrap().done().key
}

/// The certificates that tests have, told apart by number; each has a key of its own.
pub fn certificate(number: usize) -> Certificate {
    const PEM: [&[u8]; 3] = [
        include_bytes!("../../../../testdata/certificates/leaf-p384.pem"),
        include_bytes!("../../../../testdata/certificates/leaf-p521.pem"),
        include_bytes!("../../../../testdata/certificates/leaf-rsa-2048.pem"),
    ];
    Certificate::from_pem_or_der(PEM[number]).unwrap()
}

pub fn ca_certificate(name: &str, number: usize) -> CaCertificate {
    CaCertificate {
        name: CertificateName::parse(name).unwrap(),
        certificate: certificate(number),
        verified: false,
        verification_code: None,
        created_at: NOON,
        updated_at: NOON,
        etag: Etag::from_number(0),
    }
}

pub fn keys(seed: u64) -> KeyPair {
    KeyPair::generate(&entropy(seed))
}

pub fn registration_id(text: &str) -> RegistrationId {
    RegistrationId::parse(text).unwrap()
}

pub fn group_id(text: &str) -> EnrollmentGroupId {
    EnrollmentGroupId::parse(text).unwrap()
}

fn entry(name: EntryName, attestation: Attestation) -> Enrollment {
    let terms = Terms { status: Some(ProvisioningStatus::Enabled), ..Terms::default() };
    let etag = Etag::from_number(0);
    Enrollment { name, attestation, terms, created_at: UnixTime::NEVER, updated_at: UnixTime::NEVER, etag }
}

/// An individual enrollment with a symmetric key.
pub fn individual(registration: &str, seed: u64) -> Enrollment {
    entry(EntryName::Individual(registration_id(registration)), Attestation::SymmetricKey(keys(seed)))
}

/// A group with a symmetric key.
pub fn key_group(name: &str, seed: u64) -> Enrollment {
    entry(EntryName::Group(group_id(name)), Attestation::SymmetricKey(keys(seed)))
}

/// A group with signing certificates.
pub fn x509_group(name: &str, primary: Option<usize>, secondary: Option<usize>) -> Enrollment {
    let slots = Slots { primary: primary.map(certificate), secondary: secondary.map(certificate) };
    entry(EntryName::Group(group_id(name)), Attestation::X509(X509Attestation::Signing(slots)))
}

/// A group that refers to CA certificates.
pub fn reference_group(name: &str, ca: &str) -> Enrollment {
    let slots = Slots { primary: Some(CertificateName::parse(ca).unwrap()), secondary: None };
    entry(EntryName::Group(group_id(name)), Attestation::X509(X509Attestation::References(slots)))
}

/// Proves a device by the primary key of its entry, or one derived from it.
pub fn proven(service: ServiceKey, registration: &str, entry: &Enrollment) -> Proven<Registrant> {
    let registration_id = registration_id(registration);
    let Attestation::SymmetricKey(keys) = &entry.attestation else { panic!("an entry without keys") };
    let key = match &entry.name {
        EntryName::Individual(_) => keys.primary.clone(),
        EntryName::Group(_) => keys.primary.derive(registration),
    };
    let (id_scope, expires_at) = ("0neSCOPE", after(3_600));
    let token = SasToken::write(&key, &format!("{id_scope}/registrations/{registration}"), None, expires_at);
    let claim = Claim { service, id_scope, registration_id: &registration_id, now: NOON };
    prove(claim, &SasToken::parse(&token).unwrap(), entry).unwrap()
}

pub fn operation(seed: u64) -> OperationId {
    OperationId::generate(&entropy(seed))
}

pub fn tracking(seed: u64) -> TrackingId {
    TrackingId::generate(&entropy(seed))
}

/// The decision that admits a device.
pub fn admitted(seed: u64, registration: &str) -> Decision {
    let by = EntryName::Individual(registration_id(registration));
    decision(seed, registration, Outcome::Admitted { by, operation: operation(seed) })
}

/// The decision that refuses a device of a known ID scope.
pub fn refused(seed: u64, registration: &str, cause: Cause) -> Decision {
    let outcome = Outcome::Refused { cause, what: "it failed".to_owned(), fix: "mend it".to_owned() };
    decision(seed, registration, outcome)
}

fn decision(seed: u64, registration: &str, outcome: Outcome) -> Decision {
    Decision {
        tracking: tracking(seed),
        at: NOON,
        service: Some(ServiceKey(1)),
        id_scope: OutsideText::new("0neSCOPE"),
        registration_id: OutsideText::new(registration),
        peer: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        transport: Transport::Mqtt,
        presented: Presented::Signature,
        outcome,
        trace: Trace::default(),
        repeats: 0,
    }
}

pub fn device(text: &str) -> IdentityName {
    IdentityName::device(DeviceId::parse(text).unwrap())
}

pub fn module(device: &str, module: &str) -> IdentityName {
    IdentityName::module(DeviceId::parse(device).unwrap(), ModuleId::parse(module).unwrap())
}

/// An identity with symmetric keys.
pub fn identity(name: IdentityName, seed: u64) -> Identity {
    Identity { authentication: Authentication::Sas(keys(seed)), ..Identity::blank(name) }
}

/// A first assignment of a device to a hub.
pub fn plan(hub: HubKey, device: &str) -> Planned {
    Planned {
        hub,
        device_id: DeviceId::parse(device).unwrap(),
        twin: TwinSource::Initial,
        substatus: Substatus::InitialAssignment,
        payload: None,
    }
}

/// What finishing needs, with fresh keys for the device.
pub fn finish(seed: u64) -> Finish {
    let KeyPair { primary, secondary } = keys(seed);
    let assignee = Assignee::Sas { primary, secondary, capabilities: Capabilities::default() };
    Finish { assignee, initial_twin: None }
}

/// What a connection without a model claims.
pub fn claims(generation: &str, memory: Memory) -> ClaimWanted {
    ClaimWanted { generation: generation.to_owned(), memory, model_id: None }
}
