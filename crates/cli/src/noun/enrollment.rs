//! `muster enrollment` and `muster enrollment-group`: who may register.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use client::service::ServiceRequest;
use domain::sas::SymmetricKey;
use http::Method;
use serde_json::{Map, Value, json};

use crate::context::{Context, ask, hide_secrets, parse_json};
use crate::noun::registration::list_all;
use crate::output::Output;

/// What to do with individual enrollments or groups.
#[derive(Debug, Subcommand)]
pub enum EnrollmentCommand {
    /// Create an enrollment: by symmetric key unless a certificate is named
    Create(Box<EnrollmentArgs>),
    /// List enrollments
    List {
        /// Provisioning service [default: the first]
        #[arg(long)]
        dps: Option<String>,
    },
    /// Show an enrollment, with its keys if asked by --show-keys
    Show(NameArgs),
    /// Change an enrollment; what is not named stays
    Update(Box<EnrollmentArgs>),
    /// Delete an enrollment
    Delete(NameArgs),
}

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    #[command(flatten)]
    Enrollment(EnrollmentCommand),
    /// Derive a device's key from the group's key, without a server
    ComputeDeviceKey {
        /// The group's key, base64
        #[arg(long)]
        key: String,
        /// Registration ID of the device
        #[arg(long)]
        registration_id: String,
    },
}

/// Which enrollment.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// Registration ID, or name of the group
    id: String,
    /// Provisioning service [default: the first]
    #[arg(long)]
    dps: Option<String>,
}

/// What happens to the twin of a device that registers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reprovision {
    /// The device may move, its twin goes along
    Migrate,
    /// The device may move, its twin starts afresh
    Reset,
    /// The device stays
    Never,
}

/// An enrollment as it shall be.
#[derive(Debug, Args)]
pub struct EnrollmentArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Certificate file (PEM or DER): the device's own, or the signing one of a group
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Second certificate file
    #[arg(long, value_name = "FILE")]
    secondary_certificate: Option<PathBuf>,
    /// Name of a verified CA certificate of the provisioning service
    #[arg(long, value_name = "NAME", conflicts_with = "certificate")]
    ca: Option<String>,
    /// First symmetric key, base64; generated if missing
    #[arg(long, value_name = "KEY")]
    primary_key: Option<String>,
    /// Second symmetric key, base64; generated if missing
    #[arg(long, value_name = "KEY")]
    secondary_key: Option<String>,
    /// Device ID at the hub, if not the registration ID
    #[arg(long)]
    device_id: Option<String>,
    /// Initial twin: JSON {"tags": {…}, "properties": {"desired": {…}}} or @FILE
    #[arg(long, value_name = "JSON")]
    initial_twin: Option<String>,
    /// How a hub is chosen
    #[arg(long, value_parser = ["hashed", "geoLatency", "static", "custom"])]
    allocation: Option<String>,
    /// Hubs to choose from (host names), if not all linked ones
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    hubs: Option<Vec<String>>,
    /// What happens when the device registers again
    #[arg(long, value_enum)]
    reprovision: Option<Reprovision>,
    /// enabled or disabled
    #[arg(long, value_parser = ["enabled", "disabled"])]
    status: Option<String>,
    /// The device runs IoT Edge
    #[arg(long)]
    edge: Option<bool>,
}

/// Individual enrollments or groups: where they are in the API and what they are called there.
#[derive(Clone, Copy)]
struct Kind {
    path: &'static str,
    id: &'static str,
    certificates: &'static str,
}

const INDIVIDUAL: Kind = Kind { path: "enrollments", id: "registrationId", certificates: "clientCertificates" };
const GROUP: Kind = Kind { path: "enrollmentGroups", id: "enrollmentGroupId", certificates: "signingCertificates" };

/// `muster enrollment`.
pub async fn run(command: &EnrollmentCommand, context: &Context) -> Result<()> {
    run_kind(command, context, INDIVIDUAL).await
}

/// `muster enrollment-group`, but what needs no server.
pub async fn run_group(command: &EnrollmentCommand, context: &Context) -> Result<()> {
    run_kind(command, context, GROUP).await
}

/// `muster enrollment-group compute-device-key`.
pub fn compute_device_key(key: &str, registration_id: &str, output: Output) -> Result<()> {
    let key = SymmetricKey::parse(key).context("--key")?;
    let derived = key.derive(&registration_id.to_lowercase()).to_base64();
    match output.is_json() {
        true => output.record(&json!({ "registrationId": registration_id, "deviceKey": derived })),
        false => output.say(&derived),
    }
}

async fn run_kind(command: &EnrollmentCommand, context: &Context, kind: Kind) -> Result<()> {
    match command {
        EnrollmentCommand::Create(args) => {
            let mut body = Map::new();
            body.insert(kind.id.to_owned(), json!(args.name.id));
            body.insert("attestation".to_owned(), json!({ "type": "symmetricKey" }));
            put(context, args, kind, (Value::Object(body), None)).await
        }
        EnrollmentCommand::Update(args) => {
            let present = show(context, &args.name, kind).await?;
            let etag = present.get("etag").and_then(Value::as_str).map(str::to_owned);
            put(context, args, kind, (present, etag)).await
        }
        EnrollmentCommand::List { dps } => {
            let records = list_all(context, dps.as_deref(), &[kind.path, "query"]).await?;
            let id = format!("/{}", kind.id);
            context.output.list(
                &records,
                &[
                    ("Enrollment", id.as_str()),
                    ("Attestation", "/attestation/type"),
                    ("Status", "/provisioningStatus"),
                    ("Allocation", "/allocationPolicy"),
                    ("Updated", "/lastUpdatedDateTimeUtc"),
                ],
            )
        }
        EnrollmentCommand::Show(name) => {
            let mut entry = show(context, name, kind).await?;
            if context.show_keys {
                let path = [kind.path, name.id.as_str(), "attestationmechanism"];
                let request = ServiceRequest::new(Method::POST, &path);
                let client = context.provisioning(name.dps.as_deref())?;
                set(&mut entry, "attestation", ask(&client, "reading the keys", request).await?);
            }
            context.output.record(&entry)
        }
        EnrollmentCommand::Delete(name) => {
            let path = [kind.path, name.id.as_str()];
            let request = ServiceRequest::new(Method::DELETE, &path);
            ask(&context.provisioning(name.dps.as_deref())?, "deleting the enrollment", request).await?;
            context.output.record(&json!({ kind.id: name.id, "deleted": true }))
        }
    }
}

async fn show(context: &Context, name: &NameArgs, kind: Kind) -> Result<Value> {
    let path = [kind.path, name.id.as_str()];
    let request = ServiceRequest::new(Method::GET, &path);
    ask(&context.provisioning(name.dps.as_deref())?, "reading the enrollment", request).await
}

async fn put(context: &Context, args: &EnrollmentArgs, kind: Kind, base: (Value, Option<String>)) -> Result<()> {
    let (mut body, etag) = base;
    if let Some(attestation) = attestation(args, kind)? {
        set(&mut body, "attestation", attestation);
    }
    if let Some(twin) = &args.initial_twin {
        set(&mut body, "initialTwin", parse_json("initial-twin", twin)?);
    }
    let reprovision = args.reprovision.map(|policy| match policy {
        Reprovision::Migrate => json!({ "updateHubAssignment": true, "migrateDeviceData": true }),
        Reprovision::Reset => json!({ "updateHubAssignment": true, "migrateDeviceData": false }),
        Reprovision::Never => json!({ "updateHubAssignment": false, "migrateDeviceData": false }),
    });
    let members = [
        ("deviceId", args.device_id.as_ref().map(|id| json!(id))),
        ("allocationPolicy", args.allocation.as_ref().map(|policy| json!(policy))),
        ("iotHubs", args.hubs.as_ref().map(|hubs| json!(hubs))),
        ("reprovisionPolicy", reprovision),
        ("provisioningStatus", args.status.as_ref().map(|status| json!(status))),
        ("capabilities", args.edge.map(|edge| json!({ "iotEdge": edge }))),
    ];
    for (name, value) in members {
        if let Some(value) = value {
            set(&mut body, name, value);
        }
    }
    let path = [kind.path, args.name.id.as_str()];
    let mut request = ServiceRequest::new(Method::PUT, &path);
    request.body = Some(&body);
    request.if_match = etag.as_deref();
    let what = if etag.is_some() { "updating the enrollment" } else { "creating the enrollment" };
    let mut entry = ask(&context.provisioning(args.name.dps.as_deref())?, what, request).await?;
    hide_secrets(&mut entry, context.show_keys || etag.is_none());
    context.output.record(&entry)
}

fn attestation(args: &EnrollmentArgs, kind: Kind) -> Result<Option<Value>> {
    if let Some(ca) = &args.ca {
        return Ok(Some(json!({ "type": "x509", "x509": { "caReferences": { "primary": ca } } })));
    }
    let read = |file: &Option<PathBuf>| -> Result<Value> {
        let Some(file) = file else { return Ok(Value::Null) };
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let certificate = domain::certificate::Certificate::from_pem_or_der(&bytes)
            .with_context(|| format!("{} holds no certificate", file.display()))?;
        Ok(json!({ "certificate": certificate.pem() }))
    };
    if args.certificate.is_some() {
        let certificates =
            json!({ "primary": read(&args.certificate)?, "secondary": read(&args.secondary_certificate)? });
        return Ok(Some(json!({ "type": "x509", "x509": { kind.certificates: certificates } })));
    }
    if args.secondary_certificate.is_some() {
        bail!("--secondary-certificate needs --certificate");
    }
    if args.primary_key.is_some() || args.secondary_key.is_some() {
        let keys = json!({ "primaryKey": args.primary_key, "secondaryKey": args.secondary_key });
        return Ok(Some(json!({ "type": "symmetricKey", "symmetricKey": keys })));
    }
    Ok(None)
}

fn set(document: &mut Value, name: &str, value: Value) {
    if let Value::Object(members) = document {
        members.insert(name.to_owned(), value);
    }
}
