//! What devices and hubs say of uploads in JSON (`contract/hub-device.md 5.4`).
//!
//! Grammar alone. Start at [`parse_begin`].

use domain::file::{FileName, FileToken, StorageToken, UploadOutcome};
use domain::ids::UploadId;
use domain::operation::ErrorKind;
use serde_json::{Value, json};

use super::blob_http;
use crate::error::Refused;
use crate::json::{self, InvalidJson};

/// What a device calls the file that it wants to upload.
pub fn parse_begin(body: &[u8]) -> Result<String, Refused> {
    let document = parse_object(body)?;
    Ok(json::text(&document, "blobName")?.ok_or(InvalidJson::Missing { member: "blobName" })?)
}

/// Which upload is over, and how it went. `named` is the correlation ID of the path, where that has one.
pub fn parse_end(body: &[u8], named: Option<&str>) -> Result<(UploadId, UploadOutcome), Refused> {
    let document = parse_object(body)?;
    let written = match named {
        Some(named) => named.to_owned(),
        None => json::text(&document, "correlationId")?.ok_or(InvalidJson::Missing { member: "correlationId" })?,
    };
    let upload = UploadId::parse(&written)
        .ok_or_else(|| Refused::new(ErrorKind::InvalidArgument, "No upload of the device has this correlation ID."))?;
    let is_success = json::boolean(&document, "isSuccess")?.ok_or(InvalidJson::Missing { member: "isSuccess" })?;
    let status = match document.get("statusCode") {
        None | Some(Value::Null) => 0,
        Some(code) => code.as_i64().ok_or(InvalidJson::Type { member: "statusCode", wanted: "a whole number" })?,
    };
    json::text(&document, "statusDescription")?;
    Ok((upload, UploadOutcome { is_success, status }))
}

fn parse_object(body: &[u8]) -> Result<Value, Refused> {
    let document = json::parse(body)?;
    if document.is_object() {
        return Ok(document);
    }
    Err(InvalidJson::Type { member: "the body", wanted: "an object" }.into())
}

/// Where a device uploads to; `host` is what it dialled, since clients put the parts together to an address.
pub fn show_begun(host: &str, container: &str, file: &FileName, token: &FileToken) -> Value {
    json!({
        "correlationId": token.upload.to_string(),
        "hostName": host,
        "containerName": container,
        "blobName": file.as_str(),
        "sasToken": blob_http::show_token(&StorageToken::File(token.clone())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000-0000-4000-8000-000000000001";

    #[test]
    fn a_device_names_its_file() {
        let cases: &[(&str, Result<&str, ErrorKind>)] = &[
            (r#"{"blobName":"a/b c.txt"}"#, Ok("a/b c.txt")),
            (r#"{"blobName":"x","more":1}"#, Ok("x")),
            ("{}", Err(ErrorKind::InvalidBody)),
            (r#"{"blobName":7}"#, Err(ErrorKind::InvalidBody)),
            (r#"["blobName"]"#, Err(ErrorKind::InvalidBody)),
            ("", Err(ErrorKind::InvalidBody)),
        ];
        for (body, expected) in cases {
            let found = parse_begin(body.as_bytes()).map_err(|refused| refused.kind);
            assert_eq!(found.as_deref().map_err(|kind| *kind), *expected, "{body}");
        }
    }

    #[test]
    fn the_correlation_id_is_in_the_body_or_in_the_path() {
        let body = |id: &str| format!(r#"{{{id}"isSuccess":true,"statusCode":200,"statusDescription":"ok"}}"#);
        let inside = parse_end(body(&format!(r#""correlationId":"{ID}","#)).as_bytes(), None).unwrap();
        let outside = parse_end(body("").as_bytes(), Some(ID)).unwrap();
        assert_eq!(inside, outside);
        let upload = UploadId::parse(ID).unwrap();
        assert_eq!(inside, (upload, UploadOutcome { is_success: true, status: 200 }));
    }

    #[test]
    fn an_end_that_cannot_be_read_is_refused() {
        let cases = [
            ("no object", "[]", ErrorKind::InvalidBody),
            ("no correlation ID", r#"{"isSuccess":true}"#, ErrorKind::InvalidBody),
            (
                "one that was never given out",
                r#"{"correlationId":"x/y==","isSuccess":true}"#,
                ErrorKind::InvalidArgument,
            ),
            ("not how it went", &format!(r#"{{"correlationId":"{ID}"}}"#), ErrorKind::InvalidBody),
            (
                "a status that is none",
                &format!(r#"{{"correlationId":"{ID}","isSuccess":false,"statusCode":"x"}}"#),
                ErrorKind::InvalidBody,
            ),
        ];
        for (name, body, expected) in cases {
            assert_eq!(parse_end(body.as_bytes(), None).map_err(|refused| refused.kind), Err(expected), "{name}");
        }
        let failed = format!(r#"{{"correlationId":"{ID}","isSuccess":false,"statusCode":-1}}"#);
        let (_, outcome) = parse_end(failed.as_bytes(), None).unwrap();
        assert_eq!(outcome, UploadOutcome { is_success: false, status: -1 });
    }
}
