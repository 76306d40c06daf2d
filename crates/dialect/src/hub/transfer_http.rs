//! Imports and exports as a hub's service API asks for them and shows them (`contract/hub-service.md 8.2`).
//!
//! Reads only shapes; what a container's address is worth is the service's to judge. Start at [`decode`].

use bytes::Bytes;
use domain::file::FileName;
use domain::ids::JobId;
use domain::operation::ErrorKind;
use domain::operation::transfer::{Answer, Ask};
use domain::transfer::{CONFIGURATIONS_FILE, Container, Draft, IDENTITIES_FILE, Transfer, TransferStatus, Work};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::registry_json::{invalid, moment};
use crate::error::Refused;
use crate::http::{is, json as respond};
use crate::json::{self, InvalidJson, boolean, text};

/// Reads a request for what is below `/jobs`, scheduled jobs apart.
pub(super) fn decode(request: &Request<Bytes>, method: &Method, rest: &[&str]) -> Result<Ask, Refused> {
    match (method, rest) {
        (&Method::POST, [word]) if is(word, "create") => {
            Ok(Ask::Create(Box::new(parse_draft(&json::parse(request.body())?)?)))
        }
        (_, [word]) if is(word, "create") => Err(Refused::wrong_method()),
        (&Method::GET, []) => Ok(Ask::List),
        (&Method::GET, [id]) => Ok(Ask::Find(parse_id(id)?)),
        (&Method::DELETE, [id]) => Ok(Ask::Cancel(parse_id(id)?)),
        (_, [] | [_]) => Err(Refused::wrong_method()),
        _ => Err(Refused::nothing_here()),
    }
}

/// Reads what a job is called.
pub(crate) fn parse_id(text: &str) -> Result<JobId, Refused> {
    JobId::parse(text).map_err(|fault| invalid(format!("The job ID: {fault}.")))
}

/// Reads what is to be done. What the hub writes of a job, clients send back, and it is ignored.
fn parse_draft(body: &Value) -> Result<Draft, Refused> {
    if !body.is_object() {
        return Err(InvalidJson::Type { member: "the body", wanted: "an object" }.into());
    }
    check_authentication(body, "storageAuthenticationType")?;
    let kind = text(body, "type")?.ok_or(InvalidJson::Missing { member: "type" })?;
    let output = parse_container(body, "outputBlobContainerUri")?;
    let work = match kind.to_ascii_lowercase().as_str() {
        "import" => Work::Import {
            input: parse_container(body, "inputBlobContainerUri")?,
            file: parse_file(body, "inputBlobName", IDENTITIES_FILE)?,
        },
        "export" => Work::Export {
            file: parse_file(body, "outputBlobName", IDENTITIES_FILE)?,
            without_keys: boolean(body, "excludeKeysInExport")?.unwrap_or_default(),
        },
        _ => return Err(invalid("type is neither import nor export.")),
    };
    Ok(Draft { work, configurations: parse_configurations(body)?, output })
}

/// Refuses any other way to a container than the signature of its URI.
pub(crate) fn check_authentication(body: &Value, member: &'static str) -> Result<(), Refused> {
    if text(body, member)?.is_some_and(|kind| !kind.eq_ignore_ascii_case("keyBased")) {
        let words = format!("{member} can only be keyBased: a container is reached by the signature of its URI.");
        return Err(invalid(words));
    }
    Ok(())
}

/// Reads which file is of configurations, if they go along.
pub(crate) fn parse_configurations(body: &Value) -> Result<Option<FileName>, Refused> {
    Ok(match boolean(body, "includeConfigurations")? {
        Some(true) => Some(parse_file(body, "configurationsBlobName", CONFIGURATIONS_FILE)?),
        _ => None,
    })
}

/// Reads the address of a container.
pub(crate) fn parse_container(body: &Value, member: &'static str) -> Result<Container, Refused> {
    let address = text(body, member)?.filter(|text| !text.is_empty()).ok_or(InvalidJson::Missing { member })?;
    Container::parse(&address).map_err(|fault| Refused::new(ErrorKind::InvalidContainer, format!("{member}: {fault}.")))
}

/// Reads the name of a file, which is the `usual` one if nobody says.
pub(crate) fn parse_file(body: &Value, member: &'static str, usual: &str) -> Result<FileName, Refused> {
    let name = text(body, member)?.filter(|text| !text.is_empty());
    FileName::parse(name.as_deref().unwrap_or(usual)).map_err(|fault| invalid(format!("{member}: {fault}.")))
}

/// Shows what was answered.
pub(super) fn encode(answer: &Answer) -> Response<Bytes> {
    match answer {
        Answer::Transfer(transfer) => respond(StatusCode::OK, &show(transfer)),
        Answer::Transfers(transfers) => respond(StatusCode::OK, &transfers.iter().map(show).collect()),
    }
}

/// Everything but the addresses of containers, whose signatures are nobody's to read.
fn show(transfer: &Transfer) -> Value {
    let mut shown = Map::new();
    let mut put = |member: &str, value: Value| drop(shown.insert(member.to_owned(), value));
    put("jobId", json!(transfer.id));
    put("startTimeUtc", json!(moment(transfer.started_at.unwrap_or(transfer.created_at))));
    if let Some(ended_at) = transfer.ended_at {
        put("endTimeUtc", json!(moment(ended_at)));
    }
    match &transfer.draft.work {
        Work::Import { file, .. } => {
            put("type", json!("import"));
            put("inputBlobName", json!(file.as_str()));
        }
        Work::Export { file, without_keys } => {
            put("type", json!("export"));
            put("outputBlobName", json!(file.as_str()));
            put("excludeKeysInExport", json!(without_keys));
        }
    }
    put("status", json!(status(transfer.status)));
    put("progress", json!(transfer.progress));
    put("storageAuthenticationType", json!("keyBased"));
    put("includeConfigurations", json!(transfer.draft.configurations.is_some()));
    if let Some(file) = &transfer.draft.configurations {
        put("configurationsBlobName", json!(file.as_str()));
    }
    if let Some(failure) = &transfer.failure {
        put("failureReason", json!(failure));
    }
    Value::Object(shown)
}

/// How it stands, in a word.
pub(crate) const fn status(status: TransferStatus) -> &'static str {
    match status {
        TransferStatus::Enqueued => "enqueued",
        TransferStatus::Running => "running",
        TransferStatus::Completed => "completed",
        TransferStatus::Failed => "failed",
        TransferStatus::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use domain::clock::UnixTime;

    use super::*;

    fn parse(body: &Value) -> Result<Draft, ErrorKind> {
        parse_draft(body).map_err(|refused| refused.kind)
    }

    #[test]
    fn what_clients_send_is_read_and_the_rest_refused() {
        let (input, output) = ("https://host/in?sig=a", "https://host/out?sig=b");
        let [read_from, written_to] = [input, output].map(|text| Container::parse(text).unwrap());
        let file = |name: &str| FileName::parse(name).unwrap();
        let import = |name: &str| Draft {
            work: Work::Import { input: read_from.clone(), file: file(name) },
            configurations: None,
            output: written_to.clone(),
        };
        let export = |name: &str, without_keys| Draft {
            work: Work::Export { file: file(name), without_keys },
            configurations: None,
            output: written_to.clone(),
        };
        let cases = [
            (
                json!({ "type": "import", "inputBlobContainerUri": input, "outputBlobContainerUri": output }),
                Ok(import("devices.txt")),
            ),
            (
                json!({
                    "type": "Import", "inputBlobContainerUri": input, "outputBlobContainerUri": output,
                    "inputBlobName": "a.txt", "status": "unknown", "storageAuthenticationType": "keyBased",
                }),
                Ok(import("a.txt")),
            ),
            (
                json!({ "type": "export", "outputBlobContainerUri": output, "excludeKeysInExport": true }),
                Ok(export("devices.txt", true)),
            ),
            (
                json!({ "type": "export", "outputBlobContainerUri": output, "outputBlobName": "a/b" }),
                Ok(export("a/b", false)),
            ),
            (json!({ "type": "import", "outputBlobContainerUri": output }), Err(ErrorKind::InvalidBody)),
            (json!({ "outputBlobContainerUri": output }), Err(ErrorKind::InvalidBody)),
            (json!({ "type": "backup", "outputBlobContainerUri": output }), Err(ErrorKind::InvalidArgument)),
            (json!({ "type": "export", "outputBlobContainerUri": "host" }), Err(ErrorKind::InvalidContainer)),
            (
                json!({ "type": "export", "outputBlobContainerUri": output, "outputBlobName": "../x" }),
                Err(ErrorKind::InvalidArgument),
            ),
            (
                json!({
                    "type": "export", "outputBlobContainerUri": output, "storageAuthenticationType": "identityBased",
                }),
                Err(ErrorKind::InvalidArgument),
            ),
            (
                json!({
                    "type": "export", "outputBlobContainerUri": output, "includeConfigurations": false,
                    "configurationsBlobName": "c.txt",
                }),
                Ok(export("devices.txt", false)),
            ),
            (
                json!({ "type": "export", "outputBlobContainerUri": output, "includeConfigurations": true }),
                Ok(Draft { configurations: Some(file("configurations.txt")), ..export("devices.txt", false) }),
            ),
            (
                json!({
                    "type": "export", "outputBlobContainerUri": output, "includeConfigurations": true,
                    "configurationsBlobName": "/",
                }),
                Err(ErrorKind::InvalidArgument),
            ),
            (json!([]), Err(ErrorKind::InvalidBody)),
        ];
        for (body, expected) in cases {
            assert_eq!(parse(&body), expected, "{body}");
        }
    }

    #[test]
    fn no_signature_is_shown() {
        let body = json!({
            "type": "import", "inputBlobContainerUri": "https://host/in?sig=secret",
            "outputBlobContainerUri": "https://host/out?sig=secret",
        });
        let at = UnixTime::from_seconds(1_706_702_400);
        let transfer = Transfer {
            id: JobId::parse("j").unwrap(),
            draft: parse_draft(&body).unwrap(),
            created_at: at,
            started_at: Some(at),
            ended_at: Some(UnixTime::from_seconds(1_706_702_401)),
            status: TransferStatus::Failed,
            progress: 40,
            failure: Some("no".to_owned()),
        };
        let expected = concat!(
            r#"{"jobId":"j","startTimeUtc":"2024-01-31T12:00:00.0000000Z","endTimeUtc":"2024-01-31T12:00:01.0000000Z","#,
            r#""type":"import","inputBlobName":"devices.txt","status":"failed","progress":40,"#,
            r#""storageAuthenticationType":"keyBased","includeConfigurations":false,"failureReason":"no"}"#,
        );
        assert_eq!(show(&transfer).to_string(), expected);
    }
}
