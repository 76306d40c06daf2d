//! The checksums of a request and of its answer, in the storage's headers.
//!
//! Start at [`said`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::file::checksum::{Asked, Checksums, Crc64, Md5, Mismatch};
use http::{HeaderMap, HeaderName, Response};

use super::Refusal;
use crate::http::{is, with_header};

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const X_CONTENT_MD5: HeaderName = HeaderName::from_static("x-ms-blob-content-md5");
const X_CRC64: HeaderName = HeaderName::from_static("x-ms-content-crc64");
const X_RANGE_MD5: HeaderName = HeaderName::from_static("x-ms-range-get-content-md5");
const X_RANGE_CRC64: HeaderName = HeaderName::from_static("x-ms-range-get-content-crc64");

/// What a client says that the body of its request adds up to.
pub fn said(headers: &HeaderMap) -> Result<Checksums, Refusal> {
    let said = Checksums {
        md5: read(headers, &CONTENT_MD5, Refusal::Md5)?.map(Md5),
        crc64: read(headers, &X_CRC64, Refusal::Crc64)?.map(|bytes| Crc64(u64::from_le_bytes(bytes))),
    };
    match said {
        Checksums { md5: Some(_), crc64: Some(_) } => Err(Refusal::TwoChecksums),
        said => Ok(said),
    }
}

/// What a client says that the whole file adds up to.
pub fn of_file(headers: &HeaderMap) -> Result<Option<Md5>, Refusal> {
    Ok(read(headers, &X_CONTENT_MD5, Refusal::Md5)?.map(Md5))
}

/// Which checksums of a part a reader asks for.
pub fn asked(headers: &HeaderMap) -> Asked {
    let is_true =
        |name: &HeaderName| headers.get(name).is_some_and(|value| value.to_str().is_ok_and(|text| is(text, "true")));
    Asked { md5: is_true(&X_RANGE_MD5), crc64: is_true(&X_RANGE_CRC64) }
}

fn read<const BYTES: usize>(
    headers: &HeaderMap,
    name: &HeaderName,
    otherwise: Refusal,
) -> Result<Option<[u8; BYTES]>, Refusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let bytes = STANDARD.decode(value.as_bytes()).map_err(|_| otherwise)?;
    bytes.try_into().map(Some).map_err(|_| otherwise)
}

/// Adds what the body of the request or of the answer adds up to.
pub fn with_checksums(mut response: Response<Bytes>, of_body: &Checksums) -> Response<Bytes> {
    if let Some(md5) = of_body.md5 {
        response = with_header(response, CONTENT_MD5, &show_md5(md5));
    }
    match of_body.crc64 {
        Some(crc64) => with_header(response, X_CRC64, &show_crc64(crc64)),
        None => response,
    }
}

/// Adds what the whole file adds up to, to an answer with a part of it.
pub fn with_whole(response: Response<Bytes>, whole: Option<Md5>) -> Response<Bytes> {
    match whole {
        Some(md5) => with_header(response, X_CONTENT_MD5, &show_md5(md5)),
        None => response,
    }
}

/// What was said and what was found, as members of an error.
pub fn show_mismatch(mismatch: Mismatch) -> String {
    let show = |name: &str, said: String, found: String| {
        format!(
            "<UserSpecified{name}>{said}</UserSpecified{name}><ServerCalculated{name}>{found}</ServerCalculated{name}>"
        )
    };
    match mismatch {
        Mismatch::Md5 { said, found } => show("Md5", show_md5(said), show_md5(found)),
        Mismatch::Crc64 { said, found } => show("Crc", show_crc64(said), show_crc64(found)),
    }
}

fn show_md5(md5: Md5) -> String {
    STANDARD.encode(md5.0)
}

fn show_crc64(crc64: Crc64) -> String {
    STANDARD.encode(crc64.0.to_le_bytes())
}
