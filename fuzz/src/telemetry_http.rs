//! Telemetry over HTTPS: headers up to an empty line, and a body, are messages that keep the limits, or are refused.

use bytes::Bytes;
use dialect::hub::telemetry_http::decode;
use domain::message::{BATCH_BYTES_MAX, Draft};
use http::{HeaderName, HeaderValue, Request};

/// Reads `input` as a request.
///
/// # Panics
/// When what is read breaks a limit.
pub fn check(input: &[u8]) {
    let end = input.windows(2).position(|pair| pair == b"\n\n").unwrap_or_default();
    let (head, body) = input.split_at(end);
    let mut request = Request::new(Bytes::copy_from_slice(body.trim_ascii_start()));
    for line in head.split(|&byte| byte == b'\n') {
        let mut parts = line.splitn(2, |&byte| byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            request.headers_mut().append(name, value);
        }
    }
    let Ok(drafts) = decode(&request) else { return };
    assert!(drafts.iter().all(|draft| draft.check().is_ok()));
    assert!(drafts.iter().map(Draft::size).sum::<usize>() <= BATCH_BYTES_MAX);
    assert!(drafts.iter().flat_map(|draft| &draft.properties).all(|(name, _)| !name.is_empty()));
}
