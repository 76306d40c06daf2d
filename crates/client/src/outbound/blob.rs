//! Files in containers outside, as clients of Azure's blob storage read and write them: in parts, and block by block.
//!
//! Each request has a connection of its own, so that nothing is held while the data in between is made. Redirects are not
//! followed. The signature is in the address, and in no error. Where a refusal is of the message, asking again does not help;
//! any other may pass.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::file::BlockId;
use domain::route::{Refusal, Url};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HOST, HeaderName};
use http::request::Builder;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::webhook::{broken, host};
use super::{Outbound, SEND_TIMEOUT};

/// The version of the storage's protocol that is spoken.
const VERSION: &str = "2021-08-06";
/// Most bytes of an answer that is not a part of a file.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;

const X_VERSION: HeaderName = HeaderName::from_static("x-ms-version");
const X_RANGE: HeaderName = HeaderName::from_static("x-ms-range");
const X_ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
const X_BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");

/// What is answered.
struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Outbound {
    /// Whether a file can be asked for at `url`: the storage is there and knows the signature, whether or not the file is
    /// there and may be read.
    pub async fn check_file(&self, url: &Url) -> Result<(), Refusal> {
        let answered = self.ask(url, request(Method::HEAD, url, ""), (Bytes::new(), ANSWER_BYTES_MAX)).await?;
        let code = answered.code();
        let is_known = match answered.status {
            StatusCode::FORBIDDEN => !matches!(code, "AuthenticationFailed" | "AuthorizationFailure" | ""),
            StatusCode::NOT_FOUND => code != "ContainerNotFound",
            status => status.is_success(),
        };
        if is_known { Ok(()) } else { Err(answered.refusal()) }
    }

    /// Up to `bytes` bytes of a file from `first` on, fewer only at its end, and how many it has in all.
    pub async fn read_file(&self, url: &Url, first: u64, bytes: usize) -> Result<(Bytes, u64), Refusal> {
        let last = first.saturating_add(bytes as u64).saturating_sub(1);
        let request = request(Method::GET, url, "").header(X_RANGE, format!("bytes={first}-{last}"));
        let answered = self.ask(url, request, (Bytes::new(), bytes)).await?;
        match answered.status {
            StatusCode::PARTIAL_CONTENT => {
                let range = answered.headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
                let range = range.and_then(parse_range);
                let (found, last, total) =
                    range.ok_or_else(|| Refusal::of_message("it does not say which part of the file it answers"))?;
                let is_wanted =
                    found == first && last - found == (answered.body.len() as u64).wrapping_sub(1) && last < total;
                if !is_wanted {
                    return Err(Refusal::of_message("it answers another part of the file than it was asked for"));
                }
                Ok((answered.body, total))
            }
            // A part behind the end, also of a file without a byte.
            StatusCode::RANGE_NOT_SATISFIABLE => Ok((Bytes::new(), first)),
            _ => Err(answered.refusal()),
        }
    }

    /// Sends a block of a file, in the place of an earlier one of that name.
    pub async fn put_block(&self, url: &Url, block: &BlockId, bytes: Bytes) -> Result<(), Refusal> {
        let name = STANDARD.encode(block.bytes()).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let request = request(Method::PUT, url, &format!("&comp=block&blockid={name}"));
        self.ask(url, request, (bytes, ANSWER_BYTES_MAX)).await?.judge()
    }

    /// Makes the file of blocks that were sent.
    pub async fn commit_blocks(&self, url: &Url, blocks: &[BlockId]) -> Result<(), Refusal> {
        let mut list = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
        for block in blocks {
            list.push_str("<Latest>");
            list.push_str(&STANDARD.encode(block.bytes()));
            list.push_str("</Latest>");
        }
        list.push_str("</BlockList>");
        let request = request(Method::PUT, url, "&comp=blocklist").header(X_BLOB_TYPE, "BlockBlob");
        self.ask(url, request, (list.into(), ANSWER_BYTES_MAX)).await?.judge()
    }

    /// Sends one request and reads the answer, of whose body at most `most` bytes.
    async fn ask(&self, url: &Url, request: Builder, (body, most): (Bytes, usize)) -> Result<Answered, Refusal> {
        let request = request.header(CONTENT_LENGTH, body.len()).body(Full::new(body));
        let request = request.map_err(|_| Refusal::of_message("its address is none that HTTP knows"))?;
        let asking = async {
            let stream = self.dial(url, None).await?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
            let answering = async {
                let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
                let (head, body) = answer.into_parts();
                let mut answered = Answered { status: head.status, headers: head.headers, body: Bytes::new() };
                if answered.may_pass() {
                    // What is wrong is in the head; how long the page about it is says nothing of the request.
                    return Ok(answered);
                }
                let body = Limited::new(body, most).collect().await;
                let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                    true => Refusal::of_message(format!("it answers {} with too many bytes", answered.status)),
                    false => Refusal::of_all(format!("its answer cannot be read: {error}")),
                })?;
                answered.body = body.to_bytes();
                Ok(answered)
            };
            // What moves the bytes; once it has ended, asking fails, which says more than its end does.
            let moving = async {
                let _ = connection.await;
                std::future::pending::<std::convert::Infallible>().await
            };
            tokio::select! {
                answered = answering => answered,
                never = moving => match never {},
            }
        };
        timeout(SEND_TIMEOUT, asking).await.unwrap_or_else(|_| Err(Refusal::of_all("no answer in time")))
    }
}

fn request(method: Method, url: &Url, more: &str) -> Builder {
    Request::builder()
        .method(method)
        .uri(format!("{}{more}", url.path))
        .header(HOST, host(url))
        .header(X_VERSION, VERSION)
}

impl Answered {
    /// The storage's name for what is wrong.
    fn code(&self) -> &str {
        self.headers.get(X_ERROR_CODE).and_then(|code| code.to_str().ok()).unwrap_or_default()
    }

    /// Whether it says that the storage has trouble, and nothing of the request.
    fn may_pass(&self) -> bool {
        matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            || self.status.is_server_error()
    }

    fn judge(&self) -> Result<(), Refusal> {
        if self.status.is_success() { Ok(()) } else { Err(self.refusal()) }
    }

    fn refusal(&self) -> Refusal {
        let text = match self.code() {
            "" => format!("it answers {}", self.status),
            code => format!("it answers {} {code}", self.status),
        };
        if self.may_pass() { Refusal::of_all(text) } else { Refusal::of_message(text) }
    }
}

/// The first and the last byte of a part, and how many bytes the whole has (RFC 9110, section 14.4).
fn parse_range(range: &str) -> Option<(u64, u64, u64)> {
    let (part, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = part.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last, total.parse().ok()?))
}
