//! What all HTTP dialects share: taking a request apart, and the headers of answers.
//!
//! A dialect's `decode` turns a [`Target`] with headers and body into an operation; its `encode` turns the reply into a
//! response. Start at [`Target::parse`].

use bytes::Bytes;
use domain::ids::{Etag, Precondition};
use domain::operation::{Cursor, PageRequest};
use domain::sas::{InvalidToken, SasToken};
use http::header::{AUTHORIZATION, CONTENT_TYPE, IF_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The content type of every JSON answer.
pub const JSON: &str = "application/json; charset=utf-8";
/// The header that pages through a query.
pub const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
/// The header that tells what a query's items are.
pub const ITEM_TYPE: HeaderName = HeaderName::from_static("x-ms-item-type");
/// The header that asks for a page size.
pub const MAX_ITEM_COUNT: HeaderName = HeaderName::from_static("x-ms-max-item-count");
/// Most records on a page.
pub const PAGE_MAX: usize = 1_000;
/// Records on a page if none is asked for.
pub const PAGE_DEFAULT: usize = 100;

/// A request's target: path segments, decoded after splitting, and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    segments: Vec<String>,
    query: Vec<(String, String)>,
}

/// Why a target cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// A segment is not UTF-8 once decoded.
    #[error("the path is not UTF-8")]
    Encoding,
    /// No API version.
    #[error("the query parameter api-version is missing")]
    ApiVersion,
}

impl Target {
    /// Takes `uri` apart, in origin or absolute form. Empty segments, as doubled and trailing slashes make, are passed
    /// over.
    pub fn parse(uri: &Uri) -> Result<Self, InvalidTarget> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
        let segments: Result<Vec<_>, _> =
            uri.path().split('/').filter(|segment| !segment.is_empty()).map(decode).collect();
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query: Result<Vec<_>, _> = pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(name)?, decode(value)?))
            })
            .collect();
        let query = query.map_err(|_: std::str::Utf8Error| InvalidTarget::Encoding)?;
        Ok(Self { segments: segments.map_err(|_| InvalidTarget::Encoding)?, query })
    }

    /// The segments.
    pub fn segments(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    /// The first value of a query parameter; its name is compared without case.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Demands a non-empty API version.
    pub fn api_version(&self) -> Result<&str, InvalidTarget> {
        self.parameter("api-version").filter(|version| !version.is_empty()).ok_or(InvalidTarget::ApiVersion)
    }
}

/// Whether a path segment is the word `word`, without regard to case.
pub fn is(segment: &str, word: &str) -> bool {
    segment.eq_ignore_ascii_case(word)
}

/// The signature of the `Authorization` header; `None` if there is none or it is of another scheme.
pub fn signature(headers: &HeaderMap) -> Option<Result<SasToken, InvalidToken>> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    match SasToken::parse(text) {
        Err(InvalidToken::Scheme) => None,
        parsed => Some(parsed),
    }
}

/// The bearer token of the `Authorization` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What `If-Match` demands: bare, quoted, weak, or `*` with or without quotes; `read` reads this dialect's etags.
pub fn precondition(headers: &HeaderMap, read: impl Fn(&str) -> Option<Etag>) -> Precondition {
    let Some(value) = headers.get(IF_MATCH) else { return Precondition::None };
    let text = value.to_str().unwrap_or_default().trim();
    let text = text.strip_prefix("W/").unwrap_or(text);
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    match text {
        "" => Precondition::None,
        "*" => Precondition::Exists,
        etag => read(etag).map_or(Precondition::Impossible, Precondition::Matches),
    }
}

/// Which page the headers ask for; a size that is none is passed over.
pub fn page(headers: &HeaderMap) -> PageRequest {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let after = text(&CONTINUATION).filter(|text| !text.is_empty());
    let limit = text(&MAX_ITEM_COUNT).and_then(|text| text.trim().parse().ok()).filter(|limit| *limit > 0);
    PageRequest {
        after: after.map(|text| Cursor(percent_decode_str(text).decode_utf8_lossy().into_owned())),
        limit: limit.unwrap_or(PAGE_DEFAULT).min(PAGE_MAX),
    }
}

/// A place in a listing as a header value.
pub fn continuation(cursor: &Cursor) -> String {
    percent_encoding::utf8_percent_encode(&cursor.0, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// An answer with a JSON body.
pub fn json(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

/// Adds a header whose value is made of visible ASCII; others are left out.
pub fn with_header(mut response: Response<Bytes>, name: HeaderName, value: &str) -> Response<Bytes> {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_split_before_it_is_decoded() {
        let target = Target::parse(&"https://h:1//a/b%2Fc/?api-version=1&X=%20y&z".parse().unwrap()).unwrap();
        assert_eq!(target.segments(), ["a", "b/c"]);
        assert_eq!((target.parameter("x"), target.parameter("z")), (Some(" y"), Some("")));
        assert_eq!(target.api_version(), Ok("1"));
        let without = Target::parse(&"/a?api-version=".parse().unwrap()).unwrap();
        assert_eq!(without.api_version(), Err(InvalidTarget::ApiVersion));
        assert_eq!(Target::parse(&"/%ff".parse().unwrap()), Err(InvalidTarget::Encoding));
    }

    #[test]
    fn every_form_of_if_match_is_read() {
        let read = |text: &str| (text == "x").then_some(Etag::from_number(1));
        let cases = [
            (None, Precondition::None),
            (Some("*"), Precondition::Exists),
            (Some("\"*\""), Precondition::Exists),
            (Some("x"), Precondition::Matches(Etag::from_number(1))),
            (Some("W/\"x\""), Precondition::Matches(Etag::from_number(1))),
            (Some("\"y\""), Precondition::Impossible),
        ];
        for (text, expected) in cases {
            let mut headers = HeaderMap::new();
            if let Some(text) = text {
                headers.insert(IF_MATCH, text.parse().unwrap());
            }
            assert_eq!(precondition(&headers, read), expected, "{text:?}");
        }
    }
}
