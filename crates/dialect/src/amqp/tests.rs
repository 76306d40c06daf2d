//! What unmodified clients wrote to their sockets, byte for byte, against the session: what is asked of the service, and which
//! frames come back.
//!
//! A script holds lines of `>` and what the client wrote, in hexadecimal; of `?` and what is then asked, which is answered as
//! a service would; of `<` and the frames that have come back since the last such line.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use domain::ids::{HubKey, OperationId, RegistrationId};
use domain::operation::registration::{self, Request};
use domain::operation::session::{Answer, Ask, AuthenticationMethod, ConnectedDevice, Filter, Seat, Subscriptions};
use domain::operation::{Operation, Reply, method};
use proto::amqp::frame::{FrameType, ProtocolHeader, decode_frame};
use proto::amqp::{Limits, Performative};

use super::Session;
use crate::mqtt::script::Refuses;
use crate::session::{Ask as Asked, Session as _};

#[test]
fn node_registers_with_a_certificate() {
    play(include_str!("../../../../testdata/wire/provisioning/node-amqp-x509.script"));
}

#[test]
fn node_puts_a_token_listens_for_methods_and_answers() {
    play(include_str!("../../../../testdata/wire/hub/node-amqp-methods.script"));
}

fn play(script: &str) {
    let now = Instant::now();
    let mut session = Session::new(Arc::new(Limits::default()), Arc::new(Refuses), true, now);
    let mut written = BytesMut::new();
    for (number, line) in script.lines().enumerate() {
        let Some((mark, rest)) = line.split_once(' ') else { continue };
        let at = number + 1;
        match mark {
            "#" => {}
            ">" => session.handle_input(&hex::decode(rest).unwrap(), now),
            "?" => {
                let ask = session.poll_ask().unwrap_or_else(|| panic!("line {at}: nothing is asked"));
                assert_eq!(show(&ask), rest, "line {at}");
                session.handle_reply(ask.id, Ok(answer(&ask)), now);
            }
            "<" => {
                let output = session.output().to_vec();
                session.handle_written(output.len(), now);
                written.extend_from_slice(&output);
                assert_eq!(frames(&mut written).join(" "), rest, "line {at}");
            }
            _ => panic!("line {at}: {line}"),
        }
    }
    assert!(session.poll_ask().is_none(), "everything that is asked is in the script");
}

/// The frames in `written`, by their names.
fn frames(written: &mut BytesMut) -> Vec<String> {
    let mut names = Vec::new();
    if written.starts_with(b"AMQP") {
        let header = ProtocolHeader::take(written);
        assert!(matches!(header, Some(ProtocolHeader::Amqp)), "{header:?}");
        names.push("header".to_owned());
    }
    while let Some(frame) = decode_frame(written, FrameType::Amqp, u32::MAX).unwrap() {
        let (performative, _) = Performative::decode(&frame.body).unwrap();
        let performative = format!("{performative:?}");
        let name = performative.split(['(', ' ']).next().unwrap_or_default();
        names.push(name.to_ascii_lowercase());
    }
    names
}

fn show(ask: &Asked) -> String {
    let token = ask.token.as_ref().map(|token| format!(" by {}", token.resource())).unwrap_or_default();
    let words = match &ask.operation {
        Operation::Registration(registration::Ask { registration_id, request, .. }) => match request {
            Request::Register(registration) => {
                format!("register {registration_id} as {}", registration.registration_id.as_deref().unwrap_or("nobody"))
            }
            Request::Poll { .. } => format!("poll {registration_id}"),
            other => panic!("{other:?}"),
        },
        Operation::Session(Ask::Verify(verify)) => format!("verify {}", verify.scope.as_ref().unwrap()),
        Operation::Session(Ask::Connect(connect)) => format!("connect {}", connect.claimed),
        Operation::Session(Ask::Disconnect { device }) => format!("disconnect {}", device.name),
        Operation::Session(Ask::Subscribe { subscriptions, .. }) => {
            format!("calls {}", if subscriptions.granted(Filter::Methods).is_some() { "come" } else { "cease" })
        }
        Operation::Method(method::Ask::Respond { response: Ok(response), .. }) => {
            format!("respond {} {}", response.status, String::from_utf8_lossy(response.payload.bytes()))
        }
        other => panic!("{other:?}"),
    };
    words + &token
}

fn answer(ask: &Asked) -> Reply {
    let operation = OperationId::parse("5.0000000000000001.00000000-0000-0000-0000-000000000001").unwrap();
    match &ask.operation {
        Operation::Registration(registration::Ask { request: Request::Register(_), .. }) => {
            Reply::Registration(registration::Answer::Accepted { operation, retry_after_s: 3 })
        }
        Operation::Registration(registration::Ask { registration_id, .. }) => {
            let registration_id = RegistrationId::parse(registration_id).unwrap();
            Reply::Registration(registration::Answer::Assigning { operation, registration_id, retry_after_s: 3 })
        }
        Operation::Session(Ask::Connect(connect)) => {
            let seat = Seat {
                hub: HubKey(1),
                name: connect.claimed.clone(),
                generation: "1".into(),
                epoch: 1,
                authentication: AuthenticationMethod::DeviceKey,
                model_id: None,
            };
            let (device, subscriptions) = (ConnectedDevice::seat(seat), Subscriptions::default());
            Reply::Session(Answer::Connected { device, subscriptions, session_present: false })
        }
        Operation::Session(_) => Reply::Session(Answer::Done),
        _ => Reply::Method(method::Answer::Noted),
    }
}
