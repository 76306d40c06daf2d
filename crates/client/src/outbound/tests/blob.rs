//! Files in a storage that these tests play: what it is asked, and what its answers are taken for.

use bytes::Bytes;
use domain::file::BlockId;

use super::*;

/// A request as it came: its first line, its part of the file, and its body.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    line: String,
    range: Option<String>,
    body: Vec<u8>,
}

/// Answers one request with `answer`.
async fn answer_once(listener: &TcpListener, answer: &[u8]) -> Asked {
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    let (mut asked, mut bytes) = (Asked::default(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => bytes = value.parse().unwrap(),
            Some((name, value)) if name.eq_ignore_ascii_case("x-ms-range") => asked.range = Some(value.to_owned()),
            Some(_) => {}
            None => line.clone_into(&mut asked.line),
        }
    }
    asked.body = vec![0; bytes];
    stream.read_exact(&mut asked.body).await.unwrap();
    // A client that has seen enough may be gone.
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
    asked
}

/// What comes of an ask at a storage that answers `answer`.
async fn ask<T>(answer: &str, ask: impl AsyncFnOnce(Outbound, Url) -> T) -> (T, Asked) {
    let (listener, url) = listen("http").await;
    let url = Url { path: "/c/a%20b.txt?sr=c&sig=x%2By".to_owned(), ..url };
    let both = async { tokio::join!(ask(outbound(), url), answer_once(&listener, answer.as_bytes())) };
    tokio::time::timeout(PATIENCE, both).await.expect("it ends")
}

fn told<T>(outcome: Result<T, Refusal>) -> Result<T, (String, bool)> {
    outcome.map_err(|refusal| (refusal.text().to_owned(), refusal.is_of_message))
}

#[tokio::test]
async fn a_part_of_a_file_is_taken_only_if_it_is_the_one_that_was_asked_for() {
    let part = |range: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\n{range}\r\n{body}")
    };
    let other = "it answers another part of the file than it was asked for";
    let unnamed = "it does not say which part of the file it answers";
    let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    let cases: Vec<(&str, u64, String, Result<(&str, u64), (&str, bool)>)> = vec![
        ("the first", 0, part("Content-Range: bytes 0-3/10\r\n", "abcd"), Ok(("abcd", 10))),
        ("the second", 4, part("Content-Range: bytes 4-7/10\r\n", "efgh"), Ok(("efgh", 10))),
        ("the last", 8, part("Content-Range: bytes 8-9/10\r\n", "ij"), Ok(("ij", 10))),
        ("the first again", 4, part("Content-Range: bytes 0-3/10\r\n", "abcd"), Err((other, true))),
        ("fewer bytes than it says", 4, part("Content-Range: bytes 4-7/10\r\n", "ef"), Err((other, true))),
        ("no byte", 4, part("Content-Range: bytes 4-7/10\r\n", ""), Err((other, true))),
        ("behind the end", 4, part("Content-Range: bytes 4-7/6\r\n", "efgh"), Err((other, true))),
        ("turned round", 4, part("Content-Range: bytes 7-4/10\r\n", "efgh"), Err((unnamed, true))),
        ("without its place", 4, part("", "efgh"), Err((unnamed, true))),
        ("without the length", 4, part("Content-Range: bytes 4-7/*\r\n", "efgh"), Err((unnamed, true))),
        (
            "more than was asked for",
            4,
            part("Content-Range: bytes 4-8/10\r\n", "efghi"),
            Err(("it answers 206 Partial Content with too many bytes", true)),
        ),
        ("the whole", 4, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab".to_owned(), Err(("it answers 200 OK", true))),
        ("the whole, long", 4, whole, Err(("it answers 200 OK with too many bytes", true))),
        ("nothing is left", 10, "HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n".to_owned(), Ok(("", 10))),
    ];
    for (name, first, answer, expected) in cases {
        let (read, asked) = ask(&answer, async |outbound, url| outbound.read_file(&url, first, 4).await).await;
        let expected = expected
            .map(|(body, total)| (Bytes::from_static(body.as_bytes()), total))
            .map_err(|(text, is_final)| (text.to_owned(), is_final));
        assert_eq!(told(read), expected, "{name}");
        let range = Some(format!("bytes={first}-{}", first + 3));
        let line = "GET /c/a%20b.txt?sr=c&sig=x%2By HTTP/1.1".to_owned();
        assert_eq!(asked, Asked { line, range, body: Vec::new() }, "{name}");
    }
}

#[tokio::test]
async fn a_file_is_made_of_blocks_whose_names_survive_an_address() {
    let done = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
    // Their names have every character of Base64 that an address would change.
    let blocks = [BlockId::from_bytes(&[0xfb]).unwrap(), BlockId::from_bytes(&[0xff, 0xff]).unwrap()];
    let names = [("%2Bw%3D%3D", "+w=="), ("%2F%2F8%3D", "//8=")];
    for (block, (name, _)) in blocks.iter().zip(names) {
        let body = Bytes::from_static(b"abcd");
        let (put, asked) = ask(done, async |outbound, url| outbound.put_block(&url, block, body).await).await;
        assert_eq!(told(put), Ok(()));
        let line = format!("PUT /c/a%20b.txt?sr=c&sig=x%2By&comp=block&blockid={name} HTTP/1.1");
        assert_eq!(asked, Asked { line, range: None, body: b"abcd".to_vec() });
    }
    let (made, asked) = ask(done, async |outbound, url| outbound.commit_blocks(&url, &blocks).await).await;
    assert_eq!(told(made), Ok(()));
    assert_eq!(asked.line, "PUT /c/a%20b.txt?sr=c&sig=x%2By&comp=blocklist HTTP/1.1");
    let list = String::from_utf8(asked.body).unwrap();
    let [(_, first), (_, second)] = names;
    assert!(
        list.ends_with(&format!("<BlockList><Latest>{first}</Latest><Latest>{second}</Latest></BlockList>")),
        "{list}"
    );
}

#[tokio::test]
async fn a_storage_is_known_by_what_it_says_of_a_file_that_may_not_be_there() {
    let cases: &[(&str, Result<(), (&str, bool)>)] = &[
        ("200 OK", Ok(())),
        ("404 Not Found\r\nx-ms-error-code: BlobNotFound", Ok(())),
        ("404 Not Found", Ok(())),
        ("404 No\r\nx-ms-error-code: ContainerNotFound", Err(("it answers 404 Not Found ContainerNotFound", true))),
        ("403 No\r\nx-ms-error-code: AuthorizationPermissionMismatch", Ok(())),
        (
            "403 No\r\nx-ms-error-code: AuthenticationFailed",
            Err(("it answers 403 Forbidden AuthenticationFailed", true)),
        ),
        (
            "403 No\r\nx-ms-error-code: AuthorizationFailure",
            Err(("it answers 403 Forbidden AuthorizationFailure", true)),
        ),
        ("403 No", Err(("it answers 403 Forbidden", true))),
        ("307 There\r\nLocation: http://127.0.0.1:1/", Err(("it answers 307 Temporary Redirect", true))),
    ];
    for (answer, expected) in cases {
        let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        let (found, asked) = ask(&text, async |outbound, url| outbound.check_file(&url).await).await;
        assert_eq!(told(found), expected.map_err(|(text, is_final)| (text.to_owned(), is_final)), "{answer}");
        assert!(asked.line.starts_with("HEAD /c/a%20b.txt?"), "{asked:?}");
    }
}

#[tokio::test]
async fn trouble_may_pass_and_a_refusal_does_not() {
    let cases: &[(&str, bool)] = &[
        ("408 Late", false),
        ("429 Many", false),
        ("500 Oh\r\nx-ms-error-code: OperationTimedOut", false),
        ("503 Busy\r\nx-ms-error-code: ServerBusy", false),
        ("400 No\r\nx-ms-error-code: InvalidBlockList", true),
        ("401 No", true),
        ("403 No", true),
        ("404 No", true),
        ("409 No", true),
        ("413 No", true),
    ];
    for (answer, is_final) in cases {
        let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        let (made, _) = ask(&text, async |outbound, url| outbound.commit_blocks(&url, &[]).await).await;
        assert_eq!(made.unwrap_err().is_of_message, *is_final, "{answer}");
    }
    for status in ["408 Late", "429 Many", "500 Oh", "503 Busy"] {
        let long = format!("HTTP/1.1 {status}\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
        let (read, _) = ask(&long, async |outbound, url| outbound.read_file(&url, 0, 4).await).await;
        assert!(!read.unwrap_err().is_of_message, "{status} with a long page");
        let (made, _) = ask(&long, async |outbound, url| outbound.commit_blocks(&url, &[]).await).await;
        assert!(!made.unwrap_err().is_of_message, "{status} with a long page");
    }
    let broken = "HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\nContent-Range: bytes 0-3/10\r\n\r\nab";
    let (read, _) = ask(broken, async |outbound, url| outbound.read_file(&url, 0, 4).await).await;
    assert!(!read.unwrap_err().is_of_message, "it broke off");
    let (listener, url) = listen("http").await;
    drop(listener);
    assert!(!outbound().check_file(&url).await.unwrap_err().is_of_message, "nobody is there");
}
