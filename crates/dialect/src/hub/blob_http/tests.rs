//! Requests of storage clients, and what is answered to them.

use domain::file::Content;
use domain::file::checksum::{Crc64, Md5};
use domain::ids::{ContentId, HubKey, TrackingId};
use domain::sas::SymmetricKey;
use http::Request;

use super::*;

const NOON: UnixTime = UnixTime::from_seconds(1_700_000_000);
const ID: &str = "request-1";
const BLOB: (&str, &str) = ("x-ms-blob-type", "BlockBlob");
const NO_SUM: Checksums = Checksums { md5: None, crc64: None };
const NOTHING: Asked = Asked { md5: false, crc64: false };
const READ: Wanted = Wanted::Read { range: None, version: None, asked: NOTHING, is_head: false };
const MD5: &str = "AQEBAQEBAQEBAQEBAQEBAQ==";
const CRC64: &str = "AgAAAAAAAAA=";

fn issued() -> StorageToken {
    let key = SymmetricKey::from_bytes(&[1; 32]).unwrap();
    let file = FileName::parse("dev-1/a/b c.txt").unwrap();
    StorageToken::File(FileToken::issue(&key, (HubKey(1), &file), UploadId::from_bits(7), NOON))
}

fn issued_for_container() -> StorageToken {
    let key = SymmetricKey::from_bytes(&[1; 32]).unwrap();
    StorageToken::Container(ContainerToken::issue(&key, (HubKey(1), "uploads"), NOON))
}

fn send(line: &str, headers: &[(&str, &str)]) -> Result<(Ask, Wanted), Refusal> {
    let (method, uri) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    let target = Target::parse(&head.uri).unwrap();
    decode(&head, &target)
}

/// With a good signature.
fn signed(method: &str, more: &str, headers: &[(&str, &str)]) -> Result<Wanted, Refusal> {
    let line = format!("{method} /uploads/dev-1/a/b%20c.txt{}{more}", show_token(&issued()));
    send(&line, headers).map(|(_, wanted)| wanted)
}

#[test]
fn a_token_comes_back_as_it_was_written_and_names_its_file() {
    let token = issued();
    let text = show_token(&token);
    assert!(text.starts_with("?sv="), "{text}");
    for path in ["/uploads/dev-1/a/b%20c.txt", "/uploads/dev-1%2Fa%2Fb%20c.txt", "//uploads/dev-1/a/b%20c.txt"] {
        let (ask, wanted) = send(&format!("GET {path}{text}"), &[]).unwrap();
        let Ask::Open { token: found, container, file, access } = ask else { panic!("{ask:?}") };
        assert_eq!((found, container.as_str(), file.as_str()), (token.clone(), "uploads", "dev-1/a/b c.txt"), "{path}");
        assert_eq!((access, wanted), (Access::Read, READ));
    }

    let token = issued_for_container();
    let (ask, _) = send(&format!("PUT /uploads/devices.txt{}", show_token(&token)), &[BLOB]).unwrap();
    let Ask::Open { token: found, file, access, .. } = ask else { panic!("{ask:?}") };
    assert_eq!((found, file.as_str(), access), (token, "devices.txt", Access::Write));
}

#[test]
fn requests_of_clients_mean_what_they_should() {
    let block = BlockId::from_bytes(b"b1").unwrap();
    let plain = FileProperties::default();
    let text = FileProperties {
        content_type: Some("text/plain".to_owned()),
        content_encoding: Some("gzip".to_owned()),
        content_md5: None,
    };
    let part = |first, last| Wanted::Read {
        range: Some(Range { first, last }),
        version: None,
        asked: NOTHING,
        is_head: false,
    };
    let cases: Vec<(&str, &str, &[(&str, &str)], Result<Wanted, Refusal>)> = vec![
        ("PUT", "", &[BLOB], Ok(Wanted::PutFile { properties: plain.clone(), only_new: false, said: NO_SUM })),
        (
            "PUT",
            "",
            &[
                BLOB,
                ("x-ms-blob-content-type", "text/plain"),
                ("content-type", "application/octet-stream"),
                ("x-ms-blob-content-encoding", "gzip"),
                ("if-none-match", "*"),
            ],
            Ok(Wanted::PutFile { properties: text.clone(), only_new: true, said: NO_SUM }),
        ),
        ("PUT", "&comp=block&blockid=YjE%3D", &[], Ok(Wanted::PutBlock { block: block.clone(), said: NO_SUM })),
        ("PUT", "&comp=block&blockid=YjE=&timeout=30", &[BLOB], Ok(Wanted::PutBlock { block, said: NO_SUM })),
        (
            "PUT",
            "&comp=blocklist",
            &[("content-type", "application/xml")],
            Ok(Wanted::Commit { properties: plain, only_new: false, said: NO_SUM }),
        ),
        ("GET", "&comp=blocklist&blocklisttype=all", &[], Ok(Wanted::ListBlocks)),
        ("GET", "", &[("x-ms-range", "bytes=3-9"), ("range", "bytes=0-1")], Ok(part(3, Some(9)))),
        ("GET", "", &[("range", "bytes=3-")], Ok(part(3, None))),
        ("GET", "", &[("range", "lines=3-")], Ok(READ)),
        ("GET", "", &[("if-match", "*")], Ok(READ)),
        (
            "HEAD",
            "",
            &[("if-match", "\"0x1F\"")],
            Ok(Wanted::Read { range: None, version: Some("\"0x1F\"".to_owned()), asked: NOTHING, is_head: true }),
        ),
        ("DELETE", "", &[], Ok(Wanted::Delete)),
        ("PUT", "", &[], Err(Refusal::BlobType)),
        ("PUT", "", &[("x-ms-blob-type", "PageBlob")], Err(Refusal::BlobType)),
        ("PUT", "&comp=block", &[], Err(Refusal::BlockId)),
        ("PUT", "&comp=block&blockid=", &[], Err(Refusal::BlockId)),
        ("PUT", "&comp=block&blockid=b1", &[], Err(Refusal::BlockId)),
        ("PUT", "&comp=lease", &[], Err(Refusal::Verb)),
        ("POST", "", &[], Err(Refusal::Verb)),
        ("PUT", "", &[BLOB, ("if-none-match", "\"1\"")], Err(Refusal::Condition)),
        ("PUT", "", &[BLOB, ("if-match", "\"0x1F\"")], Err(Refusal::Condition)),
        ("PUT", "&comp=blocklist", &[("if-unmodified-since", "x")], Err(Refusal::Condition)),
    ];
    for (method, more, headers, expected) in cases {
        assert_eq!(signed(method, more, headers), expected, "{method} {more} {headers:?}");
    }
    let long = "a".repeat(PROPERTY_BYTES_MAX + 1);
    assert_eq!(signed("PUT", "", &[BLOB, ("content-type", &long)]), Err(Refusal::Header));
}

#[test]
fn checksums_are_of_the_body_or_of_the_file() {
    const BODY: (&str, &str) = ("content-md5", MD5);
    const FILE: (&str, &str) = ("x-ms-blob-content-md5", MD5);
    const CRC: (&str, &str) = ("x-ms-content-crc64", CRC64);

    let (md5, crc64) = (Some(Md5([1; 16])), Some(Crc64(2)));
    let properties = FileProperties { content_md5: md5, ..FileProperties::default() };
    let block = BlockId::from_bytes(b"b1").unwrap();
    let list = FileProperties::default();
    let (of_md5, of_crc64) = (Checksums { md5, crc64: None }, Checksums { md5: None, crc64 });
    let (put_block, commit) = ("&comp=block&blockid=YjE%3D", "&comp=blocklist");
    let cases: Vec<(&str, &str, &[(&str, &str)], Result<Wanted, Refusal>)> = vec![
        (
            "PUT",
            "",
            &[BLOB, BODY],
            Ok(Wanted::PutFile { properties: FileProperties::default(), only_new: false, said: of_md5 }),
        ),
        (
            "PUT",
            "",
            &[BLOB, FILE, ("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")],
            Ok(Wanted::PutFile { properties: properties.clone(), only_new: false, said: of_md5 }),
        ),
        ("PUT", put_block, &[CRC], Ok(Wanted::PutBlock { block, said: of_crc64 })),
        ("PUT", commit, &[BODY], Ok(Wanted::Commit { properties: list, only_new: false, said: of_md5 })),
        ("PUT", commit, &[FILE], Ok(Wanted::Commit { properties, only_new: false, said: NO_SUM })),
        (
            "GET",
            "",
            &[("range", "bytes=0-"), ("x-ms-range-get-content-md5", "True")],
            Ok(Wanted::Read {
                range: Some(Range { first: 0, last: None }),
                version: None,
                asked: Asked { md5: true, crc64: false },
                is_head: false,
            }),
        ),
        ("PUT", put_block, &[BODY, CRC], Err(Refusal::TwoChecksums)),
        ("PUT", put_block, &[("content-md5", CRC64)], Err(Refusal::Md5)),
        ("PUT", put_block, &[("content-md5", "?")], Err(Refusal::Md5)),
        ("PUT", put_block, &[("x-ms-content-crc64", MD5)], Err(Refusal::Crc64)),
        ("PUT", commit, &[("x-ms-blob-content-md5", "")], Err(Refusal::Md5)),
    ];
    for (method, more, headers, expected) in cases {
        assert_eq!(signed(method, more, headers), expected, "{method} {more} {headers:?}");
    }
}

#[test]
fn a_mismatch_says_both() {
    let refused = refuse(Refusal::Mismatch(Mismatch::Crc64 { said: Crc64(1), found: Crc64(2) }), ID);
    assert_eq!(
        (refused.status(), &refused.headers()["x-ms-error-code"]),
        (StatusCode::BAD_REQUEST, &"Crc64Mismatch".parse().unwrap())
    );
    let text = String::from_utf8(refused.body().to_vec()).unwrap();
    let expected =
        "<UserSpecifiedCrc>AQAAAAAAAAA=</UserSpecifiedCrc><ServerCalculatedCrc>AgAAAAAAAAA=</ServerCalculatedCrc>";
    assert!(text.contains(expected), "{text}");
    let refused = refuse(Refusal::Mismatch(Mismatch::Md5 { said: Md5([0; 16]), found: Md5([1; 16]) }), ID);
    let text = String::from_utf8(refused.body().to_vec()).unwrap();
    assert!(text.contains("<Code>Md5Mismatch</Code>") && text.contains(MD5), "{text}");
}

#[test]
fn what_is_no_signature_is_refused() {
    let good = show_token(&issued());
    let path = "/uploads/dev-1/a";
    let without = |name: &str| {
        let kept: Vec<_> = good.trim_start_matches('?').split('&').filter(|part| !part.starts_with(name)).collect();
        format!("?{}", kept.join("&"))
    };
    for name in ["sv=", "sr=", "si=", "sig=", "se=", "sp="] {
        assert_eq!(send(&format!("GET {path}{}", without(name)), &[]).unwrap_err(), Refusal::Signature, "{name}");
    }
    for (name, value) in
        [("sr=", "sr=s"), ("si=", "si=x"), ("sig=", "sig=AAAA"), ("sp=", "sp=rwd"), ("se=", "se=never")]
    {
        let line = format!("GET {path}{}&{value}", without(name));
        assert_eq!(send(&line, &[]).unwrap_err(), Refusal::Signature, "{value}");
    }
    for path in
        ["/", "/uploads", "/uploads/", "/uploads/dev-1/../x", "/uploads/dev-1//x", "/uploads/%2e%2e/x", "/uploads/a%00"]
    {
        assert_eq!(send(&format!("GET {path}{good}"), &[]).unwrap_err(), Refusal::Path, "{path}");
    }
    assert!(owns(&format!("{path}{good}").parse().unwrap()));
    assert!(!owns(&"/devices/d?api-version=1".parse().unwrap()));
}

fn file() -> StoredFile {
    let content = |number, bytes| Content { id: ContentId::from_bits(number), bytes };
    StoredFile {
        name: FileName::parse("dev-1/a").unwrap(),
        content: vec![content(1, 6), content(2, 4)],
        properties: FileProperties {
            content_type: Some("text/plain".to_owned()),
            content_encoding: None,
            content_md5: Some(Md5([1; 16])),
        },
        created_at: NOON,
        written_at: NOON,
        etag: Etag::from_number(0x1f),
    }
}

#[test]
fn a_file_is_shown_whole_or_in_part() {
    let whole = show_file(&file(), None, ID);
    assert_eq!((whole.status(), part_of(&file(), (None, None), NOTHING)), (StatusCode::OK, Ok((0, 10))));
    let header = |response: &Response<Bytes>, name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header(&whole, "content-length"), "10");
    assert_eq!((header(&whole, "etag"), header(&whole, "content-type")), ("\"0x1F\"".into(), "text/plain".into()));
    assert_eq!(header(&whole, "last-modified"), "Tue, 14 Nov 2023 22:13:20 GMT");
    assert_eq!((header(&whole, "x-ms-blob-type"), header(&whole, "x-ms-request-id")), ("BlockBlob".into(), ID.into()));
    assert_eq!(header(&whole, "content-md5"), MD5);

    let range = |first, last| Some(Range { first, last });
    let part = part_of(&file(), (range(3, Some(99)), Some("\"0x1F\"")), NOTHING).unwrap();
    assert_eq!(part, (3, 7));
    let found = Checksums { md5: None, crc64: Some(Crc64(2)) };
    let partial = show_file(&file(), Some((part, found)), ID);
    assert_eq!(
        (partial.status(), header(&partial, "content-range")),
        (StatusCode::PARTIAL_CONTENT, "bytes 3-9/10".into())
    );
    assert_eq!(
        (header(&partial, "x-ms-blob-content-md5"), header(&partial, "x-ms-content-crc64")),
        (MD5.into(), CRC64.into())
    );
    assert!(!partial.headers().contains_key("content-md5"), "it is that of the body, if of anything");
    assert_eq!(part_of(&file(), (range(10, None), None), NOTHING), Err(Refusal::Range));
    assert_eq!(part_of(&file(), (None, Some("\"0x1E\"")), NOTHING), Err(Refusal::Changed));

    let asked = Asked { md5: true, crc64: false };
    assert_eq!(part_of(&file(), (None, None), asked), Err(Refusal::Unsummed), "a file of any length");
    let long =
        StoredFile { content: vec![Content { id: ContentId::from_bits(1), bytes: SUMMED_BYTES_MAX + 1 }], ..file() };
    assert_eq!(part_of(&long, (range(0, None), None), asked), Err(Refusal::Unsummed));
    assert_eq!(part_of(&long, (range(1, None), None), asked), Ok((1, SUMMED_BYTES_MAX)));
}

#[test]
fn refusals_and_failures_carry_their_code_twice() {
    let header = |response: &Response<Bytes>| response.headers()["x-ms-error-code"].to_str().unwrap().to_owned();
    let refused = refuse(Refusal::BlockList(InvalidBlockList::Shape), ID);
    let text = String::from_utf8(refused.body().to_vec()).unwrap();
    assert_eq!((refused.status(), header(&refused)), (StatusCode::BAD_REQUEST, "InvalidXmlDocument".to_owned()));
    assert!(text.contains("<Code>InvalidXmlDocument</Code>"), "{text}");

    let commit = Wanted::Commit { properties: FileProperties::default(), only_new: false, said: NO_SUM };
    let cases = [
        (ErrorKind::Unauthorized, 403, "AuthenticationFailed"),
        (ErrorKind::Forbidden, 403, "AuthorizationPermissionMismatch"),
        (ErrorKind::ResourceNotFound, 404, "BlobNotFound"),
        (ErrorKind::ResourceExists, 409, "BlobAlreadyExists"),
        (ErrorKind::TooLarge, 413, "RequestBodyTooLarge"),
        (ErrorKind::InvalidArgument, 400, "InvalidBlockList"),
        (ErrorKind::Throttled, 503, "ServerBusy"),
        (ErrorKind::Internal, 500, "InternalError"),
    ];
    for (kind, status, code) in cases {
        let failure = Failure {
            kind,
            public: "a < b".into(),
            tracking: TrackingId::from_bits(1),
            retry_after_s: Some(3),
            at: NOON,
        };
        let failed = fail(&failure, &commit);
        assert_eq!((failed.status().as_u16(), header(&failed)), (status, code.to_owned()), "{kind:?}");
        assert_eq!(failed.headers()["retry-after"], "3");
        assert!(String::from_utf8(failed.body().to_vec()).unwrap().contains("a &lt; b"));
    }
}
