//! The opening handshake: which requests become a WebSocket, what each refused one is told, and the exact reply.
//!
//! Clients compare more of the reply than they should (`contract/dps-device.md 1.2`): Paho looks for the space in
//! `Connection: Upgrade`, Java wants the literal status line, some compare the subprotocol letter by letter. So the reply
//! is written here as bytes and not by an HTTP library. Pure functions; start reading at [`judge`].

use domain::host::HostName;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Request, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::http::host_asked;

/// The paths that device and service SDKs ask for, in lower case and without the slash at the end.
const PATHS: [&str; 4] = ["", "/mqtt", "/$iothub/websocket", "/$servicebus/websocket"];

/// The one version there is (RFC 6455, section 4.2.1).
const VERSION: &str = "13";

/// Longest `Sec-WebSocket-Key` taken; the standard's has 24 characters, and nothing depends on its content.
const KEY_CHARS_MAX: usize = 128;

/// The protocol that a client asked for, by subprotocol name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subprotocol {
    /// `mqtt`.
    Mqtt,
    /// `AMQPWSB10`.
    Amqp,
}

impl Subprotocol {
    /// Reads the name without regard to case: the C SDK writes `MQTT`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            _ if name.eq_ignore_ascii_case("mqtt") => Some(Self::Mqtt),
            _ if name.eq_ignore_ascii_case("AMQPWSB10") => Some(Self::Amqp),
            _ => None,
        }
    }
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is plain HTTP.
    NotWebSocket,
    /// It asks for a WebSocket that cannot be had; this is the whole reply.
    Refused { reply: Vec<u8>, reason: &'static str },
    /// It becomes a WebSocket after this reply.
    Accepted { reply: Vec<u8>, protocol: Subprotocol, host: Option<HostName> },
}

/// Judges the head of a GET request.
pub(crate) fn judge(request: &Request<()>) -> Verdict {
    let headers = request.headers();
    if !has_token(headers, &UPGRADE, "websocket") || !is_websocket_path(request.uri().path()) {
        return Verdict::NotWebSocket;
    }
    let Ok(host) = host_asked(request.version(), request.uri(), headers) else {
        return refused(StatusCode::BAD_REQUEST, "", "there is no usable Host");
    };
    if !has_token(headers, &CONNECTION, "upgrade") {
        return refused(StatusCode::BAD_REQUEST, "", "the Connection header does not say Upgrade");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        let offer = "Sec-WebSocket-Version: 13\r\n";
        return refused(StatusCode::UPGRADE_REQUIRED, offer, "only WebSocket version 13 is spoken");
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| (1..=KEY_CHARS_MAX).contains(&key.len()));
    let Some(key) = key else {
        return refused(StatusCode::BAD_REQUEST, "", "there is no usable Sec-WebSocket-Key");
    };
    let Some((protocol, spelling)) = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(known_subprotocol) else {
        return refused(StatusCode::BAD_REQUEST, "", "only the subprotocols mqtt and AMQPWSB10 are spoken");
    };
    let accept = derive_accept_key(key.as_bytes());
    let reply = format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\
         Sec-WebSocket-Protocol: {spelling}\r\n\r\n"
    );
    Verdict::Accepted { reply: reply.into_bytes(), protocol, host }
}

fn refused(status: StatusCode, header: &str, reason: &'static str) -> Verdict {
    let body = serde_json::json!({ "message": reason }).to_string();
    let reply = format!(
        "HTTP/1.1 {} {}\r\n\
         Content-Type: application/json; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         {header}Connection: close\r\n\r\n{body}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
    );
    Verdict::Refused { reply: reply.into_bytes(), reason }
}

/// Compares without regard to case, the `$` plain or encoded, with or without a slash at the end.
fn is_websocket_path(path: &str) -> bool {
    let plain = path.trim_end_matches('/').replace("%24", "$").to_ascii_lowercase();
    PATHS.contains(&plain.as_str())
}

fn known_subprotocol(spelling: &str) -> Option<(Subprotocol, &str)> {
    Subprotocol::parse(spelling).map(|protocol| (protocol, spelling))
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

/// The members of a comma-separated list, which may be spread over several headers.
fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
    use tokio_tungstenite::tungstenite::handshake::server::Request as Parsed;

    /// The key and answer of RFC 6455, section 1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn judge_text(head: &str) -> Verdict {
        let head = head.replace('\n', "\r\n");
        let (_, request) = Parsed::try_parse(head.as_bytes()).expect("syntax").expect("whole");
        judge(&request)
    }

    fn head(target: &str, subprotocol: &str) -> String {
        format!(
            "GET {target} HTTP/1.1\nHost: 127.0.0.1:443\nUpgrade: websocket\nConnection: Upgrade\n\
             Sec-WebSocket-Key: {KEY}\nSec-WebSocket-Version: 13\nSec-WebSocket-Protocol: {subprotocol}\n\n"
        )
    }

    #[test]
    fn the_targets_and_subprotocols_of_every_sdk_are_taken() {
        // contract/dps-device.md 1.2.
        let cases = [
            ("Python, Node", "/$iothub/websocket", "mqtt"),
            ("C", "/$iothub/websocket", "MQTT"),
            ("C#", "/", "mqtt"),
            ("Java", "/mqtt", "mqtt"),
            ("absolute form", "https://127.0.0.2/$iothub/websocket?iothub-no-client-cert=true", "mqtt"),
            ("percent-encoded", "/%24iothub/websocket?x=y", "mqtt"),
            ("several offered", "/", "chat, mqtt"),
        ];
        let amqp = [
            ("Node, C: AMQP", "/$iothub/websocket", "AMQPWSB10"),
            ("C#: AMQP", "/", "AMQPWSB10"),
            ("Java: AMQP", "https://127.0.0.2/$iothub/websocket?iothub-no-client-cert=true", "AMQPWSB10"),
            ("Event Hubs clients", "/$servicebus/websocket/", "AMQPWSB10"),
            ("small letters", "/", "amqpwsb10"),
        ];
        let cases = cases.map(|case| (case, Subprotocol::Mqtt));
        let amqp = amqp.map(|case| (case, Subprotocol::Amqp));
        for ((client, target, subprotocol), wanted) in cases.into_iter().chain(amqp) {
            let Verdict::Accepted { reply, protocol, host } = judge_text(&head(target, subprotocol)) else {
                panic!("{client} was not accepted");
            };
            // The target's goes before the header's.
            let expected_host = if target.starts_with("https:") { "127.0.0.2" } else { "127.0.0.1" };
            assert_eq!(host.as_ref().map(HostName::as_str), Some(expected_host), "{client}");
            assert_eq!(protocol, wanted, "{client}");
            let spelling = subprotocol.rsplit(' ').next().unwrap();
            let expected_reply = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Protocol: {spelling}\r\n\r\n"
            );
            assert_eq!(String::from_utf8(reply).unwrap(), expected_reply, "{client}");
        }
    }

    #[test]
    fn requests_of_other_kinds_stay_http() {
        let cases = [
            ("no upgrade", "GET /mqtt HTTP/1.1\nHost: h\n\n".to_owned()),
            ("another path", head("/devices/d/messages/events", "mqtt")),
            ("another upgrade", head("/", "mqtt").replace("Upgrade: websocket", "Upgrade: h2c")),
        ];
        for (case, head) in cases {
            assert_eq!(judge_text(&head), Verdict::NotWebSocket, "{case}");
        }
    }

    #[test]
    fn a_refused_upgrade_says_why() {
        let good = head("/$iothub/websocket", "mqtt");
        let cases = [
            ("version 8", good.replace("Version: 13", "Version: 8"), "426 Upgrade Required"),
            ("no version", good.replace("Sec-WebSocket-Version: 13\n", ""), "426 Upgrade Required"),
            ("no host", good.replace("Host: 127.0.0.1:443\n", ""), "400 Bad Request"),
            ("two hosts", good.replace("Host: ", "Host: 127.0.0.1\nHost: "), "400 Bad Request"),
            ("a host that is none", good.replace("127.0.0.1:443", "127.0.0.1:x"), "400 Bad Request"),
            ("no key", good.replace(&format!("Sec-WebSocket-Key: {KEY}\n"), ""), "400 Bad Request"),
            ("an endless key", good.replace(KEY, &"k".repeat(KEY_CHARS_MAX + 1)), "400 Bad Request"),
            ("no subprotocol", good.replace("Sec-WebSocket-Protocol: mqtt\n", ""), "400 Bad Request"),
            ("an unknown subprotocol", good.replace(": mqtt", ": chat"), "400 Bad Request"),
            ("no connection header", good.replace("Connection: Upgrade\n", ""), "400 Bad Request"),
        ];
        for (case, head, status) in cases {
            let Verdict::Refused { reply, reason } = judge_text(&head) else { panic!("{case} was not refused") };
            let reply = String::from_utf8(reply).unwrap();
            assert!(reply.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{case}: {reply}");
            assert!(reply.ends_with(&format!("{{\"message\":\"{reason}\"}}")), "{case}: {reply}");
            assert!(reply.contains("\r\nConnection: close\r\n"), "{case}: {reply}");
        }
        let old = judge_text(&head("/", "mqtt").replace("Version: 13", "Version: 8"));
        let Verdict::Refused { reply, .. } = old else { panic!("not refused") };
        assert!(String::from_utf8(reply).unwrap().contains("\r\nSec-WebSocket-Version: 13\r\n"));
    }

    #[test]
    fn the_connection_header_may_be_a_list() {
        // contract/dps-device.md 1.2: Java.
        let list = head("/", "mqtt").replace("Connection: Upgrade", "Connection: Upgrade,Keep-Alive");
        assert!(matches!(judge_text(&list), Verdict::Accepted { .. }));
    }
}
