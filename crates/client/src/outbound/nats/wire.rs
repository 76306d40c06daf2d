//! What a NATS server says, as lines and payloads (NATS client protocol). Bounded; nothing here panics or waits.

use bytes::{Buf as _, Bytes, BytesMut};

/// Longest line, that of INFO included.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1_024;
/// Longest payload: only a stream's words are listened for.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 * 1_024;
/// What stands behind a payload.
const LINE_END: &[u8] = b"\r\n";

/// Something that a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Who it is: a JSON document.
    Info(Bytes),
    /// A message that was listened for.
    Message {
        /// Its subject.
        subject: String,
        /// The status of its headers, if they have one.
        status: Option<u16>,
        /// Its payload, without headers.
        payload: Bytes,
    },
    /// It wants to hear that the client lives.
    Ping,
    /// It has gone through all that came before.
    Pong,
    /// It took something.
    Ok,
    /// It refuses something.
    Error(String),
}

/// The bytes are not what a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// A line is too long.
    #[error("a line has more than {LINE_BYTES_MAX} bytes")]
    Line,
    /// A payload is too long.
    #[error("a payload has more than {PAYLOAD_BYTES_MAX} bytes")]
    Payload,
    /// A payload is not as long as its line says.
    #[error("a payload has another length than was said")]
    Length,
    /// A line is none that is known.
    #[error("a line is not understood")]
    Unknown,
}

/// Takes the next thing that was said off `input`; `None` asks for more.
pub(super) fn read(input: &mut BytesMut) -> Result<Option<Said>, Malformed> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return if input.len() > LINE_BYTES_MAX { Err(Malformed::Line) } else { Ok(None) };
    };
    if end > LINE_BYTES_MAX {
        return Err(Malformed::Line);
    }
    let line = input.get(..end).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Malformed::Unknown)?.trim_end_matches('\r');
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let said = match word.to_ascii_uppercase().as_str() {
        "INFO" => Said::Info(Bytes::copy_from_slice(rest.trim().as_bytes())),
        "PING" => Said::Ping,
        "PONG" => Said::Pong,
        "+OK" => Said::Ok,
        "-ERR" => Said::Error(rest.trim().trim_matches('\'').to_owned()),
        "MSG" => return read_message(input, end + 1, false),
        "HMSG" => return read_message(input, end + 1, true),
        _ => return Err(Malformed::Unknown),
    };
    input.advance(end + 1);
    Ok(Some(said))
}

/// `MSG subject sid [reply] bytes`, or `HMSG subject sid [reply] header-bytes bytes`, and the payload behind the line,
/// which begins at `start`.
fn read_message(input: &mut BytesMut, start: usize, has_headers: bool) -> Result<Option<Said>, Malformed> {
    let line = input.get(..start).and_then(|line| std::str::from_utf8(line).ok()).ok_or(Malformed::Unknown)?;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |from_end: usize| {
        let word = words.len().checked_sub(from_end).and_then(|index| words.get(index)).ok_or(Malformed::Unknown)?;
        word.parse::<usize>().map_err(|_| Malformed::Unknown)
    };
    let fewest = if has_headers { 5 } else { 4 };
    let (Some(subject), true) = (words.get(1), (fewest..=fewest + 1).contains(&words.len())) else {
        return Err(Malformed::Unknown);
    };
    let (bytes, header_bytes) = (number(1)?, if has_headers { number(2)? } else { 0 });
    if bytes > PAYLOAD_BYTES_MAX {
        return Err(Malformed::Payload);
    }
    if header_bytes > bytes {
        return Err(Malformed::Unknown);
    }
    let subject = (*subject).to_owned();
    let Some(end) = input.get(start + bytes..start + bytes + LINE_END.len()) else { return Ok(None) };
    if end != LINE_END {
        return Err(Malformed::Length);
    }
    input.advance(start);
    let mut payload = input.split_to(bytes).freeze();
    input.advance(LINE_END.len());
    let headers = payload.split_to(header_bytes);
    Ok(Some(Said::Message { subject, status: status_of(&headers), payload }))
}

/// `NATS/1.0 503` at the beginning of headers.
fn status_of(headers: &[u8]) -> Option<u16> {
    let line = headers.split(|byte| *byte == b'\r').next()?;
    let words = std::str::from_utf8(line).ok()?.strip_prefix("NATS/1.0")?;
    let code = words.trim().get(..3).filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()))?;
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: &str, status: Option<u16>, payload: &'static str) -> Said {
        Said::Message { subject: subject.to_owned(), status, payload: Bytes::from_static(payload.as_bytes()) }
    }

    #[test]
    fn what_a_server_says_is_read_piece_by_piece() {
        let cases: &[(&str, Said)] = &[
            ("INFO {\"headers\":true} \r\n", Said::Info(Bytes::from_static(b"{\"headers\":true}"))),
            ("PING\r\n", Said::Ping),
            ("pong\n", Said::Pong),
            ("+OK\r\n", Said::Ok),
            ("-ERR 'Permissions Violation'\r\n", Said::Error("Permissions Violation".to_owned())),
            ("MSG a.0 1 5\r\nhello\r\n", message("a.0", None, "hello")),
            ("MSG a.0 1 reply 0\r\n\r\n", message("a.0", None, "")),
            ("HMSG a.1 1 16 18\r\nNATS/1.0 503\r\n\r\nhi\r\n", message("a.1", Some(503), "hi")),
            ("HMSG a.1 1 12 12\r\nNATS/1.0\r\n\r\n\r\n", message("a.1", None, "")),
            ("HMSG a.1 1 16 16\r\nNATS/1.0 +50\r\n\r\n\r\n", message("a.1", None, "")),
        ];
        for (text, expected) in cases {
            for cut in 0..text.len() {
                let mut input = BytesMut::from(&text.as_bytes()[..cut]);
                assert_eq!(read(&mut input), Ok(None), "{text:?} up to {cut}");
                input.extend_from_slice(&text.as_bytes()[cut..]);
                assert_eq!(read(&mut input).as_ref(), Ok(&Some(expected.clone())), "{text:?}");
                assert!(input.is_empty());
            }
        }
    }

    #[test]
    fn what_no_server_says_is_refused_within_bounds() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let cases: &[(&str, Malformed)] = &[
            ("HTTP/1.1 400 Bad Request\r\n", Malformed::Unknown),
            ("\r\n", Malformed::Unknown),
            ("MSG a 1\r\n", Malformed::Unknown),
            ("MSG a 1 b c 5\r\n", Malformed::Unknown),
            ("MSG a 1 -5\r\n", Malformed::Unknown),
            ("MSG a 1 99999999999999999999\r\n", Malformed::Unknown),
            ("MSG a 1 65537\r\n", Malformed::Payload),
            ("HMSG a 1 9 5\r\n", Malformed::Unknown),
            ("MSG a 1 4\r\nhello\r\n", Malformed::Length),
            ("MSG a 1 6\r\nhello\r\nPING\r\n", Malformed::Length),
            (&long, Malformed::Line),
        ];
        for (text, expected) in cases {
            assert_eq!(read(&mut BytesMut::from(text.as_bytes())), Err(*expected), "{text:.40}");
        }
    }
}
