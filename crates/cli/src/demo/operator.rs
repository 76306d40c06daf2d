//! What the operator of the story does, by the APIs that everybody else uses: resources through the management API,
//! enrollments and twins through the service APIs.
//!
//! Start at [`create_service`]; [`Operator`] comes once there is something to operate.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::device::{self, Registration};
use client::management::ManagementRequest;
use client::service::{ConnectionString, ServiceClient, ServiceRequest};
use domain::certificate::Certificate;
use domain::sas::SymmetricKey;
use http::Method;
use serde_json::{Value, json};

use super::evidence::{CertificateEvidence, GroupEvidence, HubEvidence, RefusalEvidence, ServiceEvidence};
use crate::ca::{Credential, Issue, KeyKind, Role};
use crate::context::{Context, ask, manage};
use crate::noun::events::Watch;
use crate::noun::linked_hub;
use crate::noun::resource::{self, HUB, LOCATION, SERVICE, primary_key};

/// Names of the tutorial.
pub const SERVICE_NAME: &str = "CheeseCave-DPS";
/// The hub.
pub const HUB_NAME: &str = "CheeseCaveHub";
/// The root CA's name at the provisioning service.
pub const CERTIFICATE_NAME: &str = "cheesecave-dps-root";
/// The group.
pub const GROUP_ID: &str = "cheesecave-devices";
/// The common name of the root CA.
const ROOT_NAME: &str = "Cheese Cave Root CA";
/// How long the story's certificates hold.
const CERTIFICATE_DAYS: i32 = 30;

/// Creates the provisioning service.
pub async fn create_service(context: &Context) -> Result<ServiceEvidence> {
    resource::ensure_group(context).await?;
    let body = json!({ "location": LOCATION, "sku": { "name": "S1", "capacity": 1 }, "properties": {} });
    let made = resource::put(context, SERVICE, SERVICE_NAME, &body).await?;
    Ok(ServiceEvidence {
        name: text(&made, "/name")?,
        id_scope: text(&made, "/properties/idScope")?,
        device_endpoint: text(&made, "/properties/deviceProvisioningHostName")?,
        service_endpoint: text(&made, "/properties/serviceOperationsHostName")?,
        etag: text(&made, "/etag")?,
    })
}

/// Creates the hub and links it to the provisioning service.
pub async fn create_hub(context: &Context) -> Result<HubEvidence> {
    let body = json!({ "location": LOCATION, "sku": { "name": "S1", "capacity": 1 }, "properties": {} });
    let made = resource::put(context, HUB, HUB_NAME, &body).await?;
    let host_name = text(&made, "/properties/hostName")?;
    linked_hub::link(context, SERVICE_NAME, (HUB_NAME, &host_name), |_| ()).await?;
    Ok(HubEvidence { name: text(&made, "/name")?, host_name, etag: text(&made, "/etag")? })
}

/// Makes the root CA and uploads it; nobody trusts it yet.
pub async fn upload_root(context: &Context) -> Result<Credential> {
    let root = issue(ROOT_NAME, Role::Authority, None)?;
    let body = json!({ "properties": { "certificate": STANDARD.encode(root.leaf_pem()) } });
    let made = send_certificate(context, (Method::PUT, ""), (Some(&body), None)).await?;
    ensure!(!is_verified(&made), "the certificate counts as verified before anything was proved");
    Ok(root)
}

/// Proves possession of the root's key: the service makes up a code, and the root signs a certificate for it.
pub async fn prove_possession(context: &Context, root: &Credential) -> Result<CertificateEvidence> {
    let present = send_certificate(context, (Method::GET, ""), (None, None)).await?;
    let etag = text(&present, "/etag")?;
    let step = (Method::POST, "/generateVerificationCode");
    let asked = send_certificate(context, step, (None, Some(&etag))).await?;
    let code = text(&asked, "/properties/verificationCode")?;
    let verification = issue(&code, Role::Verification, Some(root))?;
    let body = json!({ "certificate": STANDARD.encode(verification.leaf_pem()) });
    let etag = text(&asked, "/etag")?;
    let proved = send_certificate(context, (Method::POST, "/verify"), (Some(&body), Some(&etag))).await?;
    ensure!(is_verified(&proved), "the certificate does not count as verified");
    Ok(CertificateEvidence {
        name: text(&proved, "/name")?,
        thumbprint: text(&proved, "/properties/thumbprint")?,
        verification_code: code,
        is_verified: true,
        etag: text(&proved, "/etag")?,
    })
}

/// Makes a certificate of the story.
pub fn issue(common_name: &str, role: Role, issuer: Option<&Credential>) -> Result<Credential> {
    Issue { common_name, role, days: CERTIFICATE_DAYS, key: KeyKind::P256, path_length: None }.make(issuer)
}

async fn send_certificate(
    context: &Context,
    (method, step): (Method, &str),
    body: (Option<&Value>, Option<&str>),
) -> Result<Value> {
    let rest = format!("/{SERVICE_NAME}/certificates/{CERTIFICATE_NAME}{step}");
    resource::send(context, SERVICE, method, &rest, body).await
}

fn is_verified(certificate: &Value) -> bool {
    certificate.pointer("/properties/isVerified").and_then(Value::as_bool).unwrap_or_default()
}

/// The text at `path` of an answer.
pub fn text(document: &Value, path: &str) -> Result<String> {
    let found = document.pointer(path).and_then(Value::as_str);
    Ok(found.with_context(|| format!("the server's answer has no {path}"))?.to_owned())
}

/// An operator with the keys of the provisioning service and the hub.
pub struct Operator<'a> {
    context: &'a Context,
    provisioning: ServiceClient,
    hub: ServiceClient,
}

impl<'a> Operator<'a> {
    /// Fetches the keys.
    pub async fn new(context: &'a Context, service: &ServiceEvidence, hub: &HubEvidence) -> Result<Self> {
        let client = async |kind, name: &str, (host_name, policy): (&str, &str), api_version| {
            let key = SymmetricKey::parse(&primary_key(context, kind, name, policy).await?)?;
            let connection = ConnectionString { host_name: host_name.to_owned(), policy: policy.to_owned(), key };
            anyhow::Ok(ServiceClient::new(
                context.https.clone(),
                connection,
                context.endpoints.ports.https,
                api_version,
            ))
        };
        let place = (service.service_endpoint.as_str(), "provisioningserviceowner");
        let provisioning = client(SERVICE, &service.name, place, ServiceClient::PROVISIONING_API_VERSION).await?;
        let place = (hub.host_name.as_str(), "iothubowner");
        let hub = client(HUB, &hub.name, place, ServiceClient::HUB_API_VERSION).await?;
        Ok(Self { context, provisioning, hub })
    }

    /// Creates the enrollment group: who shows a certificate that leads to the root may come, and begins with
    /// `initial_twin`.
    pub async fn create_group(&self, initial_twin: Value) -> Result<GroupEvidence> {
        let body = json!({
            "enrollmentGroupId": GROUP_ID,
            "attestation": { "type": "x509", "x509": { "caReferences": { "primary": CERTIFICATE_NAME } } },
            "initialTwin": initial_twin,
            "provisioningStatus": "enabled",
        });
        let path = ["enrollmentGroups", GROUP_ID];
        let request = ServiceRequest { body: Some(&body), ..ServiceRequest::new(Method::PUT, &path) };
        let made = ask(&self.provisioning, "creating the enrollment group", request).await?;
        Ok(GroupEvidence { id: text(&made, "/enrollmentGroupId")?, etag: text(&made, "/etag")?, initial_twin })
    }

    /// Deletes the enrollment group.
    pub async fn retire_group(&self) -> Result<()> {
        let path = ["enrollmentGroups", GROUP_ID];
        ask(&self.provisioning, "deleting the enrollment group", ServiceRequest::new(Method::DELETE, &path)).await?;
        Ok(())
    }

    /// Shuts one device of a group out, as the manual says: a disabled entry of its own goes before the group.
    pub async fn disenroll(&self, device_id: &str, certificate: &[u8]) -> Result<()> {
        let pem = Certificate::from_der(certificate)?.pem();
        let body = json!({
            "registrationId": device_id,
            "attestation": { "type": "x509", "x509": { "clientCertificates": { "primary": { "certificate": pem } } } },
            "provisioningStatus": "disabled",
        });
        let path = ["enrollments", device_id];
        let request = ServiceRequest { body: Some(&body), ..ServiceRequest::new(Method::PUT, &path) };
        ask(&self.provisioning, "creating the disabled enrollment", request).await?;
        let path = ["devices", device_id];
        let request = ServiceRequest { if_match: Some("*"), ..ServiceRequest::new(Method::DELETE, &path) };
        ask(&self.hub, "removing the device from the hub", request).await?;
        Ok(())
    }

    /// Watches the hub's telemetry from its beginning.
    pub async fn watch(&self) -> Result<Watch> {
        Watch::open_at_start(self.context, HUB_NAME).await
    }

    /// Reads a twin.
    pub async fn twin(&self, device_id: &str) -> Result<Value> {
        ask(&self.hub, "reading the twin", ServiceRequest::new(Method::GET, &["twins", device_id])).await
    }

    /// Changes desired properties.
    pub async fn desire(&self, device_id: &str, desired: Value) -> Result<Value> {
        let body = json!({ "properties": { "desired": desired } });
        let path = ["twins", device_id];
        let request = ServiceRequest { body: Some(&body), ..ServiceRequest::new(Method::PATCH, &path) };
        ask(&self.hub, "changing the desired properties", request).await
    }

    /// Asks over which transport a registration came that was admitted, in the word of the server's decision.
    pub async fn transport(&self, registered: &Registration) -> Result<String> {
        let id = &registered.registration_id;
        let answer = self.decisions(format!("?registrationId={id}")).await?;
        let decisions = answer.pointer("/value").and_then(Value::as_array);
        let operation = Some(registered.operation_id.as_str());
        let is_its_own = |decision: &&Value| decision.get("operationId").and_then(Value::as_str) == operation;
        let decision = decisions.and_then(|decisions| decisions.iter().find(is_its_own));
        text(decision.with_context(|| format!("no decision admits {id} by its operation"))?, "/transport")
    }

    /// Asks why a device was refused.
    pub async fn why(&self, refused: &device::Refused) -> Result<RefusalEvidence> {
        let tracking_id = refused.tracking_id.clone().context("the refusal has no tracking ID")?;
        let decision = self.decisions(format!("/{tracking_id}")).await?;
        Ok(RefusalEvidence {
            status: refused.status,
            error_code: refused.code,
            cause: text(&decision, "/cause")?,
            what: text(&decision, "/what")?,
            fix: text(&decision, "/fix")?,
            tracking_id,
        })
    }

    async fn decisions(&self, which: String) -> Result<Value> {
        let client = self.context.management().await?;
        let path = format!("/muster/v1/decisions{which}");
        let request = ManagementRequest { method: Method::GET, path, api_version: "1", if_match: None, body: None };
        manage(&client, "reading the decision", request).await
    }
}
