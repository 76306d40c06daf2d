//! Operators' programs at a provisioning service: enrollments, groups, registration records
//! (`contract/dps-service.md`).
//!
//! Lenient where clients are sloppy, and never about versions: an etag that cannot be read matches nothing. Start at
//! [`decode`].

use bytes::Bytes;
use domain::enrollment::{EntryKind, EntryName};
use domain::ids::{EnrollmentGroupId, InvalidName, Precondition, RegistrationId};
use domain::operation::enrollment::{Answer, Ask, BulkItem};
use domain::operation::{ErrorKind, Failure, Operation, Reply};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::service_json::{self as shape, InvalidBody, Keys};
use super::{internal, refuse};
use crate::error::{Refused, spelling};
use crate::http::{Target, empty, is, json as respond, list, page, parse_precondition, precondition};
use crate::json::{self, InvalidJson};
use crate::session::cut;

/// Most items of a bulk request.
pub const BULK_ITEMS_MAX: usize = 10;

/// What an answer needs to know of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An entry was put, so that its keys are shown.
    Put,
    /// Entries of a kind were listed.
    List(EntryKind),
    /// Entries of a kind were changed in bulk, but for those that could not be read: each with its name and why.
    Bulk(EntryKind, Vec<(String, Refused)>),
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
pub fn decode(request: &Request<Bytes>, target: &Target) -> Result<(Operation, Asked), Refused> {
    target.api_version()?;
    let segments = target.segments();
    let (first, rest) = segments.split_first().ok_or_else(Refused::nothing_here)?;
    let (ask, asked) = match kind_of(first) {
        Some(kind) => decode_entry(request, kind, rest)?,
        None if is(first, "registrations") => (decode_registration(request, rest)?, Asked::Other),
        None => return Err(Refused::nothing_here()),
    };
    Ok((Operation::Enrollment(ask), asked))
}

fn decode_entry(request: &Request<Bytes>, kind: EntryKind, rest: &[&str]) -> Result<(Ask, Asked), Refused> {
    let precondition = precondition(request.headers(), shape::parse_etag);
    let name = |id| shape::entry_name(kind, id).map_err(|invalid| bad_id(&invalid));
    Ok(match (request.method(), rest) {
        (&Method::POST, []) => {
            let (items, unreadable) = parse_bulk(kind, request.body())?;
            (Ask::Bulk(items), Asked::Bulk(kind, unreadable))
        }
        (&Method::POST, [word]) if is(word, "query") => {
            check_query(request.body())?;
            (Ask::List { kind, page: page(request.headers())? }, Asked::List(kind))
        }
        (&Method::GET, [id]) => (Ask::Find(name(id)?), Asked::Other),
        (&Method::PUT, [id]) => {
            let draft = shape::parse_draft(kind, Some(id), &json::parse(request.body())?)?;
            (Ask::Put { draft: Box::new(draft), precondition }, Asked::Put)
        }
        (&Method::DELETE, [id]) => (Ask::Delete { name: name(id)?, precondition }, Asked::Other),
        (&Method::POST, [id, word]) if is(word, "attestationmechanism") => {
            (Ask::FindAttestation(name(id)?), Asked::Other)
        }
        (_, [] | [_]) => return Err(Refused::wrong_method()),
        (_, [_, word]) if is(word, "attestationmechanism") => return Err(Refused::wrong_method()),
        _ => return Err(Refused::nothing_here()),
    })
}

fn decode_registration(request: &Request<Bytes>, rest: &[&str]) -> Result<Ask, Refused> {
    let registration_id = |id| RegistrationId::parse(id).map_err(|invalid| bad_id(&invalid));
    Ok(match (request.method(), rest) {
        (&Method::GET, [id]) => Ask::FindRegistration(registration_id(id)?),
        (&Method::DELETE, [id]) => Ask::DeleteRegistration {
            registration_id: registration_id(id)?,
            precondition: precondition(request.headers(), shape::parse_etag),
        },
        (&Method::POST, [id, word]) if is(word, "query") => {
            check_query(request.body())?;
            let group = EnrollmentGroupId::parse(id).map_err(|invalid| bad_id(&invalid))?;
            Ask::ListRegistrations { group, page: page(request.headers())? }
        }
        (_, [_]) => return Err(Refused::wrong_method()),
        (_, [_, word]) if is(word, "query") => return Err(Refused::wrong_method()),
        _ => return Err(Refused::nothing_here()),
    })
}

fn bad_id(invalid: &InvalidName) -> Refused {
    Refused::new(ErrorKind::InvalidArgument, format!("The ID: {invalid}."))
}

impl From<InvalidBody> for Refused {
    fn from(invalid: InvalidBody) -> Self {
        let kind = match invalid {
            InvalidBody::Json(_) => ErrorKind::InvalidBody,
            InvalidBody::Value { .. } => ErrorKind::InvalidArgument,
        };
        Self::not_understood(kind, &invalid)
    }
}

/// Takes every query for one for everything, but those that plainly ask for less: they would get too much. What is no
/// query at all passes, since one client sends a printed Python object (`contract/control-plane.md 3.8`), and another no
/// body.
fn check_query(body: &Bytes) -> Result<(), Refused> {
    if body.is_empty() {
        return Ok(());
    }
    let document = json::parse(body)?;
    let query = json::text(&document, "query")?.ok_or(InvalidJson::Missing { member: "query" })?;
    let words: Vec<String> = query.split_whitespace().map(str::to_ascii_lowercase).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["select", "*"] | ["select", "*", "from", _] => Ok(()),
        ["select", ..] => Err(Refused::new(ErrorKind::InvalidArgument, "The only query here is: select *")),
        _ => Ok(()),
    }
}

type Bulk = (Vec<BulkItem>, Vec<(String, Refused)>);

fn parse_bulk(kind: EntryKind, body: &Bytes) -> Result<Bulk, Refused> {
    let document = json::parse(body)?;
    let mode = json::text(&document, "mode")?.unwrap_or_default();
    let mode = parse_mode(&mode)
        .ok_or(InvalidJson::Type { member: "mode", wanted: "create, update, updateIfMatchETag or delete" })?;
    let member = match kind {
        EntryKind::Individual => "enrollments",
        EntryKind::Group => "enrollmentGroups",
    };
    let Some(Value::Array(items)) = document.get(member) else {
        return Err(InvalidJson::Type { member, wanted: "a list" }.into());
    };
    if items.len() > BULK_ITEMS_MAX {
        let public = format!("A bulk operation takes at most {BULK_ITEMS_MAX} enrollments.");
        return Err(Refused::new(ErrorKind::TooManyEnrollments, public));
    }
    let (mut readable, mut unreadable, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        let member = shape::id_member(kind);
        let id = json::text(item, member)?.ok_or(InvalidJson::Missing { member })?;
        let key = id.to_ascii_lowercase();
        if keys.contains(&key) {
            return Err(Refused::new(ErrorKind::EnrollmentRepeated, "An enrollment is named more than once."));
        }
        keys.push(key);
        match parse_item(mode, kind, item) {
            Ok(item) => readable.push(item),
            Err(refused) => unreadable.push((cut(&id), refused)),
        }
    }
    Ok((readable, unreadable))
}

/// What a bulk request does with its items.
#[derive(Clone, Copy)]
enum Mode {
    Create,
    Update,
    UpdateIfMatchEtag,
    Delete,
}

fn parse_mode(word: &str) -> Option<Mode> {
    match word.to_ascii_lowercase().as_str() {
        "create" => Some(Mode::Create),
        "update" => Some(Mode::Update),
        "updateifmatchetag" => Some(Mode::UpdateIfMatchEtag),
        "delete" => Some(Mode::Delete),
        _ => None,
    }
}

fn parse_item(mode: Mode, kind: EntryKind, item: &Value) -> Result<BulkItem, Refused> {
    let etag = json::text(item, "etag")?;
    let matches = etag.map(|etag| parse_precondition(&etag, shape::parse_etag));
    let precondition = match mode {
        Mode::Create => Precondition::None,
        // Azure: without an etag, an update of what exists is refused like its creation (`contract/dps-service.md 7`).
        Mode::Update | Mode::Delete => matches.unwrap_or(Precondition::None),
        Mode::UpdateIfMatchEtag => matches.filter(|it| *it != Precondition::None).unwrap_or(Precondition::Impossible),
    };
    if let Mode::Delete = mode {
        let name = shape::parse_name(kind, None, item)?;
        return Ok(BulkItem::Delete { name, precondition });
    }
    let draft = Box::new(shape::parse_draft(kind, None, item)?);
    Ok(BulkItem::Put { draft, precondition })
}

/// Turns the reply into a response.
pub fn encode(reply: Result<Reply, Failure>, asked: Asked) -> Response<Bytes> {
    let answer = match reply {
        Ok(Reply::Enrollment(answer)) => answer,
        Ok(_) => return internal(),
        Err(failure) => return refuse(&failure),
    };
    match (answer, asked) {
        (Answer::Entry(entry), Asked::Put) => ok(&shape::show(&entry, Keys::Shown, None)),
        (Answer::Entry(entry), _) => ok(&shape::show(&entry, Keys::Hidden, None)),
        (Answer::EntryAndState(entry, state), _) => ok(&shape::show(&entry, Keys::Hidden, Some(&state))),
        (Answer::Attestation(attestation), _) => ok(&shape::show_attestation(&attestation, Keys::Shown)),
        (Answer::Deleted, _) => empty(StatusCode::NO_CONTENT),
        (Answer::Entries(page), asked) => {
            let item_type = match asked {
                Asked::List(EntryKind::Group) => "EnrollmentGroup",
                _ => "Enrollment",
            };
            let items = page.items.iter().map(|entry| shape::show(entry, Keys::Hidden, None)).collect();
            list(items, item_type, page.next.as_ref())
        }
        (Answer::Registration(state), _) => ok(&shape::show_registration(&state)),
        (Answer::Registrations(page), _) => {
            let items = page.items.iter().map(shape::show_registration).collect();
            list(items, "DeviceRegistration", page.next.as_ref())
        }
        (Answer::Bulk(failures), asked) => ok(&show_bulk(&failures, asked)),
    }
}

fn show_bulk(failures: &[(EntryName, Failure)], asked: Asked) -> Value {
    let error = |kind, id: &str, error: ErrorKind, public: &str| {
        json!({
            shape::id_member(kind): id,
            "errorCode": spelling(error).provisioning,
            "errorStatus": public,
        })
    };
    let mut errors: Vec<_> = failures
        .iter()
        .map(|(name, failure)| error(name.kind(), name.as_str(), failure.kind, &failure.public))
        .collect();
    if let Asked::Bulk(kind, unreadable) = asked {
        errors.extend(unreadable.iter().map(|(id, refused)| error(kind, id, refused.kind, &refused.public)));
    }
    json!({ "errors": errors, "isSuccessful": errors.is_empty() })
}

fn ok(body: &Value) -> Response<Bytes> {
    respond(StatusCode::OK, body)
}

#[cfg(test)]
mod tests;
