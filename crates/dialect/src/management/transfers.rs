//! Imports and exports of a hub in Resource Manager's form (`contract/control-plane.md 5`): the jobs of the hub's service
//! API, asked for and shown in other words.
//!
//! What a container's address is worth is the service's to judge. Start at [`decode`].

use bytes::Bytes;
use domain::ids::HubName;
use domain::operation::Operation;
use domain::operation::resource::Place;
use domain::operation::transfer::{Answer, Ask, Managed};
use domain::transfer::{Draft, IDENTITIES_FILE, Transfer, Work};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::error::Refused;
use crate::http::{is, json as respond};
use crate::hub::transfer_http::{
    check_authentication, parse_configurations, parse_container, parse_file, parse_id, status,
};
use crate::json::{self, InvalidJson, boolean, members};
use crate::time;

/// Whether what stands behind a hub in a path belongs to this dialect.
pub fn owns(rest: &[&str]) -> bool {
    match rest {
        [word] => is(word, "exportDevices") || is(word, "importDevices") || is(word, "jobs"),
        [word, _] => is(word, "jobs"),
        _ => false,
    }
}

/// Turns a request at a hub into an operation, or into its refusal; `rest` stands behind the hub in the path.
pub fn decode(request: &Request<Bytes>, place: Place, hub: HubName, rest: &[&str]) -> Result<Operation, Refused> {
    let is_of = |method: &Method| request.method() == method;
    let ask = match rest {
        [word] if is(word, "exportDevices") && is_of(&Method::POST) => create(request.body(), parse_export)?,
        [word] if is(word, "importDevices") && is_of(&Method::POST) => create(request.body(), parse_import)?,
        [word] if is(word, "jobs") && is_of(&Method::GET) => Ask::List,
        [word, id] if is(word, "jobs") && is_of(&Method::GET) => Ask::Find(parse_id(id)?),
        _ => return Err(Refused::wrong_method()),
    };
    Ok(Operation::ManagedTransfer(Managed { place, hub, ask }))
}

fn create(body: &Bytes, parse: fn(&Value) -> Result<Draft, Refused>) -> Result<Ask, Refused> {
    let body = json::parse(body)?;
    if !body.is_object() {
        return Err(InvalidJson::Type { member: "the body", wanted: "an object" }.into());
    }
    check_authentication(&body, "authenticationType")?;
    Ok(Ask::Create(Box::new(parse(&body)?)))
}

fn parse_export(body: &Value) -> Result<Draft, Refused> {
    let output = parse_container(body, "exportBlobContainerUri")?;
    let work = Work::Export {
        file: parse_file(body, "exportBlobName", IDENTITIES_FILE)?,
        without_keys: boolean(body, "excludeKeys")?.unwrap_or_default(),
    };
    Ok(Draft { work, configurations: parse_configurations(body)?, output })
}

/// `outputBlobName` is read by nobody: the file of what could not be imported has a name of its own.
fn parse_import(body: &Value) -> Result<Draft, Refused> {
    let work = Work::Import {
        input: parse_container(body, "inputBlobContainerUri")?,
        file: parse_file(body, "inputBlobName", IDENTITIES_FILE)?,
    };
    let output = parse_container(body, "outputBlobContainerUri")?;
    Ok(Draft { work, configurations: parse_configurations(body)?, output })
}

/// Turns the answer into a response.
pub fn encode(answer: &Answer) -> Response<Bytes> {
    match answer {
        Answer::Transfer(transfer) => respond(StatusCode::OK, &show(transfer)),
        Answer::Transfers(transfers) => {
            let shown: Vec<Value> = transfers.iter().map(show).collect();
            respond(StatusCode::OK, &json!({ "value": shown, "nextLink": null }))
        }
    }
}

fn show(transfer: &Transfer) -> Value {
    let kind = match transfer.draft.work {
        Work::Import { .. } => "import",
        Work::Export { .. } => "export",
    };
    Value::Object(members([
        ("jobId", json!(transfer.id)),
        ("startTimeUtc", json!(time::rfc1123(transfer.started_at.unwrap_or(transfer.created_at)))),
        ("endTimeUtc", json!(transfer.ended_at.map(time::rfc1123))),
        ("type", json!(kind)),
        ("status", json!(status(transfer.status))),
        ("failureReason", json!(transfer.failure)),
    ]))
}

#[cfg(test)]
mod tests;
