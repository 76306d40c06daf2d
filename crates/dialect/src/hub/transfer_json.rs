//! One line of the files of an import or export: an identity with its twin, or a configuration
//! (`contract/hub-service.md 4.4`, `8.2` and `10`).
//!
//! What an export writes, an import reads. Start at [`parse_line`].

use std::collections::BTreeMap;

use domain::configuration::Configuration;
use domain::identity::{Authentication, Identity, IdentityDraft};
use domain::ids::Precondition;
use domain::operation::configuration::Counted;
use domain::operation::identity::IdentityName;
use domain::transfer::{Change, ConfigurationChange, FaultReason, ImportFile, Line, LineFault, Manner};
use domain::twin::Twin;
use serde_json::{Map, Value, json};

use super::import_mode::{self, ImportMode};
use super::registry_json::{self, authentication_type, etag_text, parse_draft, parse_name, status, thumbprints};
use super::{configuration_http, twin_json};
use crate::error::Refused;
use crate::json::{self, InvalidJson, text};

/// Reads the line with this number of a file, which is not empty. As in a bulk request, an item's etags count only in the
/// modes that name them; without a mode it is created or updated.
pub fn parse_line(file: ImportFile, number: u64, line: &[u8]) -> Result<Line<IdentityDraft>, LineFault> {
    let mut fault = LineFault::unread(number, FaultReason::Internal);
    let read = json::parse(line).map_err(Refused::from).and_then(|item| {
        let member = |member| item.get(member).and_then(Value::as_str).map(str::to_owned);
        match file {
            ImportFile::Identities => {
                (fault.device, fault.module) = (member("id"), member("moduleId"));
                parse_identity(&item)
            }
            ImportFile::Configurations => {
                fault.configuration = member("id");
                parse_configuration(&item).map(Line::Configuration)
            }
        }
    });
    read.map_err(|refused| LineFault { reason: FaultReason::Refused(refused.public.into_owned()), ..fault })
}

/// What an item is to do.
enum Mode {
    Put(Manner),
    Delete(Precondition),
    PatchTwin(Precondition),
}

/// Reads what an item is to do; without a word it is created or updated.
fn parse_mode(item: &Value) -> Result<Mode, Refused> {
    let mode =
        if text(item, "importMode")?.is_some_and(|mode| mode.is_empty()) { None } else { ImportMode::parse(item)? };
    let mode = mode.unwrap_or(ImportMode::CreateOrUpdate);
    let precondition = mode.precondition(item)?;
    Ok(match mode {
        ImportMode::Create => Mode::Put(Manner::Create),
        ImportMode::Update | ImportMode::UpdateIfMatchEtag => Mode::Put(Manner::Update(precondition)),
        ImportMode::CreateOrUpdate | ImportMode::CreateOrUpdateIfMatchEtag => {
            Mode::Put(Manner::CreateOrUpdate(precondition))
        }
        ImportMode::Delete | ImportMode::DeleteIfMatchEtag => Mode::Delete(precondition),
        ImportMode::UpdateTwin | ImportMode::UpdateTwinIfMatchEtag => Mode::PatchTwin(precondition),
    })
}

/// The name of an item.
fn parse_id(item: &Value) -> Result<String, Refused> {
    if !item.is_object() {
        return Err(InvalidJson::Type { member: "an item", wanted: "an object" }.into());
    }
    Ok(text(item, "id")?.ok_or(InvalidJson::Missing { member: "id" })?)
}

fn parse_identity(item: &Value) -> Result<Line<IdentityDraft>, Refused> {
    let device = parse_id(item)?;
    let module = text(item, "moduleId")?.filter(|module| !module.is_empty());
    let name = parse_name(&device, module.as_deref())?;
    let change = match parse_mode(item)? {
        Mode::Put(manner) => parse_put(&name, item, manner)?,
        Mode::Delete(precondition) => Change::Delete { precondition },
        Mode::PatchTwin(precondition) => {
            Change::PatchTwin { change: Box::new(twin_json::parse_change(item)?), precondition }
        }
    };
    Ok(Line::Identity(name, change))
}

fn parse_put(name: &IdentityName, item: &Value, manner: Manner) -> Result<Change<IdentityDraft>, Refused> {
    let identity = Box::new(parse_draft(name.clone(), item)?);
    let twin = twin_json::parse_change(item)?;
    let twin = (twin.tags.is_some() || twin.desired.is_some()).then(|| Box::new(twin));
    Ok(Change::Put { identity, manner, twin })
}

fn parse_configuration(item: &Value) -> Result<ConfigurationChange, Refused> {
    let id = configuration_http::parse_id(&parse_id(item)?)?;
    match parse_mode(item)? {
        Mode::Put(manner) => {
            let draft = configuration_http::parse_draft(id, item)?;
            Ok(ConfigurationChange::Put(Box::new(draft), manner))
        }
        Mode::Delete(precondition) => Ok(ConfigurationChange::Delete(id, precondition)),
        Mode::PatchTwin(_) => Err(import_mode::unknown()),
    }
}

/// Writes an identity and its twin, without the end of the line.
pub fn show_line(identity: &Identity, twin: &Twin, with_keys: bool) -> String {
    let name = &identity.name;
    let mut shown = Map::new();
    let mut put = |member: &str, value: Value| drop(shown.insert(member.to_owned(), value));
    put("id", json!(name.device));
    if let Some(module) = &name.module {
        put("moduleId", json!(module));
    }
    put("eTag", json!(etag_text(identity.etag)));
    if let Some(manager) = &identity.managed_by {
        put("managedBy", json!(manager));
    }
    if name.module.is_none() {
        put("status", json!(status(identity.status)));
        put("statusReason", json!(identity.status_reason));
    }
    put("authentication", show_authentication(&identity.authentication, with_keys));
    put("twinETag", json!(twin_json::etag_text(twin.etag)));
    put("tags", json!(twin.tags));
    let (desired, reported) = (twin.desired.service_document(), twin.reported.service_document());
    put("properties", json!({ "desired": desired, "reported": reported }));
    if name.module.is_none() {
        put("capabilities", json!({ "iotEdge": identity.capabilities.iot_edge }));
        registry_json::show_scopes(identity, put);
    }
    Value::Object(shown).to_string()
}

fn show_authentication(authentication: &Authentication, with_keys: bool) -> Value {
    let keys = match authentication {
        Authentication::Sas(keys) if with_keys => Some((keys.primary.to_base64(), keys.secondary.to_base64())),
        _ => None,
    };
    let (primary, secondary) = keys.unzip();
    json!({
        "symmetricKey": { "primaryKey": primary, "secondaryKey": secondary },
        "x509Thumbprint": thumbprints(authentication),
        "type": authentication_type(authentication),
    })
}

/// Writes a configuration, without the end of the line.
pub fn show_configuration(configuration: &Configuration) -> String {
    let counted = Counted { configuration: configuration.clone(), metrics: BTreeMap::new(), reported: None };
    configuration_http::show(&counted).to_string()
}

/// Writes what was wrong with a line, without the end of the line.
pub fn show_fault(fault: &LineFault) -> String {
    let LineFault { line, device, module, configuration, reason } = fault;
    let mut shown = Map::new();
    let mut put = |member: &str, value: Value| drop(shown.insert(member.to_owned(), value));
    put("line", json!(line));
    if let Some(id) = configuration {
        put("configurationId", json!(id));
    } else {
        put("deviceId", json!(device));
        put("moduleId", json!(module));
    }
    put("errorCode", json!(reason.code()));
    put("errorStatus", json!(reason.to_string()));
    Value::Object(shown).to_string()
}

/// Writes that there are `more` faults that are not told.
pub fn show_untold(more: u64) -> String {
    json!({ "errorStatus": format!("{more} more lines were not carried out.") }).to_string()
}

#[cfg(test)]
mod tests {
    use domain::clock::UnixTime;
    use domain::ids::Etag;

    use super::*;

    /// What a line does, in a word.
    fn word(line: &str) -> String {
        match parse_line(ImportFile::Identities, 3, line.as_bytes()) {
            Err(fault) => format!("{} {:?} {}", fault.line, fault.device, fault.reason),
            Ok(Line::Configuration(change)) => panic!("{change:?}"),
            Ok(Line::Identity(name, change)) => match change {
                Change::Put { manner, twin, .. } => format!("put {name} {manner:?} twin {}", twin.is_some()),
                Change::Delete { precondition } => format!("delete {name} {precondition:?}"),
                Change::PatchTwin { precondition, .. } => format!("patch {name} {precondition:?}"),
            },
        }
    }

    #[test]
    fn every_mode_is_known_in_any_letter_case() {
        let cases = [
            (r#"{"id":"d"}"#, "put d CreateOrUpdate(Exists) twin false"),
            (r#"{"id":"d","importMode":"Create","tags":{"a":1}}"#, "put d Create twin true"),
            (r#"{"id":"d","moduleId":"m","importMode":"update"}"#, "put d/m Update(Exists) twin false"),
            (r#"{"id":"d","importMode":"createOrUpdate","moduleId":""}"#, "put d CreateOrUpdate(Exists) twin false"),
            (r#"{"id":"d","importMode":"updateIfMatchETag"}"#, "put d Update(Impossible) twin false"),
            (r#"{"id":"d","importMode":"createOrUpdateIfMatchETag"}"#, "put d CreateOrUpdate(Impossible) twin false"),
            (r#"{"id":"d","importMode":"DELETE"}"#, "delete d Exists"),
            (r#"{"id":"d","importMode":"deleteIfMatchETag","eTag":"*"}"#, "delete d Exists"),
            (r#"{"id":"d","importMode":"updateTwin"}"#, "patch d None"),
            (r#"{"id":"d","importMode":"updateTwinIfMatchETag"}"#, "patch d Impossible"),
            (r#"{"id":"d","importMode":"x"}"#, r#"3 Some("d") importMode is none that is known."#),
            (r#"{"importMode":"create"}"#, "3 None Not understood: id is missing."),
        ];
        for (line, expected) in cases {
            assert_eq!(word(line), expected, "{line}");
        }
        assert!(word("{").starts_with("3 None "));
        assert!(word("[]").starts_with("3 None "));
    }

    #[test]
    fn what_an_export_writes_an_import_reads() {
        let identity = Identity::blank(parse_name("d", None).unwrap());
        let twin = Twin::new(Etag::from_number(1));
        let line = show_line(&identity, &twin, true);
        let read = parse_line(ImportFile::Identities, 1, line.as_bytes());
        let Ok(Line::Identity(_, Change::Put { identity: draft, .. })) = read else { panic!("{line}: {read:?}") };
        let IdentityDraft { name, status, .. } = *draft;
        assert_eq!((name, status), (identity.name, Some(identity.status)));
    }

    #[test]
    fn keys_are_left_out_where_that_is_wished() {
        use domain::sas::{KeyPair, SymmetricKey};

        let key = SymmetricKey::from_bytes(&[7; 32]).unwrap();
        let text = key.to_base64();
        let authentication = Authentication::Sas(KeyPair { primary: key.clone(), secondary: key });
        let identity = Identity { authentication, ..Identity::blank(parse_name("d", None).unwrap()) };
        let twin = Twin::new(Etag::from_number(1));
        assert!(show_line(&identity, &twin, true).contains(&text));
        let without = show_line(&identity, &twin, false);
        assert!(without.contains(r#""symmetricKey":{"primaryKey":null,"secondaryKey":null}"#), "{without}");
    }

    #[test]
    fn a_fault_names_its_line() {
        let fault = LineFault::of_identity(7, &parse_name("d", None).unwrap(), FaultReason::DeviceExists);
        let expected = concat!(
            r#"{"line":7,"deviceId":"d","moduleId":null,"errorCode":"DeviceAlreadyExists","#,
            r#""errorStatus":"A device with this ID is already registered."}"#
        );
        assert_eq!(show_fault(&fault), expected);
    }

    #[test]
    fn a_configuration_that_is_exported_can_be_imported() {
        let line = r#"{"id":"c","content":{"deviceContent":{"properties.desired.x":1}},"targetCondition":"*"}"#;
        let read = parse_line(ImportFile::Configurations, 1, line.as_bytes());
        let Ok(Line::Configuration(ConfigurationChange::Put(draft, _))) = read else { panic!("{read:?}") };
        let at = UnixTime::from_seconds(1_706_702_400);
        let configuration = Configuration {
            draft: *draft,
            created_at: at,
            updated_at: at,
            targeted: 1,
            applied: 1,
            etag: Etag::from_number(1),
        };
        let shown = show_configuration(&configuration);
        let again = parse_line(ImportFile::Configurations, 1, shown.as_bytes());
        let Ok(Line::Configuration(ConfigurationChange::Put(draft, manner))) = again else {
            panic!("{shown}: {again:?}")
        };
        assert_eq!((*draft, manner), (configuration.draft, Manner::CreateOrUpdate(Precondition::Exists)));

        let fault = parse_line(ImportFile::Configurations, 2, br#"{"id":"c","importMode":"updateTwin"}"#).unwrap_err();
        let expected = concat!(
            r#"{"line":2,"configurationId":"c","errorCode":"ArgumentInvalid","#,
            r#""errorStatus":"importMode is none that is known."}"#
        );
        assert_eq!(show_fault(&fault), expected);
    }
}
