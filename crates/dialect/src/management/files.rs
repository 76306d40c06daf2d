//! Uploaded files as an operator sees them, below `/muster/v1/hubs/{hub}/files`, `…/filecontainer` and
//! `…/filenotifications`.
//!
//! Names here are Muster's own, and part of its interface. A file that is fetched passes by piece by piece. Start at
//! [`decode`].

use bytes::Bytes;
use domain::cloud_to_device::Settlement;
use domain::file::{FileName, StorageToken, StoredFile};
use domain::ids::{HubName, LockToken};
use domain::operation::cloud_to_device::AtHub;
use domain::operation::file::{Answer, Ask};
use domain::operation::{Cursor, ErrorKind, Failure, Operation, PageRequest, Reply};
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::{internal, refuse};
use crate::error::Refused;
use crate::http::{PAGE_DEFAULT, Target, empty, is, json as respond};
use crate::hub::{blob_http, words};
use crate::json::{self, InvalidJson, members};
use crate::time;

/// Whether `target` belongs to this dialect.
pub fn owns(target: &Target) -> bool {
    matches!(
        target.segments().as_slice(),
        [first, version, hubs, _, word, ..]
            if is(first, "muster") && is(version, "v1") && is(hubs, "hubs")
                && ["files", "filecontainer", "filenotifications"].iter().any(|known| is(word, known))
    )
}

/// Turns a request into an operation, or into its refusal.
pub fn decode(request: &Request<Bytes>, target: &Target) -> Result<Operation, Refused> {
    let segments = target.segments();
    let [_, _, _, hub, word, rest @ ..] = segments.as_slice() else { return Err(Refused::nothing_here()) };
    let invalid = |words: String| Refused::new(ErrorKind::InvalidArgument, words);
    let hub = HubName::parse(hub).map_err(|reason| invalid(reason.to_string()))?;
    let method = request.method();
    if is(word, "filenotifications") {
        return decode_notifications(method, AtHub::Named(hub), rest).map(Operation::File);
    }
    if is(word, "filecontainer") {
        return match (method, rest) {
            (&Method::POST, []) => Ok(Operation::File(Ask::Sign { hub, ttl_s: parse_ttl(request.body())? })),
            (_, []) => Err(Refused::wrong_method()),
            _ => Err(Refused::nothing_here()),
        };
    }
    if rest.is_empty() {
        let after = target.parameter("after").filter(|after| !after.is_empty()).map(|after| Cursor(after.to_owned()));
        return match *method {
            Method::GET => Ok(Operation::File(Ask::List { hub, page: PageRequest { after, limit: PAGE_DEFAULT } })),
            _ => Err(Refused::wrong_method()),
        };
    }
    let file = FileName::parse(&rest.join("/")).map_err(|reason| invalid(reason.to_string()))?;
    match *method {
        Method::GET => Ok(Operation::File(Ask::Fetch { hub, file })),
        Method::DELETE => Ok(Operation::File(Ask::Delete { hub, file })),
        _ => Err(Refused::wrong_method()),
    }
}

fn parse_ttl(body: &[u8]) -> Result<u64, Refused> {
    let body = json::parse(body)?;
    let seconds = body.get("ttlInSeconds").ok_or(InvalidJson::Missing { member: "ttlInSeconds" })?;
    Ok(seconds.as_u64().ok_or(InvalidJson::Type { member: "ttlInSeconds", wanted: "a whole number" })?)
}

fn decode_notifications(method: &Method, hub: AtHub, rest: &[&str]) -> Result<Ask, Refused> {
    match (method, rest) {
        (&Method::GET, []) => Ok(Ask::TakeNotification(hub)),
        (&Method::DELETE, [lock]) => {
            let lock = LockToken::parse(lock);
            let lock = lock.ok_or_else(|| Refused::new(ErrorKind::LockLost, "This is no lock token."))?;
            Ok(Ask::SettleNotification { hub, lock, settlement: Settlement::Complete })
        }
        (_, [] | [_]) => Err(Refused::wrong_method()),
        _ => Err(Refused::nothing_here()),
    }
}

/// Turns the reply into a response.
pub fn encode(reply: Result<Reply, Failure>) -> Response<Bytes> {
    match reply {
        Ok(Reply::File(Answer::Files(page))) => {
            let files: Vec<Value> = page.items.iter().map(show).collect();
            let next = page.next.map(|cursor| cursor.0);
            respond(StatusCode::OK, &Value::Object(members([("value", json!(files)), ("after", json!(next))])))
        }
        Ok(Reply::File(Answer::Signed { host, container, token })) => {
            let expires_at = time::rfc3339(token.expires_at);
            let signature = blob_http::show_token(&StorageToken::Container(token));
            let body = json!({
                "hostName": host,
                "containerName": container,
                "sasToken": signature,
                "expiryTime": expires_at,
            });
            respond(StatusCode::OK, &body)
        }
        Ok(Reply::File(Answer::Notification(Some(locked)))) => {
            let body = json!({ "lockToken": locked.lock.to_string(), "value": words::file_notification(&locked) });
            respond(StatusCode::OK, &body)
        }
        Ok(Reply::File(Answer::Notification(None) | Answer::Settled | Answer::Deleted)) => {
            empty(StatusCode::NO_CONTENT)
        }
        Ok(_) => internal(),
        Err(failure) => refuse(&failure),
    }
}

/// The head of the answer whose body is the file. A device said what type it is: nothing is to show it as a page of this
/// server.
pub fn open<B>(file: &StoredFile, body: B) -> Response<B> {
    let mut response = Response::new(body);
    let content_type = file.properties.content_type.as_deref().unwrap_or("application/octet-stream");
    let headers = response.headers_mut();
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, text) in [(CONTENT_TYPE, content_type.to_owned()), (CONTENT_LENGTH, file.bytes().to_string())] {
        if let Ok(value) = text.parse() {
            headers.insert(name, value);
        }
    }
    response
}

fn show(file: &StoredFile) -> Value {
    Value::Object(members([
        ("name", json!(file.name.as_str())),
        ("bytes", json!(file.bytes())),
        ("contentType", json!(file.properties.content_type)),
        ("contentEncoding", json!(file.properties.content_encoding)),
        ("createdTime", json!(time::rfc3339(file.created_at))),
        ("lastUpdatedTime", json!(time::rfc3339(file.written_at))),
    ]))
}

#[cfg(test)]
mod tests {
    use domain::clock::UnixTime;
    use domain::file::FileProperties;
    use domain::ids::Etag;

    use super::*;

    fn send(line: &str) -> String {
        let (method, uri) = line.split_once(' ').unwrap();
        let body = Bytes::from_static(br#"{"ttlInSeconds":60}"#);
        let request = Request::builder().method(method).uri(uri).body(body).unwrap();
        let target = Target::parse(request.uri()).unwrap();
        assert!(owns(&target), "{line}");
        match decode(&request, &target) {
            Ok(Operation::File(Ask::List { hub, page })) => {
                format!("list {hub} after {}", page.after.map_or(String::new(), |cursor| cursor.0))
            }
            Ok(Operation::File(Ask::Fetch { hub, file })) => format!("fetch {file} of {hub}"),
            Ok(Operation::File(Ask::Delete { hub, file })) => format!("delete {file} of {hub}"),
            Ok(Operation::File(Ask::Sign { hub, ttl_s })) => format!("sign at {hub} for {ttl_s} s"),
            Ok(Operation::File(Ask::TakeNotification(AtHub::Named(hub)))) => format!("take of {hub}"),
            Ok(Operation::File(Ask::SettleNotification { hub: AtHub::Named(hub), .. })) => format!("settle at {hub}"),
            Ok(other) => panic!("{other:?}"),
            Err(refused) => format!("{:?}", refused.kind),
        }
    }

    #[test]
    fn a_file_is_handed_out_to_be_saved_and_not_to_be_shown() {
        let properties = FileProperties { content_type: Some("text/html".to_owned()), ..FileProperties::default() };
        let file = StoredFile {
            name: FileName::parse("dev-1/a").unwrap(),
            content: Vec::new(),
            properties,
            created_at: UnixTime::from_seconds(0),
            written_at: UnixTime::from_seconds(0),
            etag: Etag::from_number(1),
        };
        let response = open(&file, ());
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        let headers = ["content-type", "content-disposition", "x-content-type-options", "content-length"].map(header);
        assert_eq!(headers, ["text/html", "attachment", "nosniff", "0"]);
    }

    #[test]
    fn operators_list_fetch_and_remove() {
        let cases = [
            ("GET /muster/v1/hubs/hub/files", "list hub after "),
            ("GET /muster/v1/hubs/hub/files?after=dev%2Fa", "list hub after dev/a"),
            ("GET /muster/v1/hubs/hub/files/dev-1/a/b%20c.txt", "fetch dev-1/a/b c.txt of hub"),
            ("DELETE /muster/v1/hubs/hub/files/dev-1/a", "delete dev-1/a of hub"),
            ("GET /muster/v1/hubs/hub/files/dev-1/..%2F..%2Fmuster.db", "InvalidArgument"),
            ("POST /muster/v1/hubs/hub/files/dev-1/a", "NotSupported"),
            ("DELETE /muster/v1/hubs/hub/files", "NotSupported"),
            ("GET /muster/v1/hubs/a%20hub/files", "InvalidArgument"),
            ("POST /muster/v1/hubs/hub/filecontainer", "sign at hub for 60 s"),
            ("GET /muster/v1/hubs/hub/filecontainer", "NotSupported"),
            ("GET /muster/v1/hubs/hub/filenotifications", "take of hub"),
            ("DELETE /muster/v1/hubs/hub/filenotifications/00000000-0000-4000-8000-000000000001", "settle at hub"),
            ("DELETE /muster/v1/hubs/hub/filenotifications/x", "LockLost"),
            ("POST /muster/v1/hubs/hub/filenotifications", "NotSupported"),
        ];
        for (line, expected) in cases {
            assert_eq!(send(line), expected, "{line}");
        }
    }
}
