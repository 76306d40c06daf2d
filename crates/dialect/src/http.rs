//! What all HTTP dialects share: taking a request apart, and the headers of answers.
//!
//! A dialect's `decode` turns a [`Target`] with headers and body into an operation; its `encode` turns the reply into a
//! response. Start at [`Target::parse`].

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use domain::ids::{Etag, Precondition};
use domain::operation::{Cursor, ErrorKind, PageRequest};
use domain::sas::{InvalidToken, SasToken};
use http::header::{AUTHORIZATION, CONTENT_TYPE, IF_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::error::Refused;

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

impl From<InvalidTarget> for Refused {
    fn from(invalid: InvalidTarget) -> Self {
        Self::not_understood(ErrorKind::InvalidArgument, &invalid)
    }
}

impl Target {
    /// Takes `uri` apart, in origin or absolute form. Empty segments, as doubled and trailing slashes make, are passed
    /// over. A path that is encoded as a whole, slashes and all, as one client sends it, is split once it is decoded; no
    /// name stands alone in a path, so that none is taken for one.
    pub fn parse(uri: &Uri) -> Result<Self, InvalidTarget> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(Cow::into_owned);
        let segments: Result<Vec<_>, _> =
            uri.path().split('/').filter(|segment| !segment.is_empty()).map(decode).collect();
        let mut segments = segments.map_err(|_| InvalidTarget::Encoding)?;
        if let [whole] = segments.as_slice()
            && whole.contains('/')
        {
            segments = whole.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect();
        }
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query: Result<Vec<_>, _> = pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(name)?, decode(value)?))
            })
            .collect();
        let query = query.map_err(|_: std::str::Utf8Error| InvalidTarget::Encoding)?;
        Ok(Self { segments, query })
    }

    /// The segments.
    pub fn segments(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    /// The value of a query parameter; its name is compared without case, and of several the first counts.
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

/// The signature of the `Authorization` header; `None` if there is none or it is of another scheme. Several headers hold
/// none that could be trusted.
pub fn signature(headers: &HeaderMap) -> Option<Result<SasToken, InvalidToken>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    // Bytes outside ASCII are in no token, and must not pass for the absence of one; of two, neither can be the one.
    let (Ok(text), None) = (values.next()?.to_str(), values.next()) else { return Some(Err(InvalidToken::Fields)) };
    match SasToken::parse(text) {
        Err(InvalidToken::Scheme) => None,
        parsed => Some(parsed),
    }
}

/// The bearer token of the `Authorization` header; of several headers, none.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Ok(text), None) = (values.next()?.to_str(), values.next()) else { return None };
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What `If-Match` demands; `read` reads this dialect's etags. Several headers, or one that is not ASCII, name no version
/// that could be present.
pub fn precondition(headers: &HeaderMap, read: impl Fn(&str) -> Option<Etag>) -> Precondition {
    let mut values = headers.get_all(IF_MATCH).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Precondition::None,
        (Some(Ok(text)), None) => parse_precondition(text, read),
        (Some(_), _) => Precondition::Impossible,
    }
}

/// Reads an etag that a client names: bare, quoted, weak, or `*` with or without quotes. An empty text names none.
pub fn parse_precondition(text: &str, read: impl Fn(&str) -> Option<Etag>) -> Precondition {
    let text = text.trim();
    if text.is_empty() {
        return Precondition::None;
    }
    let text = text.strip_prefix("W/").unwrap_or(text);
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text) {
        "*" => Precondition::Exists,
        etag => read(etag).map_or(Precondition::Impossible, Precondition::Matches),
    }
}

/// Which page the headers ask for. More than [`PAGE_MAX`] records are asked for in vain, not refused.
pub fn page(headers: &HeaderMap) -> Result<PageRequest, Refused> {
    let text = |name: &HeaderName| {
        let value = headers.get(name).map(|value| value.to_str().unwrap_or("\0"));
        value.map(str::trim).filter(|value| !value.is_empty())
    };
    let refused = |header: &HeaderName, is: &str| {
        Refused::new(ErrorKind::InvalidArgument, format!("The header {header} is {is}."))
    };
    let limit = match text(&MAX_ITEM_COUNT) {
        None => PAGE_DEFAULT,
        Some(text) => match text.parse::<u32>() {
            Ok(limit @ 1..) => usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX),
            _ => return Err(refused(&MAX_ITEM_COUNT, "not a number from 1 on")),
        },
    };
    let after = match text(&CONTINUATION) {
        None => None,
        Some(text) => {
            Some(parse_continuation(text).ok_or_else(|| refused(&CONTINUATION, "not one that was given out"))?)
        }
    };
    Ok(PageRequest { after, limit })
}

/// A place in a listing as a header value, opaque to clients.
pub fn continuation(cursor: &Cursor) -> String {
    URL_SAFE_NO_PAD.encode(&cursor.0)
}

fn parse_continuation(text: &str) -> Option<Cursor> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    String::from_utf8(bytes).ok().map(Cursor)
}

/// An answer with a JSON body.
pub fn json(status: StatusCode, body: &Value) -> Response<Bytes> {
    json_text(status, body.to_string().into())
}

/// An answer whose JSON is written already.
pub fn json_text(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

/// A page of a listing. The continuation is left out, not empty, on the last one: one client takes any for "there is
/// more".
pub fn list(items: Vec<Value>, item_type: &str, next: Option<&Cursor>) -> Response<Bytes> {
    let response = with_header(json(StatusCode::OK, &Value::Array(items)), ITEM_TYPE, item_type);
    match next {
        Some(cursor) => with_header(response, CONTINUATION, &continuation(cursor)),
        None => response,
    }
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
        let whole = Target::parse(&"/%2Fa%2Fb%252Fc?x=1".parse().unwrap()).unwrap();
        assert_eq!(whole.segments(), ["a", "b%2Fc"]);
        let without = Target::parse(&"/a?api-version=".parse().unwrap()).unwrap();
        assert_eq!(without.api_version(), Err(InvalidTarget::ApiVersion));
        assert_eq!(Target::parse(&"/%ff".parse().unwrap()), Err(InvalidTarget::Encoding));
    }

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let value = |text: &&str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
        values.iter().map(|text| (name.clone(), value(text))).collect()
    }

    #[test]
    fn of_a_doubled_parameter_the_first_counts() {
        let target = Target::parse(&"/a?api-version=1&API-VERSION=2".parse().unwrap()).unwrap();
        assert_eq!(target.api_version(), Ok("1"));
        let empty = Target::parse(&"/a?api-version=&api-version=2".parse().unwrap()).unwrap();
        assert_eq!(empty.api_version(), Err(InvalidTarget::ApiVersion));
    }

    #[test]
    fn every_form_of_if_match_is_read() {
        let read = |text: &str| (text == "x").then_some(Etag::from_number(1));
        let matches = Precondition::Matches(Etag::from_number(1));
        let cases: &[(&[&str], Precondition)] = &[
            (&[], Precondition::None),
            (&[""], Precondition::None),
            (&["*"], Precondition::Exists),
            (&["\"*\""], Precondition::Exists),
            (&["x"], matches),
            (&["\"x\""], matches),
            (&["W/\"x\""], matches),
            (&["\"y\""], Precondition::Impossible),
            (&["\"\""], Precondition::Impossible),
            (&["\""], Precondition::Impossible),
            (&["\"x\", \"y\""], Precondition::Impossible),
            (&["x", "x"], Precondition::Impossible),
            (&["é"], Precondition::Impossible),
        ];
        for (values, expected) in cases {
            assert_eq!(precondition(&headers(&IF_MATCH, values), read), *expected, "{values:?}");
        }
    }

    #[test]
    fn a_page_is_asked_for_by_two_headers() {
        let size = |text: &str| page(&headers(&MAX_ITEM_COUNT, &[text])).map(|page| page.limit);
        assert_eq!(page(&HeaderMap::new()).map(|page| (page.limit, page.after)), Ok((PAGE_DEFAULT, None)));
        assert_eq!((size("1"), size(" 50 "), size("4000000000")), (Ok(1), Ok(50), Ok(PAGE_MAX)));
        for text in ["0", "-1", "ten", "1.5", "99999999999", "é"] {
            assert_eq!(size(text).map_err(|refused| refused.kind), Err(ErrorKind::InvalidArgument), "{text}");
        }
    }

    #[test]
    fn a_continuation_comes_back_as_it_was_given() {
        for name in ["dev-1", "ä b/+", ""] {
            let given = continuation(&Cursor(name.to_owned()));
            let after = page(&headers(&CONTINUATION, &[&given])).unwrap().after;
            assert_eq!(after.map(|cursor| cursor.0), (!name.is_empty()).then(|| name.to_owned()));
        }
        for text in ["dev 1", "!", "_w", "é"] {
            assert!(page(&headers(&CONTINUATION, &[text])).is_err(), "{text}");
        }
    }

    #[test]
    fn a_signature_is_of_its_scheme_or_none() {
        let of = |text: &str| signature(&headers(&AUTHORIZATION, &[text])).map(|parsed| parsed.is_ok());
        let token = "SharedAccessSignature sr=a&se=1&sig=CupbWQsstJqGhYMnN%2BadgzOmVapK6PbhPC%2FJ%2BoTlApU%3D";
        assert_eq!(signature(&HeaderMap::new()), None);
        let cases =
            [(token, Some(true)), ("SharedAccessSignature sr=a", Some(false)), ("é", Some(false)), ("Bearer x", None)];
        for (text, expected) in cases {
            assert_eq!(of(text), expected, "{text}");
        }
        let doubled = signature(&headers(&AUTHORIZATION, &[token, token]));
        assert_eq!(doubled.map(|parsed| parsed.is_ok()), Some(false));
        assert_eq!(bearer(&headers(&AUTHORIZATION, &["BEARER x "])), Some("x"));
        assert_eq!(bearer(&headers(&AUTHORIZATION, &["Bearer x", "Bearer x"])), None);
    }
}
