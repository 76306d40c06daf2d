//! Identities as a hub's service API writes them (`contract/hub-service.md 4.2` to `4.4`).
//!
//! Reads only shapes; the rules for what an identity may be are in `domain::identity`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::enrollment::Capabilities;
use domain::identity::{Authentication, DraftAuthentication, Identity, IdentityDraft, IdentityStatus};
use domain::ids::{DeviceId, Etag, ModuleId};
use domain::operation::identity::{Ask, BulkChange, BulkItem, IdentityName};
use domain::operation::{ErrorKind, Failure};
pub use domain::query::document::{
    authentication_type, connection_state, identity_etag as etag_text, moment, status, thumbprints,
};
use domain::sas::{KeyChoice, KeyPair, SymmetricKey};
use serde_json::{Map, Value, json};

use super::import_mode::{self, ImportMode};
use super::twin_json;
use crate::error::{Refused, spelling};
use crate::json::{InvalidJson, boolean, object, text};

/// A value that breaks a rule.
pub(super) fn invalid(text: impl Into<Cow<'static, str>>) -> Refused {
    Refused::new(ErrorKind::InvalidArgument, text)
}

/// Reads [`etag_text`].
pub fn parse_etag(text: &str) -> Option<Etag> {
    let bytes = STANDARD.decode(text).ok()?;
    Some(Etag::from_number(std::str::from_utf8(&bytes).ok()?.parse().ok()?))
}

/// An identity with its keys: who may read the registry may read them.
pub fn show_identity(identity: &Identity) -> Value {
    let Identity { name, generation, etag, connected, .. } = identity;
    let mut shown = Map::new();
    let mut put = |member: &str, value: Value| drop(shown.insert(member.to_owned(), value));
    if let Some(module) = &name.module {
        put("moduleId", json!(module));
        put("managedBy", json!(identity.managed_by));
    }
    put("deviceId", json!(name.device));
    put("generationId", json!(generation));
    put("etag", json!(etag_text(*etag)));
    put("connectionState", json!(connection_state(*connected)));
    if name.module.is_none() {
        put("status", json!(status(identity.status)));
        put("statusReason", json!(identity.status_reason));
    }
    put("connectionStateUpdatedTime", json!(moment(identity.connection_updated_at)));
    if name.module.is_none() {
        put("statusUpdatedTime", json!(moment(identity.status_updated_at)));
    }
    put("lastActivityTime", json!(moment(identity.last_activity_at)));
    put("cloudToDeviceMessageCount", json!(identity.messages_waiting));
    put("authentication", show_authentication(&identity.authentication));
    if name.module.is_none() {
        put("capabilities", json!({ "iotEdge": identity.capabilities.iot_edge }));
        show_scopes(identity, put);
    }
    Value::Object(shown)
}

/// The scopes of an identity that has any.
pub(super) fn show_scopes(identity: &Identity, mut put: impl FnMut(&str, Value)) {
    if let Some(scope) = &identity.device_scope {
        put("deviceScope", json!(scope));
    }
    if !identity.parent_scopes.is_empty() {
        put("parentScopes", json!(identity.parent_scopes));
    }
}

fn show_authentication(authentication: &Authentication) -> Value {
    let (primary, secondary) = match authentication {
        Authentication::Sas(keys) => (Some(keys.primary.to_base64()), Some(keys.secondary.to_base64())),
        Authentication::SelfSigned(_) | Authentication::CertificateAuthority | Authentication::None => (None, None),
    };
    json!({
        "symmetricKey": { "primaryKey": primary, "secondaryKey": secondary },
        "x509Thumbprint": thumbprints(authentication),
        "type": authentication_type(authentication),
    })
}

/// Reads the name of a device, and of a module if there is one.
pub fn parse_name(device: &str, module: Option<&str>) -> Result<IdentityName, Refused> {
    let device = DeviceId::parse(device).map_err(|fault| invalid(format!("The device ID: {fault}.")))?;
    let module = module.map(ModuleId::parse).transpose();
    let module = module.map_err(|fault| invalid(format!("The module ID: {fault}.")))?;
    Ok(IdentityName { device, module })
}

/// Reads the body of a PUT. Its names, if it has any, must be those of the path. Members that the hub writes are ignored,
/// the etag among them: only `If-Match` counts.
pub fn parse_identity(name: IdentityName, body: &Value) -> Result<IdentityDraft, Refused> {
    if !body.is_object() {
        return Err(InvalidJson::Type { member: "the body", wanted: "an object" }.into());
    }
    let device = text(body, "deviceId")?;
    let module = text(body, "moduleId")?.filter(|module| !module.is_empty());
    let agrees = device.is_none_or(|device| device == name.device.as_str())
        && module.is_none_or(|module| name.module.as_ref().is_some_and(|own| own.as_str() == module));
    if !agrees {
        return Err(invalid("The ID of the body is not that of the path."));
    }
    parse_draft(name, body)
}

/// Reads an identity, wherever it stands.
pub(super) fn parse_draft(name: IdentityName, body: &Value) -> Result<IdentityDraft, Refused> {
    let capabilities = object(body, "capabilities")?
        .map(|capabilities| Ok::<_, InvalidJson>(boolean(capabilities, "iotEdge")?.unwrap_or_default()))
        .transpose()?;
    Ok(IdentityDraft {
        status: parse_status(body)?,
        status_reason: text(body, "statusReason")?,
        authentication: object(body, "authentication")?.map(parse_authentication).transpose()?.flatten(),
        capabilities: capabilities.map(|iot_edge| Capabilities { iot_edge }),
        device_scope: text(body, "deviceScope")?.filter(|scope| !scope.is_empty()),
        parent_scopes: parse_scopes(body)?,
        managed_by: text(body, "managedBy")?.filter(|manager| !manager.is_empty()),
        ..IdentityDraft::new(name)
    })
}

fn parse_status(body: &Value) -> Result<Option<IdentityStatus>, Refused> {
    match text(body, "status")?.map(|status| status.to_ascii_lowercase()).as_deref() {
        None => Ok(None),
        Some("enabled") => Ok(Some(IdentityStatus::Enabled)),
        Some("disabled") => Ok(Some(IdentityStatus::Disabled)),
        Some(_) => Err(invalid("status is neither enabled nor disabled.")),
    }
}

fn parse_scopes(body: &Value) -> Result<Vec<String>, Refused> {
    let wrong = InvalidJson::Type { member: "parentScopes", wanted: "an array of strings" };
    let scopes = match body.get("parentScopes") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(scopes)) => scopes,
        Some(_) => return Err(wrong.into()),
    };
    let scopes: Option<Vec<String>> = scopes.iter().map(|scope| scope.as_str().map(str::to_owned)).collect();
    Ok(scopes.ok_or(wrong)?)
}

/// Without a type, what is given tells it. One SDK writes keys that are to be generated as empty texts.
fn parse_authentication(body: &Value) -> Result<Option<DraftAuthentication>, Refused> {
    let keys = object(body, "symmetricKey")?.unwrap_or(&Value::Null);
    let (primary_key, secondary_key) = (parse_key(keys, "primaryKey")?, parse_key(keys, "secondaryKey")?);
    let thumbprints = object(body, "x509Thumbprint")?.unwrap_or(&Value::Null);
    let thumbprint = |member| Ok::<_, InvalidJson>(text(thumbprints, member)?.filter(|text| !text.is_empty()));
    let (primary, secondary) = (thumbprint("primaryThumbprint")?, thumbprint("secondaryThumbprint")?);

    let sas = DraftAuthentication::Sas { primary: primary_key, secondary: secondary_key };
    let has_thumbprint = primary.is_some() || secondary.is_some();
    let self_signed = DraftAuthentication::SelfSigned { primary, secondary };
    match text(body, "type")?.map(|kind| kind.to_ascii_lowercase()).as_deref() {
        Some("sas") => Ok(Some(sas)),
        Some("selfsigned") => Ok(Some(self_signed)),
        Some("certificateauthority") => Ok(Some(DraftAuthentication::CertificateAuthority)),
        Some("none") => Ok(Some(DraftAuthentication::None)),
        None if has_thumbprint => Ok(Some(self_signed)),
        None => Ok(Some(sas)),
        Some(_) => Err(invalid("authentication.type is none of sas, selfSigned, certificateAuthority and none.")),
    }
}

fn parse_key(keys: &Value, member: &'static str) -> Result<Option<SymmetricKey>, Refused> {
    let Some(text) = text(keys, member)?.filter(|text| !text.is_empty()) else { return Ok(None) };
    let key = SymmetricKey::parse(&text);
    key.map(Some).map_err(|fault| invalid(format!("Invalid device key length: {member}: {fault}.")))
}

/// Reads a bulk request. An item's etags count only in the modes that name them.
pub fn parse_bulk(body: &Value) -> Result<Vec<(BulkItem, ImportMode)>, Refused> {
    let Value::Array(items) = body else {
        return Err(InvalidJson::Type { member: "the body", wanted: "an array" }.into());
    };
    let items: Vec<(BulkItem, ImportMode)> = items.iter().map(parse_item).collect::<Result<_, _>>()?;
    check_names(items.iter().map(|(item, _)| &item.name))?;
    Ok(items)
}

/// That no identity is named twice.
fn check_names<'a>(names: impl Iterator<Item = &'a IdentityName>) -> Result<(), Refused> {
    let mut names: Vec<&IdentityName> = names.collect();
    names.sort_unstable();
    if names.is_sorted_by(|one, next| one != next) { Ok(()) } else { Err(invalid("A device is named more than once.")) }
}

/// Reads a request for fresh keys (`contract/hub-service.md 4.1`).
pub fn parse_rotation(body: &Value) -> Result<Ask, Refused> {
    if !body.is_object() {
        return Err(InvalidJson::Type { member: "the body", wanted: "an object" }.into());
    }
    let choice = text(body, "policyKey")?.ok_or(InvalidJson::Missing { member: "policyKey" })?;
    let choice = CHOICES.iter().find(|(_, name)| name.eq_ignore_ascii_case(&choice));
    let &(choice, _) = choice.ok_or_else(|| invalid("policyKey is none of primaryKey, secondaryKey and both."))?;
    let names = match body.get("devices") {
        None | Some(Value::Null) => return Err(InvalidJson::Missing { member: "devices" }.into()),
        Some(Value::Array(devices)) => devices.iter().map(parse_item_name).collect::<Result<Vec<_>, _>>()?,
        Some(_) => return Err(InvalidJson::Type { member: "devices", wanted: "an array" }.into()),
    };
    check_names(names.iter())?;
    Ok(Ask::RotateKeys { choice, names })
}

/// Which keys are made afresh, by name.
const CHOICES: [(KeyChoice, &str); 3] =
    [(KeyChoice::Primary, "primaryKey"), (KeyChoice::Secondary, "secondaryKey"), (KeyChoice::Both, "both")];

/// Fresh keys, beside those that were kept, and what failed (`contract/hub-service.md 4.1`).
pub fn show_rotation(
    choice: KeyChoice,
    keys: &[(IdentityName, KeyPair)],
    failures: &[(IdentityName, Failure)],
) -> Value {
    let policy_key = CHOICES.iter().find(|(known, _)| *known == choice).map(|(_, name)| *name);
    let keys = keys.iter().map(|(name, pair)| {
        json!({
            "id": name.device,
            "moduleId": name.module,
            "primaryKey": pair.primary.to_base64(),
            "secondaryKey": pair.secondary.to_base64(),
        })
    });
    let errors = failures.iter().map(|(name, failure)| {
        json!({
            "id": name.device,
            "moduleId": name.module,
            "errorCode": listed_code(failure.kind),
            "errorStatus": failure.public,
        })
    });
    json!({ "policyKey": policy_key, "rotatedKeys": keys.collect::<Value>(), "errors": errors.collect::<Value>() })
}

/// The name of the error of one of many identities. Clients read it into an enumeration, which lacks the names of two rules
/// (`DeviceRegistryOperationError.errorCode` in the OpenAPI file of the hub).
pub(super) fn listed_code(kind: ErrorKind) -> &'static str {
    let is_listed = !matches!(kind, ErrorKind::InvalidThumbprint | ErrorKind::NoAuthentication);
    spelling(if is_listed { kind } else { ErrorKind::InvalidArgument }).hub_name
}

/// The identity that an item of many is about.
fn parse_item_name(item: &Value) -> Result<IdentityName, Refused> {
    if !item.is_object() {
        return Err(InvalidJson::Type { member: "an item", wanted: "an object" }.into());
    }
    let device = text(item, "id")?.ok_or(InvalidJson::Missing { member: "id" })?;
    let module = text(item, "moduleId")?.filter(|module| !module.is_empty());
    parse_name(&device, module.as_deref())
}

fn parse_item(item: &Value) -> Result<(BulkItem, ImportMode), Refused> {
    let name = parse_item_name(item)?;
    let mode = ImportMode::parse(item)?.ok_or(InvalidJson::Missing { member: "importMode" })?;
    let precondition = mode.precondition(item)?;
    let change = match mode {
        ImportMode::Create | ImportMode::Update | ImportMode::UpdateIfMatchEtag => {
            let draft = Box::new(parse_draft(name.clone(), item)?);
            let twin = twin_json::parse_change(item)?;
            let twin = (twin.tags.is_some() || twin.desired.is_some()).then(|| Box::new(twin));
            BulkChange::Put { draft, precondition, twin }
        }
        ImportMode::Delete | ImportMode::DeleteIfMatchEtag => BulkChange::Delete { precondition },
        ImportMode::UpdateTwin | ImportMode::UpdateTwinIfMatchEtag => {
            BulkChange::PatchTwin { change: Box::new(twin_json::parse_change(item)?), precondition }
        }
        // Only lines of imports may leave open whether an identity is there.
        ImportMode::CreateOrUpdate | ImportMode::CreateOrUpdateIfMatchEtag => return Err(import_mode::unknown()),
    };
    Ok((BulkItem { name, change }, mode))
}
