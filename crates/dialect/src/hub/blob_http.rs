//! The storage that devices upload to, as clients of Azure's blob storage speak with it: whoever has a signature for one
//! file, or for all of a container, writes it whole or block by block, and reads it.
//!
//! Heads in, answers out: bodies pass by, since a file is never held whole. What the signature is worth is for the service
//! to say. Start at [`decode`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::clock::UnixTime;
use domain::file::checksum::{Asked, Checksums, Mismatch};
use domain::file::{
    Access, BlockId, ContainerToken, FileName, FileProperties, FileToken, Permissions, Range, StorageToken, StoredFile,
};
use domain::ids::{Etag, UploadId};
use domain::operation::file::Ask;
use domain::operation::{ErrorKind, Failure};
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, RETRY_AFTER,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;

use self::checksums::{with_checksums, with_whole};
use super::block_list::{self, InvalidBlockList};
use crate::error;
use crate::http::{Target, is, with_header};
use crate::time;

mod checksums;
#[cfg(test)]
mod tests;

/// The version of the storage's protocol that signatures and answers name.
const VERSION: &str = "2021-08-06";
/// Longest text of a content type or encoding that is kept.
const PROPERTY_BYTES_MAX: usize = 1_024;
/// Longest part of a file that is added up for its reader (4 MiB in Azure).
const SUMMED_BYTES_MAX: u64 = 4 << 20;
/// What a signature is made of, beside those parts that say nothing here.
const SIGNATURE: &str = "sig";

const X_VERSION: HeaderName = HeaderName::from_static("x-ms-version");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const X_ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
const X_BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
const X_CONTENT_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-content-type");
const X_CONTENT_ENCODING: HeaderName = HeaderName::from_static("x-ms-blob-content-encoding");
const X_RANGE: HeaderName = HeaderName::from_static("x-ms-range");
const X_CREATION_TIME: HeaderName = HeaderName::from_static("x-ms-creation-time");
const X_ENCRYPTED: HeaderName = HeaderName::from_static("x-ms-request-server-encrypted");

/// What the holder of a signature wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To write the file whole; the body is its bytes.
    PutFile {
        /// What it says of them.
        properties: FileProperties,
        /// Whether a file that is there is left alone.
        only_new: bool,
        /// What the body shall add up to.
        said: Checksums,
    },
    /// To write a block; the body is its bytes.
    PutBlock {
        /// What it is called.
        block: BlockId,
        /// What the body shall add up to.
        said: Checksums,
    },
    /// To make the file of blocks; the body is their list.
    Commit {
        /// What it says of them.
        properties: FileProperties,
        /// Whether a file that is there is left alone.
        only_new: bool,
        /// What the list shall add up to.
        said: Checksums,
    },
    /// To know which blocks wait.
    ListBlocks,
    /// To read the file, or a part of it.
    Read {
        /// Which part.
        range: Option<Range>,
        /// Of which version alone: clients that read a file in parts name the one that they began with.
        version: Option<String>,
        /// What the part is to be added up to.
        asked: Asked,
        /// Whether only what is said of it is wanted.
        is_head: bool,
    },
    /// To remove the file.
    Delete,
}

impl Wanted {
    const fn access(&self) -> Access {
        match self {
            Self::PutFile { .. } | Self::PutBlock { .. } | Self::Commit { .. } => Access::Write,
            Self::ListBlocks | Self::Read { .. } => Access::Read,
            Self::Delete => Access::Delete,
        }
    }
}

/// Why a request is refused before its signature is looked at, or after its body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The signature lacks a part, or one cannot be read.
    #[error("the signature cannot be read")]
    Signature,
    /// The path names no file.
    #[error("the path names no file that there could be")]
    Path,
    /// The method, or what it is asked of, is not served.
    #[error("this is not served here")]
    Verb,
    /// The header that says what kind of blob it is.
    #[error("the header x-ms-blob-type is not BlockBlob, which is the only kind")]
    BlobType,
    /// The name of a block.
    #[error("blockid is not base64 of 1 to 64 bytes")]
    BlockId,
    /// The list of blocks.
    #[error("{0}")]
    BlockList(InvalidBlockList),
    /// A header is too long, or no text.
    #[error("a header cannot be kept")]
    Header,
    /// The condition of a request.
    #[error("no other condition than If-None-Match: * is known")]
    Condition,
    /// The file was written again since.
    #[error("the file has another version than the one that is wanted")]
    Changed,
    /// An MD5.
    #[error("an MD5 is not base64 of 16 bytes")]
    Md5,
    /// A CRC-64.
    #[error("a CRC-64 is not base64 of 8 bytes")]
    Crc64,
    /// Both of them.
    #[error("an MD5 or a CRC-64 is held against the body, not both")]
    TwoChecksums,
    /// The body adds up to something else.
    #[error("the checksum of the request is not that of what arrived")]
    Mismatch(Mismatch),
    /// The part that is to be added up.
    #[error("checksums are made of parts of at most {SUMMED_BYTES_MAX} bytes")]
    Unsummed,
    /// The part that is wanted begins behind the end of the file.
    #[error("the file has fewer bytes than that")]
    Range,
    /// The body is longer than such a body may be.
    #[error("the body is too long")]
    TooLong,
    /// The body did not arrive.
    #[error("the body did not arrive")]
    Body,
    /// Too much is under way.
    #[error("the server is busy; try again")]
    Busy,
}

impl Refusal {
    const fn spelling(self) -> (StatusCode, &'static str) {
        match self {
            Self::Signature => (StatusCode::FORBIDDEN, "AuthenticationFailed"),
            Self::Path => (StatusCode::BAD_REQUEST, "InvalidUri"),
            Self::Verb => (StatusCode::METHOD_NOT_ALLOWED, "UnsupportedHttpVerb"),
            Self::BlobType => (StatusCode::BAD_REQUEST, "InvalidBlobType"),
            Self::BlockId => (StatusCode::BAD_REQUEST, "InvalidQueryParameterValue"),
            Self::BlockList(_) => (StatusCode::BAD_REQUEST, "InvalidXmlDocument"),
            Self::Header | Self::Crc64 | Self::TwoChecksums | Self::Unsummed => {
                (StatusCode::BAD_REQUEST, "InvalidHeaderValue")
            }
            Self::Md5 => (StatusCode::BAD_REQUEST, "InvalidMd5"),
            Self::Mismatch(Mismatch::Md5 { .. }) => (StatusCode::BAD_REQUEST, "Md5Mismatch"),
            Self::Mismatch(Mismatch::Crc64 { .. }) => (StatusCode::BAD_REQUEST, "Crc64Mismatch"),
            Self::Condition => (StatusCode::BAD_REQUEST, "UnsupportedHeader"),
            Self::Changed => (StatusCode::PRECONDITION_FAILED, "ConditionNotMet"),
            Self::Range => (StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"),
            Self::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "RequestBodyTooLarge"),
            Self::Body => (StatusCode::REQUEST_TIMEOUT, "OperationTimedOut"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "ServerBusy"),
        }
    }
}

/// Whether a request is for the storage: it carries a signature in its query, which nothing else does.
pub fn owns(uri: &Uri) -> bool {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs.filter_map(|pair| pair.split_once('=')).any(|(name, _)| name.eq_ignore_ascii_case(SIGNATURE))
}

/// What a request asks before anything is done, and what it wants then.
pub fn decode(head: &Parts, target: &Target) -> Result<(Ask, Wanted), Refusal> {
    let wanted = decode_wanted(head, target)?;
    let token = parse_token(target).ok_or(Refusal::Signature)?;
    let (container, file) = parse_path(head.uri.path())?;
    let access = wanted.access();
    Ok((Ask::Open { token, container, file, access }, wanted))
}

/// The container and the file. Each segment is decoded by itself; a slash that was encoded is one all the same, since one
/// client encodes the name that the hub told it as a whole.
fn parse_path(path: &str) -> Result<(String, FileName), Refusal> {
    let text = percent_decode_str(path).decode_utf8().map_err(|_| Refusal::Path)?;
    let (container, file) = text.trim_start_matches('/').split_once('/').ok_or(Refusal::Path)?;
    Ok((container.to_owned(), FileName::parse(file).map_err(|_| Refusal::Path)?))
}

fn decode_wanted(head: &Parts, target: &Target) -> Result<Wanted, Refusal> {
    let headers = &head.headers;
    Ok(match (&head.method, target.parameter("comp")) {
        (&Method::PUT, None) => {
            let kind = headers.get(X_BLOB_TYPE).and_then(|kind| kind.to_str().ok());
            if !kind.is_some_and(|kind| is(kind, "BlockBlob")) {
                return Err(Refusal::BlobType);
            }
            let properties = properties(headers, &CONTENT_TYPE)?;
            // What is said of the file counts before what is said of the body, which here are the same.
            let said = checksums::said(headers)?;
            let said = Checksums { md5: properties.content_md5.or(said.md5), ..said };
            Wanted::PutFile { properties, only_new: only_new(headers)?, said }
        }
        (&Method::PUT, Some(word)) if is(word, "block") => {
            let block = target.parameter("blockid").and_then(block_list::parse_name);
            Wanted::PutBlock { block: block.ok_or(Refusal::BlockId)?, said: checksums::said(headers)? }
        }
        (&Method::PUT, Some(word)) if is(word, "blocklist") => {
            // The content type and the checksum of the body are those of the list.
            let said = checksums::said(headers)?;
            Wanted::Commit { properties: properties(headers, &X_CONTENT_TYPE)?, only_new: only_new(headers)?, said }
        }
        (&Method::GET, Some(word)) if is(word, "blocklist") => Wanted::ListBlocks,
        (&Method::GET, None) => Wanted::Read {
            range: range(headers),
            version: version(headers)?,
            asked: checksums::asked(headers),
            is_head: false,
        },
        (&Method::HEAD, None) => {
            Wanted::Read { range: None, version: version(headers)?, asked: Asked::default(), is_head: true }
        }
        (&Method::DELETE, None) => Wanted::Delete,
        _ => return Err(Refusal::Verb),
    })
}

/// What a client says of the content; `fallback` counts where the storage's own header is missing.
fn properties(headers: &HeaderMap, fallback: &HeaderName) -> Result<FileProperties, Refusal> {
    let text = |names: &[&HeaderName]| {
        let value = names.iter().find_map(|name| headers.get(*name));
        let text = value.map(|value| value.to_str().map(str::to_owned).map_err(|_| Refusal::Header)).transpose()?;
        match text {
            Some(text) if text.len() > PROPERTY_BYTES_MAX => Err(Refusal::Header),
            text => Ok(text.filter(|text| !text.is_empty())),
        }
    };
    Ok(FileProperties {
        content_type: text(&[&X_CONTENT_TYPE, fallback])?,
        content_encoding: text(&[&X_CONTENT_ENCODING])?,
        content_md5: checksums::of_file(headers)?,
    })
}

/// A condition that is not understood is refused: a client that means one must not lose what another wrote.
fn only_new(headers: &HeaderMap) -> Result<bool, Refusal> {
    if [IF_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE].iter().any(|name| headers.contains_key(name)) {
        return Err(Refusal::Condition);
    }
    match headers.get(IF_NONE_MATCH).map(HeaderValue::as_bytes) {
        None => Ok(false),
        Some(b"*" | b"\"*\"") => Ok(true),
        Some(_) => Err(Refusal::Condition),
    }
}

/// The version that alone is wanted; none if any is.
fn version(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let value = headers.get(IF_MATCH).map(|value| value.to_str().map_err(|_| Refusal::Header)).transpose()?;
    Ok(value.map(|value| value.trim().to_owned()).filter(|value| value != "*"))
}

/// The part that is wanted; what cannot be read asks for the whole (RFC 9110, section 14.2).
fn range(headers: &HeaderMap) -> Option<Range> {
    let text = headers.get(X_RANGE).or_else(|| headers.get(RANGE))?.to_str().ok()?;
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
    Some(Range { first: first.parse().ok()?, last })
}

/// Reads the signature of a query. The upload stands where a stored access policy is named, since clients pass on no part
/// that they do not know.
pub fn parse_token(target: &Target) -> Option<StorageToken> {
    target.parameter("sv")?;
    let mut permissions = Permissions { read: false, write: false };
    for letter in target.parameter("sp")?.chars() {
        match letter {
            'r' => permissions.read = true,
            'w' => permissions.write = true,
            _ => return None,
        }
    }
    let expires_at = time::parse(target.parameter("se")?)?;
    let signature = STANDARD.decode(target.parameter(SIGNATURE)?).ok()?.try_into().ok()?;
    match target.parameter("sr")? {
        "b" => {
            let upload = UploadId::parse(target.parameter("si")?)?;
            Some(StorageToken::File(FileToken { upload, permissions, expires_at, signature }))
        }
        "c" => Some(StorageToken::Container(ContainerToken { permissions, expires_at, signature })),
        _ => None,
    }
}

/// Writes a signature as a query, with its question mark.
pub fn show_token(token: &StorageToken) -> String {
    let (signed, signature) = match token {
        StorageToken::File(token) => (format!("b&si={}", token.upload), token.signature),
        StorageToken::Container(token) => ("c".to_owned(), token.signature),
    };
    let signature = STANDARD.encode(signature).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let expires_at = time::rfc3339_seconds(token.expires_at()).replace(':', "%3A");
    let Permissions { read, write } = token.permissions();
    let permissions = format!("{}{}", if read { "r" } else { "" }, if write { "w" } else { "" });
    format!("?sv={VERSION}&sr={signed}&sig={signature}&se={expires_at}&sp={permissions}")
}

/// Adds what every answer has.
fn finish(response: Response<Bytes>, request_id: &str) -> Response<Bytes> {
    with_header(with_header(response, X_VERSION, VERSION), X_REQUEST_ID, request_id)
}

fn with_status(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

fn show_etag(etag: Etag) -> String {
    format!("\"0x{:X}\"", etag.number())
}

/// The answer once a block is kept whose bytes add up to `found`.
pub fn show_block(found: &Checksums, request_id: &str) -> Response<Bytes> {
    let response = with_header(with_status(StatusCode::CREATED), X_ENCRYPTED, "true");
    finish(with_checksums(response, found), request_id)
}

/// The answer once a file is there, at `written_at`, by a body that adds up to `found`.
pub fn show_written((etag, written_at): (Etag, UnixTime), found: &Checksums, request_id: &str) -> Response<Bytes> {
    let response = with_header(show_block(found, request_id), ETAG, &show_etag(etag));
    with_header(response, LAST_MODIFIED, &time::rfc1123(written_at))
}

/// The blocks that wait.
pub fn show_blocks(blocks: &[(BlockId, u64)], request_id: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(block_list::encode(blocks)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    finish(response, request_id)
}

/// Which bytes of a file a reader gets, from where and how many; of a part or a version that is not there, or a part that
/// is too long to be added up, a refusal.
pub fn part_of(
    file: &StoredFile,
    (range, version): (Option<Range>, Option<&str>),
    asked: Asked,
) -> Result<(u64, u64), Refusal> {
    if version.is_some_and(|version| version != show_etag(file.etag)) {
        return Err(Refusal::Changed);
    }
    let (first, bytes) = match range {
        None => (0, file.bytes()),
        Some(range) => range.within(file.bytes()).ok_or(Refusal::Range)?,
    };
    if !asked.is_nothing() && (range.is_none() || bytes > SUMMED_BYTES_MAX) {
        return Err(Refusal::Unsummed);
    }
    Ok((first, bytes))
}

/// The head of the answer to a reader, who gets the whole file, or a part and what that adds up to.
pub fn show_file(file: &StoredFile, part: Option<((u64, u64), Checksums)>, request_id: &str) -> Response<Bytes> {
    let all = file.bytes();
    let FileProperties { content_type, content_encoding, content_md5 } = &file.properties;
    let (mut response, bytes) = match part {
        None => {
            let whole = Checksums { md5: *content_md5, crc64: None };
            (with_checksums(with_status(StatusCode::OK), &whole), all)
        }
        Some(((first, bytes), found)) => {
            let range = format!("bytes {first}-{}/{all}", (first + bytes).saturating_sub(1));
            let response = with_header(with_status(StatusCode::PARTIAL_CONTENT), CONTENT_RANGE, &range);
            (with_whole(with_checksums(response, &found), *content_md5), bytes)
        }
    };
    let content_type = content_type.as_deref().unwrap_or("application/octet-stream");
    let said = [
        (CONTENT_TYPE, Some(content_type)),
        (CONTENT_ENCODING, content_encoding.as_deref()),
        (CONTENT_LENGTH, Some(bytes.to_string().as_str())),
        (ETAG, Some(show_etag(file.etag).as_str())),
        (LAST_MODIFIED, Some(time::rfc1123(file.written_at).as_str())),
        (X_CREATION_TIME, Some(time::rfc1123(file.created_at).as_str())),
        (X_BLOB_TYPE, Some("BlockBlob")),
        (ACCEPT_RANGES, Some("bytes")),
    ]
    .map(|(name, value)| (name, value.map(str::to_owned)));
    for (name, value) in said {
        response = match value {
            Some(value) => with_header(response, name, &value),
            None => response,
        };
    }
    finish(response, request_id)
}

/// A refusal in the storage's form: its code in a header and in XML.
pub fn refuse(refusal: Refusal, request_id: &str) -> Response<Bytes> {
    let more = match refusal {
        Refusal::Mismatch(mismatch) => checksums::show_mismatch(mismatch),
        _ => String::new(),
    };
    show_error(refusal.spelling(), (&refusal.to_string(), &more), request_id)
}

/// A failure in the storage's form.
pub fn fail(failure: &Failure, wanted: &Wanted) -> Response<Bytes> {
    let code = match (failure.kind, wanted) {
        (ErrorKind::Unauthorized, _) => (StatusCode::FORBIDDEN, "AuthenticationFailed"),
        (ErrorKind::Forbidden, _) => (StatusCode::FORBIDDEN, "AuthorizationPermissionMismatch"),
        (ErrorKind::QuotaExceeded, _) => (StatusCode::FORBIDDEN, "AccountQuotaExceeded"),
        (ErrorKind::ResourceNotFound, _) => (StatusCode::NOT_FOUND, "BlobNotFound"),
        (ErrorKind::HubNotFound, _) => (StatusCode::NOT_FOUND, "ResourceNotFound"),
        (ErrorKind::ResourceExists, _) => (StatusCode::CONFLICT, "BlobAlreadyExists"),
        (ErrorKind::TooLarge, _) => (StatusCode::PAYLOAD_TOO_LARGE, "RequestBodyTooLarge"),
        (ErrorKind::Throttled | ErrorKind::Unavailable, _) => (StatusCode::SERVICE_UNAVAILABLE, "ServerBusy"),
        (ErrorKind::InvalidArgument, Wanted::Commit { .. }) => (StatusCode::BAD_REQUEST, "InvalidBlockList"),
        (ErrorKind::InvalidArgument, _) => (StatusCode::BAD_REQUEST, "InvalidBlobOrBlock"),
        (ErrorKind::Internal, _) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        (kind, _) => (error::status(kind), error::spelling(kind).hub_name),
    };
    let response = show_error(code, (&failure.public, ""), &failure.tracking.to_string());
    match failure.retry_after_s {
        Some(seconds) => with_header(response, RETRY_AFTER, &seconds.to_string()),
        None => response,
    }
}

/// `more` is XML behind the message.
fn show_error((status, code): (StatusCode, &str), (message, more): (&str, &str), request_id: &str) -> Response<Bytes> {
    let message = message.replace('&', "&amp;").replace('<', "&lt;");
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}\nRequestId:{request_id}\
         </Message>{more}</Error>"
    );
    let mut response = with_status(status);
    *response.body_mut() = Bytes::from(text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    finish(with_header(response, X_ERROR_CODE, code), request_id)
}
