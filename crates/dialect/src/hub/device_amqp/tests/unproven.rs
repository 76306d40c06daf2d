//! Connections that prove nothing, against a client's end, in virtual time.

use std::time::Duration;

use domain::operation::ErrorKind;
use proto::amqp::{Event, Limits, MessageId, Role};
use serde_json::Value as Json;

use super::client::{Client, DONE, connected, failure, seat};
use super::put_token;
use crate::session::{CloseReason, Session as _};

/// A moment before a client that has proved nothing is sent away.
fn almost() -> Duration {
    Limits::default().open_timeout.saturating_sub(Duration::from_secs(1))
}

fn pass(client: &mut Client, time: Duration) {
    client.now += time;
    if client.connection.poll_timeout().is_some_and(|at| at <= client.now) {
        client.connection.handle_timeout(client.now);
        client.pump();
    }
    if client.session.poll_timeout().is_some_and(|at| at <= client.now) {
        client.session.handle_timeout(client.now);
    }
    client.pump();
}

#[test]
fn a_client_that_proves_nothing_is_sent_away() {
    let nothing: fn(&mut Client) = |_| {};
    let cases: [(&str, fn(&mut Client)); 3] = [
        ("silence", nothing),
        ("an open $cbs", |client| {
            client.attach("cbs", Role::Sender, "$cbs");
        }),
        ("a token that is no good", |client| {
            let link = client.attach("cbs", Role::Sender, "$cbs");
            client.send(link, 1, &put_token(MessageId::Ulong(1), "127.0.0.2/devices/dev-1"));
            let ask = client.ask();
            client.reply(&ask, Err(failure(ErrorKind::Unauthorized)));
        }),
    ];
    for (name, act) in cases {
        let mut client = Client::open();
        act(&mut client);
        pass(&mut client, almost());
        assert_eq!(client.session.closed(), None, "{name}");
        client.noticed();
        pass(&mut client, Duration::from_secs(1));
        assert_eq!(client.noticed(), ["closed: closed by the peer: amqp:unauthorized-access: Nothin"], "{name}");
        assert_eq!(client.session.closed(), Some(&CloseReason::Unproven), "{name}");
    }
}

#[test]
fn a_client_that_has_proved_something_stays() {
    let cases: [(&str, fn(&mut Client)); 2] = [
        ("a token", |client| {
            let link = client.attach("cbs", Role::Sender, "$cbs");
            client.send(link, 1, &put_token(MessageId::Ulong(1), "127.0.0.2/devices/dev-1"));
            let ask = client.ask();
            // The service may take its time.
            pass(client, 2 * almost());
            client.reply(&ask, Ok(DONE));
        }),
        ("a seat", |client| {
            client.attach("telemetry", Role::Sender, "/devices/dev-1/messages/events");
            let ask = client.ask();
            client.reply(&ask, Ok(connected(&seat("dev-1", 1))));
        }),
    ];
    for (name, act) in cases {
        let mut client = Client::open();
        act(&mut client);
        pass(&mut client, 3 * almost());
        assert_eq!(client.session.closed(), None, "{name}");
    }
}

#[test]
fn a_client_with_a_certificate_may_take_its_time_to_link() {
    let telemetry = "/devices/dev-1/messages/events";
    let mut client = Client::with_certificate();
    for _ in 0..59 {
        pass(&mut client, Duration::from_secs(60));
    }
    assert_eq!(client.session.closed(), None);
    client.attach("telemetry", Role::Sender, telemetry);
    let ask = client.ask();
    client.reply(&ask, Ok(connected(&seat("dev-1", 1))));
    for _ in 0..60 {
        pass(&mut client, Duration::from_secs(60));
    }
    assert_eq!(client.session.closed(), None);

    let mut refused = Client::with_certificate();
    refused.attach("telemetry", Role::Sender, telemetry);
    let ask = refused.ask();
    refused.reply(&ask, Err(failure(ErrorKind::Unauthorized)));
    pass(&mut refused, Duration::from_secs(1) + almost());
    assert_eq!(refused.session.closed(), Some(&CloseReason::Unproven), "its time has begun with its link");

    let mut idle = Client::with_certificate();
    for _ in 0..60 {
        pass(&mut idle, Duration::from_secs(60));
    }
    assert_eq!(idle.noticed(), ["closed: closed by the peer: amqp:connection:forced: No link "]);
}

#[test]
fn what_is_refused_on_the_spot_is_found_by_a_tracking_id() {
    let mut client = Client::open();
    for (address, code) in [("/nothing/here", 404_006), ("/devices/dev-1/nothing", 404_006)] {
        client.attach(address, Role::Sender, address);
        let error = client.events.drain(..).find_map(|event| match event {
            Event::Detach { error, .. } => error,
            _ => None,
        });
        let error = error.expect(address);
        let body: Json = serde_json::from_str(&error.description.expect(address)).expect(address);
        assert_eq!(body["errorCode"], code, "{address}");
        for member in ["trackingId", "message", "timestampUtc"] {
            assert!(body[member].is_string(), "{address}: {member} in {body}");
        }
        let names = ["com.microsoft:is-filtered", "com.microsoft:tracking-id"];
        assert!(names.iter().all(|name| error.info.find(name).is_some()), "{address}: {:?}", error.info);
    }
}
