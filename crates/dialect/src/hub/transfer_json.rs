//! One line of the file of an import or export: an identity with its twin (`contract/hub-service.md 4.4` and `8.2`).
//!
//! What an export writes, an import reads. Start at [`parse_line`].

use domain::identity::{Authentication, Identity};
use domain::ids::{Etag, Precondition};
use domain::operation::identity::IdentityName;
use domain::transfer::{Change, FaultReason, Line, LineFault, Manner};
use domain::twin::Twin;
use serde_json::{Map, Value, json};

use super::registry_json::{
    self, authentication_type, etag_text, invalid, parse_draft, parse_name, status, thumbprints,
};
use super::twin_json;
use crate::error::Refused;
use crate::http::parse_precondition;
use crate::json::{self, InvalidJson, text};

/// Reads the line with this number, which is not empty. As in a bulk request, an item's etags count only in the modes that
/// name them; without a mode it is created or updated.
pub fn parse_line(number: u64, line: &[u8]) -> Result<Line, LineFault> {
    let mut fault = LineFault { line: number, device: None, module: None, reason: FaultReason::Internal };
    let read = json::parse(line).map_err(Refused::from).and_then(|item| {
        let member = |member| item.get(member).and_then(Value::as_str).map(str::to_owned);
        (fault.device, fault.module) = (member("id"), member("moduleId"));
        parse_item(&item)
    });
    read.map_err(|refused| LineFault { reason: FaultReason::Refused(refused.public.into_owned()), ..fault })
}

fn parse_item(item: &Value) -> Result<Line, Refused> {
    if !item.is_object() {
        return Err(InvalidJson::Type { member: "an item", wanted: "an object" }.into());
    }
    let device = text(item, "id")?.ok_or(InvalidJson::Missing { member: "id" })?;
    let module = text(item, "moduleId")?.filter(|module| !module.is_empty());
    let name = parse_name(&device, module.as_deref())?;
    let change = parse_change(&name, item)?;
    Ok(Line { name, change })
}

fn parse_change(name: &IdentityName, item: &Value) -> Result<Change<domain::identity::IdentityDraft>, Refused> {
    let put = |manner| {
        let identity = Box::new(parse_draft(name.clone(), item)?);
        let twin = twin_json::parse_change(item)?;
        let twin = (twin.tags.is_some() || twin.desired.is_some()).then(|| Box::new(twin));
        Ok(Change::Put { identity, manner, twin })
    };
    let patch = |precondition| Ok(Change::PatchTwin { change: Box::new(twin_json::parse_change(item)?), precondition });
    let etag = || named_etag(item, if item.get("eTag").is_some() { "eTag" } else { "etag" }, registry_json::parse_etag);
    let mode = text(item, "importMode")?.unwrap_or_default();
    match mode.to_ascii_lowercase().as_str() {
        "create" => put(Manner::Create),
        "update" => put(Manner::Update(Precondition::Exists)),
        "updateifmatchetag" => put(Manner::Update(etag()?)),
        "" | "createorupdate" => put(Manner::CreateOrUpdate(Precondition::Exists)),
        "createorupdateifmatchetag" => put(Manner::CreateOrUpdate(etag()?)),
        "delete" => Ok(Change::Delete { precondition: Precondition::Exists }),
        "deleteifmatchetag" => Ok(Change::Delete { precondition: etag()? }),
        "updatetwin" => patch(Precondition::None),
        "updatetwinifmatchetag" => patch(named_etag(item, "twinETag", twin_json::parse_etag)?),
        _ => Err(invalid("importMode is none that is known.")),
    }
}

/// The version that an item demands; without one, none is right.
fn named_etag(item: &Value, member: &'static str, read: fn(&str) -> Option<Etag>) -> Result<Precondition, Refused> {
    let etag = text(item, member)?.filter(|etag| !etag.is_empty());
    Ok(etag.map_or(Precondition::Impossible, |etag| parse_precondition(&etag, read)))
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

/// Writes what was wrong with a line, without the end of the line.
pub fn show_fault(fault: &LineFault) -> String {
    let LineFault { line, device, module, reason } = fault;
    let shown = json!({
        "line": line,
        "deviceId": device,
        "moduleId": module,
        "errorCode": reason.code(),
        "errorStatus": reason.to_string(),
    });
    shown.to_string()
}

/// Writes that there are `more` faults that are not told.
pub fn show_untold(more: u64) -> String {
    json!({ "errorStatus": format!("{more} more lines were not carried out.") }).to_string()
}

#[cfg(test)]
mod tests {
    use domain::identity::IdentityDraft;

    use super::*;

    /// What a line does, in a word.
    fn word(line: &str) -> String {
        match parse_line(3, line.as_bytes()) {
            Err(fault) => format!("{} {:?} {}", fault.line, fault.device, fault.reason),
            Ok(Line { name, change }) => match change {
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
        let read = parse_line(1, line.as_bytes());
        let Ok(Line { change: Change::Put { identity: draft, .. }, .. }) = read else { panic!("{line}: {read:?}") };
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
        let fault =
            LineFault { line: 7, device: Some("d".to_owned()), module: None, reason: FaultReason::DeviceExists };
        let expected = concat!(
            r#"{"line":7,"deviceId":"d","moduleId":null,"errorCode":"DeviceAlreadyExists","#,
            r#""errorStatus":"A device with this ID is already registered."}"#
        );
        assert_eq!(show_fault(&fault), expected);
    }
}
