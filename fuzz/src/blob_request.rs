//! Requests to the storage: a method and a target, headers up to an empty line, and a list of blocks.

use dialect::http::Target;
use dialect::hub::blob_http::{decode, owns, show_token};
use dialect::hub::block_list::{self, encode};
use domain::file::{BLOCKS_MAX, FileName, StorageToken};
use domain::operation::file::Ask;
use http::{HeaderName, HeaderValue, Request};

/// Reads `input` as a request and its body.
///
/// # Panics
/// When a token changes by being written and read, or more is read than may be.
pub fn check(input: &[u8]) {
    let end = input.windows(2).position(|pair| pair == b"\n\n").unwrap_or(input.len());
    let (head, body) = input.split_at(end);
    if let Ok(blocks) = block_list::decode(body.trim_ascii_start()) {
        assert!(blocks.len() <= BLOCKS_MAX);
        let named: Vec<_> = blocks.into_iter().map(|(block, _)| (block, 1)).collect();
        assert!(encode(&named).matches("<Block>").count() == named.len());
    }
    let mut lines = head.split(|&byte| byte == b'\n');
    let first = std::str::from_utf8(lines.next().unwrap_or_default()).unwrap_or_default();
    let Some((method, target)) = first.split_once(' ') else { return };
    let Ok(mut request) = Request::builder().method(method).uri(target).body(()) else { return };
    for line in lines {
        let mut parts = line.splitn(2, |&byte| byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            request.headers_mut().append(name, value);
        }
    }
    let (head, ()) = request.into_parts();
    let Ok(target) = Target::parse(&head.uri) else { return };
    let Ok((Ask::Open { token, file, .. }, _)) = decode(&head, &target) else { return };
    assert!(owns(&head.uri));
    assert_eq!(FileName::parse(file.as_str()).as_ref(), Ok(&file));
    assert!(file.as_str().split('/').all(|segment| !segment.is_empty() && segment != ".."));
    let written = show_token(&token);
    let again: http::Uri = format!("/c/f{written}").parse().expect("a token is part of an address");
    let again = Target::parse(&again).expect("it can be read");
    let upload = match &token {
        StorageToken::File(token) => Some(token.upload.to_string()),
        StorageToken::Container(_) => None,
    };
    assert_eq!(again.parameter("si"), upload.as_deref());
}
