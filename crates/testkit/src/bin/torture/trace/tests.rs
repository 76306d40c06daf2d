use super::*;

const FOLDER: &str = "/d";

fn ends(server: &str, client: &str) -> Ends {
    Ends { server: server.parse().unwrap(), client: client.parse().unwrap() }
}

#[test]
fn lines_of_strace_are_understood() {
    let file = || "/d/x".to_owned();
    let opened = |create| Call::Open {
        path: file(),
        descriptor: 3,
        flags: OpenFlags { create, truncate: false, append: false },
    };
    let cases: &[(&str, &str, Option<Call>)] = &[
        ("opened", r#"openat(AT_FDCWD</d>, "/d/x", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 3</d/x>"#, Some(opened(true))),
        ("opened again", r#"openat(AT_FDCWD</>, "/d/x", O_RDONLY) = 3</d/x>"#, Some(opened(false))),
        ("not there", r#"openat(AT_FDCWD</d>, "/d/x", O_RDWR) = -1 ENOENT (No such file or directory)"#, None),
        ("elsewhere", r#"openat(AT_FDCWD</>, "/dx", O_RDWR|O_CREAT, 0600) = 3</dx>"#, None),
        (
            "written, with everything that must be escaped",
            r#"pwrite64(3</d/x>, "\0\1\"a>, ) = 1\\\377\n7", 16, 10) = 16"#,
            Some(Call::Write {
                path: file(),
                descriptor: 3,
                offset: Some(10),
                bytes: b"\0\x01\"a>, ) = 1\\\xff\n7".to_vec(),
            }),
        ),
        (
            "written where the descriptor stands",
            r#"write(3</d/x>, "ab", 2) = 2"#,
            Some(Call::Write { path: file(), descriptor: 3, offset: None, bytes: b"ab".to_vec() }),
        ),
        (
            "written in part",
            r#"write(3</d/x>, "ab", 2) = 1"#,
            Some(Call::Write { path: file(), descriptor: 3, offset: None, bytes: b"a".to_vec() }),
        ),
        ("synced", "fdatasync(3</d/x>) = 0", Some(Call::Sync { path: file() })),
        ("a folder synced", "fsync(4</d>) = 0", Some(Call::Sync { path: FOLDER.to_owned() })),
        ("shortened", "ftruncate(3</d/x>, 5) = 0", Some(Call::Truncate { path: file(), length: 5 })),
        ("moved", "lseek(3</d/x>, 3, SEEK_SET) = 3", Some(Call::Seek { descriptor: 3, position: 3 })),
        ("renamed", r#"rename("/d/x", "/d/y") = 0"#, Some(Call::Rename { from: file(), to: "/d/y".to_owned() })),
        ("removed", r#"unlink("/d/x") = 0"#, Some(Call::Remove { path: file() })),
        ("a folder", r#"mkdir("/d/x", 0700) = 0"#, Some(Call::MakeFolder { path: file() })),
        (
            "sent",
            r#"sendto(7<TCP:[127.0.0.1:8883->127.0.0.1:41130]>, "hi", 2, MSG_NOSIGNAL, NULL, 0) = 2"#,
            Some(Call::Send { connection: ends("127.0.0.1:8883", "127.0.0.1:41130") }),
        ),
        (
            "sent in pieces",
            r#"writev(7<TCP:[127.0.0.2:8883->127.0.0.1:9]>, [{iov_base="hi", iov_len=2}], 1) = 2"#,
            Some(Call::Send { connection: ends("127.0.0.2:8883", "127.0.0.1:9") }),
        ),
    ];
    for (name, line, expected) in cases {
        let event = parse(&format!("17.000000001 {line} <0.000000020>"), FOLDER).unwrap();
        assert_eq!(event.as_ref().map(|event| &event.call), expected.as_ref(), "{name}");
        if let Some(event) = event {
            assert_eq!((event.began_at, event.ended_at), (17_000_000_001, 17_000_000_021), "{name}");
        }
    }
}

#[test]
fn of_what_was_cut_off_only_bytes_to_a_socket_may_have_left() {
    let cases = [
        (
            r#"writev(7<TCP:[127.0.0.1:8883->127.0.0.1:9]>, [{iov_base="h", iov_len=1}], 1) = ?"#,
            Some(ends("127.0.0.1:8883", "127.0.0.1:9")),
        ),
        (
            r#"writev(7<TCP:[127.0.0.1:8883->127.0.0.1:9]>, [{iov_base="h", iov_len=1}], 1 <detached ...>"#,
            Some(ends("127.0.0.1:8883", "127.0.0.1:9")),
        ),
        (
            r#"writev(7<TCP:[127.0.0.1:8883->127.0.0.1:9]>, [{iov_base="h", iov_len=1}], 1) = -1 (errno 18446744073709551598) "#,
            Some(ends("127.0.0.1:8883", "127.0.0.1:9")),
        ),
        (r#"write(7</d/x>, "h", 1) = ?"#, None),
        ("fdatasync(3</d/x>) = ?", None),
    ];
    for (line, connection) in cases {
        let event = parse(&format!("17.000000001 {line}"), FOLDER).unwrap();
        assert_eq!(event.map(|event| event.call), connection.map(|connection| Call::Send { connection }), "{line}");
    }
}

#[test]
fn a_call_that_might_have_changed_the_folder_is_not_passed_over() {
    for line in [
        r#"pwritev(3</d/x>, [{iov_base="ab", iov_len=2}], 1, 0) = 2"#,
        r#"writev(3</d/x>, [{iov_base="ab", iov_len=2}], 1) = 2"#,
        "fallocate(3</d/x>, 0, 0, 4096) = 0",
        r#"write(3</d/x>, "ab"..., 4096) = 4096"#,
    ] {
        assert!(parse(&format!("17.000000001 {line} <0.000000020>"), FOLDER).is_err(), "{line}");
    }
    assert_eq!(parse(r#"17.000000001 truncate("/tmp/x", 1) = 0 <0.000000020>"#, FOLDER).unwrap(), None);
}
