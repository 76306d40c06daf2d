//! Operators' programs at a provisioning service: enrollments, groups, registration records
//! (`contract/dps-service.md`).

use bytes::Bytes;
use domain::enrollment::{EntryKind, EntryName};
use domain::ids::{EnrollmentGroupId, Precondition, RegistrationId};
use domain::operation::enrollment::{Answer, Ask, BulkItem};
use domain::operation::{Cursor, Failure, Operation, Reply};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::device_http::{refusal, refuse};
use super::service_json::{self as shape, InvalidBody, Keys};
use crate::error::spelling;
use crate::http::with_header;
use crate::http::{CONTINUATION, ITEM_TYPE, Target, continuation, empty, is, json as respond, page, precondition};
use crate::json;

/// Most items of a bulk request.
pub const BULK_ITEMS_MAX: usize = 10;

/// What an answer needs to know of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An entry was put, so its keys are shown.
    Put,
    /// Entries of a kind were listed or changed in bulk.
    Kind(EntryKind),
    /// Nothing.
    Other,
}

/// Whether `target` belongs to this dialect.
pub fn owns(target: &Target) -> bool {
    let segments = target.segments();
    segments.first().is_some_and(|first| kind_of(first).is_some() || is(first, "registrations"))
}

fn kind_of(segment: &str) -> Option<EntryKind> {
    match () {
        () if is(segment, "enrollments") => Some(EntryKind::Individual),
        () if is(segment, "enrollmentGroups") => Some(EntryKind::Group),
        () => None,
    }
}

/// Turns a request into an operation, or into its refusal.
pub fn decode(request: &Request<Bytes>, target: &Target) -> Result<(Operation, Asked), Response<Bytes>> {
    if target.api_version().is_err() {
        return Err(refusal(400, 400_004, "The query parameter api-version is missing."));
    }
    let segments = target.segments();
    let decoded = match segments.split_first() {
        Some((first, rest)) if is(first, "registrations") => decode_registration(request, rest),
        Some((first, rest)) => match kind_of(first) {
            Some(kind) => decode_entry(request, kind, rest),
            None => Err(nothing_here()),
        },
        None => Err(nothing_here()),
    };
    decoded.map(|(ask, asked)| (Operation::Enrollment(ask), asked))
}

type Decoded = Result<(Ask, Asked), Response<Bytes>>;

fn nothing_here() -> Response<Bytes> {
    refusal(404, 404_000, "There is nothing at this path.")
}

fn decode_entry(request: &Request<Bytes>, kind: EntryKind, rest: &[&str]) -> Decoded {
    let precondition = precondition(request.headers(), shape::parse_etag);
    match (request.method(), rest) {
        (&Method::POST, []) => Ok((Ask::Bulk(parse_bulk(kind, request.body())?), Asked::Kind(kind))),
        (&Method::POST, [word]) if is(word, "query") => {
            check_query(request.body())?;
            Ok((Ask::List { kind, page: page(request.headers()) }, Asked::Kind(kind)))
        }
        (&Method::GET, [id]) => Ok((Ask::Find(name(kind, id)?), Asked::Other)),
        (&Method::PUT, [id]) => {
            let body = json::parse(request.body()).map_err(|invalid| bad_body(&invalid.into()))?;
            let draft = shape::parse_draft(kind, Some(id), &body).map_err(|invalid| bad_body(&invalid))?;
            Ok((Ask::Put { draft: Box::new(draft), precondition }, Asked::Put))
        }
        (&Method::DELETE, [id]) => Ok((Ask::Delete { name: name(kind, id)?, precondition }, Asked::Other)),
        (&Method::POST, [id, word]) if is(word, "attestationmechanism") => {
            Ok((Ask::FindAttestation(name(kind, id)?), Asked::Other))
        }
        (_, [] | [_]) => Err(refusal(405, 405_000, "The method is not allowed here.")),
        (_, [_, word]) if is(word, "attestationmechanism") => {
            Err(refusal(405, 405_000, "The method is not allowed here."))
        }
        _ => Err(nothing_here()),
    }
}

fn decode_registration(request: &Request<Bytes>, rest: &[&str]) -> Decoded {
    let bad_id = |invalid: domain::ids::InvalidName| refusal(400, 400_004, &format!("The ID: {invalid}."));
    match (request.method(), rest) {
        (&Method::GET, [id]) => Ok((Ask::FindRegistration(RegistrationId::parse(id).map_err(bad_id)?), Asked::Other)),
        (&Method::DELETE, [id]) => {
            let registration_id = RegistrationId::parse(id).map_err(bad_id)?;
            let precondition = precondition(request.headers(), shape::parse_etag);
            Ok((Ask::DeleteRegistration { registration_id, precondition }, Asked::Other))
        }
        (&Method::POST, [id, word]) if is(word, "query") => {
            let group = EnrollmentGroupId::parse(id).map_err(bad_id)?;
            Ok((Ask::ListRegistrations { group, page: page(request.headers()) }, Asked::Other))
        }
        (_, [_]) => Err(refusal(405, 405_000, "The method is not allowed here.")),
        _ => Err(nothing_here()),
    }
}

fn name(kind: EntryKind, id: &str) -> Result<EntryName, Response<Bytes>> {
    shape::entry_name(kind, id).map_err(|invalid| refusal(400, 400_004, &format!("The ID: {invalid}.")))
}

fn bad_body(invalid: &InvalidBody) -> Response<Bytes> {
    let code = match invalid {
        InvalidBody::Json(_) => 400_012,
        InvalidBody::Value { .. } => 400_004,
    };
    refusal(400, code, &invalid.to_string())
}

/// A query must be an object with a text; the text itself is not judged, since one client sends a printed Python object
/// (`contract/control-plane.md 3.8`). No body at all is a query for everything.
fn check_query(body: &Bytes) -> Result<(), Response<Bytes>> {
    if body.is_empty() {
        return Ok(());
    }
    let document = json::parse(body).map_err(|invalid| bad_body(&invalid.into()))?;
    match document.get("query") {
        Some(Value::String(_)) => Ok(()),
        _ => Err(bad_body(&json::InvalidJson::Missing { member: "query" }.into())),
    }
}

fn parse_bulk(kind: EntryKind, body: &Bytes) -> Result<Vec<BulkItem>, Response<Bytes>> {
    let document = json::parse(body).map_err(|invalid| bad_body(&invalid.into()))?;
    let mode = json::text(&document, "mode").map_err(|invalid| bad_body(&invalid.into()))?.unwrap_or_default();
    let member = match kind {
        EntryKind::Individual => "enrollments",
        EntryKind::Group => "enrollmentGroups",
    };
    let Some(Value::Array(items)) = document.get(member) else {
        return Err(bad_body(&json::InvalidJson::Missing { member }.into()));
    };
    if items.len() > BULK_ITEMS_MAX {
        return Err(refusal(400, 400_205, "A bulk operation takes at most 10 enrollments."));
    }
    let mut parsed = Vec::with_capacity(items.len());
    for item in items {
        let etag = item.get("etag").and_then(Value::as_str);
        let matches = |etag: &str| {
            shape::parse_etag(etag.trim_matches('"')).map_or(Precondition::Impossible, Precondition::Matches)
        };
        let draft = |precondition| {
            let draft = shape::parse_draft(kind, None, item).map_err(|invalid| bad_body(&invalid))?;
            Ok::<_, Response<Bytes>>(BulkItem::Put { draft: Box::new(draft), precondition })
        };
        parsed.push(match mode.to_ascii_lowercase().as_str() {
            "create" => draft(Precondition::None)?,
            "update" => draft(etag.map_or(Precondition::None, matches))?,
            "updateifmatchetag" => draft(etag.map_or(Precondition::Impossible, matches))?,
            "delete" => {
                let id = item.get(shape::id_member(kind)).and_then(Value::as_str).unwrap_or_default();
                BulkItem::Delete { name: name(kind, id)?, precondition: etag.map_or(Precondition::None, matches) }
            }
            _ => return Err(refusal(400, 400_004, "mode is none of create, update, updateIfMatchETag, delete.")),
        });
    }
    check_repeats(&parsed)?;
    Ok(parsed)
}

fn check_repeats(items: &[BulkItem]) -> Result<(), Response<Bytes>> {
    let mut names: Vec<String> = items
        .iter()
        .map(|item| match item {
            BulkItem::Put { draft, .. } => draft.name.key(),
            BulkItem::Delete { name, .. } => name.key(),
        })
        .collect();
    let before = names.len();
    names.sort_unstable();
    names.dedup();
    if names.len() < before {
        return Err(refusal(400, 400_206, "An enrollment is named more than once."));
    }
    Ok(())
}

/// Turns the reply into a response.
pub fn encode(reply: Result<Reply, Failure>, asked: Asked) -> Response<Bytes> {
    let answer = match reply {
        Ok(Reply::Enrollment(answer)) => answer,
        Ok(_) => return refusal(500, 500_001, "Internal error."),
        Err(failure) => return refuse(&failure),
    };
    match answer {
        Answer::Entry(entry) => {
            let keys = if asked == Asked::Put { Keys::Shown } else { Keys::Hidden };
            respond(StatusCode::OK, &shape::show(&entry, keys, None))
        }
        Answer::EntryAndState(entry, state) => {
            respond(StatusCode::OK, &shape::show(&entry, Keys::Hidden, Some(&state)))
        }
        Answer::Attestation(attestation) => {
            respond(StatusCode::OK, &shape::show_attestation(&attestation, Keys::Shown))
        }
        Answer::Deleted => empty(StatusCode::NO_CONTENT),
        Answer::Entries(page) => {
            let item_type = match asked {
                Asked::Kind(EntryKind::Group) => "EnrollmentGroup",
                _ => "Enrollment",
            };
            let items = page.items.iter().map(|entry| shape::show(entry, Keys::Hidden, None)).collect();
            list(items, item_type, page.next.as_ref())
        }
        Answer::Registration(state) => respond(StatusCode::OK, &shape::show_registration(&state)),
        Answer::Registrations(page) => {
            let items = page.items.iter().map(shape::show_registration).collect();
            list(items, "DeviceRegistration", page.next.as_ref())
        }
        Answer::Bulk(failures) => {
            let errors: Vec<_> = failures
                .iter()
                .map(|(name, failure)| {
                    json!({
                        shape::id_member(name.kind()): name.as_str(),
                        "errorCode": spelling(failure.kind).provisioning,
                        "errorStatus": failure.public,
                    })
                })
                .collect();
            respond(StatusCode::OK, &json!({ "errors": errors, "isSuccessful": errors.is_empty() }))
        }
    }
}

fn list(items: Vec<Value>, item_type: &str, next: Option<&Cursor>) -> Response<Bytes> {
    let response = with_header(respond(StatusCode::OK, &Value::Array(items)), ITEM_TYPE, item_type);
    match next {
        Some(cursor) => with_header(response, CONTINUATION, &continuation(cursor)),
        None => response,
    }
}
