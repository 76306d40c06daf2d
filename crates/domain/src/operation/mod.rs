//! What can be asked of Muster, what it answers, and what it says unasked. Dialects turn packets and HTTP messages into
//! [`Operation`]s and [`Reply`]s into packets; `service` performs them. Neither sees the other: they meet here.
//!
//! One file per noun; each has `Ask` (a variant per question) and `Answer`. No variant holds a wire spelling.

pub mod backend;
pub mod cloud_to_device;
pub mod configuration;
pub mod decision;
pub mod digital_twin;
pub mod enrollment;
pub mod events;
pub mod file;
pub mod identity;
pub mod job;
pub mod method;
pub mod query;
pub mod registration;
pub mod resource;
pub mod route;
pub mod session;
pub mod telemetry;
pub mod transfer;
pub mod twin;

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::certificate::{InvalidChain, PresentedChain};
use crate::clock::UnixTime;
use crate::host::HostName;
use crate::ids::TrackingId;
use crate::sas::{InvalidToken, SasToken};

/// A question put to the product.
#[derive(Clone, Debug)]
pub enum Operation {
    /// A device registers, or asks how its registration stands.
    Registration(registration::Ask),
    /// An operator manages individual enrollments, enrollment groups and registration records.
    Enrollment(enrollment::Ask),
    /// An operator manages the identities of a hub.
    Identity(identity::Ask),
    /// A device or an operator reads or changes a twin.
    Twin(twin::Ask),
    /// An operator reads or changes a digital twin, or calls a command.
    DigitalTwin(digital_twin::Ask),
    /// An operator calls a direct method, or a device responds to one.
    Method(method::Ask),
    /// An operator asks for twins and jobs in the query language.
    Query(query::Ask),
    /// An operator has something done to many devices.
    Job(job::Ask),
    /// An operator has identities imported or exported.
    Transfer(transfer::Ask),
    /// An operator of the deployment has identities of a hub imported or exported.
    ManagedTransfer(transfer::Managed),
    /// An operator manages configurations of many twins.
    Configuration(configuration::Ask),
    /// A device connects to a hub, subscribes, leaves.
    Session(session::Ask),
    /// A back-end program is let in, and leaves.
    Backend(backend::Ask),
    /// A device sends telemetry.
    Telemetry(telemetry::Ask),
    /// A back-end program reads telemetry.
    Events(events::Ask),
    /// A back-end program sends to a device, which receives.
    CloudToDevice(cloud_to_device::Ask),
    /// A device uploads a file, of which others hear, and which they fetch.
    File(file::Ask),
    /// An operator manages hubs, provisioning services, links, policies and CA certificates.
    Resource(resource::Ask),
    /// An operator tries routes, and looks after endpoints.
    Route(route::Ask),
    /// An operator asks why.
    Decision(decision::Ask),
}

/// The answer to an [`Operation`], of the same noun.
#[derive(Clone, Debug)]
pub enum Reply {
    /// To [`Operation::Registration`].
    Registration(registration::Answer),
    /// To [`Operation::Enrollment`].
    Enrollment(enrollment::Answer),
    /// To [`Operation::Identity`].
    Identity(identity::Answer),
    /// To [`Operation::Twin`].
    Twin(twin::Answer),
    /// To [`Operation::DigitalTwin`].
    DigitalTwin(digital_twin::Answer),
    /// To [`Operation::Method`].
    Method(method::Answer),
    /// To [`Operation::Query`].
    Query(query::Answer),
    /// To [`Operation::Job`].
    Job(job::Answer),
    /// To [`Operation::Transfer`] and [`Operation::ManagedTransfer`].
    Transfer(transfer::Answer),
    /// To [`Operation::Configuration`].
    Configuration(configuration::Answer),
    /// To [`Operation::Session`].
    Session(session::Answer),
    /// To [`Operation::Backend`].
    Backend(backend::Answer),
    /// To [`Operation::Telemetry`].
    Telemetry(telemetry::Answer),
    /// To [`Operation::Events`].
    Events(events::Answer),
    /// To [`Operation::CloudToDevice`].
    CloudToDevice(cloud_to_device::Answer),
    /// To [`Operation::File`].
    File(file::Answer),
    /// To [`Operation::Resource`].
    Resource(resource::Answer),
    /// To [`Operation::Route`].
    Route(route::Answer),
    /// To [`Operation::Decision`].
    Decision(decision::Answer),
}

/// What a connected device, or a back-end program that was let in, is told without having asked.
#[derive(Clone, Debug)]
pub enum Push {
    /// The desired properties changed.
    Desired(twin::DesiredChange),
    /// An operator calls a direct method.
    Method(crate::method::Request),
    /// Messages may wait for it, and it has to ask for them: cloud-to-device messages for a device, what it was let in to
    /// read for a back-end program.
    MessagesWaiting,
    /// The connection, or the stay, must end; nothing may be delivered after it.
    CutOff(session::CutOff),
}

/// How long an ask may wait behind others of its connection (`rules.md` 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Pipelined up to the connection's window, answered in order of arrival.
    Telemetry,
    /// One after another.
    Serial,
    /// Waits for something to happen, beside everything else; ends when whoever asked leaves. How many there are is for
    /// whoever asks to bound.
    Waiting,
}

/// Who asks: what the connection itself shows, before anybody has judged it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Where the connection was dialled to.
    pub endpoint: Endpoint,
    /// Where it comes from.
    pub peer: IpAddr,
    /// How it speaks.
    pub transport: Transport,
    /// What it offers as proof.
    pub evidence: Evidence,
}

/// The address a client dialled and the names it gave. The address decides; names may only narrow (`rules.md` 21).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The local address of the accepted connection, or what a listed balancer says that its client dialled.
    pub address: IpAddr,
    /// What TLS said (SNI). One that is nobody's says nothing: clients put stale names and address literals there
    /// (`contract/hub-device.md 1.2`).
    pub server_name: Option<HostName>,
    /// What the request said, by its `Host` header or its target; none but HTTP and WebSocket has one.
    pub host: Option<HostName>,
    /// Whether the connection came in on the admin port.
    pub admin: bool,
}

/// For the log and for decisions.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(host) = &self.host {
            write!(f, " as {host}")?;
        }
        match &self.server_name {
            Some(name) => write!(f, " (SNI {name})"),
            None => Ok(()),
        }
    }
}

/// Protocol and carrier of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// HTTPS.
    Https,
    /// MQTT over TLS.
    Mqtt,
    /// MQTT over a WebSocket.
    MqttWebSocket,
    /// AMQP over TLS.
    Amqp,
    /// AMQP over a WebSocket.
    AmqpWebSocket,
}

/// What a client presents to prove who it is. Having some proves nothing yet.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The certificates of the TLS handshake, whose private key the client has been shown to hold.
    pub certificates: Option<Arc<PresentedChain>>,
    /// Why the certificates of the handshake are not looked at; whoever shows them and no signature is refused.
    pub untaken: Option<InvalidChain>,
    /// A shared access signature, parsed and not verified.
    pub token: Option<SasToken>,
    /// Why something that was presented as a signature is none; whoever presents it is not judged by anything else.
    pub unreadable: Option<InvalidToken>,
    /// A bearer token of the management API.
    pub bearer: Option<Secret>,
}

/// Text that must not be printed.
#[derive(Clone, PartialEq, Eq, zeroize::ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text; the caller takes over the duty not to print it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why an operation was not performed, as far as anybody may know. The full reason is in the log and in the decision
/// found by `tracking`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The class, which each dialect spells in its own way.
    pub kind: ErrorKind,
    /// What may be shown to anyone.
    pub public: Cow<'static, str>,
    /// Finds the log lines and, for a refused credential, the decision.
    pub tracking: TrackingId,
    /// Seconds after which trying again makes sense.
    pub retry_after_s: Option<u32>,
    /// When it happened.
    pub at: UnixTime,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (tracking ID {})", self.public, self.tracking)
    }
}

/// The classes of failure. Closed: a new kind is placed by hand in every dialect's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A value breaks a rule of its field.
    InvalidArgument,
    /// The body is not of the shape the operation takes.
    InvalidBody,
    /// The content of a configuration is none.
    InvalidContent,
    /// A thumbprint of an identity is none.
    InvalidThumbprint,
    /// A device is to be proven by nothing.
    NoAuthentication,
    /// The address of a container leads nowhere, or its signature is not good there.
    InvalidContainer,
    /// A bulk request names more enrollments than are changed at once.
    TooManyEnrollments,
    /// A bulk request names an enrollment more than once.
    EnrollmentRepeated,
    /// A body, message or list exceeds its bound.
    TooLarge,
    /// A bulk request names more devices than are changed at once, or the hub takes no more of them.
    TooManyDevices,
    /// The device has as many modules as it may.
    TooManyModules,
    /// The method or the route does not exist.
    NotSupported,
    /// The credential was refused; never says why.
    Unauthorized,
    /// The credential is good and its rights do not cover the operation.
    Forbidden,
    /// No provisioning service has the ID scope, or answers to the host name.
    ScopeNotFound,
    /// No hub answers to the host name.
    HubNotFound,
    /// No individual enrollment has the registration ID.
    EnrollmentNotFound,
    /// No enrollment group has the name.
    EnrollmentGroupNotFound,
    /// No registration record has the registration ID.
    RegistrationNotFound,
    /// No operation has the ID, or it is another device's.
    OperationNotFound,
    /// No device has the ID.
    DeviceNotFound,
    /// The device has no such module.
    ModuleNotFound,
    /// The device is not connected, or does not listen for direct methods.
    DeviceNotOnline,
    /// No job has the ID.
    JobNotFound,
    /// No configuration has the ID.
    ConfigurationNotFound,
    /// No resource, policy, certificate or decision has the name.
    ResourceNotFound,
    /// The individual enrollment exists.
    EnrollmentExists,
    /// The enrollment group exists.
    EnrollmentGroupExists,
    /// The device exists.
    DeviceExists,
    /// The module exists.
    ModuleExists,
    /// A job has the ID already.
    JobExists,
    /// A configuration has the ID already.
    ConfigurationExists,
    /// The resource exists or its name is taken.
    ResourceExists,
    /// The message, or the feedback, is not the caller's any more.
    LockLost,
    /// The record is not at the version the caller named, or no version was named where one is required.
    PreconditionFailed,
    /// There are as many enrollments, CA certificates or links as there may be.
    QuotaExceeded,
    /// There are as many jobs under way or scheduled as there may be.
    TooManyJobs,
    /// As many messages wait for the device as may.
    QueueFull,
    /// Too much at once: try again later.
    Throttled,
    /// The device was told and has not answered, so that nobody knows what it did.
    DeviceUnanswering,
    /// A part is not ready, shutting down, or its storage fails: try again later.
    Unavailable,
    /// Our fault.
    Internal,
}

impl ErrorKind {
    /// All kinds, for tables that must be complete.
    pub const ALL: [Self; 42] = [
        Self::InvalidArgument,
        Self::InvalidBody,
        Self::InvalidContent,
        Self::InvalidThumbprint,
        Self::NoAuthentication,
        Self::InvalidContainer,
        Self::TooManyEnrollments,
        Self::EnrollmentRepeated,
        Self::TooLarge,
        Self::TooManyDevices,
        Self::TooManyModules,
        Self::NotSupported,
        Self::Unauthorized,
        Self::Forbidden,
        Self::ScopeNotFound,
        Self::HubNotFound,
        Self::EnrollmentNotFound,
        Self::EnrollmentGroupNotFound,
        Self::RegistrationNotFound,
        Self::OperationNotFound,
        Self::DeviceNotFound,
        Self::ModuleNotFound,
        Self::DeviceNotOnline,
        Self::JobNotFound,
        Self::ConfigurationNotFound,
        Self::ResourceNotFound,
        Self::EnrollmentExists,
        Self::EnrollmentGroupExists,
        Self::DeviceExists,
        Self::ModuleExists,
        Self::JobExists,
        Self::ConfigurationExists,
        Self::ResourceExists,
        Self::LockLost,
        Self::PreconditionFailed,
        Self::QuotaExceeded,
        Self::TooManyJobs,
        Self::QueueFull,
        Self::Throttled,
        Self::DeviceUnanswering,
        Self::Unavailable,
        Self::Internal,
    ];
}

/// One page of a listing.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The records, in the store's order.
    pub items: Vec<T>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<Cursor>,
}

/// A place in a listing: opaque to clients, the last key to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub String);

/// Which page of a listing is wanted.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// Continue behind this place; `None` starts at the beginning.
    pub after: Option<Cursor>,
    /// Most records on the page, at least 1; the service applies its own ceiling.
    pub limit: usize,
}
